"""The printed tables in the kernel against linear search: every answer is read back."""

from __future__ import annotations

import numpy as np
import pytest
from bench.classifier import boxes_of
from bench.rulesets import Flavour, generate
from tests.property.rulesets import RuleSets
from tests.unit.test_diagram import overlapping, stacked

from penstock.compiler.clang import compile_c
from penstock.compiler.classifier import grids, groups
from penstock.compiler.classifier.interpret import classify
from penstock.compiler.classifier.layout import layout
from penstock.compiler.classifier.tables import BitGroup, Classifier, GridGroup
from penstock.compiler.codegen.table_groups import STRETCH
from penstock.compiler.codegen.tables import Access, classifier_source, image
from penstock.compiler.diagram.axis import halves, is_wide, keys_of
from penstock.compiler.diagram.boxes import Boxes, Indices, Packets, Truth, from_ranges
from penstock.compiler.diagram.build import Budget
from penstock.compiler.diagram.convert import Run, blocks
from penstock.compiler.diagram.evaluate import first_rule
from penstock.compiler.diagram.verify import probes
from penstock.compiler.ir.ops import FieldRef
from penstock.kernel.bpf_object import load_object

pytestmark = pytest.mark.privileged

COUNT = 1 << 16
HARNESS = """
typedef unsigned char __u8; typedef unsigned short __u16; typedef unsigned int __u32; typedef unsigned long long __u64;
#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
struct ps_tuple { __u64 truths, field[%d]; };
struct ps_tuple ps_tuples[%d] __attribute__((aligned(64)));
__u32 ps_results[%d];
__u32 ps_cursor;
const volatile __u32 ps_by_helpers = 0;
__attribute__((noinline)) int ps_asked(__u64 truths, __u64 number)
{
    return !number || (number <= 64 && truths >> (number - 1) & 1);
}
%s
SEC("tc") int ps_classifier(void *skb)
{
    __u32 i = ps_cursor++ & %d;
    ps_results[i] = ps_classify(&ps_tuples[i]);
    return 0;
}
char _license[] SEC("license") = "GPL";
"""


def access(boxes: Boxes) -> tuple[Access, int]:
    """How the harness reads its tuples, and how many words each has."""
    scalars, wides, at = {}, {}, 0
    for axis in boxes.axes:
        if is_wide(axis.bits):
            wides[axis.ref] = f"t->field[{at}]", f"t->field[{at + 1}]", f"t->field[{at + 2}]"
            at += 3
        else:
            scalars[axis.ref] = f"t->field[{at}]"
            at += 1
    return Access("const struct ps_tuple *t", scalars, wides, "ps_asked(t->truths, {number})"), at


def tuples(boxes: Boxes, batch: Packets, truths: Truth, words: int) -> bytes:
    table = np.zeros((COUNT, words + 1), dtype=np.uint64)
    table[:, 0] = (truths.astype(np.uint64) << np.arange(truths.shape[1], dtype=np.uint64)).sum(axis=1)
    at = 1
    for axis in boxes.axes:
        keys = batch[axis.ref]
        absent = keys == keys_of(axis.bits, [1 << axis.bits])[0]
        if is_wide(axis.bits):
            table[:, at], table[:, at + 1] = halves(keys)
            table[:, at + 2] = ~absent
            at += 3
        else:
            # What the parser says of absent fields: all ones, far outside the domain.
            table[:, at] = np.where(absent, ~np.uint64(0), keys)
            at += 1
    return table.tobytes()


def answers(classifier: Classifier, boxes: Boxes, batch: Packets, truths: Truth) -> tuple[Indices, int]:
    """What the kernel says, and how many instructions it verified."""
    reads, words = access(boxes)
    source = HARNESS % (words, COUNT, COUNT, classifier_source(classifier, "ps_classify", reads), COUNT - 1)
    elf = compile_c(source, strict=True)
    with load_object(elf, "classifier", rodata={"ps_classify_tables": bytes(image(classifier))}) as loaded:
        loaded.variable("ps_tuples")[:] = tuples(boxes, batch, truths, words)
        program = loaded.programs["ps_classifier"]
        program.test_run(bytes(64), repeat=COUNT)
        found = np.frombuffer(bytes(loaded.variable("ps_results")), dtype=np.uint32).astype(np.int64) - 1
        return found, program.info.verified_insns


def untrue(boxes: Boxes) -> Truth:
    return np.zeros((COUNT, max(1, int(boxes.opaque.max(initial=0)))), dtype=bool)


@pytest.mark.parametrize("flavour", ["acl", "fw", "ipc"])
@pytest.mark.parametrize(("count", "ipv6"), [(40, False), (1200, False), (4000, False), (600, True)])
def test_generated_rules(flavour: Flavour, count: int, ipv6: bool) -> None:
    boxes = boxes_of(generate(flavour, count, seed=3, ipv6=ipv6))
    batch = probes(boxes, COUNT, 4)
    found, verified = answers(layout(boxes), boxes, batch, untrue(boxes))
    assert (found == first_rule(boxes, batch)).all()
    assert verified <= 2000


def test_both_families() -> None:
    boxes = stacked(boxes_of(generate("acl", 300)), boxes_of(generate("fw", 300, ipv6=True)))
    batch = probes(boxes, COUNT, 4)
    found, _ = answers(layout(boxes), boxes, batch, untrue(boxes))
    assert (found == first_rule(boxes, batch)).all()


