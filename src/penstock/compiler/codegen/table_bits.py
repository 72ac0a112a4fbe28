"""Print bit vectors as C: what a packet's rows of a chunk have in common, chunk after chunk.

In: a family's `BitGroup`.  Out: global functions, which the verifier follows
once each and not where they are called, and the lines that call them:

    …_all     every 8 chunks a call, where there are more
    …_bits    8 chunks, until one has an answer or begins behind what is known already
    …_chunk   the rule plus one of the first box that the rows have in common

So the verifier's work is a few hundred instructions for a thousand boxes, and
twelve for each further eight thousand.
"""

from __future__ import annotations

from collections.abc import Iterator

from penstock.compiler.classifier.tables import LANES, BitGroup, Family, View, place
from penstock.compiler.codegen.table_lookups import checked
from penstock.compiler.diagram.order import MAX_LANE

CHUNKS = 8
#: A class of the views has so many bits in an argument; the first chunk has those above two classes.
CLASS_BITS = 24
#: With so many words of lanes a function of five arguments has room for what is known already.
MOST_WORDS_AND_BEST = 3


def bit_functions(family: Family, name: str, tables: str) -> Iterator[str]:
    """The functions for a family's bit vectors; none if it has none."""
    group = family.bits
    if group is None:
        return
    yield from _chunk_function(family, group, name, tables)
    if group.chunks > 1:
        yield from _bits_function(family, group, name, tables)
    if group.chunks > CHUNKS:
        yield from _all_function(family, group, name)


def bit_lines(family: Family, group: BitGroup, name: str, local: list[str]) -> Iterator[str]:
    """Lines that lower `best`; `local` are the numbers in the group's first slot."""
    if group.chunks == 1:
        numbers = " | ".join(f"({number}) << {16 * at}" for at, number in enumerate(local)) or "0"
        yield f"    __u64 found = {name}_chunk({', '.join([numbers, *_words(family)])});"
    else:
        function = f"{name}_all" if group.chunks > CHUNKS else f"{name}_bits"
        classes = " | ".join(f"class{at} << {CLASS_BITS * at}" for at in range(group.leading)) or "0"
        yield f"    __u64 found = {function}({', '.join([classes, *_words(family), *_best(family)])});"
    yield "    best = ps_lower(best, found);"


def _words(family: Family) -> list[str]:
    return [f"packet{word}" for word in range(family.words)]


def _best(family: Family) -> list[str]:
    return ["best"] if family.words <= MOST_WORDS_AND_BEST else []


def _signature(function: str, arguments: list[str]) -> str:
    parameters = ", ".join(f"__u64 {argument}" for argument in arguments)
    return f"__attribute__((noinline)) __u32 {function}({parameters})"


def _chunk_function(family: Family, group: BitGroup, name: str, tables: str) -> Iterator[str]:
    """Each axis's row is found before any is read, so that the CPU waits for all of them at once."""
    yield _signature(f"{name}_chunk", ["locals", *_words(family)])
    yield "{"
    yield "    __u64 chunk = locals >> 32;"
    yield from checked("chunk", group.chunks - 1)
    yield f"    const __u32 *first = &{tables}.{group.first.name}[chunk * {group.axes}];"
    for at in range(group.leading):
        yield f"    __u64 row{at} = (locals >> {16 * at} & 0xffff) + first[{at}];"
    for lane in range(group.lanes):
        word, within = place(lane)
        at = group.leading + lane
        rank = f"(packet{word} >> {16 * within} & {MAX_LANE})"
        yield f"    __u64 row{at} = {tables}.{group.begin.name}[chunk * {group.lanes} + {lane}] + {rank};"
        yield from checked(f"row{at}", len(group.classes.data) - 1)
        yield f"    row{at} = {tables}.{group.classes.name}[row{at}] + first[{at}];"
    for at in range(group.axes):
        yield f"    row{at} *= {group.words};"
        yield from checked(f"row{at}", len(group.rows.data) - group.words)
        yield f"    const __u64 *bits{at} = &{tables}.{group.rows.name}[row{at}];"
    common = " & ".join(f"bits{at}[w]" for at in range(group.axes))
    yield "#pragma clang loop unroll(full)"
    yield f"    for (int w = 0; w < {group.words}; w++) {{"
    yield f"        __u64 common = {common};"
    yield "        if (common) {"
    yield f"            __u64 box = (chunk * {group.words} + w) * 64 + __builtin_ctzll(common);"
    yield from checked("box", len(group.rules.data) - 1)
    yield f"            return {tables}.{group.rules.name}[box];"
    yield "        }"
    yield "    }"
    yield "    return 0;"
    yield "}"


def _bits_function(family: Family, group: BitGroup, name: str, tables: str) -> Iterator[str]:
    views = family.views[: group.leading]
    yield _signature(f"{name}_bits", ["classes", *_words(family), *_best(family)])
    yield "{"
    yield f"    __u64 chunk = classes >> {2 * CLASS_BITS};"
    for at, view in enumerate(views):
        mask = (1 << CLASS_BITS) - 1
        yield f"    __u64 view{at} = (classes >> {CLASS_BITS * at} & {mask}) * {view.stride};"
    yield f"    for (int i = 0; i < {min(CHUNKS, group.chunks)}; i++, chunk++) {{"
    yield from checked("chunk", group.chunks - 1)
    if _best(family):
        yield f"        if ({tables}.{group.lowest.name}[chunk] >= best) return 0;"
    yield f"        __u64 slot = chunk + {group.slot}, shift = slot % {LANES} * 16;"
    yield f"        __u64 locals = chunk << 32, word = slot / {LANES};"
    for at, view in enumerate(views):
        yield from _local_lines(at, view, tables)
    yield f"        __u32 found = {name}_chunk({', '.join(['locals', *_words(family)])});"
    yield "        if (found) return found;"
    yield "    }"
    yield "    return 0;"
    yield "}"


def _local_lines(at: int, view: View, tables: str) -> Iterator[str]:
    assert view.table is not None
    yield f"        __u64 at{at} = view{at} + word;"
    yield from checked(f"at{at}", len(view.table.data) - 1)
    yield f"        locals |= ({tables}.{view.table.name}[at{at}] >> shift & 0xffff) << {16 * at};"


def _all_function(family: Family, group: BitGroup, name: str) -> Iterator[str]:
    rest = [*_words(family), *_best(family)]
    yield _signature(f"{name}_all", ["classes", *rest])
    yield "{"
    yield f"    for (__u64 chunk = 0; chunk < {group.chunks}; chunk += {CHUNKS}) {{"
    yield f"        __u32 found = {name}_bits({', '.join([f'classes | chunk << {2 * CLASS_BITS}', *rest])});"
    yield "        if (found) return found;"
    yield "    }"
    yield "    return 0;"
    yield "}"
