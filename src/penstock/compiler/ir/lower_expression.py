"""From what was written to what it means: an expression becomes a predicate.

    Expression(lowering).predicate(parsed)      what it means of the frame itself
    Terms(lowering)                             the same, and what each of its terms means

The meaning is pcap-filter's on Ethernet as libpcap 1.10 compiles it, but for the
differences that the language page lists.

`vlan`, `mpls`, `pppoes` and `geneve` move what stands to their right behind
themselves within their own chain of `and`, parenthesised conjunctions included,
and never out of an `or`, `xor` or `not`; `inner(EXPR)` moves EXPR alone:

    vlan 5 and (mpls and ip)         ip is looked for behind the label
    (vlan 5 or arp) and ip           ip is looked for in the frame itself
"""

from __future__ import annotations

from typing import assert_never

from penstock.compiler.ir.depth import nesting_of
from penstock.compiler.ir.lower_address import Addresses
from penstock.compiler.ir.lower_arithmetic import relation
from penstock.compiler.ir.lower_classic import classic
from penstock.compiler.ir.lower_link import at_interface, cast, encapsulation, length, llc, way
from penstock.compiler.ir.lower_port import port
from penstock.compiler.ir.lower_protocol import abbreviation, protocol, protocol_chain
from penstock.compiler.ir.lower_rate import counting
from penstock.compiler.ir.lower_set import membership
from penstock.compiler.ir.lowering import MAX_INNER, MAX_SCOPE, Lowering, Position, nearest
from penstock.compiler.ir.ops import All, Any, Predicate
from penstock.compiler.ir.simplify import all_of, any_of, carried, equals, in_order, keeps_count, negation
from penstock.compiler.lang import ast
from penstock.compiler.lang.source import Span
from penstock.errors import InternalError
from penstock.model.field import FLAG_WORDS

#: How deep an expression may nest, written or lowered, and how many `xor` it may have: each doubles it.
MAX_NESTING = 100
MAX_XOR = 8

_JOINED = (ast.And, ast.Or, ast.Xor)


