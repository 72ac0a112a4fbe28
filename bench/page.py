"""docs/performance.md, written from stored results and nothing else: the same results give the same page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from bench.cells import ns_text, ratio_text, table_of
from bench.goals import LEAST_NS, alone_ns, goals
from bench.page_sets import SET_SECTIONS
from bench.prose import (
    ACTIONS,
    CLASSIFIER,
    EXACT,
    FAMILIES,
    HOOKS,
    INTRODUCTION,
    LOADING,
    NOISE,
    OVERLAY,
    SAVED,
    SCALE,
    SMALL,
    TWENTY,
    USUAL,
    WIRE,
)
from bench.results import Row, Table, above, failures, over_seeds, select, sizes_of, spread
from bench.usual import NAMES

Results = Mapping[str, Table]
_FLAVOURS = ("acl", "fw", "ipc")
_FAMILIES = {"ipv4": "IPv4", "ipv6": "IPv6", "both": "both"}


def page(results: Results) -> str:
    """The whole page; what has not been measured is not in it."""
    machine = next(iter(results.values())).machine
    sections = {
        "goals": _goals, "scale": _scale, "families": _families, "exact": _exact, "small": _small,
        "twenty": _twenty,
        "usual": _usual, "hooks": _hooks, "actions": _actions, "saved": _saved, "classifier": _classifier,
        "overlay": _overlay, "wire": _wire, "loading": _loading, **SET_SECTIONS,
    }  # fmt: skip
    parts = [INTRODUCTION.format(**machine, minutes=_minutes(results)), _noise(results)]
    for name, section in sections.items():
        if name == "goals" or name in results:
            parts += section(results)
    return "\n".join(parts)


def _minutes(results: Results) -> str:
    return f"{sum(table.seconds for table in results.values()) / 60:.0f}"


def _noise(results: Results) -> str:
    rows = [row for name in ("scale", "families", "exact", "saved") for row in select(results.get(name))]
    found = [spread(row, kind) / max(value, LEAST_NS) for row in rows for kind, value in _kinds(row)]
    usual = [float(row[f"{name}_spread"]) for row in select(results.get("usual")) for name in NAMES]
    loads = sorted({table.machine["load"] for table in results.values()}, key=float)
    return NOISE.format(
        within=f"{median(found):.0%}" if found else "–",
        worst=f"{max(found):.0%}" if found else "–",
        between=f"{median(usual):.1f}" if usual else "–",
        loads=f"{loads[0]} to {loads[-1]}" if loads else "–",
    )


def _kinds(row: Row) -> Iterator[tuple[str, float]]:
    for kind in row["traffic"]:
        value = above(row, kind)
        if value is not None:
            yield kind, value


# ── sections ─────────────────────────────────────────────────────────────────


def _goals(results: Results) -> list[str]:
    words = {True: "met", False: "**missed**", None: "–"}
    rows = [(goal.what, goal.wanted, goal.found, words[goal.met]) for goal in goals(results)]
    missed = sum(goal.met is False for goal in goals(results))
    head = f"Of the goals that this run has figures for, {missed} are missed.\n"
    return ["## Goals\n", head, table_of(("goal", "wanted", "found", ""), rows, left=4), *_failed(results)]


def _failed(results: Results) -> list[str]:
    lines = [
        f"* {row['set']} {row['family']}, {row['rules']:,} rules: {row['failed']}"
        for row in failures(results)
    ]
    return ["These sets could not be measured:\n", "\n".join([*lines, ""])] if lines else []


def _scale(results: Results) -> list[str]:
    table = results["scale"]
    rows = [
        (f"{size:,}", flavour, *_costs(select(table, set=flavour, rules=size), ("linear", "chain")))
        for size in sizes_of(table)
        for flavour in _FLAVOURS
        if select(table, set=flavour, rules=size)
    ]
    sized = [
        (f"{size:,}", flavour, *_sizes(select(table, set=flavour, rules=size)))
        for size in sizes_of(table)
        for flavour in _FLAVOURS
        if select(table, set=flavour, rules=size)
    ]
    return [
        "## More rules\n", _image("rules", "ns a packet by the number of rules"), SCALE,
        table_of(("rules", "set", "seeds", "uniform", "Zipf", "warm", "loop in C", "× penstock", "ifs in C"), rows),
        "### What compiling takes, and what it makes\n",
        _image("building", "seconds to compile by the number of rules"),
        _image("memory", "memory by the number of rules"),
        table_of(("rules", "set", "front, s", "decide, s", "clang, s", "CPU, s", "load, ms", "peak MiB", "tables, kB",
                "maps, kB", "instructions", "verified"), sized),
    ]  # fmt: skip


def _costs(rows: Sequence[Row], peers: Sequence[str]) -> list[str]:
    """Seeds, penstock on three kinds of traffic, and peers on the uniform one; with the first of them a ratio."""
    found = [str(len(rows)), *(_range(over_seeds(rows, kind)) for kind in ("uniform", "zipf", "warm"))]
    ours = over_seeds(rows, "uniform")
    for number, peer in enumerate(peers):
        theirs = over_seeds(rows, "uniform", peer)
        found.append(_range(theirs))
        if not number:
            found.append(
                f"{median(theirs) / median(ours):.1f}" if theirs and ours and median(ours) > LEAST_NS else "–"
            )
    return found


def _range(values: Sequence[float]) -> str:
    """The median, and in brackets the least and the largest where there are several."""
    if not values:
        return "–"
    middle = ns_text(median(values))
    return middle if len(values) == 1 else f"{middle} ({ns_text(values[0])}–{ns_text(values[-1])})"


def _sizes(rows: Sequence[Row]) -> list[str]:
    steps = [
        f"{median(row['build_ms'][step] for row in rows) / 1000:.2f}" for step in ("front", "decide", "clang")
    ]
    cpu = [row["build_cpu_ms"] / 1000 for row in rows if "build_cpu_ms" in row]
    peaks = [row["build_peak_mib"] for row in rows if "build_peak_mib" in row]
    return [
        *steps,
        f"{median(cpu):.2f}" if cpu else "–",
        f"{median(median(row['load_ms']) for row in rows):.0f}",
        f"{max(peaks):,.0f}" if peaks else "–",
        f"{max(row['table_bytes'] for row in rows) / 1000:,.0f}",
        f"{max(row['map_bytes'] for row in rows) / 1000:,.0f}",
        f"{max(row['instructions'] for row in rows):,}",
        f"{max(row['verified'] for row in rows):,}",
    ]


def _families(results: Results) -> list[str]:
    table, ipv4 = results["families"], results.get("scale")
    rows = []
    for size in sizes_of(table):
        for flavour in _FLAVOURS:
            sets = {
                "IPv4": select(ipv4, set=flavour, rules=size),
                "IPv6": select(table, set=flavour, rules=size, family="ipv6"),
                "both": select(table, set=flavour, rules=size, family="mixed"),
            }
            rows.append(
                (f"{size:,}", flavour, *(_range(over_seeds(found, "uniform")) for found in sets.values()))
            )
    return ["## IPv6, and both\n", FAMILIES, table_of(("rules", "set", "IPv4", "IPv6", "both"), rows)]


def _exact(results: Results) -> list[str]:
    programs = ("penstock", "hash", "linear", "chain")
    rows = [
        (f"{row['rules']:,}", kind, *(ns_text(above(row, kind, program)) for program in programs))
        for row in results["exact"].rows
        if "failed" not in row
        for kind in ("uniform", "zipf", "none matches")
    ]
    titles = ("rules", "traffic", "penstock", "hash in C", "loop in C", "ifs in C")
    return [
        "## Exact five-tuples\n",
        _image("exact", "exact rules against a hash"),
        EXACT,
        table_of(titles, rows),
    ]


def _small(results: Results) -> list[str]:
    rows = []
    for row in select(results["small"]):
        ours, theirs = above(row, "warm"), above(row, "warm", "chain")
        uniform = (ns_text(above(row, "uniform", program)) for program in ("penstock", "chain"))
        rows.append(
            (row["rules"], row["seed"], ns_text(ours), ns_text(theirs), ratio_text(ours, theirs), *uniform)
        )
    titles = (
        "rules",
        "seed",
        "penstock, warm",
        "by hand, warm",
        "ratio",
        "penstock, uniform",
        "by hand, uniform",
    )
    return ["## A few rules, beside the same written by hand\n", SMALL, table_of(titles, rows)]


def _twenty(results: Results) -> list[str]:
    names = ("policy", "hand", "ratio", "linear")
    rows = [(row["traffic"], *(row[name] for name in names)) for row in results["twenty"].rows]
    titles = ("traffic", "policy", "by hand", "ratio", "the policy's rules in order")
    return ["## Twenty rules, beside the same written by hand\n", TWENTY, table_of(titles, rows)]


def _usual(results: Results) -> list[str]:
    rows = [
        (r["traffic"], r["policy"], r["jumbo"], ratio_text(r["policy"], r["jumbo"]), r["linear"],
         ratio_text(r["policy"], r["linear"]))
        for r in results["usual"].rows
    ]  # fmt: skip
    titles = ("traffic", "policy", "by hand", "ratio", "by hand, no jumbo frames", "ratio")
    return ["## dns.policy, beside the same written by hand\n", USUAL, table_of(titles, rows)]


def _hooks(results: Results) -> list[str]:
    rows = [
        (row["hook"], f"{row['filter']}.policy", row["traffic"], row["policy"],
         *(cell for name in ("hand", "exact")
           for cell in (row.get(name, "–"), ratio_text(row["policy"], row.get(name)))))
        for row in results["hooks"].rows
    ]  # fmt: skip
    titles = ("hook", "filter", "traffic", "policy", "by hand", "ratio", "by hand, as on the wire", "ratio")
    return [
        "## At TC and at sockets, beside the same written by hand\n",
        HOOKS,
        table_of(titles, rows, left=3),
    ]


def _actions(results: Results) -> list[str]:
    rows = [
        (row["hook"], f"`{row['action']}`", ns_text(row["udp"]), ns_text(row["tcp"]))
        for row in results["actions"].rows
    ]
    return ["## Actions\n", ACTIONS, table_of(("hook", "action", "UDP", "TCP"), rows, left=2)]


def _saved(results: Results) -> list[str]:
    rows, notes = [], []
    for row in select(results["saved"]):
        rows.append((f"{row['set']}.rules", row["what"], f"{row['rules']:,}", len(row["left_out"]),
                     row["changed"], *(ns_text(above(row, kind)) for kind in ("uniform", "zipf", "warm"))))  # fmt: skip
        reasons = sorted(set(row["left_out"]))
        if reasons:
            counted = ", ".join(f"`{reason}` {row['left_out'].count(reason)}" for reason in reasons)
            notes.append(f"* {row['set']}.rules: {counted}")
    titles = ("set", "what it is", "rules", "left out", "changed", "uniform", "Zipf", "warm")
    return [
        "## Rule sets of iptables\n", SAVED, table_of(titles, rows, left=2),
        "What was left out, and how often:\n", "\n".join([*notes, ""]),
    ]  # fmt: skip


def _classifier(results: Results) -> list[str]:
    table = results["classifier"]
    found = {
        (size, flavour, kind): rows
        for size in sizes_of(table)
        for flavour in _FLAVOURS
        for kind in ("ipv4", "ipv6", "both")
        if (rows := select(table, rules=size, flavour=flavour, kind=kind))
    }
    kinds = ("uniform", "zipf", "warm")
    rows = [
        (f"{size:,}", flavour, _FAMILIES[kind], *(ns_text(alone_ns(some, traffic)) for traffic in kinds),
         f"{max(r['table_kib'] for r in some):,}", f"{median(r['build_s'] for r in some):.2f}",
         f"{max(r['verified'] for r in some):,}")
        for (size, flavour, kind), some in found.items()
    ]  # fmt: skip
    titles = ("rules", "set", "family", "uniform", "Zipf", "warm", "tables, KiB", "build, s", "verified")
    return ["## The classifier alone\n", CLASSIFIER, table_of(titles, rows)]


def _overlay(results: Results) -> list[str]:
    rows = [
        (f"{r['rules']:,}", *(f"{r[key]:.1f}" for key in ("effect_ms", "effect_most_ms", "add_ms", "remove_ms")),
         *(f"{ns:.1f}" for ns in r["ns_above"].values()))
        for r in results["overlay"].rows
    ]  # fmt: skip
    records = results["overlay"].rows[0]["ns_above"]
    titles = (
        "rules",
        "in force, ms",
        "at most",
        "command done, ms",
        "taken away, ms",
        *(f"{r}, ns" for r in records),
    )
    return ["## A rule added to a running policy\n", OVERLAY, table_of(titles, rows)]


def _wire(results: Results) -> list[str]:
    every = results["wire"].rows
    peers = list(dict.fromkeys(peer for row in every for peer in row["ns"]))
    first = peers[0]
    titles = ("filter", *(f"{row['set']} ({row['rules']:,})" for row in every))
    rows = [
        (peer, *(f"{row['ns'][peer] / row['ns'][first]:.1f}" if peer in row["ns"] else "–" for row in every))
        for peer in peers
    ]
    absolute = (f"*ns, {first}*", *(f"{row['ns'][first]:,.0f}" for row in every))
    reasons: dict[str, list[str]] = {}
    for row in every:
        for peer, reason in row["left_out"].items():
            reasons.setdefault(f"{peer}: {reason}", []).append(f"{row['set']} ({row['rules']:,})")
    notes = [
        f"* {reason} – {', '.join(where)}" for reason, where in reasons.items() if "hand.bpf.c" not in reason
    ]
    return [
        "## Real frames over veth, beside other filters\n", _image("wire", "filters over veth by the number of rules"),
        WIRE, table_of(titles, [*rows, absolute]), "What could not take part:\n", "\n".join([*notes, ""]),
    ]  # fmt: skip


def _loading(results: Results) -> list[str]:
    keys = [key for key in results["loading"].rows[0] if key != "rules"]
    rows = [(f"{r['rules']:,}", *(r[key] for key in keys)) for r in results["loading"].rows]
    return ["## From the text to the interface\n", LOADING, table_of(("rules", *keys), rows)]


def _image(name: str, what: str) -> str:
    return f"![{what}](images/performance/{name}.svg)\n"
