"""A program in the kernel: what it is, and what it answers to a packet.

In: a descriptor, an id or a pin.  Out: `Program`, whose `test_run` hands the
loaded program one frame by BPF_PROG_TEST_RUN and gives its answer, without an
interface and without traffic.

    program.test_run(frame).retval        ->  1, XDP_DROP
    program.test_run_many(frames)         ->  array([1, 2, 2, …], dtype=uint32)
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from penstock.errors import KernelError
from penstock.kernel import syscall
from penstock.kernel.capability import SYS_ADMIN, kernel_error, kernel_errors
from penstock.kernel.libc import address_of, bpf
from penstock.kernel.syscall import Command, Descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    from numpy.typing import NDArray

SOCKET_FILTER, SCHED_CLS, XDP = 1, 3, 6  # BPF_PROG_TYPE_…
LEAST_FRAME = 14  # an Ethernet header: bpf_prog_test_run_xdp takes nothing shorter
#: A page, without what the kernel puts before and behind a socket buffer's data, and some more.
_MOST_OF_A_PAGE = mmap.PAGESIZE - 576
_SHORTEST_IPV6 = LEAST_FRAME + 40
#: Of these Ethernet types bpf_prog_test_run_skb wants the whole fixed header of IP as well.
_LEAST_PACKETS = {b"\x08\x00": LEAST_FRAME + 20, b"\x86\xdd": _SHORTEST_IPV6}

# struct bpf_prog_info up to verified_insns.
_INFO = struct.Struct("=II8sIIQQQIIQ16s")
_INFO_SIZE = 224
_BTF_ID_AT, _RUN_TIME_AT, _VERIFIED_AT = 128, 192, 216
# prog_fd, retval, sizes, data_in, data_out, repeat, duration, ctx sizes, ctx_in, ctx_out,
# flags, cpu, batch_size, and padding to a multiple of 8.
_TEST = struct.Struct("=IIIIQQIIIIQQIIIxxxx")
_RETVAL_AT, _SIZE_IN_AT, _SIZE_OUT_AT, _DURATION_AT = 4, 8, 12, 36
_WORD, _TWO_WORDS = struct.Struct("=I"), struct.Struct("=II")
_XDP_MD = struct.Struct("=IIIIII")
# struct __sk_buff: its size, and what of it a test run may be given.
_SK_BUFF_SIZE = 192
_MARK_AT, _INGRESS_IFINDEX_AT, _IFINDEX_AT, _GSO_SEGMENTS_AT, _GSO_SIZE_AT = 8, 36, 40, 164, 176
_LIVE_FRAMES, _LIVE_BATCH = 1 << 1, 64  # BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18
_ROOM_TO_GROW = 512  # a program may move the head or the tail of the frame outwards


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """What the kernel tells of a program; `verified_insns` counts an instruction each time it was tried."""

    id: int
    type: int
    name: str
    tag: str
    jited_size: int
    xlated_size: int
    verified_insns: int
    uid: int
    btf_id: int
    run_time_ns: int
    run_count: int


@dataclass(frozen=True, slots=True)
class TestRun:
    """One test run: the program's answer, its mean time, and the frame as the program left it."""

    # Its name begins like a test's; pytest shall not collect it.
    __test__ = False

    retval: int
    duration_ns: int
    data_out: bytes


class Program(Descriptor):
    """A loaded program.  The program lives while this is open, or is pinned or attached somewhere."""

    __slots__ = ("info", "name")

    def __init__(self, fd: int, name: str | None = None) -> None:
        super().__init__(fd)
        self.info = _program_info(fd)
        self.name = name or self.info.name

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """The program that is pinned at `path`.  Raises KernelError."""
        with kernel_errors("open pinned program", os.fspath(path)):
            return cls(syscall.open_pinned(path, "prog"))

    @classmethod
    def by_id(cls, number: int) -> Self:
        """The program with that id.  Raises KernelError; PrivilegeError without CAP_SYS_ADMIN."""
        with kernel_errors("open program", f"id {number}", needs=(SYS_ADMIN,), absent="there is none"):
            return cls(syscall.open_by_id(Command.PROG_GET_FD_BY_ID, number))

    @property
    def id(self) -> int:
        """The kernel's number for it, never reused while the machine runs."""
        return self.info.id

    @property
    def tag(self) -> str:
        """A hash of its instructions: equal programs have equal tags."""
        return self.info.tag

    def takes(self, data: bytes) -> bool:
        """Whether a test run takes the frame: no part of a header, and beyond XDP no more than a page holds."""
        if self.info.type == XDP:
            return len(data) >= LEAST_FRAME
        return _LEAST_PACKETS.get(data[12:14], LEAST_FRAME) <= len(data) <= _MOST_OF_A_PAGE

    def test_run(self, data: bytes, *, repeat: int = 1, ctx: bytes | None = None) -> TestRun:
        """Run the program on a frame; `ctx` is a struct xdp_md (its data pointers are offsets), or `skb_context`'s.

        With `repeat` > 1 the duration is the mean in ns, and on an XDP program
        that is attached nowhere the call itself takes 24–35 ms more.

        Raises:
            KernelError: a frame that is too short (`takes`), one that the program
                cannot take whole, or a signal during the rounds.
        """
        frame, out = bytearray(data), bytearray(len(data) + _ROOM_TO_GROW)
        context = bytearray(ctx or b"")
        attr = _test_attr(self.fd, frame, out, context, repeat)
        self._run(attr, len(data))
        retval, size = struct.unpack_from("=I4xI", attr, _RETVAL_AT)
        (duration,) = _WORD.unpack_from(attr, _DURATION_AT)
        return TestRun(retval, duration, bytes(out[:size]))

    def test_run_many(self, frames: Iterable[bytes]) -> NDArray[np.uint32]:
        """The program's answer to each frame, in order, as uint32; no frame comes back.

        Raises:
            KernelError: as `test_run`; no answer is given for the frames before it.
        """
        import numpy as np

        return np.fromiter(map(self.answering(), frames), dtype=np.uint32)

    def answering(self, ctx: bytes = b"") -> Callable[[bytes], int]:
        """A function that gives the program's answer to a frame; `test_run` for many frames in turn.

        It raises KernelError as `test_run` does.
        """
        frame, context = bytearray(1 << 16), bytearray(ctx)
        attr = _test_attr(self.fd, frame, bytearray(), context, 1)

        def answer(data: bytes) -> int:
            nonlocal frame, attr
            size = len(data)
            if size > len(frame):
                frame = bytearray(size)
                attr = _test_attr(self.fd, frame, bytearray(), context, 1)
            frame[:size] = data
            _TWO_WORDS.pack_into(attr, _SIZE_IN_AT, size, 0)
            self._run(attr, size)
            return int(_WORD.unpack_from(attr, _RETVAL_AT)[0])

        return answer

    def send(self, frame: bytes, ifindex: int, count: int) -> None:
        """Let an XDP program that answers XDP_TX send `count` frames out of a device of this network namespace.

        The program meets `frame` as it left it the last time.  What is sent goes
        the way of real traffic; the call returns when the last is on the wire,
        and whatever the kernel could do with them at once is done.  The device
        has to have an XDP program.

        Raises:
            KernelError: the device is missing or without XDP, or Linux is older than 5.18.
        """
        data = bytearray(frame)
        context = bytearray(xdp_context(len(data), ifindex))
        attr = bytearray(
            _TEST.pack(
                self.fd,
                0,
                len(data),
                0,
                address_of(data),
                0,
                count,
                0,
                len(context),
                0,
                address_of(context),
                0,
                _LIVE_FRAMES,
                0,
                _LIVE_BATCH,
            )
        )
        self._run(attr, len(data))

    def _run(self, attr: bytearray, size: int) -> None:
        try:
            bpf(Command.PROG_TEST_RUN, attr)
        except OSError as error:
            raise _test_error(self.name, error.errno or 0, size) from error


