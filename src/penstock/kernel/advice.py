"""The verifier's objection in words: what it objects to, why the kernel insists, what mends it.

In: what `verifier.read_log` found, and the log.  Out: an `Advice`, or None for
a sentence that is not known; the sentence itself is told either way.

    explain(read_log(log), log, "drop_dns").change   ->  "compare with data_end before reading, …"

Known are the usual mistakes (`advice_table`).  In a program that penstock made
of a policy there is nothing for its user to change.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.kernel.advice_table import TABLE, Known
from penstock.model.spec import PROGRAM

if TYPE_CHECKING:
    from penstock.kernel.verifier import Refusal

_REPORT = "the program was made by penstock: please report it, with the policy and this text"
_TOO_LARGE = (
    "split the policy, or leave out rules: `penstock bench FILE --rules` tells what each of them adds"
)
_CALL = r"^{at}: \(85\) call (?:kfunc )?(\w+)"
_RELEASES = (
    ("ringbuf", "bpf_ringbuf_submit() or bpf_ringbuf_discard()"),
    ("sk_lookup", "bpf_sk_release()"),
    ("skc_lookup", "bpf_sk_release()"),
    ("sk_", "bpf_sk_release()"),
    ("obj_new", "bpf_obj_drop()"),
    ("kptr", "bpf_kptr_xchg() or the release function of its type"),
)


@dataclass(frozen=True, slots=True)
class Advice:
    """`mistake` is a few words that stay the same; the rest are sentences without their full stop."""

    mistake: str
    objection: str
    reason: str
    change: str


def explain(refusal: Refusal, log: str, program: str) -> Advice | None:
    """What is known about a refusal of `program`; None for a sentence that is not in the table."""
    for known in TABLE:
        match = known.pattern.search(refusal.summary)
        if match and _holds(known, match, log):
            objection, change = _filled(known.objection, match, log), _filled(known.change, match, log)
            if program == PROGRAM:
                change = _TOO_LARGE if refusal.is_too_complex else _REPORT
            return Advice(known.mistake, objection, known.reason, change)
    return None


def _holds(known: Known, match: re.Match[str], log: str) -> bool:
    """Whether the rest of the log is as the entry wants it."""
    wanted = known.where.replace("{register}", match.groupdict().get("register") or "")
    return not wanted or re.search(wanted, log) is not None


def _filled(text: str, match: re.Match[str], log: str) -> str:
    """The text with what the pattern found in its braces; alternatives of a pattern have their own groups."""
    words = {name.rstrip("_"): value for name, value in match.groupdict().items() if value is not None}
    words = {"shown": "0", **words}
    if "instruction" in words or "{release}" in text:
        words |= {
            "release": _release(words.get("instruction"), log),
            "taken": _taken(words.get("instruction"), log),
        }
    return re.sub(r"\{(\w+)\}", lambda found: words.get(found[1], ""), text)


def _taken(instruction: str | None, log: str) -> str:
    """Where the call at an instruction stands in the source."""
    before, found, _ = log.partition(f"\n{instruction}: (85) call")
    places = re.findall(r"^; .*@ (\S[^@]*:\d+)\s*$", before, re.MULTILINE) if found else []
    return f"at {places[-1]}" if places else "by an earlier call"


def _release(instruction: str | None, log: str) -> str:
    """What gives back what the call at an instruction took."""
    called = re.search(_CALL.format(at=instruction), log, re.MULTILINE) if instruction else None
    if called is None:
        return "bpf_ringbuf_submit() or bpf_ringbuf_discard(), bpf_sk_release()"
    name = called[1]
    fitting = next((release for part, release in _RELEASES if part in name), "its release function")
    return f"{fitting} after {name}()"
