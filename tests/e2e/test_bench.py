"""`penstock bench`: the shape of its answer; what it measures is no matter for a test."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.conftest import Cli

DNS = Path(__file__).parents[2] / "examples" / "dns.policy"
KEYS = {"name", "ns", "empty_ns", "hand_written_ns"}


@pytest.mark.privileged
def test_the_record_of_a_policy_with_a_program_by_hand(cli: Cli) -> None:
    done = cli("bench", "--json", "--rounds", "1", str(DNS))
    assert done.code == 0, done.err
    record = done.record
    assert {"traffic", "instructions"} <= set(record)
    assert [one["name"] for one in record["traffic"]][:2] == ["udp dns", "udp other"]
    for one in record["traffic"]:
        assert set(one) == KEYS
        assert all(isinstance(one[key], float) and one[key] > 0 for key in KEYS - {"name"})
    assert isinstance(record["instructions"], int)
    assert record["instructions"] > 0


@pytest.mark.privileged
def test_nothing_by_hand_is_null(cli: Cli, policy: Path) -> None:
    done = cli("bench", "--json", "--rounds", "1", str(policy))
    assert done.code == 0, done.err
    assert {one["hand_written_ns"] for one in done.record["traffic"]} == {None}


@pytest.mark.privileged
def test_the_table_has_a_line_for_each_kind_of_traffic(cli: Cli, policy: Path) -> None:
    done = cli("bench", "--rounds", "1", str(policy))
    assert done.code == 0, done.err
    for kind in ("udp dns", "tcp6 data", "arp", "first fragment", "ip options"):
        assert any(line.startswith(kind) for line in done.out.splitlines())
