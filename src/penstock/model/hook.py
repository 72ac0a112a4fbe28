"""The places in the kernel where a filter can run, and what each of them can do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from penstock.model.verdict import Verdict


class Hook(Enum):
    """A kind of place; an interface's own place of that kind is an attach point."""

    XDP = "xdp"


@dataclass(frozen=True, slots=True)
class HookTraits:
    """`section` is the ELF section libbpf knows; `codes` the hook's action codes."""

    section: str
    codes: dict[Verdict, int]


# XDP action codes: enum xdp_action in <linux/bpf.h>.
XDP = HookTraits(section="xdp.frags", codes={Verdict.DROP: 1, Verdict.PASS: 2, Verdict.BOUNCE: 3})
TRAITS = {Hook.XDP: XDP}
