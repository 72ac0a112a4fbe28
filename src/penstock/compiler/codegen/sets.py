"""Sets in C: a map for each family of their keys, and the functions that ask them.

    set threats : net size 1M        ->  ps_set0_v4, ps_set0_v6, ps_set0_control
    src in @threats                  ->  (ps_in_set0_v4(s[0].addr_src, len) || ps_in_set0_v6(s[0].ip6_src, len))

A part that the packet does not have is outside its domain, as everywhere, and
the answer is no without a lookup.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from penstock.compiler.codegen.writer import comment
from penstock.model.sets import SetSpec, control_map, set_map

#: Members of a part in a key, from the number or the address that was read, and whether it is there.
_PARTS = {
    4: (("__be32 {p};",), ("key.{p} = ps_htonl({p});",), "{p} > 0xffffffffULL", "__u64 {p}"),
    16: (
        ("__be64 {p}_hi, {p}_lo;",),
        ("key.{p}_hi = ps_htonll({p}.hi);", "key.{p}_lo = ps_htonll({p}.lo);"),
        "!{p}.present",
        "struct ps_ip6 {p}",
    ),
    2: (("__be16 {p};",), ("key.{p} = ps_htons({p});",), "{p} > 0xffff", "__u32 {p}"),
    1: (("__u8 {p};",), ("key.{p} = {p};",), "{p} > 0xff", "__u32 {p}"),
    6: (
        ("__be32 {p}_hi;", "__be16 {p}_lo;"),
        ("key.{p}_hi = ps_htonl({p} >> 16);", "key.{p}_lo = ps_htons({p});"),
        "{p} > 0xffffffffffffULL",
        "__u64 {p}",
    ),
}


def set_lines(sets: Sequence[SetSpec]) -> Iterator[str]:
    """The maps of the sets and the functions that ask them; nothing without sets."""
    if not sets:
        return
    yield "#include <penstock/set.bpf.h>"
    for number, spec in enumerate(sets):
        yield ""
        yield comment(f"@{spec.name}: {' . '.join(spec.kind)}")
        yield f"PS_SET_CONTROL({control_map(number)});"
        for family in spec.families:
            yield from _map_lines(spec, number, family)
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
    for part, size in _sizes(spec, family):
        yield from (f"\t{member.format(p=part)}" for member in _PARTS[size][0])
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


def _sizes(spec: SetSpec, family: str) -> list[tuple[str, int]]:
    return [(f"p{at}", size) for at, size in enumerate(spec.part_bytes(family))]


def _function_lines(spec: SetSpec, number: int, family: str) -> Iterator[str]:
    name, parts = set_map(number, family), _sizes(spec, family)
    arguments = ", ".join(_PARTS[size][3].format(p=part) for part, size in parts)
    absent = " || ".join(_PARTS[size][2].format(p=part) for part, size in parts)
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
        yield from (f"\t{line.format(p=part)}" for line in _PARTS[size][1])
    yield f"\tentry = bpf_map_lookup_elem(&{name}, &key);"
    yield f"\tif (!entry || !ps_set_holds(entry->state, &{control_map(number)}))"
    yield "\t\treturn false;"
    if spec.counters:
        yield "\tps_set_count(&entry->packets, len);"
    yield "\treturn true;"
    yield "}"
