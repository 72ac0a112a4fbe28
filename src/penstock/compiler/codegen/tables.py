"""Print a classifier's tables and steps as C: one struct of arrays, one function.

In: a `Classifier` and how the C around it reads the fields of a packet.  Out:
text for one translation unit.  The function gives the lowest matching rule plus
one, or 0; the arrays are global data (`.bss`), which the loader fills, so look-ups
need no helper call and the tables' size costs the verifier nothing.

    struct ps_tables { __u32 f_addr_src_first[65537]; … } ps_tables;
    static __always_inline __u32 ps_classify(const struct ps_tuple *t) { … }

What the verifier wants is written once, in `_PRELUDE`: an index passes through
`ps_at` so that clang cannot reason about it, then is compared with the array's
length; sign bits are shifted out logically behind a barrier, because clang turns
them back into branches and each branch doubles the verifier's paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from penstock.compiler.classifier.tables import LANES, Classifier, Family, Table, WideLookup, place
from penstock.compiler.codegen.table_bits import bit_functions
from penstock.compiler.codegen.table_groups import cell_lines, group_lines, scan_lines
from penstock.compiler.codegen.table_lookups import lookup_lines
from penstock.compiler.ir.ops import FieldRef

_TYPES = {1: "__u8", 2: "__u16", 4: "__u32", 8: "__u64"}
"""By the elements' size in bytes."""

_PRELUDE = """
#ifndef PS_TABLES
#define PS_TABLES
#define PS_LANE_TOPS 0x8000800080008000ULL
#define PS_FIRST_LANE_TOPS 0x0000800080008000ULL
#define PS_LANE_ONES 0x0001000100010001ULL
#define ps_opaque_value(x) asm volatile("" : "+r"(x))

/* A number, always 0, that the verifier knows nothing of. */
volatile __u64 ps_any;

/* The lesser of x and `most` for x, without a way on which the verifier knows it: guarding, it refuses such sums. */
#define ps_clamp(x, most) \\
    do { \\
        (x) ^= ps_any; \\
        ps_opaque_value(x); \\
        (x) ^= ps_any; \\
        __u64 over = (most) - (x); \\
        ps_opaque_value(over); \\
        (x) += over & (0 - (over >> 63)); \\
        ps_opaque_value(x); \\
        if ((x) > (most)) return 0; \\
    } while (0)

/* x, of which the verifier knows no more than of `any`: else it follows what comes once for each way to here. */
static __always_inline __u64 ps_forget(__u64 x, __u64 any)
{
    x ^= any;
    ps_opaque_value(x);
    return x ^ any;
}

/* Lanes of 16 bits: the top bit of each lane says x >= y. */
static __always_inline __u64 ps_lanes_ge(__u64 x, __u64 y)
{
    __u64 d = (x | PS_LANE_TOPS) - (y & ~PS_LANE_TOPS);
    return ((x & ~y) | (~(x ^ y) & d)) & PS_LANE_TOPS;
}

/* Which of a bucket's eight runs holds `low`: the number of starts at or below it, minus one. */
static __always_inline __u64 ps_bucket_run(__u64 first, __u64 second, __u64 low)
{
    __u64 x = low * PS_LANE_ONES;
    __u64 n = (ps_lanes_ge(x, first) >> 15) + (ps_lanes_ge(x, second) >> 15);
    n = ((n * PS_LANE_ONES) >> 48) - 1;
    ps_opaque_value(n);
    return n & 7;
}

#define ps_fits(packet, low, high, tops) \\
    (((((packet) | PS_LANE_TOPS) - (low)) & ((high) - (packet)) & (tops)) == (tops))

/* 0 if in every lane low <= packet <= high; below 2^63 otherwise.  High has its lanes' top bits set. */
static __always_inline __u64 ps_misses(__u64 packet, __u64 low, __u64 high, __u64 tops)
{
    return ((((packet | PS_LANE_TOPS) - low) & (high - packet) & tops) ^ tops) >> 15;
}

/* 0 if the low half of `value` is in the range: its first value, and above it the last minus the first; else 1. */
static __always_inline __u64 ps_outside(__u64 value, __u64 range)
{
    __u64 d = (range >> 32) - ((value - range) & 0xffffffff);
    ps_opaque_value(d);
    return d >> 63;
}

/* The low half is a field of 32 bits; all ones if there is none, which anything in the upper half says. */
static __always_inline __u64 ps_all_ones_if_absent(__u64 value)
{
    __u64 absent = 0 - (value >> 32);
    ps_opaque_value(absent);
    return value | (0 - (absent >> 63));
}

/* The lower of `best` and the rule before `found`, which is 0 for no rule; both below 2^32. */
static __always_inline __u64 ps_lower(__u64 best, __u64 found)
{
    __u64 d = ((found - 1) & 0xffffffff) - best, is_lower = d;
    ps_opaque_value(is_lower);
    is_lower >>= 63;
    return best + (d & (0 - is_lower));
}

/* The same of numbers below 2^63, for a step of 1 << shift: one subtraction tells. */
static __always_inline __u64 ps_step_if_le63(__u64 key, __u64 x, __u64 shift)
{
    __u64 d = x - key;
    ps_opaque_value(d);
    d >>= 63;
    ps_opaque_value(d);
    return (d ^ 1) << shift;
}

/* `step` if key <= x, else 0, without a branch. */
static __always_inline __u64 ps_step_if_le(__u64 key, __u64 x, __u64 step)
{
    __u64 borrow = (~x & key) | ((~x | key) & (x - key));
    ps_opaque_value(borrow);
    borrow >>= 63;
    return (borrow - 1) & step;
}
#endif
"""


