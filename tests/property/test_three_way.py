"""libpcap, the reference evaluator and the kernel's program, all on the same pairs.

Expressions are drawn as in `test_oracle`, but many at a time become one program,
whose answer to a frame is read back bit by bit.  The reference and the kernel
must always agree; libpcap may differ from them for a documented reason only.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests import frames
from tests.property import expressions
from tests.property.dataplane import DataPlane
from tests.property.test_oracle import Pair, compiled, differences
from tests.strategies import expression_texts

from penstock.compiler.codegen.emit import emit_matcher
from penstock.compiler.ir.evaluate import Packet
from penstock.compiler.ir.ops import FIRST_RULE_SLOT
from penstock.kernel.program import LEAST_FRAME

pytestmark = pytest.mark.privileged

PROGRAMS = 4
TEXTS = st.lists(st.one_of(expressions.plain(), expression_texts()), min_size=40, max_size=40, unique=True)
# One failing program takes clang seconds to build: shrinking it would take the suite's whole time.
few = settings(
    max_examples=PROGRAMS,
    deadline=None,
    phases=[phase for phase in settings().phases if phase.name != "shrink"],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.check(9)
def test_libpcap_reference_and_kernel_agree() -> None:
    compared = 0

    @few
    @given(TEXTS, st.lists(frames.broken(), min_size=40, max_size=40))
    def compare(texts: list[str], some: list[bytes]) -> None:
        nonlocal compared
        pairs = [pair for text in texts if (pair := compiled(text)) is not None]
        collection = [frame for frame in frames.frames() + some if len(frame) >= LEAST_FRAME]
        with DataPlane(emit_matcher([pair.predicate for pair in pairs])) as plane:
            for frame in collection:
                compare_frame(pairs, frame, {slot - FIRST_RULE_SLOT for slot in plane.outcome(frame).hits})
        compared += len(pairs) * len(collection)

    compare()
    assert compared >= 10_000


def compare_frame(pairs: list[Pair], frame: bytes, kernel: set[int]) -> None:
    packet = Packet(frame)
    for number, pair in enumerate(pairs):
        ours = pair.penstock(packet)
        assert (number in kernel) == ours, f"{pair.text!r}: reference {ours}, kernel differs, {frame.hex()}"
        assert pair.libpcap(frame) == ours or differences(pair, frame), (
            f"{pair.text!r}: penstock {ours}, libpcap differs, {frame.hex()}"
        )
