"""Sets in C: a map for each family of their keys, and the functions that ask them.

    set threats : net size 1M        ->  ps_set0_v4, ps_set0_v6, ps_set0_control
    src in @threats                  ->  (ps_in_set0_v4(s[0].addr_src, len) || ps_in_set0_v6(&s[0].ip6_src, len))

A part that the packet does not have is outside its domain, as everywhere, and
the answer is no without a lookup.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from penstock.compiler.codegen.added import added_lines, tally_line
from penstock.compiler.codegen.flat import flat_function_lines, flat_map_lines
from penstock.compiler.codegen.set_parts import PARTS, sizes
from penstock.compiler.codegen.writer import comment
from penstock.model.sets import ADDED, SetSpec, control_of, set_map


def set_lines(sets: Sequence[SetSpec]) -> Iterator[str]:
    """The maps of the sets and the functions that ask them; nothing without sets."""
    if not sets:
        return
    yield "#include <penstock/set.bpf.h>"
    if any(spec.dynamic for spec in sets):
        yield "#include <penstock/added.bpf.h>"
    if any(spec.is_flat for spec in sets):
        yield "#include <penstock/flat.bpf.h>"
    for number, spec in enumerate(sets):
        yield ""
        yield comment(f"@{spec.name}: {' . '.join(spec.kind)}")
        yield f"PS_SET_CONTROL(ps_set{number});"
        if spec.dynamic:
            yield tally_line(number)
        if spec.is_flat:
            yield from flat_map_lines(spec, number)
        for family in spec.families:
            if spec.dynamic:
                yield from added_lines(spec, number, family)
            yield from _map_lines(spec.timed, number, family)
            if spec.is_flat:
                yield from flat_function_lines(spec, number, family)
            else:
                yield from _function_lines(spec, number, family)


def function_of(sets: Sequence[SetSpec], name: str, bits: int) -> str:
    """The C function that asks a set for keys of a family."""
    number = next(number for number, spec in enumerate(sets) if spec.name == name)
    return f"ps_in_{set_map(number, sets[number].family_of(bits)).removeprefix('ps_')}"


def _map_lines(spec: SetSpec, number: int, family: str) -> Iterator[str]:
    name, is_trie = set_map(number, family), spec.structure == "trie"
    yield f"struct {name}_key {{"
    if is_trie:
        yield "\t__u32 length;"
    for part, size in sizes(spec, family):
        yield from (f"\t{member.format(p=part)}" for member in PARTS[size][0])
    # Told, because what a compiler leaves between members is not always 0, and the kernel compares it.
    if padding := spec.key_bytes(family) - sum(spec.part_bytes(family)) - 4 * is_trie:
        yield f"\t__u8 pad[{padding}];"
    # Aligned, or every store into it would be one of single bytes.
    yield f"}} __attribute__((packed, aligned({8 if spec.key_bytes(family) % 8 == 0 else 4})));"
    kind = "BPF_MAP_TYPE_LPM_TRIE" if is_trie else "BPF_MAP_TYPE_HASH"
    yield f"PS_SET_MAP({name}, {kind}, {spec.room}, BPF_F_NO_PREALLOC, {_value(spec)});"


def _value(spec: SetSpec) -> str:
    shape = "network" if spec.structure == "trie" else ""
    counted = "counted" if spec.counters else ""
    return f"struct ps_set_{'_'.join(filter(None, (shape, counted))) or 'value'}"


def _function_lines(spec: SetSpec, number: int, family: str) -> Iterator[str]:
    name, parts = set_map(number, family), sizes(spec, family)
    arguments = ", ".join(PARTS[size][3].format(p=part) for part, size in parts)
    absent = " || ".join(PARTS[size][2].format(p=part) for part, size in parts)
    yield f"static __always_inline bool ps_in_{name.removeprefix('ps_')}({arguments}, __u32 len)"
    yield "{"
    yield f"\tstruct {name}_key key = {{}};"
    yield f"\t{_value(spec)} *entry;"
    yield ""
    yield f"\tif ({absent})"
    yield "\t\treturn false;"
    if spec.structure == "trie":
        yield f"\tkey.length = {8 * parts[0][1]};"
    for part, size in parts:
        yield from (f"\t{line.format(p=part)}" for line in PARTS[size][1])
    yield f"\tentry = bpf_map_lookup_elem(&{name}, &key);"
    missed = "false"
    if spec.dynamic:
        passed = ", ".join(part for part, _ in parts)
        missed = f"ps_in_{name.removeprefix('ps_')}_{ADDED}({passed}, len)"
    yield f"\tif (!entry || !ps_set_holds(entry->state, &{control_of(number)}))"
    yield f"\t\treturn {missed};"
    if spec.counters:
        yield "\tps_set_count(&entry->packets, len);"
    yield "\treturn true;"
    yield "}"
