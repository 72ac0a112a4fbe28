"""A wire of our own: frames that go through a filter as real traffic does, and a count of what comes through.

In: a filter, put in place by the caller.  Out: nanoseconds a packet and packets
delivered.  A wire is a network namespace without a name that holds a veth pair;
it is gone when it is closed or the process ends, however it ends.

    with Wire(64) as wire:                      # frames of 64 bytes
        with wire.inside():
            …                               # nft, iptables: wire.device is the receiving end
        wire.load(frames)
        wire.send(16384)                    ->  Sent(ns=212.4, delivered=16384)

An XDP program on the sending end gives its frames by BPF_PROG_TEST_RUN in live
mode to the pair; the kernel receives them in the same thread, on the same
processor.  That is on purpose: with a processor of its own the receiver's ring
fills up, and the figure says how full it was.  Both ends need an XDP program,
or veth takes no frames of that kind.  What the filter lets through ends in a
netfilter program behind every other: it counts and drops, so that no routing is
measured.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from penstock.compiler.clang import compile_c
from penstock.errors import KernelError, NotSupportedError, PenstockError, PrivilegeError
from penstock.kernel import netns
from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.kernel.link import attach_netfilter, attach_xdp
from penstock.kernel.netlink import NATIVE
from penstock.kernel.program import Program
from penstock.model.closing import Closing
from penstock.price.peers.tools import run
from penstock.price.stopwatch import kept_busy

SENDER, RECEIVER = "ps-out", "ps-in"
#: The receiving end's address; frames are sent to it, or the stack would take them for somebody else's.
ADDRESS = bytes.fromhex("020000000002")
#: A sender goes round an array of this many frames.
MOST_FRAMES = 4096
#: Frames are as long as the longest, and that is at most this: one page holds a frame in live mode.
LONGEST_FRAME = 1514
_LEAST_FRAME = 60
#: Bytes that differ between frames: the longest headers that peers see alike have 14 + 40 + 60.
HEADERS = 128

_BPF_NETFILTER = (32, 45)  # BPF_PROG_TYPE_NETFILTER, BPF_NETFILTER
_FAMILIES = (2, 10)  # NFPROTO_IPV4, NFPROTO_IPV6
_PRE_ROUTING = 0
_BEHIND_ALL = 1 << 20
_COUNT = struct.Struct("=Q")

_SOURCE = """\
#include <penstock/uapi.bpf.h>

#define SIZE %(size)d
#define HEAD %(head)d
#define FRAMES %(frames)d

__u64 ps_frames[FRAMES * HEAD / 8] __attribute__((aligned(64)));
__u32 ps_used = 1;
__u32 ps_next;
__u64 ps_arrived;

SEC("xdp.frags") int ps_send(struct xdp_md *ctx)
{
	__u64 *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 at = ps_next;
	const __u64 *frame;

	ps_next = at + 1 < ps_used ? at + 1 : 0;
	if (at >= FRAMES || (void *)data + SIZE > end)
		return 1;
	frame = ps_frames + at * (HEAD / 8);
#pragma clang loop unroll(full)
	for (int word = 0; word < HEAD / 8; word++)
		data[word] = frame[word];
	return 3;
}

SEC("xdp.frags") int ps_pass(struct xdp_md *ctx) { return 2; }
SEC("xdp.frags") int ps_drop(struct xdp_md *ctx) { return 1; }

/* NF_DROP */
SEC("netfilter") int ps_sink(void *ctx) { ps_arrived++; return 0; }

char _license[] SEC("license") = "GPL";
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """Nanoseconds of this thread a packet, sending and receiving, and packets that came through the filter."""

    ns: float
    delivered: int