@dataclass(frozen=True, slots=True)
class Access:
    """How C reads a packet's fields, in host order.

    `parameter` declares the classifier's argument.  `scalars` are unsigned
    expressions, at or above ``1 << bits`` when the packet lacks the field: of a
    32-bit field therefore 64 bits wide.  `wides` are (upper half, lower half, is present) of 128-bit
    fields.  `predicate` is a format with `{number}`: whether that opaque predicate
    holds, which of number 0 is true and of a number that no predicate has false.
    It should have no branches that the verifier follows: a call of a global function.
    """

    parameter: str
    scalars: Mapping[FieldRef, str]
    wides: Mapping[FieldRef, tuple[str, str, str]] = field(default_factory=dict)
    predicate: str = "0"


def classifier_source(classifier: Classifier, name: str, access: Access) -> str:
    """The struct of tables (variable ``{name}_tables``), the functions, and ``{name}`` itself."""
    tables = f"{name}_tables"
    lines = [*_struct(classifier, name), _PRELUDE]
    for family in classifier.families:
        lines += scan_lines(family, f"{name}_{family.prefix}", tables)
        lines += bit_functions(family, f"{name}_{family.prefix}", tables)
    lines += [f"static __always_inline __u32 {name}({access.parameter})", "{", "    __u64 best = 0xffffffff;"]
    if classifier.other is None:
        lines += _family_lines(classifier.main, name, tables, access)
    else:
        present = " || ".join(f"({access.wides[ref][2]})" for ref in classifier.distinguishing)
        lines += [f"    if ({present}) {{", *_family_lines(classifier.other, name, tables, access)]
        lines += ["    } else {", *_family_lines(classifier.main, name, tables, access), "    }"]
    lines += ["    return best + 1;", "}"]
    return "\n".join(lines) + "\n"


def _struct(classifier: Classifier, name: str) -> Iterator[str]:
    yield f"struct {name}_tables {{"
    for table in classifier.tables:
        yield f"    {_TYPES[table.data.itemsize]} {table.name}[{len(table.data)}] __attribute__((aligned(64)));"
    yield "};"
    yield f"struct {name}_tables {name}_tables __attribute__((aligned(64)));"


def image(classifier: Classifier) -> bytearray:
    """The bytes of the struct that `classifier_source` declares, to be copied into the global data."""
    data = bytearray(classifier.bytes)
    for table, offset in zip(classifier.tables, offsets(classifier.tables), strict=True):
        data[offset : offset + table.bytes] = np.ascontiguousarray(table.data).tobytes()
    return data


def offsets(tables: tuple[Table, ...]) -> list[int]:
    """Where each array lies in the struct."""
    found, at = [], 0
    for table in tables:
        found.append(at)
        at += -(-table.bytes // 64) * 64
    return found


def _classes(family: Family, tables: str, access: Access) -> Iterator[str]:
    """The leading fields' classes.  Two searches are printed in step, so that the CPU waits for both loads at once."""
    found = [
        list(lookup_lines(view.lookup, f"class{number}", tables, access.scalars, access.wides))
        for number, view in enumerate(family.views)
    ]
    searched = [view.lookup.steps + 1 for view in family.views if isinstance(view.lookup, WideLookup)]
    together = min(searched) if len(searched) == 2 else 0
    for lines in zip(*(part[:together] for part in found), strict=True):
        yield from lines
    for part in found:
        yield from part[together:]


def _words_of_views(family: Family) -> int:
    """How many words hold the numbers that are read here; chunks of bits read theirs where they are asked."""
    bits = family.bits
    slots = len(family.groups) if bits is None or bits.chunks == 1 else bits.slot
    return -(-slots // LANES)


def _pair_lines(family: Family, access: Access) -> Iterator[str]:
    """Both leading fields in one word; absent is the greatest value."""
    for number, view in enumerate(family.views):
        yield f"    __u64 value{number} = ps_all_ones_if_absent({access.scalars[view.lookup.ref]});"
    yield "    __u64 pair = (value0 & 0xffffffff) | value1 << 32;"


def _family_lines(family: Family, name: str, tables: str, access: Access) -> Iterator[str]:
    yield "    {"
    yield from _classes(family, tables, access)
    for number, view in enumerate(family.views):
        if view.table is not None:
            yield f"    __u64 at{number} = class{number} * {view.stride};"
            yield f"    ps_opaque_value(at{number});"
            yield f"    if (at{number} > {len(view.table.data) - view.stride}) return 0;"
            for word in range(_words_of_views(family)):
                yield f"    __u64 view{number}_{word} = {tables}.{view.table.name}[at{number} + {word}];"
    for lane, lookup in enumerate(family.lanes):
        yield from lookup_lines(lookup, f"lane{lane}", tables, access.scalars, access.wides)
    for word in range(family.words if family.records or family.ranges or family.bits else 0):
        parts = [
            f"lane{lane} << {16 * at}"
            for lane in range(len(family.lanes))
            for at in [place(lane)[1]]
            if place(lane)[0] == word
        ]
        yield f"    __u64 packet{word} = " + (" | ".join(parts) or "0") + ";"
    if family.ranges is not None:
        yield from _pair_lines(family, access)
    yield from cell_lines(family, tables)
    for number, group in enumerate(family.groups):
        yield from group_lines(family, number, group, f"{name}_{family.prefix}", tables, access.predicate)
    yield "    }"
