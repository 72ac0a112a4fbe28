"""Print a syntax tree: one node a line, its operands indented below it.

    filter edge at xdp
      rule drop `dns`
        and
          udp dst port: Number 53
          not
            src net: Constant office

A chain of one operator is one node with all its operands, so depth on paper is
nesting in the text.
"""

from __future__ import annotations

from collections.abc import Iterator

from penstock.compiler.lang.ast import (
    And,
    Expr,
    Filter,
    Given,
    Inner,
    Item,
    Leaf,
    Let,
    Not,
    Or,
    PacketTest,
    Policy,
    Primitive,
    Rule,
    SetDefinition,
    Step,
    Test,
    Value,
    Xor,
)
from penstock.compiler.lang.format import set_line
from penstock.compiler.lang.spelling import Joined, spell_leaf, spell_qualifiers, spell_value
from penstock.model.packet import format_packet


def dump(policy: Policy) -> str:
    """The tree of a whole policy."""
    return "".join(f"{line}\n" for item in policy.items for line in _item(item))


def dump_expression(expr: Expr | None) -> str:
    """The tree of an expression; `everything` for None."""
    lines = ["everything"] if expr is None else _expression(expr)
    return "".join(f"{line}\n" for line in lines)


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


def _item(item: Item) -> Iterator[str]:
    match item:
        case Let(name=name, values=values):
            yield f"let {name}"
            yield from _indented(_value(value) for value in values)
        case SetDefinition():
            yield set_line(item)
        case Filter():
            yield from _filter(item)
        case Test():
            yield from _test(item)


def _filter(item: Filter) -> Iterator[str]:
    yield f"filter {item.name} at {item.hook}"
    if item.default is not None:
        yield f"  default {item.default.value}"
    for entry in item.conditions:
        yield f"  on {entry.condition.word} {entry.verdict.value if entry.verdict else 'continue'}"
    for rule in item.rules:
        yield from _indented(_rule(rule))


def _rule(rule: Rule) -> Iterator[str]:
    yield f"rule {rule.doing}" + (f" `{rule.label}`" if rule.label else "")
    if rule.condition is not None:
        yield from _indented(_expression(rule.condition))


def _test(item: Test) -> Iterator[str]:
    yield f"test {item.title!r}" + (f" for {item.filter}" if item.filter else "")
    for step in item.steps:
        yield from _indented(_step(step))


def _step(step: Step) -> Iterator[str]:
    if isinstance(step, Given):
        yield f"with @{step.set}: " + (repr(step.path) if step.path else ", ".join(step.entries))
        return
    expect = step.expect
    share = "" if expect.comparison is None else f" {expect.comparison} {expect.percent:g}%"
    wanted = f"{expect.verdict.value}{f' by {expect.rule}' if expect.rule else ''}{share}"
    if isinstance(step, PacketTest):
        yield f"packet {format_packet(step.layers)} -> {wanted}"
        return
    yield f"pcap {step.path!r} -> {wanted}"
    if step.condition is not None:
        yield from _indented(_expression(step.condition))


def _expression(expr: Expr) -> Iterator[str]:
    match expr:
        case And() | Or() | Xor():
            yield type(expr).__name__.lower()
            for operand in _chain(expr):
                yield from _indented(_expression(operand))
        case Not(operand=operand) | Inner(operand=operand):
            yield type(expr).__name__.lower()
            yield from _indented(_expression(operand))
        case _:
            yield _leaf(expr)


def _chain(joined: Joined) -> list[Expr]:
    """The operands of a chain of one operator, from left to right."""
    operands: list[Expr] = []
    node: Expr = joined
    while isinstance(node, And | Or | Xor) and type(node) is type(joined):
        operands.append(node.right)
        node = node.left
    return [node, *reversed(operands)]


def _leaf(leaf: Leaf) -> str:
    if isinstance(leaf, Primitive):
        inherited = " (inherited)" if leaf.inherited else ""
        return f"{spell_qualifiers(leaf.qualifiers)}{inherited}: {_value(leaf.value)}"
    return f"{type(leaf).__name__}: {spell_leaf(leaf)}"


def _value(value: Value) -> str:
    return f"{type(value).__name__} {spell_value(value)}"
