"""What libpcap accepts, penstock accepts, and nothing more: thousands of spellings, decided by the installed libpcap.

Names that only a resolver knows, and terms that libpcap finds impossible once
it has understood them, are not a matter of reading.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from penstock.compiler.lang.format import format_expression
from penstock.compiler.lang.parser import parse_expression
from penstock.compiler.lang.source import Source
from penstock.compiler.libpcap import LibpcapError, compile_filter, version
from penstock.errors import PolicyError

ROOT = Path(__file__).parents[1] / "cases" / "acceptance"

#: libpcap understood the text and says so: the name is unknown, or the test cannot be true.
UNDERSTOOD = re.compile(
    r"rejects all|netmask not known|name support not included"
    r"|unknown (host|network|port|ether host|ip proto|ether proto|osi proto|port in range) '"
    r"|port '.*' is |no VLAN match after MPLS|unsupported protocol over mpls"
)

#: Texts that penstock refuses though libpcap 1.10.3 takes them, or says only later that it does not.
STRICTER = {
    "port 1-2": "a range needs `portrange`; libpcap looks for a service of that name",
    "net 10.1.2.3.4/8": "libpcap looks for a network of that name before it sees the slash",
    "host a-": "libpcap looks for the host `a` before it sees the dash",
    "host aa:bb": "libpcap looks for the host `aa` before it sees the colon",
    "proto \\6": "a number behind a backslash is no protocol's name",
    "dir in": "802.11",
    "decnet host 1.2.3": "a DECnet address has two parts",
    "ether protochain \\udp": "libpcap looks the name up before it sees that there is no such chain",
    "iso protochain \\udp": "libpcap looks the name up before it sees that there is no such chain",
}
#: Texts with a meaning of penstock's own.
WIDER = {"arp host $ff": "a constant", "ifname eth0": "penstock knows interfaces by name"}


def _expressions(name: str) -> list[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@cache
def _libpcap_understands(text: str) -> bool:
    try:
        compile_filter(text)
    except LibpcapError as refusal:
        return UNDERSTOOD.search(refusal.message) is not None
    return True


def _penstock_fault(text: str) -> str | None:
    try:
        parse_expression(Source("<expression>", text))
    except PolicyError as error:
        return "; ".join(f"{found.code} {found.message}" for found in error.diagnostics)
    return None


@pytest.mark.parametrize("name", ["manual.txt", "spellings.txt"])
def test_acceptance_is_that_of_libpcap(name: str) -> None:
    if "1.10.3" not in version():
        pytest.skip(f"the lists were made with libpcap 1.10.3, this is {version()}")
    differences = []
    for text in _expressions(name):
        if text in STRICTER or text in WIDER:
            continue
        fault, understood = _penstock_fault(text), _libpcap_understands(text)
        if (fault is None) != understood:
            differences.append(
                (text, f"penstock: {fault or 'accepts'}", f"libpcap understands: {understood}")
            )
    assert differences == []


@pytest.mark.parametrize("text", STRICTER)
def test_refused_on_purpose(text: str) -> None:
    assert _penstock_fault(text) is not None


@pytest.mark.parametrize("name", ["manual.txt", "spellings.txt"])
def test_canonical_text_means_the_same_and_libpcap_reads_it(name: str) -> None:
    for text in _expressions(name):
        if _penstock_fault(text) is not None or text in WIDER:
            continue
        tree = parse_expression(Source("<expression>", text))
        canonical = format_expression(tree)
        assert parse_expression(Source("<expression>", canonical)) == tree, (text, canonical)
        assert _libpcap_understands(canonical) == _libpcap_understands(text), (text, canonical)
