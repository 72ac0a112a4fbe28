"""Comparisons of one small field, as the set of its values that satisfy them.

`tcp.flags & 18 == 2` and `ttl < 5` are arithmetic in the rule set; a field of at
most 8 bits has so few values that trying them all is the simplest proof of what
such a comparison says.  Wider fields are understood when compared directly.

>>> from penstock.compiler.ir.ops import Binary, Compare, FieldRef, FieldTerm, Literal32
>>> flags = Binary("&", FieldTerm(FieldRef("tcp.flags")), Literal32(18))
>>> compared(Compare("==", flags, Literal32(18)))[1].size()
64
"""

from __future__ import annotations

from penstock.compiler.ir.ops import Binary, Compare, FieldRef, FieldTerm, Literal32, Read, Term
from penstock.model.net import IntervalSet

_WORD = 0xFFFF_FFFF
_SMALL_BITS = 8
_SWAPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


def compared(condition: Compare) -> tuple[FieldRef, IntervalSet] | None:
    """(field, values) so that the comparison holds exactly when the field is there with one of the values, if any."""
    fields = _fields(condition.left) | _fields(condition.right)
    if len(fields) != 1 or None in fields:
        return None
    (ref,) = fields
    assert ref is not None
    if ref.field.bits <= _SMALL_BITS:
        return ref, IntervalSet.single(
            *(value for value in range(1 << ref.field.bits) if _holds(condition, value))
        )
    return _direct(condition, ref)


def _fields(term: Term) -> set[FieldRef | None]:
    """The fields of a term; None stands for packet bytes."""
    match term:
        case Literal32():
            return set()
        case FieldTerm(ref):
            return {ref}
        case Read():
            return {None}
        case Binary(_, left, right):
            return _fields(left) | _fields(right)


def _direct(condition: Compare, ref: FieldRef) -> tuple[FieldRef, IntervalSet] | None:
    match condition.left, condition.right:
        case FieldTerm(), Literal32(value):
            return ref, _range(condition.operator, value, ref.field.bits)
        case Literal32(value), FieldTerm():
            return ref, _range(_SWAPPED[condition.operator], value, ref.field.bits)
    return None


def _range(operator: str, value: int, bits: int) -> IntervalSet:
    domain = IntervalSet.full(bits)
    below = IntervalSet.of((0, value - 1)) if value else IntervalSet()
    up_to = IntervalSet.of((0, value))
    chosen = {
        "<": below,
        "<=": up_to,
        ">": domain - up_to,
        ">=": domain - below,
        "==": IntervalSet.single(value),
        "!=": domain - IntervalSet.single(value),
    }
    return chosen[operator] & domain


def _holds(condition: Compare, value: int) -> bool:
    left, right = _value(condition.left, value), _value(condition.right, value)
    if left is None or right is None:
        return False
    order = (left > right) - (left < right)
    chosen = {
        "<": order < 0,
        "<=": order <= 0,
        ">": order > 0,
        ">=": order >= 0,
        "==": order == 0,
        "!=": order != 0,
    }
    return chosen[condition.operator]


def _value(term: Term, value: int) -> int | None:
    match term:
        case Literal32(number):
            return number
        case FieldTerm():
            return value
        case Binary(operator, first, second):
            left, right = _value(first, value), _value(second, value)
            return None if left is None or right is None else _arithmetic(operator, left, right)
        case Read():
            return None


def _arithmetic(operator: str, left: int, right: int) -> int | None:
    if operator in "/%" and right == 0:
        return None
    match operator:
        case "+":
            return left + right & _WORD
        case "-":
            return left - right & _WORD
        case "*":
            return left * right & _WORD
        case "/":
            return left // right
        case "%":
            return left % right
        case "&":
            return left & right
        case "|":
            return left | right
        case "^":
            return left ^ right
        case "<<":
            return left << right & _WORD if right < 32 else 0
        case _:
            return left >> right if right < 32 else 0
