"""<penstock/packet.bpf.h>, the API for programs written by hand: what it finds in a packet, at each hook alike."""

from __future__ import annotations

import random
import shutil
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests import frames

from penstock.errors import KernelError
from penstock.kernel.bpf_object import BpfObject
from penstock.model.packet import read_packet
from penstock.pipeline.program_object import ProgramObject, load, open_program

pytestmark = pytest.mark.privileged

CLANGS = [name for name in ("clang-14", "clang-19") if shutil.which(name)] or ["clang"]
HOOKS = ("xdp", "tc", "socket")
PROGRAM = """\
#include <penstock/parse.bpf.h>
struct found {
	struct ps_packet packet;
	__s32 result;
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct found);
} found SEC(".maps");
#define PARSES(hook, context) \\
	SEC(#hook) int hook##_parses(struct context *ctx) \\
	{ \\
		__u32 key = 0; \\
		struct found *value = bpf_map_lookup_elem(&found, &key); \\
		struct ps_packet p; \\
		if (!value) \\
			return 0; \\
		value->result = ps_parse_##hook(ctx, &p); \\
		value->packet = p; \\
		return 1; \\
	}
PARSES(xdp, xdp_md)
PARSES(tc, __sk_buff)
PARSES(socket, __sk_buff)
char _license[] SEC("license") = "Dual BSD/GPL";
"""
LAYOUT = struct.Struct("=IHHBBBBHHHH16s16si")


@dataclass(frozen=True)
class Found:
    """struct ps_packet, and what the parser answered."""

    length: int
    eth_type: int
    vlan: int
    ip_version: int
    proto: int
    fragment: int
    tcp_flags: int
    l3: int
    l4: int
    sport: int
    dport: int
    src: bytes
    dst: bytes
    result: int

    @property
    def without_places(self) -> tuple[object, ...]:
        """What is the same wherever the packet begins."""
        return (
            self.eth_type,
            self.vlan,
            self.ip_version,
            self.proto,
            self.fragment,
            self.tcp_flags,
            bool(self.l4),
            self.sport,
            self.dport,
            self.src,
            self.dst,
            self.result,
        )


