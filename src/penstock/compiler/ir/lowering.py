"""What every part of lowering shares: the place in the packet, the names, and the faults found.

Faults are collected, not raised: a part that finds one records it and goes on
with a predicate that is never true, so that one run shows all of them.

    PS301  a constant or a set that is not defined, or defined by itself
    PS302  a value that the qualifiers before it cannot take
    PS303  a protocol qualifier that does not go with what is asked
    PS304  a name that nothing resolves
    PS305  a number beyond its range
    PS306  a network with host bits, or an impossible mask
    PS307  arithmetic that can never be done: division by zero, a shift by more than 31
    PS308  an accessor of a protocol or size that there is none of
    PS309  a test of something that cannot lie behind the encapsulation to its left
    PS310  a test that needs to be told something first (`ip broadcast`: the netmask)
    PS311  a test that cannot be made at this place in the kernel
    PS312  a field or constant of arithmetic that is not one
    PS313  more nesting than penstock takes
    PS314  two rules of one name
    PS330  a rate or a sample where no rule stands that could keep count, or under `xor`
    PS331  a burst that is longer in coming than is counted
    PS320  what libpcap refuses, in its own words
    PS321  what libpcap takes and no program in the kernel can do
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING

from penstock.compiler.ir.ops import FieldRef, Predicate, Scope, Step
from penstock.compiler.ir.simplify import FALSE
from penstock.compiler.lang.ast import Constant, Let, Value
from penstock.compiler.lang.diagnostic import Diagnostic, Severity
from penstock.model.hook import FIELD_HOOKS, Hook, hooks_in_words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.compiler.ir.names import Names
    from penstock.compiler.lang.source import Source, Span
    from penstock.model.sets import SetSpec

#: More encapsulations in one `and` chain, and more values behind one constant, than these are refused.
MAX_SCOPE = 8
MAX_VALUES = 1_000_000
#: More `inner`, one in the other, are refused: each costs the program a copy of every field.
MAX_INNER = 4
#: More faults than this are not listed.
MAX_FAULTS = 100


def beside(lowering: Lowering, name: str, place: Span) -> FieldRef:
    """A field that lies beside the packet; a fault where the hook, or a frame alone, does not have it."""
    hook, hooks = lowering.hook, FIELD_HOOKS.get(name, tuple(Hook))
    if hook is None:
        message = f"`{name}` cannot be tested here: a frame alone does not have it"
        lowering.fault("PS311", message, place)
    elif hook not in hooks:
        message = f"a packet at {hook.value} has no `{name}` yet"
        lowering.fault("PS311", message, place, hint=f"it can be tested at {hooks_in_words(hooks)}")
    return FieldRef(name)


@dataclass(frozen=True, slots=True)
class Position:
    """Whose headers the next primitive speaks of: the scope, and how many of its VLAN tags were tested.

    `vlan`, `mpls`, `pppoes` and `geneve` move it for what stands to their right
    in the same chain of `and`.
    """

    scope: Scope = ()
    tags: int = 0

    def field(self, name: str) -> FieldRef:
        """A field here; for `vlan.*`, of the tag that was tested last (the outermost if none was)."""
        index = max(self.tags - 1, 0) if name.startswith("vlan.") else 0
        return FieldRef(name, self.scope, index)

    def next_tag(self, name: str) -> FieldRef:
        """A `vlan.*` field of the tag behind those tested."""
        return FieldRef(name, self.scope, self.tags)

    def behind(self, step: Step) -> Position:
        return Position((*self.scope, step))

    def behind_tag(self) -> Position:
        return replace(self, tags=self.tags + 1)

    @property
    def in_mpls(self) -> bool:
        return self.scope[-1:] == ("mpls",)

    @property
    def on_ppp(self) -> bool:
        """Whether the innermost link header is PPP's rather than Ethernet's."""
        links = [step for step in self.scope if step != "mpls"]
        return links[-1:] == ["pppoes"]


@dataclass(slots=True)
class Lowering:
    """One lowering: `faults` grows as parts find them."""

    source: Source
    names: Names
    constants: dict[str, Let] = field(default_factory=dict)
    netmask: int | None = None
    hook: Hook | None = None
    #: The rule whose condition is lowered, and what of it keeps count so far (lower_rate.py).
    rule: str | None = None
    kept: int = 0
    #: How many rules so far change each set.
    changes: Counter[str] = field(default_factory=Counter)
    faults: list[Diagnostic] = field(default_factory=list)
    sets: dict[str, SetSpec] = field(default_factory=dict)

    def fault(
        self, code: str, message: str, span: Span, *, hint: str | None = None, notes: tuple[str, ...] = ()
    ) -> Predicate:
        """Record a fault; returns a predicate to go on with."""
        found = Diagnostic(code, Severity.ERROR, message, self.source, span, notes, hint)
        if len(self.faults) < MAX_FAULTS and found not in self.faults:
            self.faults.append(found)
        return FALSE

    def values(self, value: Value) -> tuple[Value, ...]:
        """The values that a value stands for: a constant's, else itself."""
        if not isinstance(value, Constant):
            return (value,)
        values = tuple(islice(self._values(value, ()), MAX_VALUES + 1))
        if len(values) > MAX_VALUES:
            self.fault("PS313", f"${value.name} stands for more than {MAX_VALUES} values", value.span)
            return ()
        return values

    def _values(self, constant: Constant, within: tuple[str, ...]) -> Iterable[Value]:
        let = self.constants.get(constant.name)
        if let is None:
            close = nearest(constant.name, self.constants)
            hint = f"did you mean ${close}?" if close else f"define it: let {constant.name} = …"
            self.fault("PS301", f"the constant ${constant.name} is not defined", constant.span, hint=hint)
            return
        if constant.name in within:
            self.fault("PS301", f"the constant ${constant.name} is defined by itself", let.name_span)
            return
        for value in let.values:
            if isinstance(value, Constant):
                yield from self._values(value, (*within, constant.name))
            else:
                yield value


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The one of `words` that somebody who wrote `word` most likely meant."""
    close = get_close_matches(word, list(words), 1)
    return close[0] if close else None
