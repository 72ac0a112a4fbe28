"""A compiled rule set in the kernel, one frame at a time, with everything it said of it."""

from __future__ import annotations

import struct
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Self

from penstock.compiler.clang import Clang
from penstock.compiler.codegen.emit import CSource, emit
from penstock.compiler.codegen.plan import Wish
from penstock.compiler.driver import object_of
from penstock.compiler.ir.evaluate import evaluate
from penstock.compiler.ir.ops import FIRST_CONDITION_SLOT, RuleSet
from penstock.compiler.ir.outcome import Outcome
from penstock.compiler.ir.stores import EMPTY, Stores
from penstock.kernel.bpf_object import load_object
from penstock.kernel.maps import Map
from penstock.kernel.program import Program
from penstock.model.hook import TRAITS, Hook
from penstock.model.overlay import RULES
from penstock.model.spec import COUNTERS_MAP, PROBE_MAP, PROGRAM, ProbeLayout
from penstock.model.verdict import DECISION_CODES, Condition, Verdict

DECISIONS = {code: verdict for verdict, code in DECISION_CODES.items()}


class DataPlane:
    """A probe build of a rule set, loaded."""

    def __init__(self, source: CSource, clang: Clang | None = None) -> None:
        self._codes = TRAITS[Hook(source.spec.hook)].codes
        self._verdicts = {code: verdict for verdict, code in self._codes.items()}
        self._object = load_object(object_of(source, clang, strict=True), "dataplane")
        self._program = self._object.programs[PROGRAM]
        self._probe = self._object.maps[PROBE_MAP]
        self._layout = ProbeLayout(len(source.spec.slots) + (RULES if source.spec.overlay else 0))
        self.verified_insns = self._program.info.verified_insns

    @classmethod
    def of(cls, rule_set: RuleSet, clang: Clang | None = None, wish: Wish | None = None) -> Self:
        return cls(emit(rule_set, probe=True, wish=wish), clang)

    def takes(self, frame: bytes) -> bool:
        """Whether a test run takes the frame."""
        return self._program.takes(frame)

    def outcome(
        self,
        frame: bytes,
        wire_length: int = 0,
        ctx: bytes | None = None,
        now_ns: int = 0,
        chance: int = 0,
    ) -> Outcome:
        """What becomes of a frame in a test run, `ctx` being the metadata beside it."""
        self.expect(wire_length, now_ns, chance)
        return self.said(self._program.test_run(frame, ctx=ctx).retval)

    def expect(self, wire_length: int = 0, now_ns: int = 0, chance: int = 0) -> None:
        """Forget what was said; the next packet's outcome can then be told.  0 is the kernel's own clock."""
        value = bytearray(self._probe.size)
        struct.pack_into("=I", value, self._layout.wire_length, wire_length)
        struct.pack_into("=QI", value, self._layout.now_ns, now_ns, chance)
        self._probe.update(bytes(4), value)

    @property
    def has_decided(self) -> bool:
        """Whether a packet came since `expect`."""
        return struct.unpack_from("=I", self._read(), self._layout.decided) != (0,)

    def said(self, answer: int | None = None) -> Outcome:
        """The last packet's outcome; `answer` is what the program answered, if that is known."""
        layout, said = self._layout, self._read()
        slot, conditions, code = struct.unpack_from("=III", said, layout.slot)
        verdict = DECISIONS[code]
        assert answer is None or self._codes.get(verdict, answer) == answer
        hits = int.from_bytes(said[layout.hits : layout.size], sys.byteorder)
        return Outcome(
            verdict,
            slot,
            tuple(at for at in range(layout.slots) if hits >> at & 1),
            frozenset(condition for condition in Condition if conditions >> condition & 1),
        )

    def _read(self) -> bytes:
        return self._probe.lookup(bytes(4)) or b""

    @property
    def program(self) -> Program:
        return self._program

    @property
    def maps(self) -> dict[str, Map]:
        return self._object.maps

    def verdicts(self, frames: Sequence[bytes]) -> list[Verdict]:
        """What becomes of each frame, without asking why."""
        return [self._verdicts[self._program.test_run(frame).retval] for frame in frames]

    def counters(self) -> dict[int, tuple[int, int]]:
        """Slot -> (packets, bytes), of those that counted anything."""
        _, values = self._object.maps[COUNTERS_MAP].read_all()
        totals = values.sum(axis=1)
        return {at: (int(row[0]), int(row[1])) for at, row in enumerate(totals) if row[0]}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._object.close()


def disagreements(
    rule_set: RuleSet, plane: DataPlane, frames: Sequence[bytes], stores: Stores = EMPTY
) -> list[str]:
    """Where kernel and reference differ, in words; the counters are compared as well."""
    found, packets, octets = [], Counter[int](), Counter[int]()
    for frame in filter(plane.takes, frames):
        expected, got = evaluate(rule_set, frame, stores=stores), plane.outcome(frame)
        if expected != got:
            found.append(f"{frame.hex()}\n  reference {expected}\n  kernel    {got}")
        counted = {expected.slot, *expected.hits, *(FIRST_CONDITION_SLOT + at for at in expected.conditions)}
        packets.update(counted)
        octets.update({slot: len(frame) for slot in counted})
    totals = {slot: (packets[slot], octets[slot]) for slot in packets}
    if not found and totals != plane.counters():
        found.append(f"counters: reference {totals}, kernel {plane.counters()}")
    return found
