"""Try tables before they may be attached: they say what their boxes say, by linear search.

Every set of tables that is compiled passes this; one wrong answer, and nothing is made of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from penstock.compiler.classifier.interpret import classify
from penstock.compiler.classifier.tables import Classifier
from penstock.compiler.diagram.boxes import Boxes, Indices, batch_ranks
from penstock.compiler.diagram.evaluate import first_box
from penstock.compiler.diagram.verify import probes

MAX_COMPARISONS = 200_000_000


@dataclass(frozen=True, slots=True, eq=False)
class SelfTest:
    """How many packets were tried, and of which the tables' answer differs from linear search."""

    packets: int
    wrong: Indices


def disagreements(classifier: Classifier, boxes: Boxes, count: int = 20_000, seed: int = 1) -> SelfTest:
    """Compare tables with boxes on up to `count` drawn packets; opaque predicates are all false.

    Fewer packets where there are so many boxes that linear search would take seconds.
    """
    certain = boxes.take(np.flatnonzero(boxes.opaque == 0))
    count = max(256, min(count, MAX_COMPARISONS // max(1, len(certain))))
    batch = probes(boxes, count, seed)
    box = first_box(certain, batch_ranks(certain.axes, batch))
    expected = np.where(box < 0, box, certain.rule[box]) if len(certain) else box
    return SelfTest(count, np.flatnonzero(classify(classifier, batch) != expected))
