"""What an action is told besides its name: a device, a mark, a DSCP; and how policies spell it.

    Device("eth1")        redirect eth1, mirror eth1
    Mark(0x10, 0xff)      mark 0x10/0xff: only the bits of the mask change
    Dscp(46)              dscp EF
    Change("src", "scanners", adds=True, stay_ns=60 * 10**9)        add src to @scanners for 1m

>>> spell(Dscp(46)), spell(Mark(7)), spell(Device("eth0.100"))
('EF', '0x7', 'eth0.100')
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from penstock.model.sets import time_text

#: All bits of a mark.
WORD = 0xFFFF_FFFF
#: The longest name of a network interface (IFNAMSIZ less its NUL).
MAX_DEVICE_NAME = 15
PLAIN_DEVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*")

#: Per-hop behaviours: RFC 2474 (CS), 2597 (AF), 3246 (EF), 5865 (VOICE-ADMIT), 8622 (LE).
DSCP_NAMES = {
    "CS0": 0, "LE": 1, "CS1": 8, "AF11": 10, "AF12": 12, "AF13": 14,
    "CS2": 16, "AF21": 18, "AF22": 20, "AF23": 22, "CS3": 24, "AF31": 26, "AF32": 28, "AF33": 30,
    "CS4": 32, "AF41": 34, "AF42": 36, "AF43": 38, "CS5": 40, "VOICE-ADMIT": 44, "EF": 46,
    "CS6": 48, "CS7": 56,
}  # fmt: skip
MAX_DSCP = 63
_DSCP_WORDS = {number: name for name, number in DSCP_NAMES.items()}


@dataclass(frozen=True, slots=True)
class Device:
    """A network interface by its name, in the network namespace of the filter's own interface."""

    name: str


@dataclass(frozen=True, slots=True)
class Mark:
    """The bits of `mask` become those of `value`, which has no others."""

    value: int
    mask: int = WORD

    def over(self, before: Mark | None) -> Mark:
        """This mark set behind another one: what both together change."""
        if before is None:
            return self
        return Mark(before.value & ~self.mask | self.value, before.mask | self.mask)

    def on(self, mark: int) -> int:
        """What becomes of a packet's mark."""
        return mark & ~self.mask & WORD | self.value


@dataclass(frozen=True, slots=True)
class Dscp:
    """The six bits of the Differentiated Services field; the two of ECN stay as they are (RFC 3168)."""

    value: int


@dataclass(frozen=True, slots=True)
class Change:
    """A set is given what a field has, for a time, as long as the set says (None), or it is taken out of it."""

    field: str
    set: str
    adds: bool
    stay_ns: int | None = None


Argument = Device | Mark | Dscp | Change


def spell(argument: Argument) -> str:
    """The argument as the canonical form of a policy has it."""
    match argument:
        case Device(name):
            return name if PLAIN_DEVICE.fullmatch(name) and name != "if" else f'"{name}"'
        case Mark(value, mask):
            return f"{value:#x}" if mask == WORD else f"{value:#x}/{mask:#x}"
        case Dscp(value):
            return _DSCP_WORDS.get(value, str(value))
        case Change(field, name, adds, stay):
            until = "" if stay is None else f" for {time_text(stay)}"
            return f"{field} {'to' if adds else 'from'} @{name}{until}"


def spelled(word: str, argument: Argument | None) -> str:
    """An action with its argument: `mark 0x10`, `drop`."""
    return word if argument is None else f"{word} {spell(argument)}"


def device_name_fault(name: str) -> str | None:
    """What keeps a text from being the name of an interface (dev_valid_name() of the kernel)."""
    if not 0 < len(name.encode("utf-8", "replace")) <= MAX_DEVICE_NAME:
        return f"the name of a device has 1 to {MAX_DEVICE_NAME} bytes"
    if name in (".", "..") or any(char in "/:" or char.isspace() for char in name):
        return f"`{name}` cannot be the name of a device"
    return None