@pytest.fixture(scope="module", params=CLANGS)
def parsers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, BpfObject]]:
    """The program at each hook, built by one of the clangs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_CLANG", request.param)
        file = tmp_path_factory.mktemp("api") / "parses.c"
        file.write_text(PROGRAM)
        built = open_program(str(file))
    loaded = {hook: _loaded(built, f"{hook}_parses") for hook in HOOKS}
    yield loaded
    for one in loaded.values():
        one.close()


def _loaded(built: ProgramObject, name: str) -> BpfObject:
    (wanted,) = (one for one in built.contents.programs if one.name == name)
    return load(built, wanted, None, {})


def parsed(loaded: BpfObject, frame: bytes) -> Found:
    (program,) = loaded.programs.values()
    assert program.test_run(frame).retval == 1
    value = loaded.maps["found"].lookup(bytes(4))
    assert value is not None
    return Found(*LAYOUT.unpack(value))


def four(address: str) -> bytes:
    return socket.inet_aton(address).ljust(16, b"\0")


def six(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, address)


PACKETS: dict[str, dict[str, object]] = {
    'IPv4(src="192.0.2.1", dst="10.0.0.2")/UDP(sport=7, dport=53)': {
        "eth_type": 0x0800,
        "vlan": 0xFFFF,
        "ip_version": 4,
        "proto": 17,
        "fragment": 0,
        "l3": 14,
        "l4": 34,
        "sport": 7,
        "dport": 53,
        "src": four("192.0.2.1"),
        "dst": four("10.0.0.2"),
        "result": 0,
    },
    'IPv6(src="2001:db8::1", dst="2001:db8::2")/TCP(sport=7, dport=22, flags="S")': {
        "eth_type": 0x86DD,
        "ip_version": 6,
        "proto": 6,
        "tcp_flags": 2,
        "l3": 14,
        "l4": 54,
        "sport": 7,
        "dport": 22,
        "src": six("2001:db8::1"),
        "dst": six("2001:db8::2"),
        "result": 0,
    },
    "IPv4/ICMP": {"proto": 1, "l4": 34, "sport": 0, "dport": 0, "result": 0},
    "ARP": {"eth_type": 0x0806, "ip_version": 0, "proto": 0, "l4": 0, "result": 0},
}


@pytest.mark.parametrize("packet", PACKETS)
def test_it_finds_what_is_there(parsers: dict[str, BpfObject], packet: str) -> None:
    for hook in ("xdp", "tc"):
        found = parsed(parsers[hook], read_packet(packet))
        assert {name: getattr(found, name) for name in PACKETS[packet]} == PACKETS[packet], hook
    found = parsed(parsers["socket"], read_packet(packet))
    wanted = {name: value for name, value in PACKETS[packet].items() if name not in ("l3", "l4")}
    assert {name: getattr(found, name) for name in wanted} == wanted
    assert found.l3 == 0


def test_tags_are_stepped_over_wherever_they_are(parsers: dict[str, BpfObject]) -> None:
    inner = bytes.fromhex("0800") + read_packet("IPv4/UDP(dport=53)")[14:]
    addresses = bytes(12)
    for tags, vlan in (("81000007", 7), ("88a80009" + "81000007", 9), ("8100e007", 7)):
        frame = addresses + bytes.fromhex(tags) + inner
        for hook in HOOKS:
            found = parsed(parsers[hook], frame)
            assert (found.vlan, found.eth_type, found.dport) == (vlan, 0x0800, 53), (hook, tags)


def test_options_extension_headers_and_fragments(parsers: dict[str, BpfObject]) -> None:
    udp = bytes.fromhex("0007003500080000")
    options = bytes.fromhex("46000020 00000000 40110000 c0000201 0a000002 01010101") + udp
    first = bytes.fromhex("45000020 00002000 40110000 c0000201 0a000002") + udp
    later = bytes.fromhex("45000020 00000010 40110000 c0000201 0a000002") + udp
    addresses = six("2001:db8::1") + six("2001:db8::2")
    # Hop-by-hop, destination options of 16 bytes, then UDP; and a fragment header before it.
    chain = (
        bytes.fromhex("60000000 0020 0040")
        + addresses
        + bytes.fromhex("3c00" + "00" * 6 + "1101" + "00" * 14)
        + udp
    )
    split = bytes.fromhex("60000000 0010 2c40") + addresses + bytes.fromhex("1100000100000000") + udp
    behind = bytes.fromhex("60000000 0010 2c40") + addresses + bytes.fromhex("1100010100000000") + udp
    cases = (
        ("0800", options, 0, 53, True),
        ("0800", first, 1, 53, True),
        ("0800", later, 2, 0, False),
        ("86dd", chain, 0, 53, True),
        ("86dd", split, 1, 53, True),
        ("86dd", behind, 2, 0, False),
    )
    for kind, packet, fragment, dport, has_transport in cases:
        for hook in HOOKS:
            found = parsed(parsers[hook], bytes(12) + bytes.fromhex(kind) + packet)
            assert (found.proto, found.fragment, found.dport) == (17, fragment, dport), (hook, packet.hex())
            assert (bool(found.l4), found.result) == (has_transport, 0)


def test_hooks_agree_on_every_frame_that_the_tests_know(parsers: dict[str, BpfObject]) -> None:
    dice, compared = random.Random(7), 0
    for frame in frames.frames():
        cuts = {dice.randrange(14, len(frame) + 1) for _ in range(6)} if len(frame) > 14 else set()
        for length in (len(frame), *cuts):
            compared += _agree(parsers, frame[:length])
    assert compared > 500


def _agree(parsers: dict[str, BpfObject], frame: bytes) -> bool:
    """Whether all hooks could be asked: the kernel's test run of a socket buffer refuses the shortest IP packets."""
    try:
        at_tc = parsed(parsers["tc"], frame)
    except KernelError:
        return False
    at_xdp, at_socket = parsed(parsers["xdp"], frame), parsed(parsers["socket"], frame)
    assert at_xdp == at_tc, frame.hex()
    assert at_socket.without_places == at_tc.without_places, frame.hex()
    return True


def test_it_is_as_short_as_its_first_example(tmp_path: Path) -> None:
    header = Path(__file__).parents[2] / "src/penstock/bpf/include/penstock/packet.bpf.h"
    example = [
        line.removeprefix(" *").removeprefix("     ")
        for line in header.read_text().splitlines()
        if line.startswith(" *     ")
    ]
    file = tmp_path / "example.c"
    file.write_text("\n".join(example) + '\nchar _license[] SEC("license") = "GPL";\n')
    built = open_program(str(file))
    assert not built.messages
    assert not built.added
    with _loaded(built, "drop_dns") as loaded:
        answers = [
            loaded.programs["drop_dns"].test_run(read_packet(f"IPv4/UDP(dport={port})")).retval
            for port in (53, 54)
        ]
    assert answers == [1, 2]
