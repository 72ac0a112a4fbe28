"""Actions that a filter's hook does not have.

    filter edge at xdp { mark 7 if icmp }     ->  PS118: `mark` is no action at xdp; tc ingress and tc egress have it

Which hook has which action says `penstock.model.hook.ACTION_HOOKS`.
"""

from __future__ import annotations

from collections.abc import Iterator

from penstock.compiler.lang.ast import Filter
from penstock.compiler.lang.findings import Findings
from penstock.compiler.lang.source import Span
from penstock.model.hook import ACTION_HOOKS, Hook, hooks_in_words

#: What to do instead, where there is something.
_INSTEAD = {
    (
        "bounce",
        True,
    ): "`redirect DEVICE`, with the interface's own name, sends packets out where they came in",
    ("reject", True): "`drop` says nothing to the sender",
}


def check_placement(item: Filter, findings: Findings) -> None:
    """Report each action that the filter's hook does not have."""
    hook = Hook(item.hook)
    for word, span in _actions(item):
        hooks = ACTION_HOOKS[word]
        if hook not in hooks:
            verb = "has it" if len(hooks) == 1 else "have it"
            message = f"`{word}` is no action at {hook.value}; {hooks_in_words(hooks)} {verb}"
            findings.error("PS118", message, span, hint=_INSTEAD.get((word, hook.is_tc)))


def _actions(item: Filter) -> Iterator[tuple[str, Span]]:
    """The words of everything that a filter does, with their places."""
    if item.default is not None:
        yield item.default.value, item.default_span
    for entry in item.conditions:
        if entry.verdict is not None:
            yield entry.verdict.value, entry.span
    for rule in item.rules:
        yield rule.action, rule.action_span
