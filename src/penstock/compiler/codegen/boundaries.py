"""Long interval lists as one sorted table of boundaries for each width of field.

A list of a thousand prefixes is data: written as compares it would be thousands
of jumps, for each rule that names it.  Equal lists share one run of the table.

    [(10, 19), (40, 40)]  ->  boundaries 10, 20, 40, 41
    15: one boundary at or below it, odd, inside;  20: two, even, outside

The search is bpf/include/penstock/search.bpf.h.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock.model.net import IntervalSet

#: Widths of keys; each has a table and a search function, fields of up to 32 bits share one.
WIDTHS = (32, 48, 128)


def width_of(bits: int) -> int:
    """The table that holds boundaries of a field of `bits` bits."""
    return min(width for width in WIDTHS if bits <= width)


@dataclass(slots=True)
class Boundaries:
    """The lists collected so far; `add` says where in its table a list begins and how long it is."""

    tables: dict[int, list[int]] = field(default_factory=lambda: {width: [] for width in WIDTHS})
    _known: dict[tuple[int, IntervalSet], tuple[int, int]] = field(default_factory=dict)

    def add(self, values: IntervalSet, bits: int) -> tuple[int, int]:
        """First index and number of the list's boundaries in the table of that width."""
        width = width_of(bits)
        key = width, values
        if key not in self._known:
            table, ends = self.tables[width], _ends(values, width)
            self._known[key] = len(table), len(ends)
            table.extend(ends)
        return self._known[key]

    def lines(self) -> list[str]:
        """The C of the tables in use and their search functions."""
        used = [width for width in WIDTHS if self.tables[width]]
        found: list[str] = ["#include <penstock/search.bpf.h>"] if used else []
        for width in used:
            found += _table(width, self.tables[width])
        return found


def _ends(values: IntervalSet, width: int) -> list[int]:
    """Ascending; the one behind the domain's last number is left out."""
    ends = [end for low, high in values for end in (low, high + 1)]
    return [end for end in ends if end < 1 << width]


def _table(width: int, ends: list[int]) -> list[str]:
    match width:
        case 32:
            kind, cells = "__u32", [f"{end:#x}," for end in ends]
            search = f"PS_SEARCH(ps_within32, {len(ends)}, ps_at_or_below(ps_table32[at], key), __u32 key)"
        case 48:
            kind, cells = "__u64", [f"{end:#x}ULL," for end in ends]
            search = f"PS_SEARCH(ps_within48, {len(ends)}, ps_at_or_below(ps_table48[at], key), __u64 key)"
        case _:
            kind, cells = "__u64", [f"{end >> 64:#x}ULL, {end & (1 << 64) - 1:#x}ULL," for end in ends]
            search = (
                f"PS_SEARCH(ps_within128, {len(ends)}, "
                "ps_at_or_below128(&ps_table128[2 * at], high, low), __u64 high, __u64 low)"
            )
    rows = ["\t" + " ".join(cells[at : at + 8]) for at in range(0, len(cells), 8)]
    return [f"static const {kind} ps_table{width}[] = {{", *rows, "};", search]
