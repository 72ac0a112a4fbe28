"""docs/performance.md, written from the results of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bench.usual import Row

Results = Mapping[str, object]


def page(machine: Mapping[str, str], results: Mapping[str, Sequence[Row]]) -> str:
    """The whole page."""
    usual, linear, loading = results["usual"], results["linear"], results["loading"]
    parts = [
        _INTRODUCTION.format(**machine),
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
            ("rules", "parse and lower", "print C", "clang", "load and verify", "attach", "together"),
            (
                tuple(r[k] for k in ("rules", "parse", "emit", "clang", "load", "attach", "total"))
                for r in loading
            ),
        ),
    ]
    return "\n".join(parts)


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
  is the cost of being called, which differs between kernels (mitigations of indirect branches, mostly) and
  which no filter can avoid.
* **Compare within a table, by ratio**, never across tables, machines or versions of this page.
* Caches are warm and branches are predicted, since the packet is always the same. Real traffic pays more; by
  how much depends on it more than on the filter.
* Noise: the same program loaded twice differs by about half a nanosecond, because it lies elsewhere in
  memory. A ratio of two figures of 2 to 4 ns is therefore good to 0.2 or so, and differences below that say
  nothing.
"""
_USUAL = """\
[`examples/dns.policy`](../examples/dns.policy) against two programs in C that do the same for the usual
packet: [`bench/hand/dns.bpf.c`](../bench/hand/dns.bpf.c), which takes jumbo frames as penstock does and asks
a helper for the length, and [`bench/hand/dns_linear.bpf.c`](../bench/hand/dns_linear.bpf.c), which does
without them. Neither checks that the packet is well-formed: penstock compares the lengths in the IP, TCP and
UDP headers with each other and counts packets that contradict themselves. That check is most of the
difference for TCP, which the others do not look into at all.

The last rows are packets that the fast path does not take and the exact parser does.
"""
_LINEAR = """\
Five-tuple rules (`drop if src host A and dst host B and tcp src port P and dst port Q`), tried in the order
of the text.
"""
_LOADING = """\
Milliseconds, medians; the same policies. Starting Python is not in it. Nearly all of a small policy's time is
clang's.
"""
