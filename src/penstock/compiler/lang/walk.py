"""Going through expressions without recursion, however long their chains are."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.compiler.lang.ast import (
    Accessor,
    And,
    Arithmetic,
    Binary,
    Expr,
    Inner,
    Leaf,
    Membership,
    Negate,
    Not,
    Or,
    Over,
    Policy,
    Relation,
    Rule,
    Sample,
    Xor,
)

_JOINED = (And, Or, Xor)


def leaves(expr: Expr | None) -> Iterator[Leaf]:
    """Every primitive, relation and flag of an expression, from left to right; `inner(EXPR)` is one of them."""
    pending = [] if expr is None else [expr]
    while pending:
        node = pending.pop()
        if isinstance(node, _JOINED):
            pending += (node.right, node.left)
        elif isinstance(node, Not):
            pending.append(node.operand)
        else:
            yield node


def inner_leaves(expr: Expr | None) -> Iterator[Leaf]:
    """The same, of the expressions in `inner(EXPR)` as well."""
    pending = [expr]
    while pending:
        for leaf in leaves(pending.pop()):
            yield leaf
            if isinstance(leaf, Inner):
                pending.append(leaf.operand)


def keeps_count(expr: Expr | None) -> bool:
    """Whether what an expression says of a packet depends on the packets before it, or on chance."""
    return any(isinstance(leaf, Over | Sample) for leaf in inner_leaves(expr))


def members(expr: Expr | None) -> frozenset[str]:
    """The names of the sets that an expression asks."""
    return frozenset(leaf.set for leaf in inner_leaves(expr) if isinstance(leaf, Membership))


def terms(leaf: Leaf) -> Iterator[Arithmetic]:
    """Every node of the arithmetic of a relation; nothing for other leaves."""
    pending: list[Arithmetic] = [leaf.right, leaf.left] if isinstance(leaf, Relation) else []
    while pending:
        term = pending.pop()
        yield term
        match term:
            case Binary(left=left, right=right):
                pending += [right, left]
            case Negate(operand=inner) | Accessor(offset=inner):
                pending.append(inner)
            case _:
                pass


def conjuncts(expr: Expr) -> list[Expr]:
    """What must all hold for the expression to hold: the operands of its `and` chain, from left to right."""
    return _operands(expr, And)


def alternatives(expr: Expr) -> list[Expr]:
    """What makes the expression hold, each by itself: the operands of its `or` chain, from left to right."""
    return _operands(expr, Or)


def _operands(expr: Expr, joint: type[And | Or]) -> list[Expr]:
    found: list[Expr] = []
    pending = [expr]
    while pending:
        node = pending.pop()
        if isinstance(node, joint):
            pending += (node.right, node.left)
        else:
            found.append(node)
    return found


def chains(expr: Expr) -> Iterator[list[Expr]]:
    """The operands of every `and` chain in the expression, at any depth."""
    pending = [expr]
    while pending:
        node = pending.pop()
        match node:
            case And():
                operands = conjuncts(node)
                yield operands
                pending += operands
            case Or(left=left, right=right) | Xor(left=left, right=right):
                pending += [right, left]
            case Not(operand=operand) | Inner(operand=operand):
                pending.append(operand)
            case _:
                pass


def rules(policy: Policy) -> Iterator[Rule]:
    """The rules of every filter of a policy."""
    for item in policy.filters:
        yield from item.rules
