"""The demo without privilege: the reference engine over a capture that is made for it.

rehearse().dropped                    ->  20
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from penstock.compiler.ir.evaluate import evaluate
from penstock.compiler.ir.ops import FIRST_CONDITION_SLOT, counter_names
from penstock.demo.scenes import POLICY_NAME, policy_text
from penstock.demo.traffic import SERVICES
from penstock.model.packet import build_packet, parse_packet
from penstock.model.verdict import Verdict
from penstock.observe.capture import ethernet_frames
from penstock.observe.pcap import frames_of, write_pcap
from penstock.pipeline.policy import rule_set_of

_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """`rows` are name, packets and bytes of each counter that moved."""

    packets: int
    dropped: int
    rows: tuple[tuple[str, str, str], ...]


def rehearse() -> Rehearsal:
    """Make a capture of the demo's traffic, read it back, and run the policy over it."""
    rules = rule_set_of(policy_text(), name=POLICY_NAME)
    names = counter_names(rules)
    packets, sizes = [0] * len(names), [0] * len(names)
    dropped = total = 0
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        path = Path(folder) / "demo.pcap"
        write_pcap(path, frames_of(_packets()))
        for frame in ethernet_frames(path):
            outcome = evaluate(rules, frame.data, frame.wire_length)
            odd = (FIRST_CONDITION_SLOT + condition for condition in outcome.conditions)
            for slot in {outcome.slot, *outcome.hits, *odd}:
                packets[slot] += 1
                sizes[slot] += frame.wire_length
            dropped += outcome.verdict is Verdict.DROP
            total += 1
    moved = zip(names, packets, sizes, strict=True)
    return Rehearsal(
        total, dropped, tuple((name, str(count), str(size)) for name, count, size in moved if count)
    )


def _packets() -> list[bytes]:
    """The demo's traffic: a query to each service, again and again."""
    texts = [
        f'Ether/IPv4(src="192.0.2.1", dst="192.0.2.2")/UDP(sport=40000, dport={port})' for port in SERVICES
    ]
    return [build_packet(parse_packet(text)) for text in texts] * _ROUNDS