def prepared(frames: Sequence[bytes]) -> list[bytes]:
    """The frames as a wire sends them: to its receiving end, all of one length, zeros behind the headers.

    Raises:
        PenstockError: one of them is too long.
    """
    longest = max(map(len, frames))
    if longest > LONGEST_FRAME:
        raise PenstockError(
            f"a packet of {longest} bytes is too long to be sent; the longest has {LONGEST_FRAME}"
        )
    size = -(-max(longest, _LEAST_FRAME) // 8) * 8
    return [(ADDRESS + frame[6:HEADERS]).ljust(size, b"\0") for frame in frames]


class Wire(Closing):
    """The pair and its programs; `size` is the length of the frames that it will carry, see `prepared`."""

    device = RECEIVER

    def __init__(self, size: int) -> None:
        with ExitStack() as made:
            self._head = min(size, HEADERS)
            self._object = made.enter_context(_programs(size, self._head))
            with netns.isolated():
                self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
                made.callback(os.close, self._home)
                self._sender = self._build(made)
            made.enter_context(kept_busy(self._object.programs["ps_send"]))
            self._held = made.pop_all()

    def _build(self, made: ExitStack) -> int:
        run("ip", "link", "add", SENDER, "type", "veth", "peer", "name", RECEIVER)
        for end in (SENDER, RECEIVER):
            # No address of its own: nothing is said on the wire but what is sent.
            run("ip", "link", "set", end, "addrgenmode", "none")
        run("ip", "link", "set", RECEIVER, "address", ADDRESS.hex(":"))
        for end in (SENDER, RECEIVER):
            run("ip", "link", "set", end, "up")
        sender, self.receiver = socket.if_nametoindex(SENDER), socket.if_nametoindex(RECEIVER)
        # Not the program that sends: what a filter bounces would go to and fro for ever.
        made.enter_context(attach_xdp(self._object.programs["ps_drop"], sender, mode=NATIVE))
        for family in _FAMILIES:
            sink = self._object.programs["ps_sink"]
            made.enter_context(attach_netfilter(sink, family, _PRE_ROUTING, _BEHIND_ALL))
        return sender

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Run the block, and the programs it starts, in the wire's namespace."""
        with netns.inside(f"/proc/self/fd/{self._home}"):
            yield

    def put(self, program: Program | None = None, *, drops: bool = False) -> None:
        """Put an XDP program on the receiving end; without one, a program that passes (or drops) everything."""
        chosen = program or self._object.programs["ps_drop" if drops else "ps_pass"]
        with self.inside():
            self._held.enter_context(attach_xdp(chosen, self.receiver, mode=NATIVE))

    def load(self, frames: Sequence[bytes]) -> None:
        """Choose what is sent, in turn; `frames` are `prepared`, and of those that are too many the first."""
        some = frames[:MOST_FRAMES]
        heads = b"".join(frame[: self._head] for frame in some)
        self._object.variable("ps_frames")[: len(heads)] = heads
        self._object.variable("ps_used")[:] = len(some).to_bytes(4, "little")
        self._object.variable("ps_next")[:] = bytes(4)
        self._first = some[0]

    def send(self, count: int) -> Sent:
        """Send `count` frames, from the array's first on."""
        self._object.variable("ps_next")[:] = bytes(4)
        return self.send_by(self._object.programs["ps_send"], self._first, count)

    def send_by(self, program: Program, frame: bytes, count: int) -> Sent:
        """Send what a program makes of a frame, `count` times."""
        arrived = self._object.variable("ps_arrived")
        with self.inside():
            before = _COUNT.unpack(arrived)[0]
            start = time.thread_time_ns()
            program.send(frame, self._sender, count)
            took = time.thread_time_ns() - start
        return Sent(took / count, _COUNT.unpack(arrived)[0] - before)

    def close(self) -> None:
        """Take everything away."""
        self._held.close()


def _programs(size: int, head: int) -> BpfObject:
    text = _SOURCE % {"size": size, "head": head, "frames": MOST_FRAMES}
    try:
        return load_object(compile_c(text), "wire", kinds={"ps_sink": _BPF_NETFILTER})
    except PrivilegeError:
        raise
    except KernelError as error:
        # A kernel that does not know the type of a program answers EINVAL.
        if error.errno != errno.EINVAL:
            raise
        wanted = "counting what a filter lets through"
        raise NotSupportedError(
            "netfilter programs", wanted_for=wanted, least_kernel="6.4", errno=error.errno
        ) from error


@contextmanager
def on_one_processor() -> Iterator[None]:
    """Keep this thread on one processor, where what it sends is received as well."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
