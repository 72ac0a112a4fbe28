"""Sets that rules change, in C: the maps of what they add, and the functions that ask and change them.

src in @scanners               ->  … || ps_in_set0_v4_added(s[0].addr_src, len)
add src to @scanners for 10m   ->  ps_put_set0_v4(s[0].addr_src, 600000000000ULL);
remove src from @scanners      ->  ps_take_set0_v4(s[0].addr_src);

The functions that change are called, not inlined: they are long, and packets that come to them are few.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from penstock.compiler.codegen.set_parts import PARTS, sizes
from penstock.compiler.ir.evaluate import target_of
from penstock.compiler.ir.ops import Member, Rule, RuleSet
from penstock.model.action import Change
from penstock.model.sets import ADDED, TALLY, TURN, SetSpec, control_of, set_map


def tally_line(number: int) -> str:
    """The tally of a dynamic set."""
    return f"PS_SET_TALLY({set_map(number, TALLY)});"


def added_lines(spec: SetSpec, number: int, family: str) -> Iterator[str]:
    """Of a family the maps and the function that asks."""
    name = set_map(number, f"{family}_{ADDED}")
    value = f"struct ps_set_{'counted' if spec.counters else 'value'}"
    yield f"struct {name}_key {{"
    for part, size in sizes(spec, family):
        yield from (f"\t{member.format(p=part)}" for member in PARTS[size][0])
    if padding := spec.added_bytes(family) - sum(spec.part_bytes(family)):
        yield f"\t__u8 pad[{padding}];"
    yield f"}} __attribute__((packed, aligned({8 if spec.added_bytes(family) % 8 == 0 else 4})));"
    yield f"PS_SET_MAP({name}, BPF_MAP_TYPE_HASH, {spec.size}, BPF_F_NO_PREALLOC, {value});"
    yield f"PS_SET_TURNS({set_map(number, f'{family}_{TURN}')}, {spec.turns}, struct {name}_key);"
    yield f"static __always_inline bool ps_in_{name.removeprefix('ps_')}({_arguments(spec, family)}, __u32 len)"
    yield "{"
    yield f"\tstruct {name}_key key = {{}};"
    yield f"\t{value} *entry;"
    yield ""
    yield f"\tif (!ps_set_any(&{set_map(number, TALLY)}, {spec.families.index(family)}))"
    yield "\t\treturn false;"
    yield from _filled(spec, family)
    yield f"\tentry = bpf_map_lookup_elem(&{name}, &key);"
    yield "\tif (!entry || !ps_set_lives(entry->state))"
    yield "\t\treturn false;"
    if spec.counters:
        yield "\tps_set_count(&entry->packets, len);"
    yield "\treturn true;"
    yield "}"


def change_functions(rule_set: RuleSet) -> Iterator[str]:
    """The functions by which rules change sets."""
    wanted = {
        (member.set, member.bits, rule.argument.adds)
        for rule in rule_set.rules
        if rule.target is not None and isinstance(rule.argument, Change)
        for member in target_of(rule.target)[1]
    }
    for name, bits, adds in sorted(wanted):
        number = _number(rule_set.sets, name)
        spec = rule_set.sets[number]
        family = spec.family_of(bits)
        yield ""
        yield from (_put_lines if adds else _take_lines)(spec, number, family)


def change_call(sets: Sequence[SetSpec], member: Member, change: Change, fields: str) -> str:
    """The statement that changes a set for a packet's key."""
    number = _number(sets, member.set)
    spec = sets[number]
    where = set_map(number, spec.family_of(member.bits)).removeprefix("ps_")
    if not change.adds:
        return f"ps_take_{where}({fields});"
    stay = change.stay_ns if change.stay_ns is not None else spec.timeout_ns or 0
    return f"ps_put_{where}({fields}, {stay}ULL);"


def words_of(rule: Rule) -> int:
    """About how many 64-bit words a rule that changes a set keeps on the stack."""
    return sum(4 + len(member.keys) for member in target_of(rule.target)[1]) if rule.target else 0


def _number(sets: Sequence[SetSpec], name: str) -> int:
    return next(number for number, spec in enumerate(sets) if spec.name == name)


def _put_lines(spec: SetSpec, number: int, family: str) -> Iterator[str]:
    name = set_map(number, f"{family}_{ADDED}")
    where = set_map(number, family).removeprefix("ps_")
    value = f"struct ps_set_{'counted' if spec.counters else 'value'}"
    yield f"static __noinline int ps_put_key_{where}(const struct {name}_key *key, __u64 stay)"
    yield "{"
    yield f"\tstruct {name}_key spare = {{}};"
    yield f"\t{value} value = {{}};"
    yield ""
    yield "\tps_keep(key);"
    yield "\tps_keep(stay);"
    yield f"\tps_set_put({_set(spec, number, family)}, key, (void *)&value, &spare, stay);"
    yield "\treturn 0;"
    yield "}"
    yield ""
    yield f"static __always_inline void ps_put_{where}({_arguments(spec, family)}, __u64 stay)"
    yield from _body(spec, name, family, f"ps_put_key_{where}(&key, stay);")


def _take_lines(spec: SetSpec, number: int, family: str) -> Iterator[str]:
    name = set_map(number, f"{family}_{ADDED}")
    where = set_map(number, family).removeprefix("ps_")
    yield f"static __noinline int ps_take_key_{where}(const struct {name}_key *key)"
    yield "{"
    yield "\tps_keep(key);"
    yield f"\tps_set_take({_set(spec, number, family)}, key);"
    yield "\treturn 0;"
    yield "}"
    yield ""
    yield f"static __always_inline void ps_take_{where}({_arguments(spec, family)})"
    yield from _body(spec, name, family, f"ps_take_key_{where}(&key);")


def _body(spec: SetSpec, name: str, family: str, call: str) -> Iterator[str]:
    absent = " || ".join(PARTS[size][2].format(p=part) for part, size in sizes(spec, family))
    yield "{"
    yield f"\tstruct {name}_key key = {{}};"
    yield ""
    yield f"\tif ({absent})"
    yield "\t\treturn;"
    yield from _filled(spec, family)
    yield f"\t{call}"
    yield "}"


def _set(spec: SetSpec, number: int, family: str) -> str:
    tables = (f"{family}_{ADDED}", f"{family}_{TURN}", TALLY)
    maps = ", ".join(f"&{set_map(number, table)}" for table in tables)
    place = spec.families.index(family)
    return f"(struct ps_set_added){{ {maps}, &{control_of(number)}, {place}, {spec.size} }}"


def _arguments(spec: SetSpec, family: str) -> str:
    return ", ".join(PARTS[size][3].format(p=part) for part, size in sizes(spec, family))


def _filled(spec: SetSpec, family: str) -> Iterator[str]:
    for part, size in sizes(spec, family):
        yield from (f"\t{line.format(p=part)}" for line in PARTS[size][1])
