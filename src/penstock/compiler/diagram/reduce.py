"""Make a diagram canonical, and find the classes of an axis.

Two nodes of a level are the same when their edges are; from the terminals up,
equal nodes become one.  The result depends on what the boxes mean and on the
axes, not on how the boxes were written: two policies over the same axes are
equivalent exactly when their reduced diagrams are equal.

A *class* of an axis is a set of ranks that no node of a level tells apart; a
table needs one column for each class, not for each rank.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from penstock.compiler.diagram.axis import U64
from penstock.compiler.diagram.boxes import Indices
from penstock.compiler.diagram.build import offsets, spans
from penstock.compiler.diagram.fingerprint import Lanes, distinct, pair_tokens, segment_sums
from penstock.compiler.diagram.node import Diagram, Level, Terminal


def reduce(diagram: Diagram, meaning: Callable[[Terminal], Terminal] | None = None) -> Diagram:
    """The canonical diagram; `meaning` may make terminals alike first, for example rules with the same verdict.

    Terminals and nodes are numbered in the order in which a walk from the root meets them.
    """
    wanted = [meaning(terminal) if meaning else terminal for terminal in diagram.terminals]
    numbers = {terminal: at for at, terminal in enumerate(dict.fromkeys(wanted))}
    rename = np.array([numbers[terminal] for terminal in wanted], dtype=np.int64)
    levels: list[Level] = []
    for level in reversed(diagram.levels):
        merged, rename = merge_nodes(level, rename)
        levels.append(merged)
    return _renumbered(tuple(reversed(levels)), tuple(numbers))


def merge_nodes(level: Level, rename: Indices) -> tuple[Level, Indices]:
    """The level over renamed children with equal nodes merged; and for each old node its new number."""
    child = rename[level.child]
    node = np.repeat(np.arange(level.nodes), np.diff(level.ptr))
    kept = np.append(True, (child[1:] != child[:-1]) | (node[1:] != node[:-1]))[: len(child)]
    start, child = level.start[kept], child[kept]
    ptr = offsets(np.bincount(node[kept], minlength=level.nodes))
    first, number = distinct(segment_sums(pair_tokens(start.astype(np.int64), child), ptr))
    return _picked(Level(level.axis, ptr, start, child), first), number


def _picked(level: Level, nodes: Indices) -> Level:
    counts = np.diff(level.ptr)[nodes]
    edges = spans(level.ptr[nodes], counts)
    return Level(level.axis, offsets(counts), level.start[edges], level.child[edges])


def _renumbered(levels: tuple[Level, ...], terminals: tuple[Terminal, ...]) -> Diagram:
    order = np.zeros(1, dtype=np.int64)
    found = []
    for level in levels:
        picked = _picked(level, order)
        _, first, number = np.unique(picked.child, return_index=True, return_inverse=True)
        by_first = np.argsort(first)
        place = np.empty(len(by_first), dtype=np.int64)
        place[by_first] = np.arange(len(by_first))
        order = picked.child[first[by_first]]
        found.append(Level(level.axis, picked.ptr, picked.start, place[number]))
    return Diagram(tuple(found), tuple(terminals[at] for at in order.tolist()))


def classes(level: Level) -> tuple[Indices, Indices]:
    """(the first rank of each class, the class of every rank); rank 0 is in class 0."""
    before = np.empty_like(level.child)
    before[1:] = level.child[:-1]
    first_edges = level.ptr[:-1]
    node = np.repeat(np.arange(level.nodes), np.diff(level.ptr))
    now, then = pair_tokens(node, level.child), pair_tokens(node, before)
    changes = Lanes(now.a - then.a, now.b - then.b)
    changes.a[first_edges], changes.b[first_edges] = now.a[first_edges], now.b[first_edges]
    return distinct(Lanes(_running(changes.a, level), _running(changes.b, level)))


def _running(changes: U64, level: Level) -> U64:
    sums = np.zeros(level.axis.width, dtype=np.uint64)
    np.add.at(sums, level.start, changes)
    return np.cumsum(sums)


def rows(level: Level, ranks: Indices, nodes: slice) -> Indices:
    """The children of some nodes at the given ascending ranks, as a matrix (nodes, ranks)."""
    first, last, _ = nodes.indices(level.nodes)
    edges = slice(int(level.ptr[first]), int(level.ptr[last]))
    start = level.start[edges]
    place = np.searchsorted(ranks, start)
    ends = np.append(place[1:], len(ranks))
    ends[level.ptr[first + 1 : last + 1] - level.ptr[first] - 1] = len(ranks)
    return np.repeat(level.child[edges], ends - place).reshape(last - first, len(ranks))
