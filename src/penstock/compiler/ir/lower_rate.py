"""What is tested by keeping count: `over RATE per KEY` and `sample 1/N`.

Each has a name, its rule's, so that two that look alike are never taken for
one: a bucket is asked once by a packet, in the place where it stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.compiler.ir.lowering import Lowering, Position
from penstock.compiler.ir.ops import Over, Predicate, Sample
from penstock.compiler.ir.simplify import TRUE
from penstock.compiler.lang import ast
from penstock.model.limiter import DEFAULT_SIZE, MOST_BURST_NS, KeyKind, Limiter, default_burst

if TYPE_CHECKING:
    from penstock.compiler.lang.source import Span

#: The fields of each kind of key; where the first that there should be is absent, there is no key.
KEY_FIELDS: dict[KeyKind, tuple[str, ...]] = {
    "src": ("addr.src", "ip6.src"),
    "dst": ("addr.dst", "ip6.dst"),
    "sport": ("sport",),
    "dport": ("dport",),
    "proto": ("proto",),
    "flow": ("addr.src", "ip6.src", "addr.dst", "ip6.dst", "proto", "sport", "dport"),
    "rule": (),
}


def counting(lowering: Lowering, node: ast.Over | ast.Sample, at: Position) -> Predicate:
    """What a rule asks of all packets together."""
    return _over(lowering, node, at) if isinstance(node, ast.Over) else _sample(lowering, node)


def _over(lowering: Lowering, node: ast.Over, at: Position) -> Predicate:
    """The bucket that a packet is asked to pay into; each `over` of a rule has its own."""
    name = _name(lowering, "over", node.span)
    burst = node.burst or default_burst(node.tokens, node.period, of_bytes=node.bytes)
    limiter = Limiter(name, node.tokens, node.period, node.key, burst, node.bytes, node.size or DEFAULT_SIZE)
    if limiter.burst_parts // limiter.share > MOST_BURST_NS:
        return lowering.fault("PS331", f"a burst of {burst} takes more than fifty days to come", node.span)
    return Over(limiter, tuple(at.field(name) for name in KEY_FIELDS[node.key.kind]))


def _sample(lowering: Lowering, node: ast.Sample) -> Predicate:
    """One packet in so many, by chance."""
    name = _name(lowering, "sample", node.span)
    return TRUE if node.one_in == 1 else Sample(name, node.one_in)


def _name(lowering: Lowering, word: str, place: Span) -> str:
    """The rule's name, with a number from its second on."""
    if lowering.rule is None:
        message = f"`{word}` stands in rules of a policy only: here is nothing that could keep count"
        lowering.fault("PS330", message, place)
        return word
    lowering.kept += 1
    return lowering.rule if lowering.kept == 1 else f"{lowering.rule}.{lowering.kept}"
