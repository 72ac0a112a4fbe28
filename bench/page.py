"""docs/performance.md, written from the results of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from bench.linear import STEPS
from bench.usual import LOADS, NAMES, Row

Results = Mapping[str, object]


def page(machine: Mapping[str, str], results: Mapping[str, Sequence[Row]]) -> str:
    """The whole page."""
    usual, linear, loading = results["usual"], results["linear"], results["loading"]
    parts = [
        _INTRODUCTION.format(**machine, **_noise(usual)),
        "## One rule, beside the same written by hand\n",
        _USUAL,
        _table(
            ("traffic", "policy", "by hand", "ratio", "by hand, no jumbo frames", "ratio"),
            (
                (r["traffic"], r["policy"], r["jumbo"], _ratio(r, "jumbo"), r["linear"], _ratio(r, "linear"))
                for r in usual
            ),
        ),
        "## More rules\n",
        _LINEAR,
        _table(
            ("rules", "first matches", "last matches", "none matches"),
            ((r["rules"], r["first"], r["last"], r["none"]) for r in linear),
        ),
        "## From the text to the interface\n",
        _LOADING,
        _table(
            ("rules", *STEPS, "together", "an access list"),
            (tuple(r[k] for k in ("rules", *STEPS, "total", "acl")) for r in loading),
        ),
    ]
    return "\n".join(parts)


def _noise(rows: Sequence[Row]) -> dict[str, str]:
    spreads = [float(row[f"{name}_spread"]) for row in rows for name in NAMES]
    return {"loads": str(LOADS), "typical": f"{median(spreads):.1f}", "worst": f"{max(spreads):.1f}"}


def _ratio(row: Row, other: str) -> str:
    policy, hand = row["policy"], row[other]
    assert isinstance(policy, float)
    assert isinstance(hand, float)
    return f"{policy / hand:.2f}" if hand >= _LEAST_NS else "–"


#: Differences of less than this are below what the clock can tell.
_LEAST_NS = 0.5


def _table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)], *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


_INTRODUCTION = """\
# Performance

Written by `make bench` from measurements on one machine; run it on yours. Machine: {cpu}, {cpus} processors,
Linux {kernel}, {clang}.

## How it is measured, and what the figures mean

A program is run on one packet again and again by the kernel (`BPF_PROG_TEST_RUN`), and the thread's CPU time
is divided by the number of runs. Each table's programs are measured in one run, in rounds: in a round each
program meets each packet once, and the medians of the rounds are taken. Whatever disturbs the machine then
disturbs all alike.

* Figures are **nanoseconds above an empty program** that was measured in the same rounds. The empty program
  is the cost of being called, which differs between kernels and
  which no filter can avoid.
* **Compare within a table, by ratio**, never across tables, machines or versions of this page.
* Caches are warm and branches are predicted, since the packet is always the same. Real traffic pays more; by
  how much depends on it more than on the filter.
* Noise: each program of the first table is loaded {loads} times and the medians of the loads stand there. From load
  to load the same program and packet differed by {typical} ns in the median and by {worst} ns at most, as the
  processor's caches and other work on the machine will have it. Ratios of two figures of a few nanoseconds are
  no better than that: one of 1.3 and one of 1.0 may be the same.
* The machine's load average was {load} when the run began.
"""
_USUAL = """\
[`examples/dns.policy`](../examples/dns.policy) against two programs in C that do the same for the usual
packet: [`examples/dns.hand.bpf.c`](../examples/dns.hand.bpf.c), which takes jumbo frames as penstock does and asks
a helper for the length, and [`bench/hand/dns_linear.bpf.c`](../bench/hand/dns_linear.bpf.c), which does
without them. Neither checks that the packet is well-formed, which penstock does: it compares the lengths in the
IP, TCP and UDP headers with each other and counts packets that contradict themselves.

The last rows are packets that the fast path does not take and the exact parser does.
"""
_LINEAR = """\
Five-tuple rules (`drop if src host A and dst host B and tcp src port P and dst port Q`), tried in the order
of the text.
"""
_LOADING = """\
Milliseconds by the clock, of the quickest of several runs; the same policies, and all in all an access list
of as many rules. Starting Python is not in it. Nearly all of a small policy's time is clang's.
"""
