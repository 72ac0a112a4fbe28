"""The binding of libpcap, and the interpreter that explains its answers."""

from __future__ import annotations

import threading

import pytest
from tests import frames

from penstock.compiler.ir.classic import Result, run
from penstock.compiler.libpcap import LibpcapError, compile_filter, version
from penstock.model.packet import build_packet, parse_packet

DNS = build_packet(parse_packet("IPv4()/UDP(dport=53)"))


def test_compile_and_match() -> None:
    program = compile_filter("udp dst port 53")
    assert program.matches(DNS)
    assert not program.matches(build_packet(parse_packet("IPv4()/UDP(dport=54)")))
    assert program == compile_filter("udp dst port 53")
    assert program != compile_filter("udp dst port 54")


def test_length_on_the_wire() -> None:
    assert compile_filter("greater 1000").matches(DNS, 1500)
    assert not compile_filter("greater 1000").matches(DNS)


def test_netmask_and_link_type() -> None:
    assert compile_filter("ip broadcast", netmask=0xFFFFFF00).instructions
    raw = compile_filter("udp port 53", link_type=12)
    assert raw.matches(DNS[14:])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("udp poort 53", "syntax error"),
        ("ip broadcast", "netmask not known"),
        ("port 70000", "illegal port number"),
        ("a\0b", "NUL"),
    ],
)
def test_refusal(text: str, message: str) -> None:
    with pytest.raises(LibpcapError, match=message):
        compile_filter(text)


def test_version() -> None:
    assert version().startswith("libpcap version 1.")


def test_threads() -> None:
    found: list[bool] = []

    def work() -> None:
        found.extend(compile_filter(f"udp port {port}").matches(DNS) for port in (53, 54) * 50)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.count(True) == found.count(False) == 200


@pytest.mark.parametrize(
    "text",
    [
        "udp port 53",
        "tcp[tcpflags] & tcp-syn != 0",
        "ip6 protochain 17",
        "len - 3 * ip[0] / 7 % 5 > 1",
        "geneve and ip",
        "llc",
    ],
)
def test_the_interpreter_agrees_with_libpcaps(text: str) -> None:
    program = compile_filter(text)
    for frame in frames.frames():
        for cut in (frame, frame[:20], frame[:37]):
            assert run(program.instructions, cut).matched == program.matches(cut)


def test_the_interpreter_tells_why() -> None:
    program = compile_filter("udp dst port 53").instructions
    assert run(program, DNS) == Result(matched=True)
    assert run(program, DNS[:37]) == Result(matched=False, out_of_bounds=True)
    assert run(program, bytes(60)) == Result(matched=False)
