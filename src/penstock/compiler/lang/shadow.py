"""Rules that can never match because an earlier rule of the filter decides their packets.

The simple cases, told from the text alone: an earlier rule without condition,
with the same condition, or with one that asks for less (`udp` before
`udp dst port 53`).  Nothing reported here is ever wrong; not everything that is
shadowed is found.

A rule is not compared with every rule before it: each is filed under the rarest
of its terms, and looked up under the terms that this one implies.  What a rule
costs is thus bounded, however many there are.
"""

from __future__ import annotations

from collections.abc import Hashable

from penstock.compiler.lang.ast import And, Encapsulation, Expr, Filter, Not, Or, Primitive, Rule, Xor
from penstock.compiler.lang.findings import Findings
from penstock.compiler.lang.implication import Implications, Key, key_of
from penstock.compiler.lang.spelling import format_expression, spine
from penstock.compiler.lang.walk import alternatives, conjuncts, keeps_count, leaves, members
from penstock.compiler.lang.words import DECIDING

#: A rule with more alternatives than this is only compared as a whole.
_MOST_ALTERNATIVES = 256
#: As many rules are filed under one term; those that come later shadow nothing by it.
MOST_FILED = 256


def check_shadows(item: Filter, findings: Findings) -> None:
    """Warn of each rule that can never match, and name the rule that shadows it."""
    seen = Seen(frozenset(rule.target.set for rule in item.rules if rule.target is not None))
    for rule in item.rules:
        before = seen.everything
        if before is not None:
            message = f"this rule can never match: {_name(before, findings)} decides every packet"
            findings.warning("PS201", message, rule.span)
            continue
        found = seen.take(rule)
        if found is not None:
            code, shadowing, reason = found
            message = f"this rule can never match: {_name(shadowing, findings)} {reason}"
            findings.warning(code, message, rule.span)


def _name(rule: Rule, findings: Findings) -> str:
    label = f"`{rule.label}` " if rule.label else ""
    return f"the rule {label}on {findings.place(rule.span)}"


class Seen:
    """The deciding rules so far, found by what they ask for; `compared` counts the comparisons of two rules.

    `changed` are the sets that rules change: what is in one now may not be what was.
    """

    def __init__(self, changed: frozenset[str] = frozenset()) -> None:
        self._changed = changed
        self.everything: Rule | None = None
        self.compared = 0
        self._by_condition: dict[Hashable, Rule] = {}
        self._by_term: dict[Key, list[tuple[frozenset[Key], Rule]]] = {}
        self._implications = Implications()

    def take(self, rule: Rule) -> tuple[str, Rule, str] | None:
        """Code, the earlier rule that decides all packets of this one, and why; without one it is seen from now on."""
        if rule.condition is None:
            if rule.action in DECIDING:
                self.everything = rule
            return None
        condition, alternatives = _read(rule.condition)
        found = self._shadowing(condition, alternatives)
        # Two limiters that are spelled alike have each their own buckets.
        settled = not (keeps_count(rule.condition) or self._changed & members(rule.condition))
        if found is None and rule.action in DECIDING and settled:
            self._by_condition.setdefault(condition, rule)
            for alternative in alternatives:
                self._file(alternative, rule)
        return found

    def _file(self, alternative: _Chain, rule: Rule) -> None:
        asked = frozenset(key for _, key in alternative)
        for key in asked:
            self._implications.learn(key)
        filed = min((self._by_term.setdefault(key, []) for key in asked), key=len)
        if len(filed) < MOST_FILED:
            filed.append((asked, rule))

    def _shadowing(self, condition: Hashable, alternatives: list[_Chain]) -> tuple[str, Rule, str] | None:
        same = self._by_condition.get(condition)
        if same is not None:
            return "PS202", same, "has the same condition"
        first: Rule | None = None
        for alternative in alternatives:
            found = self._wider(alternative)
            if found is None:
                return None
            first = first or found
        return ("PS203", first, "asks for less and decides first") if first else None

    def _wider(self, alternative: _Chain) -> Rule | None:
        """The first of the rules that match wherever this does."""
        implied = {key for term in alternative for key in self._implications.of(*term)}
        filed = [entry for key in implied for entry in self._by_term.get(key, ())]
        self.compared += len(filed)
        wider = (rule for asked, rule in filed if asked <= implied)
        return min(wider, key=lambda rule: rule.span.start, default=None)


_Chain = list[tuple[Expr, Key]]
"""The terms of an `and` chain with their keys."""


def _read(expr: Expr) -> tuple[Hashable, list[_Chain]]:
    """A key, equal for conditions of the same canonical text, and the alternatives of the condition.

    The text is only spelled for what is no plain chain.  There are no
    alternatives where terms are not independent of their neighbours, or too many.
    """
    first, joints = spine(expr)
    operands = [first, *(joint.right for joint in joints)]
    if all(isinstance(joint, And) for joint in joints) and not any(map(_is_special, operands)):
        chain = [(operand, key_of(operand)) for operand in operands]
        return tuple(key for _, key in chain), [chain]
    chains = alternatives(expr)
    if len(chains) > _MOST_ALTERNATIVES or any(isinstance(leaf, Encapsulation) for leaf in leaves(expr)):
        chains = []
    return format_expression(expr), [[(term, key_of(term)) for term in conjuncts(chain)] for chain in chains]


def _is_special(operand: Expr) -> bool:
    """Whether an operand is more than a term that is spelled alike wherever it stands."""
    if isinstance(operand, Primitive):
        return operand.inherited
    return isinstance(operand, _COMPOUND)


_COMPOUND = (And, Or, Xor, Not, Encapsulation)
