"""Rules that are added to a running program: what the program offers them, and such a rule as records.

In: a rule, and where the running program keeps the fields that it parses.  Out:
the conditions of its records, one conjunction each; or the reason why the
overlay cannot say the rule, which is then compiled with the others.

    conjunctions(drop if src host 192.0.2.1, places)   ->  ((addr.src in …, eth.type is 0x800),)

The other half of this module is printed into the program: which fields are
parsed for rules to come, where they lie, and how the stages are tried around
the position of an added rule (bpf/include/penstock/overlay.bpf.h).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

from penstock.compiler.codegen.fields import Reads, c_name
from penstock.compiler.diagram.disjunction import Term, TooManyTermsError, terms
from penstock.compiler.ir.depth import depth_of
from penstock.compiler.ir.ops import FieldRef, Predicate
from penstock.model.field import FIELDS, Layer, is_metadata
from penstock.model.net import IntervalSet
from penstock.model.overlay import CONDITIONS, OFFSETS_VARIABLE, RECORDS, Ask, Condition, span

#: What a program parses for rules to come, whatever its own rules ask for, as deep as it judges packets.
ALWAYS = (
    "len",
    "eth.type",
    "proto",
    "frag",
    "addr.src",
    "addr.dst",
    "ip6.src",
    "ip6.dst",
    "sport",
    "dport",
    "tcp.flags",
    "ttl",
)
#: What lies beside the packet, read when there are added rules.
BESIDE = ("ifindex", "mark")
_TAG_PARTS = {"vlan.id": (0, 0xFFF), "vlan.pcp": (13, 7), "vlan.dei": (12, 1)}
_SMALL_BITS = 8
_HALF = (1 << 64) - 1

Places = Mapping[str, int]
"""Offsets of fields in the parsed packet, by `key_of`."""


class UnsayableError(Exception):
    """The overlay cannot say a rule; the message says why."""


# ── what a program offers ────────────────────────────────────────────────────


def with_offered(reads: Reads, depth: Layer) -> Reads:
    """What the program reads, with what it parses for rules to come."""
    more = {name for name in ALWAYS if FIELDS[name].layer <= depth}
    return replace(reads, fields=reads.fields | more)


def offered(reads: Reads) -> tuple[str, ...]:
    """The keys of the fields that such a program parses."""
    beside = {name for name in reads.fields if is_metadata(name)}
    plain = sorted(name for name in reads.fields - beside if not name.startswith("vlan."))
    has_tags = len(plain) + len(beside) < len(reads.fields)
    plain += BESIDE
    parts = ("vlan.tpid", *_TAG_PARTS) if has_tags else ()
    return (*plain, *(f"{name}/{index}" for name in parts for index in range(reads.tags)))


def key_of(ref: FieldRef) -> str:
    """The name of a field of the frame itself, with the tag's depth where it has one: `vlan.id/0`."""
    return f"{ref.name}/{ref.index}" if ref.name.startswith("vlan.") else ref.name


def offset_lines(keys: Sequence[str]) -> list[str]:
    """The variable that tells where the fields lie, in the order of `keys`."""
    places = (f"\t__builtin_offsetof(struct ps_scratch, {_member(key)})," for key in keys)
    return [f"const __u16 {OFFSETS_VARIABLE}[] = {{", *places, "};"]


def _member(key: str) -> str:
    name, _, index = key.partition("/")
    if name == "len" or name in BESIDE:
        return name
    if index:
        return f"s[0].{'tpid' if name == 'vlan.tpid' else 'tci'}[{index}]"
    return f"s[0].{c_name(name)}"


def overlaid_lines(firsts: Sequence[int], default: str) -> list[str]:
    """The function that calls those of the rules in order around the added rules.

    `firsts` are the slots of their first rules.  What stands behind the added
    rule that fits is not tried.
    """
    calls = [
        line
        for number, first in enumerate(firsts)
        for line in (
            f"\tif (limit > {first}U) {{",
            f"\t\tdecision = ps_rules_{number}(ctx);",
            "\t\tif (decision)",
            "\t\t\tgoto decided;",
            "\t}",
        )
    ]
    return [
        "__noinline __u32 ps_overlaid(struct ps_ctx *ctx, __u32 in_use)",
        "{",
        "\tstruct ps_scratch *scratch = ps_scratch_area();",
        f"\t__u32 limit, decision = {default};",
        "",
        "\tif (!scratch)",
        "\t\treturn decision;",
        "\tlimit = ps_overlay_first(ctx, scratch, in_use);",
        *calls,
        f"\tdecision = {default};",
        "decided:",
        "\treturn ps_overlay_merge(ctx, scratch, in_use, decision);",
        "}",
        "",
    ]


