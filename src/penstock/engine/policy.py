"""Engines that give a filter's outcome for one frame.

    with open_engine("kernel", rules) as engine:
        engine.outcome(frame, len(frame))       ->  Outcome(verdict=DROP, slot=6, …)

Both engines mean the same; the reference says what is right and the kernel what
is so.  The kernel's test run takes no frame of less than 14 bytes, which XDP
never sees either: for those the kernel engine asks the reference.
"""

from __future__ import annotations

import struct
import sys
from types import TracebackType
from typing import Literal, Protocol, Self

from penstock.compiler.ir.evaluate import evaluate
from penstock.compiler.ir.ops import FIRST_RULE_SLOT, Outcome, RuleSet
from penstock.kernel.bpf_object import load_object
from penstock.kernel.program import LEAST_FRAME
from penstock.model.hook import TRAITS
from penstock.model.spec import PROBE_MAP, PROGRAM, ProbeLayout
from penstock.model.verdict import Condition

EngineName = Literal["reference", "kernel"]

_ONLY_KEY = bytes(4)
_WORD = struct.Struct("=I")


class Engine(Protocol):
    """What runs a filter on frames.  Use it as a context, or close it."""

    name: EngineName

    def outcome(self, data: bytes, wire_length: int) -> Outcome:
        """What the filter does with a frame that had `wire_length` bytes before a capture cut it."""
        ...

    def close(self) -> None:
        """Give back what the engine holds."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...


class ReferenceEngine:
    """The reference evaluator: needs nothing and defines what is right."""

    name: EngineName = "reference"

    def __init__(self, rules: RuleSet) -> None:
        self._rules = rules

    def outcome(self, data: bytes, wire_length: int) -> Outcome:
        """What the rule set's definition says of the frame."""
        return evaluate(self._rules, data, wire_length)

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()


class KernelEngine:
    """The compiled program in the kernel, run by BPF_PROG_TEST_RUN; attached nowhere.

    Raises:
        KernelError: on making it, if the kernel refuses the program or a capability is missing.
    """

    name: EngineName = "kernel"

    def __init__(self, rules: RuleSet) -> None:
        from penstock.compiler.driver import compile_rule_set

        self._rules = rules
        self._object = load_object(compile_rule_set(rules, probe=True).elf, rules.name)
        self._program = self._object.programs[PROGRAM]
        self._probe = self._object.maps[PROBE_MAP]
        self._layout = ProbeLayout(FIRST_RULE_SLOT + len(rules.rules))
        self._verdicts = {code: verdict for verdict, code in TRAITS[rules.hook].codes.items()}

    def outcome(self, data: bytes, wire_length: int) -> Outcome:
        """What the loaded program did with the frame."""
        if len(data) < LEAST_FRAME:
            return evaluate(self._rules, data, wire_length)
        self._probe.update(_ONLY_KEY, self._asked(wire_length))
        answer = self._program.test_run(data).retval
        found = self._probe.lookup(_ONLY_KEY) or b""
        (slot,) = _WORD.unpack_from(found, self._layout.slot)
        (conditions,) = _WORD.unpack_from(found, self._layout.conditions)
        odd = frozenset(condition for condition in Condition if conditions >> condition & 1)
        return Outcome(self._verdicts[answer], slot, self._hits(found), odd)

    def _asked(self, wire_length: int) -> bytes:
        blank = bytearray(self._probe.size)
        _WORD.pack_into(blank, self._layout.wire_length, wire_length)
        return bytes(blank)

    def _hits(self, probe: bytes) -> tuple[int, ...]:
        bits = int.from_bytes(probe[self._layout.hits : self._layout.size], sys.byteorder)
        slots = range(FIRST_RULE_SLOT, FIRST_RULE_SLOT + len(self._rules.rules))
        return tuple(slot for slot in slots if bits >> slot & 1)

    def close(self) -> None:
        """Unload the program."""
        self._object.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()


def open_engine(name: EngineName, rules: RuleSet) -> Engine:
    """The engine of that name, ready to run a filter.

    Raises:
        KernelError: only for the kernel engine.
        ToolchainError: only for the kernel engine: clang is missing or failed.
    """
    return ReferenceEngine(rules) if name == "reference" else KernelEngine(rules)
