"""Prefixes and arrays are the same entries as their text."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.errors import PenstockError
from penstock.model.prefixes import Prefixes
from penstock.model.sets import SetSpec
from penstock.pipeline.set_arrays import content_of
from penstock.pipeline.set_keys import read_entries

NET, HOST, PORT = (SetSpec("s", (kind,), size=100) for kind in ("net", "host", "port"))


def entries(spec: SetSpec, given: object) -> dict[str, dict[bytes, int]]:
    content = content_of(spec, given, 7)
    assert content is not None
    return {family: some.by_key() for family, some in content.items()}


def of_text(spec: SetSpec, *lines: str) -> dict[str, dict[bytes, int]]:
    read = read_entries(spec, "\n".join(lines).encode(), 7, 0)
    return {family: some.by_key() for family, some in read.items()}


def test_prefixes() -> None:
    texts = ["192.0.2.0/24", "198.51.100.7/32", "2001:db8::/32", "2001:db8::9/128"]
    assert entries(NET, Prefixes.of(texts)) == of_text(NET, *texts)
    assert entries(HOST, Prefixes.of(texts[1::2])) == of_text(HOST, "198.51.100.7", "2001:db8::9")
    with pytest.raises(PenstockError, match="2 networks, and @s is a set of addresses"):
        content_of(HOST, Prefixes.of(texts), 0)


def test_numbers_are_addresses_in_host_order() -> None:
    v4 = np.array([0xC0000207, 0x0A000001], np.uint32)
    v6 = np.array([[0x20010DB8 << 32, 9]], np.uint64)
    assert entries(NET, v4) == of_text(NET, "192.0.2.7", "10.0.0.1")
    assert entries(HOST, v6) == of_text(HOST, "2001:db8::9")


def test_numbers_are_ports() -> None:
    assert entries(PORT, np.array([443, 80])) == of_text(PORT, "443", "80")


@pytest.mark.parametrize(
    ("spec", "given"),
    [
        (NET, np.array([1, 2])),
        (HOST, np.array([1.5])),
        (PORT, np.array([65536])),
        (PORT, np.array([-1])),
        (PORT, np.array([80.0])),
        (SetSpec("s", ("mac",), size=100), np.array([1], np.uint32)),
    ],
)
def test_numbers_that_say_nothing_are_refused(spec: SetSpec, given: object) -> None:
    with pytest.raises(PenstockError):
        content_of(spec, given, 0)


def test_text_is_not_for_here() -> None:
    assert content_of(NET, np.array(["192.0.2.1"]), 0) is None
    assert content_of(NET, iter(["192.0.2.1"]), 0) is None