class Expression:
    """Lowers one expression, counting what makes it grow."""

    def __init__(self, lowering: Lowering) -> None:
        self.lowering = lowering
        self._nesting = 0
        self._xors = 0
        self._whole = Span(0, 0)

    def predicate(self, expression: ast.Expr) -> Predicate:
        """What the expression means of the frame itself."""
        self._whole = expression.span
        predicate = self._lower(expression, Position())[0]
        if nesting_of(predicate) > MAX_NESTING:
            message = f"`and` and `or` alternate more than {MAX_NESTING} times"
            return self.lowering.fault("PS313", message, expression.span, hint="group them with parentheses")
        return predicate

    def _lower(self, node: ast.Expr, at: Position) -> tuple[Predicate, Position]:
        """What a node means at a position, and the position behind it within a chain of `and`."""
        if self._nesting >= MAX_NESTING:
            message = f"this expression nests deeper than {MAX_NESTING}"
            return self.lowering.fault("PS313", message, node.span), at
        self._nesting += 1
        try:
            match node:
                case ast.And() | ast.Or() | ast.Xor():
                    return self._chain(node, at)
                case ast.Not(operand):
                    return negation(self._lower(operand, at)[0]), at
                case ast.Encapsulation():
                    return encapsulation(self.lowering, node, at)
                case ast.Inner():
                    return self._inner(node, at), at
                case ast.Membership():
                    return membership(self.lowering, node, at), at
                case ast.Over() | ast.Sample():
                    return counting(self.lowering, node, at), at
                case _:
                    return self._leaf(node, at), at
        finally:
            self._nesting -= 1

    def _inner(self, node: ast.Inner, at: Position) -> Predicate:
        """What the expression means of the packet that is carried; false without one."""
        if at.scope.count("inner") >= MAX_INNER or len(at.scope) >= MAX_SCOPE:
            message = f"more than {MAX_INNER} `inner`, one in the other"
            return self.lowering.fault("PS313", message, node.span)
        inside = at.behind("inner")
        operand = self._lower(node.operand, inside)[0]
        return in_order(All, (carried(inside.scope), operand))

    def _chain(self, node: ast.Expr, at: Position) -> tuple[Predicate, Position]:
        """A left-leaning chain of connectives, walked from its leftmost operand, so that length is no depth.

        All three have one precedence and associate to the left, so a run of
        the same one is a single conjunction or disjunction.
        """
        first, links = _unchained(node)
        predicate, here = self._lower(first, at)
        run = [predicate]
        previous: type[ast.Expr] = ast.And
        for kind, operand in links:
            if kind is not previous:
                run, previous = [self._joined(previous, run)], kind
            here = here if kind is ast.And else at
            predicate, behind = self._lower(operand, here)
            here = behind if kind is ast.And else at
            run.append(predicate)
        return self._joined(previous, run), here

    def _joined(self, kind: type[ast.Expr], run: list[Predicate]) -> Predicate:
        # Counting begins with a rule's first limiter: before it there is nothing whose place matters.
        if self.lowering.kept and kind is not ast.Xor:
            return in_order(All if kind is ast.And else Any, run)
        if kind is ast.And:
            return all_of(run)
        if kind is ast.Or:
            return any_of(run)
        joined = run[0]
        for operand in run[1:]:
            joined = self._exclusive(joined, operand)
        return joined

    def _exclusive(self, left: Predicate, right: Predicate) -> Predicate:
        if keeps_count(left) or keeps_count(right):
            place = self._whole
            message = "`xor` would ask `over` and `sample` twice; write out which of the two may hold"
            return self.lowering.fault("PS330", message, place)
        self._xors += 1
        if self._xors > MAX_XOR:
            place = Span(0, len(self.lowering.source.text))
            return self.lowering.fault("PS313", f"more than {MAX_XOR} `xor` in one expression", place)
        return any_of((all_of((left, negation(right))), all_of((negation(left), right))))

    # ── leaves ───────────────────────────────────────────────────────────────

    def _leaf(self, node: ast.Expr, at: Position) -> Predicate:
        match node:
            case ast.Primitive():
                return self._primitive(node, at)
            case ast.Protocol(name):
                return abbreviation(self.lowering, name, at, node.span)
            case ast.Cast():
                return cast(self.lowering, node, at)
            case ast.LengthTest():
                return length(node, at)
            case ast.Llc():
                return llc(self.lowering, node, at)
            case ast.Way():
                return way(self.lowering, node)
            case ast.AtInterface():
                return at_interface(self.lowering, node)
            case ast.FieldFlag(name):
                return self._flag(name, node, at)
            case ast.Relation():
                return relation(self.lowering, node, at)
            case ast.Pcap():
                return classic(self.lowering, node, at)
            case (
                ast.And()
                | ast.Or()
                | ast.Xor()
                | ast.Not()
                | ast.Encapsulation()
                | ast.Inner()
                | ast.Membership()
                | ast.Over()
                | ast.Sample()
            ):
                raise InternalError("this was taken for a leaf")
            case _:
                assert_never(node)

    def _flag(self, name: str, node: ast.FieldFlag, at: Position) -> Predicate:
        if name not in FLAG_WORDS:
            close = nearest(name, FLAG_WORDS)
            hint = f"did you mean {close}?" if close else None
            return self.lowering.fault("PS312", f"no field is named `{name}`", node.span, hint=hint)
        field, values = FLAG_WORDS[name]
        return equals(at.field(field), *values)

    def _primitive(self, node: ast.Primitive, at: Position) -> Predicate:
        """Qualifiers with a value; a constant's values are joined by `or`."""
        span = node.value.span if node.value.span != ast.NOWHERE else node.span
        values = self.lowering.values(node.value)
        found = [self._one(node.qualifiers, value, at, span) for value in values]
        return found[0] if len(found) == 1 else any_of(found)

    def _one(self, qualifiers: ast.Qualifiers, value: ast.Value, at: Position, span: Span) -> Predicate:
        named, direction, kind = qualifiers.protocol, qualifiers.direction, qualifiers.kind
        match kind:
            case None | "host" | "net":
                return Addresses(self.lowering, named, direction, kind or "host", at, span).lower(value)
            case "port" | "portrange":
                return port(self.lowering, named, direction, value, at, span)
            case "proto" | "protochain" if direction is not None:
                return self.lowering.fault("PS303", f"`{kind}` has no direction", span)
            case "proto":
                return protocol(self.lowering, named, value, at, span)
            case "protochain":
                return protocol_chain(self.lowering, named, value, at, span)
            case "gateway":
                hint = "write `ether host MAC and not host ADDRESS`"
                message = "`gateway` needs a table of Ethernet addresses that penstock does not keep"
                return self.lowering.fault("PS311", message, span, hint=hint)
            case _:
                assert_never(kind)


class Terms(Expression):
    """Lowers an expression and keeps the meaning of every term: of what is no connective."""

    def __init__(self, lowering: Lowering) -> None:
        super().__init__(lowering)
        self.found: list[tuple[Span, Predicate]] = []

    def _lower(self, node: ast.Expr, at: Position) -> tuple[Predicate, Position]:
        lowered = super()._lower(node, at)
        if not isinstance(node, ast.And | ast.Or | ast.Xor | ast.Not | ast.Inner):
            self.found.append((node.span, lowered[0]))
        return lowered


def _unchained(node: ast.Expr) -> tuple[ast.Expr, list[tuple[type[ast.Expr], ast.Expr]]]:
    """The leftmost operand of a chain, and the connectives with their right operands, in order."""
    links: list[tuple[type[ast.Expr], ast.Expr]] = []
    while isinstance(node, _JOINED):
        links.append((type(node), node.right))
        node = node.left
    links.reverse()
    return node, links
