"""A diagram to look at: as indented text, or as Graphviz source for a picture.

    dport ── 53 ──▶ proto ── 17 ──▶ rule 0
          └─ else ─▶ default

Nodes that ask nothing (one edge) are left out, as in emitted code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address

from penstock.compiler.diagram.node import Diagram, Terminal
from penstock.compiler.ir.ops import FieldRef
from penstock.model.net import IntervalSet

Label = Callable[[Terminal], str]
MAX_INTERVALS = 4


def rule_label(terminal: Terminal) -> str:
    """``rule 3``, ``rule 3 if opaque 1, else rule 7``, ``default``."""
    parts = [f"rule {rule} if opaque {opaque}" if opaque else f"rule {rule}" for rule, opaque in terminal]
    if not terminal or terminal[-1][1]:
        parts.append("default")
    return ", else ".join(parts)


def field_label(ref: FieldRef) -> str:
    """A field's name, with the tag's depth where it has one."""
    return f"{ref.name}[{ref.index}]" if ref.index else ref.name


def values_label(ref: FieldRef, held: IntervalSet) -> str:
    """Values as a reader would write them; ``absent`` for packets without the field."""
    bits = ref.field.bits
    words = [_range(ref, low, high, bits) for low, high in held.intervals[:MAX_INTERVALS]]
    more = len(held.intervals) - MAX_INTERVALS
    return ", ".join(words) + (f", {more} more" if more > 0 else "")


def _range(ref: FieldRef, low: int, high: int, bits: int) -> str:
    absent = 1 << bits
    if high == absent:
        return "anything" if low == 0 else "absent" if low == absent else f"{_value(ref, low)} and up, absent"
    return _value(ref, low) if low == high else f"{_value(ref, low)}-{_value(ref, high)}"


def _value(ref: FieldRef, value: int) -> str:
    if ref.name in ("addr.src", "addr.dst", "ip.src", "ip.dst"):
        return str(IPv4Address(value))
    return str(IPv6Address(value)) if ref.field.bits == 128 else str(value)


def text(diagram: Diagram, label: Label = rule_label) -> Iterator[str]:
    """The diagram's lines, nodes of one level together, numbered ``field.number``."""
    for depth, level in enumerate(diagram.levels):
        name = field_label(level.axis.ref)
        for node in range(level.nodes):
            if depth and level.ptr[node + 1] - level.ptr[node] == 1:
                continue
            yield f"{name}.{node}"
            for child, held in level.children(node).items():
                yield f"    {values_label(level.axis.ref, held):<40} -> {_target(diagram, depth + 1, child, label)}"


def _target(diagram: Diagram, depth: int, node: int, label: Label) -> str:
    depth, node = diagram.asking(depth, node)
    if depth == len(diagram.levels):
        return label(diagram.terminals[node])
    return f"{field_label(diagram.levels[depth].axis.ref)}.{node}"


def graphviz(diagram: Diagram, label: Label = rule_label) -> Iterator[str]:
    """The diagram in Graphviz's language (``dot -Tsvg``)."""
    yield from digraph([("", diagram, label)])


def digraph(parts: Sequence[tuple[str, Diagram, Label]]) -> Iterator[str]:
    """Several diagrams in one picture, each in a frame with its title (none if that is empty)."""
    yield "digraph diagram {"
    yield "    rankdir=LR; node [fontname=monospace]; edge [fontname=monospace, fontsize=10];"
    for number, (title, diagram, label) in enumerate(parts):
        if title:
            yield f"    subgraph cluster{number} {{ label={quoted(title)};"
        yield from _statements(diagram, label, f"n{number}_")
        if title:
            yield "    }"
    yield "}"


def _statements(diagram: Diagram, label: Label, prefix: str) -> Iterator[str]:
    todo, seen = [diagram.asking(0, 0)], set()
    while todo:
        depth, node = todo.pop()
        if (depth, node) in seen:
            continue
        seen.add((depth, node))
        name = f"{prefix}{depth}_{node}"
        if depth == len(diagram.levels):
            yield f"    {name} [shape=box, label={quoted(label(diagram.terminals[node]))}];"
            continue
        level = diagram.levels[depth]
        yield f"    {name} [label={quoted(field_label(level.axis.ref))}];"
        for child, held in level.children(node).items():
            target = diagram.asking(depth + 1, child)
            todo.append(target)
            values = quoted(values_label(level.axis.ref, held))
            yield f"    {name} -> {prefix}{target[0]}_{target[1]} [label={values}];"


def quoted(words: str) -> str:
    """A string of Graphviz's language: no escape sequence, line or quote of the text survives as such."""
    plain = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in words)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