def xdp_context(size: int, ifindex: int) -> bytes:
    """A struct xdp_md for a test run on a frame of `size` bytes that came in by a device of this network namespace.

    The kernel refuses (EINVAL) a device whose receive queue XDP does not know, as before its first XDP program.
    """
    return _XDP_MD.pack(0, size, 0, ifindex, 0, 0)


def skb_context(
    *, mark: int = 0, ifindex: int = 0, ingress_ifindex: int = 0, segments: int = 0, segment_size: int = 0
) -> bytes:
    """A struct __sk_buff for test runs of programs that meet socket buffers.

    `ifindex` is a device of this network namespace; 0 lets the kernel take the
    loopback device.  With `segment_size` the packet stands for that many
    `segments` (gso_size, gso_segs).
    """
    context = bytearray(_SK_BUFF_SIZE)
    places = (_MARK_AT, _INGRESS_IFINDEX_AT, _IFINDEX_AT, _GSO_SEGMENTS_AT, _GSO_SIZE_AT)
    for at, value in zip(places, (mark, ingress_ifindex, ifindex, segments, segment_size), strict=True):
        _WORD.pack_into(context, at, value)
    return bytes(context)


def _test_attr(fd: int, frame: bytearray, out: bytearray, context: bytearray, repeat: int) -> bytearray:
    sizes = len(frame), len(out)
    addresses = address_of(frame), address_of(out)
    context_at = address_of(context)
    return bytearray(
        _TEST.pack(fd, 0, *sizes, *addresses, repeat, 0, len(context), 0, context_at, 0, 0, 0, 0)
    )


def _test_error(name: str, code: int, size: int) -> KernelError:
    meaning = None
    if size < LEAST_FRAME and code == errno.EINVAL:
        meaning = f"the kernel's test run takes frames of at least {LEAST_FRAME} bytes, this one has {size}"
    elif size < _SHORTEST_IPV6 and code == errno.EINVAL:
        meaning = (
            f"beyond XDP, the kernel's test run takes no part of an IP header; this frame has {size} bytes"
        )
    elif code in (errno.EINVAL, errno.E2BIG, errno.ENOMEM):
        meaning = f"{os.strerror(code)}: {size} bytes; more than a page takes a program in section xdp.frags"
    elif code == errno.EINTR:
        meaning = "a signal came during its rounds; some of them have run"
    return kernel_error("test", name, code, meaning=meaning)


def _program_info(fd: int) -> ProgramInfo:
    with kernel_errors("describe", "a program"):
        raw = syscall.object_info(fd, _INFO_SIZE)
    kind, number, tag, jited, xlated, _, _, _, uid, _, _, name = _INFO.unpack_from(raw)
    (btf_id,) = _WORD.unpack_from(raw, _BTF_ID_AT)
    run_time, run_count = struct.unpack_from("=QQ", raw, _RUN_TIME_AT)
    (verified,) = _WORD.unpack_from(raw, _VERIFIED_AT)
    return ProgramInfo(
        number,
        kind,
        syscall.object_name(name),
        tag.hex(),
        jited,
        xlated,
        verified,
        uid,
        btf_id,
        run_time,
        run_count,
    )


def describe_program(number: int) -> str:
    """A program as users see it: ``id 17 (my_filter)``; the id alone where its name may not be read."""
    try:
        with Program.by_id(number) as program:
            return f"id {number} ({program.name})" if program.name else f"id {number}"
    except KernelError:
        return f"id {number}"
