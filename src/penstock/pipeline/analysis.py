"""What a filter's rules mean together, as diagnostics and as records.

analyse(policy, rule_set).diagnostics(told)   ->  warnings and notes that the text alone does not give away
analyse(policy, rule_set).record()            ->  the same for `check --json`, with everything that was found

Rules that were `told` to be faulty already are not told again.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from penstock.compiler.ir.ops import Always
from penstock.compiler.lang.diagnostic import Diagnostic, Severity
from penstock.compiler.lang.source import Span
from penstock.model.verdict import Verdict

if TYPE_CHECKING:
    from penstock.compiler.analysis.review import Correlation, Redundancy, Review, Shadowing
    from penstock.compiler.ir.ops import Rule, RuleSet
    from penstock.compiler.lang import ast

#: More findings of one kind than these become one sentence.
MOST_WARNINGS, MOST_NOTES = 50, 3
#: Findings that say of a rule what this module would say again.
ALREADY = frozenset({"PS201", "PS202", "PS203", "PS204", "PS205", "PS207"})
_DOES = {
    Verdict.PASS: "passes",
    Verdict.DROP: "drops",
    Verdict.BOUNCE: "bounces",
    Verdict.REDIRECT: "redirects",
    Verdict.REJECT: "rejects",
}


@dataclass(frozen=True, slots=True)
class Analysis:
    """One filter's rules and what was found out about them; `default` is where the text says what it does."""

    rule_set: RuleSet
    review: Review
    default: Span

    def diagnostics(self, told: Sequence[Diagnostic] = ()) -> Iterator[Diagnostic]:
        """Warnings of rules that do nothing, notes on the rest; not of rules with a finding in `told`."""
        known = _ruled(self.rule_set, told)
        shadowed = [one for one in self.review.shadowed if one.rule not in known]
        redundant = [one for one in self.review.redundant if one.rule not in known]
        yield from self._most(map(self._shadowed, shadowed), len(shadowed), "rules can never match")
        yield from self._most(map(self._redundant, redundant), len(redundant), "rules change nothing")
        yield from self._correlations()
        if self.review.default is not None:
            yield self._default(self.review.default)
        if self.review.undecided:
            yield self._undecided(self.review.undecided)

    def _most(self, found: Iterator[Diagnostic], count: int, what: str) -> Iterator[Diagnostic]:
        told = list(islice(found, MOST_WARNINGS))
        yield from told
        if count > len(told):
            last = told[-1]
            message = f"{count - len(told)} more {what}"
            yield Diagnostic(last.code, last.severity, message, last.source, last.span, (), _ALL_OF_THEM)

    # ── sentences ────────────────────────────────────────────────────────────

    def _shadowed(self, one: Shadowing) -> Diagnostic:
        if not one.by:
            is_false = self.rule_set.rules[one.rule].condition == Always(False)
            why = (
                "its condition is false of every packet"
                if is_false
                else "no packet that comes so far has all this"
            )
            message = f"this rule can never match: {why}"
            return self._on(one.rule, "PS207", Severity.WARNING, message)
        notes = _examples(one.example, f"is decided by {self._decider(one)}")
        hint = "remove it, or move it up"
        if len(one.by) == 1:
            message = f"this rule can never match: {self._name(one.by[0])} decides all of its packets first"
            return self._on(one.rule, "PS203", Severity.WARNING, message, notes, hint)
        message = f"this rule can never match: {self._names(one.by)} together decide all of its packets first"
        return self._on(one.rule, "PS231", Severity.WARNING, message, notes, hint)

    def _decider(self, one: Shadowing) -> str:
        return self._name(one.by[0]) if len(one.by) == 1 else "one of them"

    def _redundant(self, one: Redundancy) -> Diagnostic:
        verdict = self.rule_set.rules[one.rule].action
        assert isinstance(verdict, Verdict)
        then = "the default" if one.then is None else self._name(one.then)
        message = "this rule changes nothing: without it all of its packets would fare the same"
        notes = _examples(one.example, f"is one of them: {then} {_DOES[verdict]} it as well")
        hint = "remove it; if it is there for its counter, make it `count`"
        return self._on(one.rule, "PS232", Severity.WARNING, message, notes, hint)

    def _correlations(self) -> Iterator[Diagnostic]:
        shown = [one for one in self.review.correlated if one.example][:MOST_NOTES]
        yield from map(self._correlated, shown)
        rest = len(self.review.correlated) - len(shown)
        if rest > 0:
            number = f"{rest} more" if self.review.is_complete else f"at least {rest} more"
            message = f"{number} pairs of rules overlap and differ, so that their order matters"
            told = next(one for one in self.review.correlated if one not in shown)
            yield self._on(told.second, "PS233", Severity.NOTE, message, (), _ALL_OF_THEM)

    def _correlated(self, one: Correlation) -> Diagnostic:
        first, would = self.rule_set.rules[one.first].action, self.rule_set.rules[one.second].doing
        assert isinstance(first, Verdict)
        message = (
            f"{self._name(one.first)} comes first and {_DOES[first]} packets that this one would {would}"
        )
        notes = _examples(one.example, "is one of them")
        hint = "exchange the two rules if this one should decide"
        return self._on(one.second, "PS233", Severity.NOTE, message, notes, hint)

    def _default(self, example: str) -> Diagnostic:
        default = self.rule_set.default
        message = f"some packets are decided by no rule: the default {_DOES[default]} them"
        notes = _examples(example, "is one of them")
        return Diagnostic("PS234", Severity.NOTE, message, self.rule_set.source, self.default, notes)

    def _undecided(self, rules: tuple[int, ...]) -> Diagnostic:
        message = f"{len(rules)} rules were not judged: there are too many that overlap, from this one on"
        return self._on(rules[0], "PS235", Severity.NOTE, message, (), _ALL_OF_THEM)

    def _on(
        self,
        rule: int,
        code: str,
        severity: Severity,
        message: str,
        notes: tuple[str, ...] = (),
        hint: str | None = None,
    ) -> Diagnostic:
        return Diagnostic(
            code, severity, message, self.rule_set.source, self.rule_set.rules[rule].span, notes, hint
        )

    def _name(self, rule: int) -> str:
        found = self.rule_set.rules[rule]
        label = f"`{found.name}` " if found.labelled else ""
        return f"the rule {label}on line {found.line}"

    def _names(self, rules: tuple[int, ...]) -> str:
        lines = [str(self.rule_set.rules[rule].line) for rule in rules]
        shown = lines if len(lines) <= _MOST_LINES else [*lines[: _MOST_LINES - 1], "others"]
        return f"the rules on lines {', '.join(shown[:-1])} and {shown[-1]}"

    # ── records ──────────────────────────────────────────────────────────────

    def record(self) -> dict[str, object]:
        """Everything as plain values, for JSON."""
        review = self.review
        return {
            "filter": self.rule_set.name,
            "shadowed": [
                {**self._rule(one.rule), "by": [self._rule(by) for by in one.by], "example": one.example}
                for one in review.shadowed
            ],
            "redundant": [{**self._rule(one.rule), "example": one.example} for one in review.redundant],
            "correlated": [
                {"first": self._rule(one.first), "second": self._rule(one.second), "example": one.example}
                for one in review.correlated
            ],
            "correlated_complete": review.is_complete,
            "default": {
                "verdict": self.rule_set.default.value,
                "reached": None if review.is_closed is None else not review.is_closed,
                "example": review.default,
            },
            "undecided": [self._rule(rule) for rule in review.undecided],
        }

    def _rule(self, rule: int) -> dict[str, object]:
        found: Rule = self.rule_set.rules[rule]
        return {"rule": found.name, "line": found.line}


_MOST_LINES = 6
_ALL_OF_THEM = "`penstock check --json` names all of them"


def analyse(policy: ast.Policy, rule_set: RuleSet) -> Analysis:
    """What the rules of a policy's filter mean together; a filter without `default` has it at its name."""
    from penstock.compiler.analysis.review import review

    own = next(one for one in policy.filters if one.name == rule_set.name)
    return Analysis(rule_set, review(rule_set), own.name_span if own.default is None else own.default_span)


def _examples(text: str | None, what: str) -> tuple[str, ...]:
    return () if text is None else (f"`{text}` {what}",)


def _ruled(rule_set: RuleSet, told: Sequence[Diagnostic]) -> Container[int]:
    """The rules within which something was told that makes them useless."""
    spans = [found.span for found in told if found.code in ALREADY]
    return {at for at, rule in enumerate(rule_set.rules) if any(_holds(rule.span, span) for span in spans)}


def _holds(rule: Span, span: Span) -> bool:
    return rule.start <= span.start < rule.end
