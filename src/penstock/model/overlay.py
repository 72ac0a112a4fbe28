"""Added rules as the running program reads them: records of conditions, in banks of memory.

In: conditions on fields of the parsed packet.  Out: the bytes of a bank
(struct ps_overlay_bank in bpf/include/penstock/overlay.bpf.h), which holds up to
RECORDS records and, behind them, a text that is user space's own.

    record = Record((Condition(160, Ask.LONG, (low, span, low, span)),), position=6, rule=0, code=1)
    bank(3, [record.packed()], b"{}")            ->  the value of entry 3 & 1 of map ps_added
    Bank.of(value).records                       ->  [(0, b"…")]: the rule's number with each record

A range is (low, high - low); one that holds "absent" goes up to all ones.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

#: In the switch, beside the bank's number: one of its rules counts.
COUNTS = 4

BANKS_MAP = "ps_added"
SWITCH_MAP = ".data.overlay"
OFFSETS_VARIABLE = "ps_overlay_at"

#: Another number whenever what lies in a bank, or what it means, changes: a built file may be of another version.
LAYOUT = 1
RECORDS = 64
RULES = 64
CONDITIONS = 8
TEXT = 40 << 10
#: The position of a rule behind all of the program's own, before the default.
END = 0xFFFF_FFFE
_ALL_ONES = {32: 0xFFFF_FFFF, 64: (1 << 64) - 1}

_CONDITION = struct.Struct("=4QHBBHBx")
_RECORD = struct.Struct("=QIHBB")
_KEY = struct.Struct("=3QHB5x")
_HEAD = struct.Struct("=IIII")
RECORD_BYTES = _RECORD.size + CONDITIONS * _CONDITION.size
_RECORDS_AT = _HEAD.size + RECORDS * _KEY.size
BANK_BYTES = _RECORDS_AT + RECORDS * RECORD_BYTES + TEXT
_EVERYTHING = (1 << 64) - 1


class Ask(IntEnum):
    """How a condition reads its field."""

    WORD = 0
    LONG = 1
    TAG = 2
    BITS = 3
    WIDE = 4


@dataclass(frozen=True, slots=True)
class Condition:
    """A test of the field at an offset of the parsed packet (struct ps_scratch)."""

    at: int
    ask: Ask
    words: tuple[int, int, int, int]
    absent: bool = False
    mask: int = 0
    shift: int = 0

    def packed(self) -> bytes:
        """struct ps_condition."""
        return _CONDITION.pack(*self.words, self.at, self.ask, self.absent, self.mask, self.shift)

    @property
    def key(self) -> tuple[int, int, int, int, int] | None:
        """As of `Record`; None if no range of 64 bits says something."""
        hull = self._hull()
        if hull is None:
            return None
        (low, high), mask = hull, _ALL_ONES[64 if self.ask in (Ask.LONG, Ask.WIDE) else 32]
        # The upper half of eight bytes is the first in big-endian order, the second in little-endian.
        is_upper = mask != _EVERYTHING and (self.at % 8 == 4) == (sys.byteorder == "little")
        return mask, low, high - low, self.at & ~7, 32 * is_upper

    def _hull(self) -> tuple[int, int] | None:
        match self.ask:
            case Ask.WORD | Ask.LONG:
                first, span, second, other = self.words
                return min(first, second), max(first + span, second + other)
            case Ask.BITS if not self.absent and any(self.words):
                bits = sum(word << 64 * at for at, word in enumerate(self.words))
                return (bits & -bits).bit_length() - 1, bits.bit_length() - 1
            case Ask.WIDE if not self.absent:
                return self.words[0], self.words[2]
        return None


@dataclass(frozen=True, slots=True)
class Record:
    """A conjunction, and what it comes to: `code` is the hook's action code, 0 for a rule that only counts."""

    conditions: tuple[Condition, ...]
    position: int
    rule: int
    code: int
    until_ns: int = 0

    @property
    def key(self) -> tuple[int, int, int, int, int]:
        """(mask, low, high - low, offset, shift): a range of one field that every packet of the record's lies in."""
        return next(
            (key for condition in self.conditions if (key := condition.key)), (0, 0, _EVERYTHING, 0, 0)
        )

    def packed(self) -> bytes:
        """struct ps_key and struct ps_record."""
        head = _RECORD.pack(self.until_ns, self.position, self.rule, self.code, len(self.conditions))
        body = b"".join(condition.packed() for condition in self.conditions)
        return _KEY.pack(*self.key) + (head + body).ljust(RECORD_BYTES, b"\0")


@dataclass(frozen=True, slots=True)
class Bank:
    """What a bank holds: (number of the rule, record) in the order in which they are tried, and the text."""

    generation: int
    records: tuple[tuple[int, bytes], ...]
    text: bytes

    @classmethod
    def of(cls, value: bytes) -> Bank:
        """The bank in a map's value.  Raises ValueError: it is none."""
        if len(value) != BANK_BYTES:
            raise ValueError(f"a bank has {BANK_BYTES} bytes, not {len(value)}")
        generation, count, _, size = _HEAD.unpack_from(value)
        if count > RECORDS or size > TEXT:
            raise ValueError("a bank's numbers are impossible")
        keys = [value[start : start + _KEY.size] for start in range(_HEAD.size, _RECORDS_AT, _KEY.size)]
        starts = [_RECORDS_AT + at * RECORD_BYTES for at in range(count)]
        bodies = [value[start : start + RECORD_BYTES] for start in starts]
        found = [key + body for key, body in zip(keys[:count], bodies, strict=True)]
        text = value[BANK_BYTES - TEXT : BANK_BYTES - TEXT + size]
        return cls(generation, tuple((rule_of(record), record) for record in found), text)


def rule_of(record: bytes) -> int:
    """The number of the rule that a packed record belongs to."""
    return int(_RECORD.unpack_from(record, _KEY.size)[2])


def is_counting(record: bytes) -> bool:
    """Whether a packed record only counts."""
    return not _RECORD.unpack_from(record, _KEY.size)[3]


def bank(generation: int, records: Sequence[bytes], text: bytes) -> bytes:
    """A bank's value: the records in the order in which they are tried.

    Raises:
        ValueError: more records, or a longer text, than it can hold.
    """
    if len(records) > RECORDS or len(text) > TEXT:
        raise ValueError(f"{len(records)} records and {len(text)} bytes of text are more than a bank holds")
    head = _HEAD.pack(generation, len(records), sum(map(is_counting, records)), len(text))
    keys = b"".join(record[: _KEY.size] for record in records).ljust(RECORDS * _KEY.size, b"\0")
    bodies = b"".join(record[_KEY.size :] for record in records).ljust(RECORDS * RECORD_BYTES, b"\0")
    return head + keys + bodies + text.ljust(TEXT, b"\0")


def span(low: int, high: int, bits: int, width: int) -> tuple[int, int]:
    """A range of a field of `bits` bits as (low, high - low) of `width` bits; ``1 << bits`` is absent."""
    absent = _ALL_ONES[width]
    first, last = (absent if end >> bits else end for end in (low, high))
    return first, last - first
