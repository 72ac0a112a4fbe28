"""Count the frames that expressions match, for all expressions in one pass over a capture.

    with open_matcher("reference", [Expression("udp port 53", predicate)]) as matcher:
        matcher.count(frames)                   ->  (1000, [17])

Three engines that should agree: the reference evaluator; the kernel, where
every expression becomes a counting rule of one program; and libpcap itself, in
its own meaning (the language reference lists where that differs).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Literal, Protocol, Self

from penstock.compiler.ir.evaluate import Packet, holds
from penstock.compiler.ir.ops import FIRST_RULE_SLOT, Effect, Predicate, Rule, RuleSet
from penstock.compiler.lang.source import Source, Span
from penstock.engine.policy import KernelEngine
from penstock.errors import LimitError, PenstockError, PolicyError, VerifierError
from penstock.kernel.program import LEAST_FRAME
from penstock.model.closing import Closing
from penstock.model.field import Layer
from penstock.model.hook import Hook
from penstock.model.verdict import Condition, Verdict
from penstock.observe.frame import Frame
from penstock.pipeline.policy import EXPRESSION_NAME, check_expression

MatcherName = Literal["reference", "kernel", "libpcap"]
#: Expressions in one program: few enough to stay far from the verifier's limits.
BATCH = 32
#: tcpdump knows no netmask of a file either, and takes 0: `ip broadcast` is 0.0.0.0 and 255.255.255.255.
NETMASK = 0
#: Frames that are held at a time.
CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that is understood.  `predicate` is None where libpcap is to read the text itself."""

    text: str
    predicate: Predicate | None


class Matcher(Protocol):
    """What counts matches.  Use it as a context.

    `refused` has the expressions that are right but more than the engine can take, and why.
    """

    refused: list[tuple[Expression, PenstockError]]

    def count(self, frames: Iterable[Frame]) -> tuple[int, list[int]]:
        """How many frames there were, and how many of them each expression matched that was not refused."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...


def understand(text: str, engine: MatcherName) -> Expression:
    """The expression, ready for an engine.

    Raises:
        PenstockError: it is none; for libpcap, in libpcap's words.
    """
    if engine != "libpcap":
        return Expression(text, check_expression(text, netmask=NETMASK))
    from penstock.compiler.libpcap import compile_filter

    compile_filter(text, netmask=NETMASK)
    return Expression(text, None)


class _Accepting(Closing):
    """A matcher that takes every expression and, so far, holds nothing."""

    def __init__(self) -> None:
        self.refused: list[tuple[Expression, PenstockError]] = []

    def close(self) -> None:
        """Give back what is held."""


class ReferenceMatcher(_Accepting):
    """Each packet is parsed once and shown to every expression."""

    def __init__(self, expressions: Sequence[Expression]) -> None:
        super().__init__()
        self._predicates = [found.predicate for found in expressions if found.predicate is not None]

    def count(self, frames: Iterable[Frame]) -> tuple[int, list[int]]:
        """The definition of what matches."""
        total, matched = 0, [0] * len(self._predicates)
        for frame in frames:
            total += 1
            packet = Packet(frame.data, frame.wire_length)
            for at, predicate in enumerate(self._predicates):
                matched[at] += holds(predicate, packet)
        return total, matched


class KernelMatcher(_Accepting):
    """Programs of BATCH counting rules each, run on every frame."""

    def __init__(self, expressions: Sequence[Expression]) -> None:
        super().__init__()
        self._engines: list[KernelEngine] = []
        taken: list[Expression] = []
        try:
            for start in range(0, len(expressions), BATCH):
                taken += self._load(expressions[start : start + BATCH])
        except PenstockError:
            self.close()
            raise
        self._reference = ReferenceMatcher(taken)

    def _load(self, expressions: Sequence[Expression]) -> list[Expression]:
        """Those that are in a program now; what is too much for one is halved until it fits or is alone."""
        try:
            self._engines.append(KernelEngine(counting_rules(expressions)))
        except (LimitError, VerifierError) as error:
            if len(expressions) == 1:
                self.refused.append((expressions[0], error))
                return []
            half = len(expressions) // 2
            return [*self._load(expressions[:half]), *self._load(expressions[half:])]
        return list(expressions)

    def count(self, frames: Iterable[Frame]) -> tuple[int, list[int]]:
        """What the loaded programs count; the reference counts what is too short for them."""
        before, total, short = self._counted(), 0, []
        for some in _chunks(frames):
            total += len(some)
            runnable = [frame for frame in some if len(frame.data) >= LEAST_FRAME]
            if len(runnable) < len(some):
                short += [frame for frame in some if len(frame.data) < LEAST_FRAME]
            for engine in self._engines:
                engine.run(runnable)
        _, others = self._reference.count(short)
        numbers = zip(self._counted(), before, others, strict=True)
        return total, [after - earlier + other for after, earlier, other in numbers]

    def _counted(self) -> list[int]:
        return [packets for engine in self._engines for packets in engine.counted()[FIRST_RULE_SLOT:]]

    def close(self) -> None:
        """Unload the programs."""
        for engine in self._engines:
            engine.close()


def _chunks(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    """The frames, some at a time, so that each program sees many before the next one's turn."""
    remaining = iter(frames)
    while some := list(islice(remaining, CHUNK)):
        yield some


def counting_rules(expressions: Sequence[Expression]) -> RuleSet:
    """A rule set that passes everything and has a `count` rule for each expression."""
    from penstock.compiler.ir.depth import depth_of

    predicates = [found.predicate for found in expressions if found.predicate is not None]
    rules = tuple(
        Rule(f"match:{number}", Effect.COUNT, predicate, Span(0, 0), 1)
        for number, predicate in enumerate(predicates, 1)
    )
    conditions = tuple((condition, None) for condition in Condition)
    depth = max(depth_of(predicates), Layer.LINK)
    return RuleSet(
        "match", Hook.XDP, Verdict.PASS, conditions, rules, depth, Source(EXPRESSION_NAME, "count")
    )


class LibpcapMatcher(_Accepting):
    """libpcap's own compiler and interpreter."""

    def __init__(self, expressions: Sequence[Expression]) -> None:
        from penstock.compiler.libpcap import compile_filter

        super().__init__()
        self._filters = [compile_filter(found.text, netmask=NETMASK) for found in expressions]

    def count(self, frames: Iterable[Frame]) -> tuple[int, list[int]]:
        """What libpcap matches."""
        total, matched = 0, [0] * len(self._filters)
        for frame in frames:
            total += 1
            for at, compiled in enumerate(self._filters):
                matched[at] += compiled.matches(frame.data, frame.wire_length)
        return total, matched


def open_matcher(name: MatcherName, expressions: Sequence[Expression]) -> Matcher:
    """The matcher of that name for these expressions.

    Raises:
        PenstockError: the kernel, clang or libpcap refuses.
    """
    match name:
        case "reference":
            return ReferenceMatcher(expressions)
        case "kernel":
            return KernelMatcher(expressions)
        case "libpcap":
            return LibpcapMatcher(expressions)


def fault_of(error: PenstockError) -> tuple[str, str]:
    """A stable code and one sentence for an expression that was refused."""
    if isinstance(error, PolicyError) and error.diagnostics:
        return error.diagnostics[0].code, error.message
    return type(error).__name__, error.message
