"""Every example is right, passes its own tests on both engines, is in canonical form, and loads."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.conftest import Cli, Wire

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.policy"))


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.stem)
def example(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_there_are_some() -> None:
    assert len(EXAMPLES) >= 7


def test_it_has_no_warning(cli: Cli, example: str) -> None:
    done = cli("check", "--strict", example)
    assert done.code == 0, done.err


def test_it_is_in_canonical_form(cli: Cli, example: str) -> None:
    done = cli("format", "--check", example)
    assert done.code == 0, done.out


def test_its_tests_pass(cli: Cli, example: str) -> None:
    done = cli("test", example)
    assert done.code == 0, done.out


@pytest.mark.privileged
def test_its_tests_pass_in_the_kernel(cli: Cli, example: str) -> None:
    done = cli("test", "--engine", "kernel", example)
    assert done.code == 0, done.out + done.err


@pytest.mark.privileged
def test_it_loads_onto_an_interface(host: Cli, wire: Wire, example: str) -> None:
    # What voice.policy copies goes there.
    wire.server.ip("link", "add", "v-tap", "type", "veth", "peer", "name", "v-analyser")
    done = host("apply", example, "-i", "v1", "--json")
    assert done.code == 0, done.err
    assert done.record["mode"] in ("native", "tcx", "clsact")
