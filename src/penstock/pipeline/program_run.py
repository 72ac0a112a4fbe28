"""What a program answers to a packet, tried by BPF_PROG_TEST_RUN: no interface, no traffic.

In: an open program and frames.  Out: its answers by their names, and what it
changed in the packet.

    try_packet(program, frame)   ->  Answer(value=1, name="XDP_DROP", duration_ns=38, frame=b"…", changes=())
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import PenstockError
from penstock.kernel.features import is_bpffs
from penstock.kernel.object_programs import SCHED_ACT, SCHED_CLS, SOCKET_FILTER, XDP, kind_name
from penstock.kernel.program import Program

_MASK = 0xFFFFFFFF
_MOST_DIGITS = 10
# enum xdp_action of <linux/bpf.h>; TC_ACT_* of <linux/pkt_cls.h>.
_XDP = {0: "XDP_ABORTED", 1: "XDP_DROP", 2: "XDP_PASS", 3: "XDP_TX", 4: "XDP_REDIRECT"}
_TC = {
    _MASK: "TC_ACT_UNSPEC",
    0: "TC_ACT_OK",
    1: "TC_ACT_RECLASSIFY",
    2: "TC_ACT_SHOT",
    3: "TC_ACT_PIPE",
    4: "TC_ACT_STOLEN",
    5: "TC_ACT_QUEUED",
    6: "TC_ACT_REPEAT",
    7: "TC_ACT_REDIRECT",
    8: "TC_ACT_TRAP",
}
_RUNNABLE = (XDP, SCHED_CLS, SCHED_ACT, SOCKET_FILTER)


@dataclass(frozen=True, slots=True)
class Change:
    """Bytes that the program changed, at an offset of the packet."""

    offset: int
    before: bytes
    after: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """`name` is the value's in C; `grown` by how many bytes the packet is longer than it was (negative: shorter)."""

    value: int
    name: str
    duration_ns: int
    frame: bytes
    changes: tuple[Change, ...]
    grown: int


def try_packet(program: Program, frame: bytes, repeat: int = 1) -> Answer:
    """The program's answer to one frame; the duration is the mean of `repeat` runs.

    Raises:
        PenstockError: the kernel has no test run for programs of this kind.
        KernelError: it does not take this frame.
    """
    kind = program.info.type
    if kind not in _RUNNABLE:
        raise PenstockError(
            f"{program.name} is a {kind_name(kind)} program",
            hint="XDP, TC and socket filter programs can be run on a packet",
        )
    ran = program.test_run(frame, repeat=repeat)
    name = answer_name(kind, ran.retval, len(frame))
    if kind == SOCKET_FILTER:  # It cannot write, and what comes back is without the Ethernet header.
        return Answer(ran.retval, name, ran.duration_ns, frame, (), 0)
    changes, grown = changes_between(frame, ran.data_out)
    return Answer(ran.retval, name, ran.duration_ns, ran.data_out, changes, grown)


def answer_name(kind: int, value: int, length: int) -> str:
    """What a returned value is called at the hook that programs of this kind run at."""
    match kind:
        case 6:
            return _XDP.get(value, f"{value}, which XDP takes for XDP_ABORTED")
        case 3 | 4:
            return _TC.get(value, f"{value}, which TC takes for TC_ACT_UNSPEC")
        case _:
            return _kept(value, length)


def _kept(value: int, length: int) -> str:
    """A socket filter answers how many bytes the socket is to get."""
    if value == 0:
        return "drop"
    return "keep all" if value >= length else f"keep {value} bytes"


def changes_between(before: bytes, after: bytes) -> tuple[tuple[Change, ...], int]:
    """Where the packets differ; one that grew or shrank is compared from the end that it has kept."""
    grown = len(after) - len(before)
    if not grown:
        return tuple(_runs(before, after)), 0
    from_start = _agreeing(before, after)
    from_end = _agreeing(before[::-1], after[::-1])
    if from_end > from_start:
        cut, longer = max(-grown, 0), max(grown, 0)
        head = (Change(0, before[:cut], after[:longer]),)
        rest = _runs(before[cut:], after[longer:])
        return (*head, *(Change(one.offset + longer, one.before, one.after) for one in rest)), grown
    shorter = min(len(before), len(after))
    tail = Change(shorter, before[shorter:], after[shorter:])
    return (*_runs(before[:shorter], after[:shorter]), tail), grown


def _agreeing(one: bytes, other: bytes) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


def _runs(before: bytes, after: bytes) -> Iterator[Change]:
    """Stretches of bytes that differ in two packets of one length."""
    start = None
    for at in range(len(before) + 1):
        differs = at < len(before) and before[at] != after[at]
        if differs and start is None:
            start = at
        elif not differs and start is not None:
            yield Change(start, before[start:at], after[start:at])
            start = None


def is_loaded(text: str) -> bool:
    """Whether a command's argument means a program in the kernel: an id, or a path in bpffs."""
    return text.isdecimal() or is_bpffs(Path(text))


def open_loaded(text: str) -> Program:
    """The program in the kernel with an id or a pin.  Raises KernelError: there is none."""
    if text.isdecimal() and len(text) < _MOST_DIGITS:
        return Program.by_id(int(text))
    if Path(text).exists():
        return Program.open(text)
    raise PenstockError(f"{text} is neither the id of a program nor where one is pinned")
