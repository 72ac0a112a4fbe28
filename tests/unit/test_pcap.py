"""Captures are read as tcpdump and tshark read them, and damaged ones as far as they are whole."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import threading
from pathlib import Path

import pytest
from tests.captures import PcapngBlocks
from tests.packets import TCP, UDP, IPv4, Raw

from penstock.errors import CaptureError
from penstock.observe.capture import Capture, Frame, ethernet_frames, read_capture
from penstock.observe.pcap import frames_of, pcap_chunks, write_pcap

PACKETS = [bytes(IPv4() / UDP(dport=port) / Raw(len=port)) for port in range(1, 20)]
START_NS = 1_700_000_000_123_456_789
FRAMES = list(frames_of(PACKETS, start_ns=START_NS))
ORDERS = pytest.mark.parametrize("order", ["<", ">"])

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
needs_editcap = pytest.mark.skipif(shutil.which("editcap") is None, reason="editcap is not installed")
needs_tcpdump = pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed")


def opened(path: Path, content: bytes) -> Capture:
    path.write_bytes(content)
    return read_capture(path)


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    return tmp_path / "dump.pcap"


# ── classic pcap ─────────────────────────────────────────────────────────────


@ORDERS
@pytest.mark.parametrize(("nanoseconds", "tick"), [(False, 1000), (True, 1)])
def test_a_written_file_reads_the_same(dump: Path, order: str, nanoseconds: bool, tick: int) -> None:
    capture = opened(dump, b"".join(pcap_chunks(FRAMES, nanoseconds=nanoseconds, order=order)))
    frames = list(capture.frames)
    assert [frame.data for frame in frames] == PACKETS
    assert [frame.timestamp_ns for frame in frames] == [f.timestamp_ns // tick * tick for f in FRAMES]
    assert {(frame.wire_length - len(frame.data), frame.interface) for frame in frames} == {(0, 0)}
    assert (capture.link_type, capture.warnings) == (1, [])


def test_the_known_bytes_of_a_small_file(dump: Path) -> None:
    header = bytes.fromhex("d4c3b2a1 0200 0400 00000000 00000000 ffff0000 01000000")
    record = bytes.fromhex("01000000 02000000 03000000 40000000 616263")
    assert list(opened(dump, header + record).frames) == [Frame(b"abc", 64, 1_000_002_000, 0)]


def test_snap_length_cuts_what_is_written(dump: Path) -> None:
    write_pcap(dump, FRAMES, snap_length=30)
    frames = list(read_capture(dump).frames)
    assert [(frame.data, frame.wire_length) for frame in frames] == [(p[:30], len(p)) for p in PACKETS]


def test_every_cut_gives_the_whole_packets_before_it_and_a_warning(dump: Path) -> None:
    whole = b"".join(pcap_chunks(FRAMES[:3]))
    ends = [24 + sum(16 + len(packet) for packet in PACKETS[:count]) for count in range(4)]
    for cut in range(24, len(whole) + 1):
        capture = opened(dump, whole[:cut])
        expected = max(count for count in range(4) if ends[count] <= cut)
        assert [frame.data for frame in capture.frames] == PACKETS[:expected]
        assert len(capture.warnings) == (cut not in ends)
    capture = opened(dump, whole[:-1])
    assert len(list(capture.frames)) == 2
    assert capture.warnings == [f"{dump} is cut in the middle of a packet; the 2 packets before it were read"]


def test_packets_beyond_one_chunk_are_joined(dump: Path) -> None:
    packets = [bytes([number % 256]) * (number * 37 % 60_000) for number in range(200)]
    write_pcap(dump, frames_of(packets))
    assert [frame.data for frame in read_capture(dump).frames] == packets


def test_a_packet_longer_than_the_snap_length_is_cut_to_it_as_libpcap_does(dump: Path) -> None:
    whole = bytearray(b"".join(pcap_chunks(FRAMES)))
    struct.pack_into("<I", whole, 16, 50)
    capture = opened(dump, bytes(whole))
    assert [frame.data for frame in capture.frames] == [packet[:50] for packet in PACKETS]
    assert capture.warnings == [f"{dump}: 11 packets longer than its snap length, cut to 50 bytes"]


@pytest.mark.parametrize("claimed", [262_145, 0x7FFFFFFF, 0xFFFFFFFF])
def test_an_absurd_length_ends_the_reading(dump: Path, claimed: int) -> None:
    whole = bytearray(b"".join(pcap_chunks(FRAMES)))
    struct.pack_into("<I", whole, 24 + 16 + len(PACKETS[0]) + 8, claimed)
    capture = opened(dump, bytes(whole))
    assert [frame.data for frame in capture.frames] == PACKETS[:1]
    assert capture.warnings == [
        f"{dump} is damaged: a packet claims {claimed} captured bytes; the packet before it was read"
    ]


def test_a_snap_length_of_zero_is_no_limit(dump: Path) -> None:
    whole = bytearray(b"".join(pcap_chunks(FRAMES)))
    struct.pack_into("<I", whole, 16, 0)
    capture = opened(dump, bytes(whole))
    assert [frame.data for frame in capture.frames] == PACKETS
    assert capture.warnings == []


def test_version_2_2_has_its_lengths_the_other_way_round(dump: Path) -> None:
    whole = bytearray(b"".join(pcap_chunks([Frame(b"abc", 64, 0, 0)])))
    struct.pack_into("<H", whole, 6, 2)
    struct.pack_into("<II", whole, 32, 64, 3)
    assert list(opened(dump, bytes(whole)).frames) == [Frame(b"abc", 64, 0, 0)]


# ── what is no capture ───────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"\x1f\x8b\x08\x00" + bytes(40), "is gzip-compressed: gunzip it first"),
        (b"\x28\xb5\x2f\xfd" + bytes(40), "is zstd-compressed: unzstd it first"),
        (b"#!/bin/sh\n", "is not a pcap or pcapng file"),
        (b"\xd4\xc3\xb2", "is not a pcap or pcapng file"),
        (b"snoop\0\0\0" + bytes(20), "it is a snoop capture"),
        (b"\xd4\xc3\xb2\xa1\x02\x00", "is cut within its file header: 6 of 24 bytes"),
        (b"\x34\xcd\xb2\xa1" + bytes(20), "is in the modified pcap format"),
        (b"\xa1\xb2\xcd\x34" + bytes(20), "is in the modified pcap format"),
        (struct.pack("<IHH", 0xA1B2C3D4, 3, 0) + bytes(16), "is pcap version 3.0"),
        (b"\n\r\r\n" + bytes(40), "is not a capture file: it begins like pcapng"),
        (PcapngBlocks().section()[:20], "is not a capture file: it begins like pcapng"),
        (PcapngBlocks().section(major=2), "is pcapng version 2.0"),
    ],
)
def test_what_is_no_capture_is_refused_with_a_sentence(dump: Path, content: bytes, sentence: str) -> None:
    dump.write_bytes(content)
    with pytest.raises(CaptureError, match=re.escape(sentence)):
        read_capture(dump)


def test_paths_that_cannot_be_read_or_written_say_why(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="Is a directory"):
        read_capture(tmp_path)
    with pytest.raises(CaptureError, match=r"missing\.pcap: No such file"):
        read_capture(tmp_path / "missing.pcap")
    with pytest.raises(CaptureError, match="is not a path"):
        read_capture("a\0b")
    with pytest.raises(CaptureError, match="cannot write it: Is a directory"):
        write_pcap(tmp_path, FRAMES)


def test_a_pipe_is_read_too(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=write_pcap, args=(pipe, FRAMES))
    writer.start()
    capture = read_capture(pipe)
    assert [frame.data for frame in capture.frames] == PACKETS
    writer.join(timeout=10)
    assert not writer.is_alive()


def test_other_link_types_are_read_but_refused_as_ethernet(dump: Path) -> None:
    write_pcap(dump, FRAMES, link_type=113)
    capture = read_capture(dump)
    assert (capture.link_type, len(list(capture.frames))) == (113, len(PACKETS))
    with pytest.raises(CaptureError, match="link type 113; penstock filters Ethernet"):
        ethernet_frames(dump)


def test_ethernet_frames_hands_the_warnings_on(dump: Path) -> None:
    dump.write_bytes(b"".join(pcap_chunks(FRAMES))[:-1])
    warnings: list[str] = []
    assert len(list(ethernet_frames(dump, warnings))) == len(PACKETS) - 1
    assert len(warnings) == 1


def test_leaving_the_block_closes_the_capture(dump: Path) -> None:
    write_pcap(dump, frames_of([bytes(60_000)] * 40))
    with read_capture(dump) as capture:
        frames = capture.frames
        next(frames)
    assert list(capture.frames) == []
    with pytest.raises(CaptureError, match="was closed"):
        list(frames)


# ── pcapng ───────────────────────────────────────────────────────────────────


@ORDERS
def test_all_three_kinds_of_packet_blocks(dump: Path, order: str) -> None:
    make = PcapngBlocks(order)
    blocks = [
        make.section(),
        make.block(0x80000001, b"a custom block"),
        make.interface(snap=100),
        make.block(4, b"names are skipped"),
        make.enhanced(b"abcde", stamp=5_000_000_123),
        make.obsolete(b"abc", stamp=7),
        make.simple(b"xyz"),
        make.simple(bytes(100), wire_length=300),
    ]
    capture = opened(dump, b"".join(blocks))
    assert list(capture.frames) == [
        Frame(b"abcde", 5, 5_000_000_123_000, 0),
        Frame(b"abc", 4, 7_000, 0),
        Frame(b"xyz", 3, 0, 0),
        Frame(bytes(100), 300, 0, 0),
    ]
    assert capture.warnings == []


def test_sections_have_their_own_byte_order_and_interfaces(dump: Path) -> None:
    little, big = PcapngBlocks("<"), PcapngBlocks(">")
    content = little.section() + little.interface() + little.enhanced(b"one")
    content += big.section() + big.interface() + big.interface(link=113) + big.enhanced(b"two", interface=1)
    capture = opened(dump, content)
    assert [(frame.data, frame.interface) for frame in capture.frames] == [(b"one", 0), (b"two", 2)]
    assert [interface.link_type for interface in capture.interfaces] == [1, 1, 113]
    with pytest.raises(CaptureError, match="link type 113"):
        list(ethernet_frames(dump))


@ORDERS
@pytest.mark.parametrize(
    ("resolution", "stamp", "nanoseconds"),
    [
        (6, 3, 3_000),
        (9, 3, 3),
        (0, 3, 3_000_000_000),
        (3, 3, 3_000_000),
        (12, 3_999, 3),
        (0x80 | 10, 512, 500_000_000),
    ],
)
def test_time_stamps_are_in_the_unit_of_their_interface(
    dump: Path, order: str, resolution: int, stamp: int, nanoseconds: int
) -> None:
    make = PcapngBlocks(order)
    options = make.option(2, b"eth0\n") + make.option(9, bytes([resolution]))
    options += make.option(14, struct.pack(f"{order}q", 100)) + make.option(0, b"")
    capture = opened(
        dump, make.section() + make.interface(options=options) + make.enhanced(b"x", stamp=stamp)
    )
    assert [frame.timestamp_ns for frame in capture.frames] == [100_000_000_000 + nanoseconds]


def test_every_cut_of_a_pcapng_file(dump: Path) -> None:
    make = PcapngBlocks()
    blocks = [
        make.section(),
        make.interface(),
        make.enhanced(b"one"),
        make.simple(b"four"),
        make.obsolete(b"six"),
    ]
    ends = [sum(map(len, blocks[:count])) for count in range(len(blocks) + 1)]
    whole = b"".join(blocks)
    for cut in range(len(blocks[0]), len(whole) + 1):
        capture = opened(dump, whole[:cut])
        expected = sum(end <= cut for end in ends[3:])
        assert len(list(capture.frames)) == expected
        assert len(capture.warnings) == (cut not in ends)


MAKE = PcapngBlocks()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (MAKE.enhanced(b"x", interface=1), "names interface 1"),
        (MAKE.enhanced(b"x", captured=200), "more than its snap length 100"),
        (MAKE.enhanced(b"x", captured=90), "more than its block holds"),
        (MAKE.block(6, bytes(16)), "too short"),
        (MAKE.simple(b"x", wire_length=50), "more than its block holds"),
        (MAKE.block(1, b"abcd"), "too short"),
        (struct.pack("<II", 6, 0), "is cut"),
        (struct.pack("<III", 6, 0, 0), "claims a length of 0"),
        (struct.pack("<III", 6, 14, 0), "claims a length of 14"),
        (struct.pack("<III", 99, 0xFFFFFFF0, 0), "claims a length of 4294967280"),
        (struct.pack("<III", 6, 12, 16), "two lengths differ"),
        (struct.pack("<III", 0x0A0D0D0A, 28, 0), "no byte order"),
        (MAKE.section(major=2), "another version"),
    ],
)
def test_damage_in_pcapng_ends_the_reading_with_a_warning(dump: Path, damage: bytes, sentence: str) -> None:
    content = MAKE.section() + MAKE.interface(snap=100) + MAKE.enhanced(b"good") + damage
    capture = opened(dump, content)
    assert [frame.data for frame in capture.frames] == [b"good"]
    assert len(capture.warnings) == 1
    assert sentence in capture.warnings[0]
    assert capture.warnings[0].endswith("the packet before it was read")


def test_packets_before_any_interface_are_damage(dump: Path) -> None:
    for packet in (MAKE.enhanced(b"x"), MAKE.simple(b"x"), MAKE.obsolete(b"x")):
        capture = opened(dump, MAKE.section() + packet)
        assert (list(capture.frames), capture.link_type) == ([], None)
        assert "names interface 0" in capture.warnings[0]


def test_more_interfaces_than_any_machine_has_end_the_reading(dump: Path) -> None:
    capture = opened(dump, MAKE.section() + MAKE.interface() * 65_537 + MAKE.enhanced(b"x"))
    assert list(capture.frames) == []
    assert "more than 65536 interfaces" in capture.warnings[0]


# ── outsiders ────────────────────────────────────────────────────────────────


def tshark_view(path: Path) -> list[tuple[str, int, int]]:
    """Time stamp in ns, captured and wire length of each packet, as tshark sees them."""
    fields = ["-e", "frame.time_epoch", "-e", "frame.cap_len", "-e", "frame.len"]
    done = subprocess.run(
        ["tshark", "-r", path, "-T", "fields", *fields],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    return [(stamp.replace(".", ""), int(captured), int(wire)) for stamp, captured, wire in rows]


def our_view(path: Path) -> list[tuple[str, int, int]]:
    return [(str(f.timestamp_ns), len(f.data), f.wire_length) for f in read_capture(path).frames]


@needs_tshark
@ORDERS
@pytest.mark.parametrize("nanoseconds", [False, True])
def test_tshark_reads_what_we_write(dump: Path, order: str, nanoseconds: bool) -> None:
    dump.write_bytes(b"".join(pcap_chunks(FRAMES, nanoseconds=nanoseconds, order=order, snap_length=50)))
    assert tshark_view(dump) == our_view(dump)


@needs_tshark
@needs_editcap
@pytest.mark.parametrize("form", ["pcap", "nsecpcap", "pcapng"])
def test_we_read_what_editcap_writes(dump: Path, tmp_path: Path, form: str) -> None:
    write_pcap(dump, FRAMES, nanoseconds=True)
    other = tmp_path / f"other.{form}"
    subprocess.run(["editcap", "-F", form, dump, other], check=True, capture_output=True, timeout=60)
    assert [frame.data for frame in read_capture(other).frames] == PACKETS
    assert our_view(other) == tshark_view(other)


@needs_tshark
@ORDERS
def test_tshark_reads_our_pcapng_blocks_as_we_do(dump: Path, order: str) -> None:
    make = PcapngBlocks(order)
    options = make.option(9, b"\x09") + make.option(0, b"")
    packets = [make.enhanced(packet, stamp=START_NS + n) for n, packet in enumerate(PACKETS)]
    packets.append(make.obsolete(PACKETS[0], stamp=START_NS))
    dump.write_bytes(make.section() + make.interface(options=options) + b"".join(packets))
    assert tshark_view(dump) == our_view(dump)


@needs_tcpdump
def test_tcpdump_counts_the_same_packets_in_odd_files(dump: Path) -> None:
    packets = [*PACKETS, *(bytes(IPv4() / TCP(dport=port)) for port in range(5))]
    whole = bytearray(b"".join(pcap_chunks(frames_of(packets))))
    struct.pack_into("<I", whole, 16, 50)
    dump.write_bytes(whole)
    done = subprocess.run(
        ["tcpdump", "-nr", dump, "--count"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split()[0] == str(len(list(read_capture(dump).frames)))
