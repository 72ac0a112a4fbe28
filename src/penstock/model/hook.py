"""The places in the kernel where a filter can run, and what each of them can do.

TRAITS[Hook.TC_INGRESS].codes[Verdict.DROP]    ->  2, TC_ACT_SHOT
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from penstock.model.verdict import Verdict


class Hook(Enum):
    """A kind of place; an interface's own place of that kind is an attach point."""

    XDP = "xdp"
    TC_INGRESS = "tc ingress"
    TC_EGRESS = "tc egress"
    SOCKET = "socket"

    @property
    def is_tc(self) -> bool:
        """Whether the program meets socket buffers on their way through traffic control."""
        return self in (Hook.TC_INGRESS, Hook.TC_EGRESS)


@dataclass(frozen=True, slots=True)
class HookTraits:
    """What compiling for a hook needs to know of it.

    `section` is the ELF section libbpf knows, `frame` the file that a generated
    text ends with; `codes` are the verdicts the hook has, each with what the
    program answers for it.
    """

    section: str
    frame: str
    codes: dict[Verdict, int]


# XDP action codes: enum xdp_action in <linux/bpf.h>.  A refusal that is built in place goes out by XDP_TX.
_XDP = HookTraits(
    section="xdp.frags",
    frame="xdp",
    codes={Verdict.DROP: 1, Verdict.PASS: 2, Verdict.BOUNCE: 3},
)
# TC_ACT_SHOT; TC_ACT_UNSPEC, which lets the programs behind this one have their say (<linux/pkt_cls.h>).
_TC = HookTraits(
    section="tc",
    frame="tc",
    codes={Verdict.DROP: 2, Verdict.PASS: 0xFFFFFFFF},
)
# How many bytes of the packet the socket is given.
_SOCKET = HookTraits(
    section="socket",
    frame="socket",
    codes={Verdict.DROP: 0, Verdict.PASS: 0xFFFFFFFF},
)
TRAITS = {Hook.XDP: _XDP, Hook.TC_INGRESS: _TC, Hook.TC_EGRESS: _TC, Hook.SOCKET: _SOCKET}

_ALL = tuple(Hook)
_TC_HOOKS = (Hook.TC_INGRESS, Hook.TC_EGRESS)
#: The words of actions, each with the hooks that have it; docs/language.md shows the same table.
ACTION_HOOKS: dict[str, tuple[Hook, ...]] = {
    "pass": _ALL,
    "drop": _ALL,
    "reject": (Hook.XDP, Hook.TC_INGRESS),
    "bounce": (Hook.XDP,),
    "redirect": (Hook.XDP, *_TC_HOOKS),
    "audit": _ALL,
    "count": _ALL,
    "mark": _TC_HOOKS,
    "dscp": _TC_HOOKS,
    "mirror": _TC_HOOKS,
    "add": _ALL,
    "remove": _ALL,
}
#: Fields that not every hook has.
FIELD_HOOKS: dict[str, tuple[Hook, ...]] = {"mark": (*_TC_HOOKS, Hook.SOCKET)}


def hooks_in_words(hooks: tuple[Hook, ...]) -> str:
    """The hooks as a sentence has them: `xdp, tc ingress and tc egress`."""
    words = [hook.value for hook in hooks]
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
