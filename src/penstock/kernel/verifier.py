"""The verifier's log, cut down to the one line and the one place that matter.

In: the log of a refused program.  Out: the sentence that says why, and the
`file:line` it blames.  penstock compiles its C under ``#line 12 "edge.policy"``,
so that place is a line of the policy:

    ; drop if tcp dst port 22 @ edge.policy:12
    7: (71) r1 = *(u8 *)(r1 +23)
    invalid access to packet, off=23 size=1, R1(id=0,off=23,r=0)
    R1 offset is outside of the packet
    processed 8 insns (limit 1000000) max_states_per_insn 0 total_states 0 …

gives summary ``invalid access to packet, off=23 size=1, R1(id=0,off=23,r=0);
R1 offset is outside of the packet`` and place ``edge.policy:12``.  Kernels
before 6.9 print the source text without ``@ file:line``: the place is then None,
and the instruction, here 7, is what there is to look it up by (`lineinfo`).
Linux 7 adds a report for people, which is left to whoever reads the whole log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_MOST_SENTENCES = 3
_MOST_CHARACTERS = 400
_REPORT, _LAST_PART = "Verification failed: ", "Suggestion:"
_TOO_COMPLEX = "BPF program is too large"
# Instructions as they are tried, and as the checks that run before any is tried name them.
_INSTRUCTION = re.compile(
    r"^(?:(?=\d+: \([0-9a-f]{2}\) )|unreachable insn |back-edge from insn |jump out of range from insn )(\d+)"
)
_PLACE = re.compile(r"^; .*@ (?P<place>\S[^@]*:\d+)\s*$")
_QUOTED = re.compile(r"^; (.*?)(?: @ \S[^@]*:\d+\s*)?$")

# What the verifier prints beside its verdict: instructions with and without the
# state after them, states, jumps between paths, its statistics, and what
# backtracking says at log level 2.
_NOISE = re.compile(
    r"""
      ^\s*$
    | ^;                                                        # source text
    | ^\d+:\s                                                   # an instruction or a state
    | ^(from|arg)\s\d+\sto\s\d+                                 # from 3 to 9: R0=…
    | ^(processed\s\d+\sinsns|verification\stime|stack\sdepth|func\#\d|insns\sprocessed)
    | ^(cur|old|parent)\sstate:
    | ^(mark_precise|last_idx|regs=|parent\s(didn't|already))
    | ^frame\d+:
    | ^\s*(frame\d+:\s*)?R\d+(_\w+)?=                              # R1=ctx() R10=fp0; before 5.17 on a line of its own
    | ^(Validating|Func\#\d+\s\(?'?\w+'?\)?\sis\s(safe|global)) # entering a global function
    | ^(caller|callee|returning\sfrom|propagating|to\scaller|safe$)
    | ^\d+:$
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a program was refused, and the source line and instruction it is about, where the log tells.

    `source` is the text of that line, as the log quotes it.
    `is_too_complex`: the program may be right, but the verifier's budget of
    instructions ran out before it could be shown.
    """

    summary: str
    place: str | None
    instruction: int | None
    source: str | None = None

    @property
    def is_too_complex(self) -> bool:
        """Whether the million instructions that the verifier is willing to follow were not enough."""
        return self.summary.startswith(_TOO_COMPLEX)


def read_log(log: str) -> Refusal:
    """The last thing the verifier said before it gave up, and the last source line it had shown by then."""
    lines = list(_without_reports(log.splitlines()))
    end = next((at for at in range(len(lines), 0, -1) if not _NOISE.match(lines[at - 1])), 0)
    start = end
    while start > 0 and end - start < _MOST_SENTENCES and not _NOISE.match(lines[start - 1]):
        start -= 1
    summary = "; ".join(line.strip().rstrip(".") for line in lines[start:end])
    return Refusal(
        summary=_shorten(summary) or "the log does not say why",
        place=_place(lines[:start]),
        instruction=_instruction(lines[:end]),
        source=_source(lines[:start]),
    )


def _without_reports(lines: list[str]) -> Iterator[str]:
    """The log as older kernels write it: Linux 7 puts a report of several paragraphs behind the sentence."""
    at = 0
    while at < len(lines):
        if lines[at].startswith(_REPORT):
            at = _end_of_report(lines, at)
        else:
            yield lines[at]
            at += 1


def _end_of_report(lines: list[str], at: int) -> int:
    """The first line behind a report: its last paragraph is what the kernel suggests."""
    suggested = next((number for number in range(at, len(lines)) if lines[number] == _LAST_PART), len(lines))
    behind = (number for number in range(suggested, len(lines)) if not lines[number].strip())
    return next(behind, len(lines))


@dataclass(frozen=True, slots=True)
class Effort:
    """What verifying a program took: instructions followed, states kept in all and at most at once.

    `stack_bytes` is the program's own stack and that of the deepest function it calls.
    """

    instructions: int
    total_states: int
    peak_states: int
    stack_bytes: int


_PROCESSED = re.compile(r"^processed (\d+) insns .* total_states (\d+) peak_states (\d+)", re.MULTILINE)
_STACK = re.compile(r"^stack depth ([\d+]+)", re.MULTILINE)


def read_statistics(log: str) -> Effort | None:
    """The figures at the end of a log of level 4; None where the kernel printed none."""
    processed, stack = _PROCESSED.search(log), _STACK.search(log)
    if processed is None:
        return None
    own, *called = [int(depth) for depth in stack[1].split("+") if depth] if stack else [0]
    instructions, total, peak = map(int, processed.groups())
    return Effort(instructions, total, peak, own + max(called, default=0))


def _place(lines: list[str]) -> str | None:
    found = (match["place"] for line in reversed(lines) if (match := _PLACE.match(line)))
    return next(found, None)


def _source(lines: list[str]) -> str | None:
    """The last source line that the log quotes: `; text`, from Linux 6.9 on `; text @ file:line`."""
    found = (_QUOTED.sub(r"\1", line).strip() for line in reversed(lines) if line.startswith("; "))
    return next(found, None) or None


def _instruction(lines: list[str]) -> int | None:
    found = (int(match[1]) for line in reversed(lines) if (match := _INSTRUCTION.match(line)))
    return next(found, None)


def _shorten(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + "…"
