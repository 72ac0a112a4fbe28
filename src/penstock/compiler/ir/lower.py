"""From what was written to what it means: a filter becomes a rule set, an expression a predicate.

In goes syntax, out comes the form of `ops.py`: fields, intervals, verdicts, no
names and no precedence.  The meaning is pcap-filter's on Ethernet as libpcap
1.10 compiles it, but for the differences that the language page lists.

`vlan`, `mpls`, `pppoes` and `geneve` move what stands to their right behind
themselves within their own chain of `and`, parenthesised conjunctions included,
and never out of an `or`, `xor` or `not`; `inner(EXPR)` moves EXPR alone:

    vlan 5 and (mpls and ip)         ip is looked for behind the label
    (vlan 5 or arp) and ip           ip is looked for in the frame itself

Every fault of a filter is found in one run and raised together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from penstock.compiler.ir.depth import depth_of, members, nesting_of
from penstock.compiler.ir.lower_address import Addresses
from penstock.compiler.ir.lower_arithmetic import relation
from penstock.compiler.ir.lower_classic import classic
from penstock.compiler.ir.lower_link import at_interface, cast, encapsulation, length, llc, way
from penstock.compiler.ir.lower_port import port
from penstock.compiler.ir.lower_protocol import abbreviation, protocol, protocol_chain
from penstock.compiler.ir.lower_rate import counting
from penstock.compiler.ir.lower_set import membership
from penstock.compiler.ir.lowering import MAX_INNER, MAX_SCOPE, Lowering, Position, nearest
from penstock.compiler.ir.names import Names, SystemNames
from penstock.compiler.ir.ops import All, Any, Effect, Predicate, Rule, RuleSet
from penstock.compiler.ir.simplify import (
    TRUE,
    all_of,
    any_of,
    carried,
    equals,
    in_order,
    keeps_count,
    negation,
)
from penstock.compiler.ir.verify import verify
from penstock.compiler.lang import ast
from penstock.compiler.lang.sets import with_filled
from penstock.compiler.lang.source import Source, Span
from penstock.errors import InternalError, PolicyError
from penstock.model.field import FLAG_WORDS, Layer
from penstock.model.hook import Hook
from penstock.model.sets import MAX_SETS
from penstock.model.verdict import DENYING, Condition, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

#: How deep an expression may nest, written or lowered, and how many `xor` it may have: each doubles it.
MAX_NESTING = 100
MAX_XOR = 8

_JOINED = (ast.And, ast.Or, ast.Xor)
_ACTIONS: dict[ast.ActionWord, Verdict | Effect] = {
    "pass": Verdict.PASS,
    "drop": Verdict.DROP,
    "reject": Verdict.REJECT,
    "bounce": Verdict.BOUNCE,
    "redirect": Verdict.REDIRECT,
    "audit": Effect.AUDIT,
    "count": Effect.COUNT,
    "mark": Effect.MARK,
    "dscp": Effect.DSCP,
    "mirror": Effect.MIRROR,
    "add": Effect.ADD,
    "remove": Effect.REMOVE,
}


def lower_filter(
    policy: ast.Policy, filter: ast.Filter, *, netmask: int | None = None, resolver: Names | None = None
) -> RuleSet:
    """The rule set of one of a policy's filters.

    `netmask` is what `ip broadcast` needs; `resolver` looks names up (default:
    the machine's own tables and resolver).

    Raises:
        PolicyError: with every fault of this filter.
    """
    lowering = _lowering(policy.source, policy.constants, netmask, resolver, with_filled(policy))
    lowering.hook = Hook(filter.hook)
    default = filter.default or Verdict.PASS
    rules = _rules(lowering, filter)
    conditions = _conditions(filter, default)
    depth = max(depth_of(asked for rule in rules for asked in rule.asked), _asked_depth(filter))
    if lowering.faults:
        raise PolicyError(sorted(lowering.faults, key=lambda found: found.span.start))
    asked = members(one for rule in rules for one in rule.asked)
    sets = tuple(spec for spec in lowering.sets.values() if spec.name in asked)
    if len(sets) > MAX_SETS:
        message = f"a filter asks at most {MAX_SETS} sets, this one {len(sets)}"
        lowering.fault("PS313", message, filter.name_span)
        raise PolicyError(lowering.faults)
    feeds = tuple(feed for item in policy.sets if item.name in asked for feed in item.fed_by)
    rule_set = RuleSet(
        filter.name, Hook(filter.hook), default, conditions, rules, depth, policy.source, sets, feeds
    )
    return verify(rule_set)


def lower_expression(
    expression: ast.Expr | None,
    source: Source,
    constants: Sequence[ast.Let] = (),
    *,
    sets: Sequence[ast.SetDefinition] = (),
    netmask: int | None = None,
    resolver: Names | None = None,
) -> Predicate:
    """The meaning of one expression; without one, every packet matches.

    Raises:
        PolicyError: with every fault of the expression.
    """
    lowering = _lowering(source, constants, netmask, resolver, sets)
    predicate = TRUE if expression is None else _Expression(lowering).predicate(expression)
    if lowering.faults:
        raise PolicyError(lowering.faults)
    return predicate


def lower_terms(
    expression: ast.Expr,
    source: Source,
    constants: Sequence[ast.Let] = (),
    sets: Sequence[ast.SetDefinition] = (),
    *,
    hook: Hook | None = None,
) -> tuple[tuple[Span, Predicate], ...]:
    """The terms of an expression in the order of the text: where each stands, and what it means there alone.

    `hook` is where the filter runs, for what lies beside a packet.

    Raises:
        PolicyError: with every fault of the expression.
    """
    lowering = _lowering(source, constants, None, None, sets)
    lowering.hook = hook
    terms = _Terms(lowering)
    terms.predicate(expression)
    if lowering.faults:
        raise PolicyError(lowering.faults)
    return tuple(sorted(terms.found, key=lambda term: term[0].start))


def _lowering(
    source: Source,
    constants: Sequence[ast.Let],
    netmask: int | None,
    resolver: Names | None,
    sets: Sequence[ast.SetDefinition],
) -> Lowering:
    named, specs = {let.name: let for let in constants}, {item.name: item.spec for item in sets}
    return Lowering(source, resolver or SystemNames(), named, netmask, sets=specs)


# ── filters ──────────────────────────────────────────────────────────────────


def _rules(lowering: Lowering, filter: ast.Filter) -> tuple[Rule, ...]:
    taken: dict[str, ast.Rule] = {}
    rules: list[Rule] = []
    for rule in filter.rules:
        line = lowering.source.position(rule.span.start)[0]
        name = _rule_name(lowering, filter, rule, line, taken)
        taken[name] = rule
        condition: Predicate = TRUE
        if rule.condition is not None:
            lowering.rule, lowering.kept = name, 0
            condition = _Expression(lowering).predicate(rule.condition)
        action, labelled = _ACTIONS[rule.action], rule.label is not None
        target = None if rule.target is None else membership(lowering, rule.target, Position())
        if rule.target is not None:
            lowering.changes[rule.target.set] += 1
        rules.append(
            Rule(name, action, condition, rule.span, line, labelled, argument=rule.argument, target=target)
        )
    return tuple(rules)


def _rule_name(
    lowering: Lowering, filter: ast.Filter, rule: ast.Rule, line: int, taken: dict[str, ast.Rule]
) -> str:
    """The label, or the filter's name and the line; a second rule of a line has `.2` behind it."""
    if rule.label is None:
        name, count = f"{filter.name}:{line}", 1
        while name in taken:
            count += 1
            name = f"{filter.name}:{line}.{count}"
        return name
    if rule.label in taken:
        lowering.fault("PS314", f"two rules are named `{rule.label}`", rule.label_span)
    return rule.label


def _conditions(filter: ast.Filter, default: Verdict) -> tuple[tuple[Condition, Verdict | None], ...]:
    """What the filter says of each odd-packet condition, or what it says by saying nothing."""
    verdicts: dict[Condition, Verdict | None] = dict.fromkeys(Condition)
    verdicts[Condition.MALFORMED] = Verdict.DROP if default in DENYING else None
    verdicts[Condition.EXTHDR_LIMIT] = Verdict.DROP
    verdicts |= {told.condition: told.verdict for told in filter.conditions}
    return tuple(verdicts.items())


_CONDITION_DEPTHS = {
    Condition.MALFORMED: Layer.TRANSPORT,
    Condition.UNKNOWN_TAG: Layer.LINK,
    Condition.EXTHDR_LIMIT: Layer.NETWORK,
    Condition.FRAGMENT: Layer.NETWORK,
    Condition.IP_OPTIONS: Layer.NETWORK,
}


def _asked_depth(filter: ast.Filter) -> Layer:
    """The deepest layer that an `on …` line asks about."""
    return max((_CONDITION_DEPTHS[told.condition] for told in filter.conditions), default=Layer.LINK)


# ── expressions ──────────────────────────────────────────────────────────────


class _Expression:
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


class _Terms(_Expression):
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