#: What stands before the calls of the rules' functions, for when there are added rules.
OVERLAID_CALL = (
    "\t__u32 in_use = ps_overlay_in_use();",
    "",
    "\tif (unlikely(in_use)) {",
    "\t\tps_unguarded();",
    "\t\treturn ps_overlaid(ctx, in_use);",
    "\t}",
)


# ── a rule as records ────────────────────────────────────────────────────────


def conjunctions(condition: Predicate, places: Places, depth: Layer) -> tuple[tuple[Condition, ...], ...]:
    """The conditions of each of the rule's records; () for a rule that matches nothing.

    `places` and `depth` are those of the running program.

    Raises:
        UnsayableError: it must be compiled.
    """
    if depth_of([condition]) > depth:
        raise UnsayableError("it looks deeper into packets than the running program judges them")
    try:
        found = terms(condition)
    except TooManyTermsError:
        raise UnsayableError("it falls into too many cases") from None
    records = tuple(record for term in found for record in _records(term, places))
    if len(records) > RECORDS:
        raise UnsayableError(f"it takes {len(records)} of the overlay's {RECORDS} records")
    return records


def _records(term: Term, places: Places) -> Iterator[tuple[Condition, ...]]:
    if term.opaque:
        raise UnsayableError("it is no plain test of fields")
    asked = {ref: values for ref, values in term.fields.items() if not _is_everything(ref, values)}
    missing = sorted(key for key in map(key_of, asked) if key not in places)
    if missing:
        raise UnsayableError(f"the running program does not read {', '.join(missing)}")
    if len(asked) > CONDITIONS:
        raise UnsayableError(f"it tests more than {CONDITIONS} fields at once")
    order = sorted(asked, key=lambda ref: asked[ref].size() / (1 << ref.field.bits))
    return product(*(tuple(_conditions(ref, asked[ref], places[key_of(ref)])) for ref in order))


def _is_everything(ref: FieldRef, values: IntervalSet) -> bool:
    return values.intervals == ((0, 1 << ref.field.bits),)


def _conditions(ref: FieldRef, values: IntervalSet, at: int) -> Iterator[Condition]:
    """Conditions of which one holds exactly when the field has one of the values."""
    bits, absent = ref.field.bits, (1 << ref.field.bits) in values
    if ref.name in _TAG_PARTS:
        shift, mask = _TAG_PARTS[ref.name]
        for words in _ranges(values, bits, 32):
            yield Condition(at, Ask.TAG, words, mask=mask, shift=shift)
    elif bits <= _SMALL_BITS:
        yield Condition(at, Ask.BITS, _bitmap(values, bits), absent=absent)
    elif bits == 128:
        for low, high in values:
            yield _wide(at, low, high)
    else:
        width = 64 if bits in (32, 48) and ref.name != "len" else 32
        for words in _ranges(values, bits, width):
            yield Condition(at, Ask.LONG if width == 64 else Ask.WORD, words)


def _ranges(values: IntervalSet, bits: int, width: int) -> Iterator[tuple[int, int, int, int]]:
    """The intervals, two at a time."""
    spans = [span(low, high, bits, width) for low, high in values]
    for at in range(0, len(spans), 2):
        first, second = spans[at], spans[min(at + 1, len(spans) - 1)]
        yield (*first, *second)


def _bitmap(values: IntervalSet, bits: int) -> tuple[int, int, int, int]:
    present = values & IntervalSet.full(bits)
    whole = sum(((1 << high + 1 - low) - 1) << low for low, high in present)
    return whole & _HALF, whole >> 64 & _HALF, whole >> 128 & _HALF, whole >> 192


def _wide(at: int, low: int, high: int) -> Condition:
    """One interval of an IPv6 address; the value behind the last stands for its absence."""
    absent = high >> 128 > 0
    if low >> 128:
        return Condition(at, Ask.WIDE, (1, 0, 0, 0), absent=True)
    high = min(high, (1 << 128) - 1)
    return Condition(at, Ask.WIDE, (low >> 64, low & _HALF, high >> 64, high & _HALF), absent=absent)