def test_bit_vectors() -> None:
    rng = np.random.default_rng(5)
    ranges = {}
    for name in ("addr.src", "addr.dst", "dport"):
        ref = FieldRef(name)
        ends = np.sort(rng.integers(0, 1 << ref.field.bits, (400, 2), dtype=np.uint64), axis=1)
        ranges[ref] = ends[:, 0], ends[:, 1]
    boxes = from_ranges(ranges, np.arange(400))
    classifier = layout(boxes, Budget(members=3000))
    assert any(isinstance(group, BitGroup) for group in classifier.main.groups)
    batch = probes(boxes, COUNT, 4)
    found, _ = answers(classifier, boxes, batch, untrue(boxes))
    assert (found == first_rule(boxes, batch)).all()


@pytest.mark.parametrize(("count", "members"), [(300, 50), (2500, 1000), (12_000, 1000)])
def test_bit_vectors_of_any_size(count: int, members: int) -> None:
    """One chunk, several in one call, and more than one call takes."""
    boxes = overlapping(count)
    classifier = layout(boxes, Budget(members=members))
    assert classifier.main.bits is not None
    batch = probes(boxes, COUNT, 4)
    found, verified = answers(classifier, boxes, batch, untrue(boxes))
    assert (found == classify(classifier, batch)).all()
    some = {ref: keys[:4096] for ref, keys in batch.items()}
    assert (found[:4096] == first_rule(boxes, some)).all()
    assert verified <= 2000


def test_bit_vectors_of_as_many_fields_as_a_record_has() -> None:
    """Four words of lanes: what is known already has no room among the arguments."""
    names = ("addr.src", "addr.dst", "sport", "dport", "proto", "ttl", "len", "ip.id", "ecn", "dscp", "tcp.flags",
             "tcp.window", "icmp.type", "icmp.code", "vlan.id")  # fmt: skip
    boxes = overlapping(1500, names)
    boxes = Boxes(
        boxes.axes, np.where(boxes.low % 3 == 0, 0, boxes.low), boxes.high, boxes.rule, boxes.opaque
    )
    classifier = layout(boxes, Budget(members=1000))
    assert classifier.main.bits is not None
    assert classifier.main.words == 4
    batch = probes(boxes, COUNT, 4)
    found, verified = answers(classifier, boxes, batch, untrue(boxes))
    assert (found == first_rule(boxes, batch)).all()
    assert verified <= 2200


def paired(count: int, seed: int) -> Boxes:
    """Ranges of two addresses and a port, some up to absent, some of absent alone."""
    rng = np.random.default_rng(seed)
    ranges = {}
    for name in ("addr.src", "addr.dst", "dport"):
        ref = FieldRef(name)
        absent = np.uint64(1 << ref.field.bits)
        low = rng.integers(0, 1 << ref.field.bits, count, dtype=np.uint64)
        high = np.minimum(low + rng.integers(0, 1 << 24, count, dtype=np.uint64), absent - np.uint64(1))
        kind = rng.random(count)
        low = np.where(kind < 0.02, 0, np.where(kind < 0.03, absent, low)).astype(np.uint64)
        ranges[ref] = low, np.where(kind < 0.04, absent, high).astype(np.uint64)
    return from_ranges(ranges, np.arange(count))


def test_a_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "LEAST_FOR_GRID", 1)
    boxes = paired(400, 6)
    classifier = layout(boxes)
    assert any(isinstance(group, GridGroup) for group in classifier.main.groups)
    batch = probes(boxes, COUNT, 4)
    assert (classify(classifier, batch) == first_rule(boxes, batch)).all()
    found, verified = answers(classifier, boxes, batch, untrue(boxes))
    assert (found == first_rule(boxes, batch)).all()
    assert verified <= 2000


def test_lists_longer_than_one_call_compares(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pair of addresses with many ports: the list goes on in further calls."""
    monkeypatch.setattr(groups, "LEAST_FOR_GRID", 1)
    monkeypatch.setattr(grids, "MOST_COMPARED", 64.0)
    boxes = paired(200, 7)
    hosts = {name: np.full(40, 7, dtype=np.uint64) for name in ("addr.src", "addr.dst")}
    hosts["dport"] = np.arange(40, dtype=np.uint64) * np.uint64(100)
    one_pair = from_ranges({FieldRef(name): (value, value) for name, value in hosts.items()}, np.arange(40))
    boxes = stacked(one_pair, boxes)
    classifier = layout(boxes)
    assert classifier.main.longest_range > 3 * STRETCH
    batch = probes(boxes, COUNT, 4)
    found, verified = answers(classifier, boxes, batch, untrue(boxes))
    assert (found == first_rule(boxes, batch)).all()
    assert verified <= 2000


@pytest.mark.parametrize("seed", range(12))
def test_random_policies(seed: int) -> None:
    """Every kind of field, and opaque predicates with random truths."""
    runs = [block for block in blocks(RuleSets(seed).rule_set(25)) if isinstance(block, Run)]
    boxes = max(runs, key=lambda run: len(run.boxes)).boxes
    batch = probes(boxes, COUNT, seed)
    truths = np.random.default_rng(seed).random(untrue(boxes).shape) < 0.4
    classifier = layout(boxes)
    found, _ = answers(classifier, boxes, batch, truths)
    assert (found == classify(classifier, batch, truths)).all()
