"""What docs/performance.md has of sets and rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.cells import ns_text, ratio_text, table_of
from bench.prose_sets import BANS, BETWEEN, HASHES, LOOKUPS, RATES, SETS, SETS_INSIDE, SETS_WIRE
from bench.results import Row, Table

Results = Mapping[str, Table]
_WORDS = {"host": "addresses", "net": "networks"}
#: As they are called in results, and on the page.
_TOOLS = {
    "penstock": "penstock",
    "daemon": "by its daemon",
    "python": "in Python",
    "ipset": "ipset",
    "nft": "nft",
}
_FAMILIES = {"v4": "IPv4", "v6": "IPv6"}


def _sets(results: Results) -> list[str]:
    every = results["sets"].rows
    measured = {tool for row in every for tool in row}
    tools = tuple(tool for tool in _TOOLS if tool in measured)
    rows = [
        (
            row["task"],
            f"{row['entries']:,}",
            _WORDS[row["kind"]],
            *(_process(row.get(tool)) for tool in tools),
        )
        for row in every
        if row["task"] not in ("to effect", "reopen")
    ]
    memory = [
        ("bytes an entry", f"{row['entries']:,}", _WORDS[row["kind"]],
         *(f"{row[tool]['bytes'] / row['entries']:.0f}" if tool in row else "–" for tool in tools))
        for row in every
        if row["task"] == "load"
    ]  # fmt: skip
    inside = [
        (f"{row['entries']:,}", _WORDS[row["kind"]], f"{row['add_us']:.0f}", f"{row['remove_us']:.0f}",
         *(f"{1e3 * other['penstock']['s']:.1f}" for other in every
           if (other["task"], other["kind"], other["entries"]) == ("reopen", row["kind"], row["entries"])))
        for row in every
        if row["task"] == "to effect"
    ]  # fmt: skip
    return [
        "## Filling and changing sets, beside ipset and nft\n", SETS,
        table_of(("task", "entries", "of", *(f"{_TOOLS[tool]}, s" for tool in tools)), [*rows, *memory], left=3),
        SETS_INSIDE, table_of(("entries", "of", "add, µs", "remove, µs", "reopening, ms"), inside, left=2),
    ]  # fmt: skip


def _process(took: Row | None) -> str:
    return "–" if took is None else f"{took['s']:.3g} ({took['cpu_s']:.3g})"


def _hashes(results: Results) -> list[str]:
    rows = [
        (f"{row['entries']:,}", row["kind"], row["traffic"], ns_text(row["penstock"]), ns_text(row["hand"]),
         ratio_text(row["penstock"], row["hand"]), ns_text(row.get("penstock_close")), ns_text(row.get("hand_close")))
        for row in results["hashes"].rows
    ]  # fmt: skip
    titles = (
        "entries",
        "packets",
        "of them different",
        "penstock",
        "by hand",
        "ratio",
        "close: penstock",
        "by hand",
    )
    return ["## Sets of addresses, beside a hash by hand\n", HASHES, table_of(titles, rows, left=3)]


def _bans(results: Results) -> list[str]:
    rows = [(row["way"], f"{row['per_s']:,}") for row in results["bans"].rows]
    return ["## Single adds through the daemon\n", BANS, table_of(("", "adds a second"), rows)]


def _lookups(results: Results) -> list[str]:
    every = results["lookups"].rows
    rows = []
    for flat in every:
        if flat["structure"] != "flat":
            continue
        same = ("family", "entries", "traffic", "packets")
        (trie,) = (
            row for row in every if row["structure"] == "trie" and all(row[key] == flat[key] for key in same)
        )
        rows.append(
            (f"{flat['entries']:,}", _FAMILIES[flat["family"]], flat["traffic"], f"{flat['packets']:,}",
             ns_text(flat["ns"]), ns_text(trie["ns"]), ratio_text(trie["ns"], flat["ns"]))
        )  # fmt: skip
    titles = ("networks", "of", "packets", "of them different", "flat", "LPM_TRIE", "trie / flat")
    return ["## Sets of networks, flat and in a trie\n", LOOKUPS, table_of(titles, rows, left=4)]


def _sets_wire(results: Results) -> list[str]:
    every = results["sets_wire"].rows
    names = ("drops all", "passes all", "penstock", "penstock, flat", "penstock, trie", "ipset", "nft")
    rows = [
        (f"{row['entries']:,}", _WORDS[row["kind"]], row["traffic"],
         *(ns_text(row["ns"].get(name)) for name in names))
        for row in every
    ]  # fmt: skip
    titles = ("entries", "of", "packets", "*drops all*", "*passes all*", *names[2:])
    return ["## Large sets in other filters, over veth\n", SETS_WIRE, table_of(titles, rows, left=3)]


def _rates(results: Results) -> list[str]:
    rows = [
        (row["hook"], row["traffic"], ns_text(row["policy_ns"]), ns_text(row["hand_ns"]),
         ratio_text(row["policy_ns"], row["hand_ns"]))
        for row in results["rates"].rows
    ]  # fmt: skip
    titles = ("hook", "packets of", "penstock", "by hand", "ratio")
    return ["## Rates, beside a token bucket by hand\n", RATES, table_of(titles, rows, left=2)]


def _between(results: Results) -> list[str]:
    rows = [
        (f"{row['rules']:,}", row["traffic"], *(ns_text(row[f"{key}_ns"]) for key in ("flat", "with_set", "with_both")))
        for row in results["between"].rows
    ]  # fmt: skip
    titles = ("rules", "packets", "alone", "with a set", "with a set and a rate")
    return ["## A set and a rate between other rules\n", BETWEEN, table_of(titles, rows, left=2)]


SET_SECTIONS: dict[str, Callable[[Results], list[str]]] = {
    "sets": _sets,
    "lookups": _lookups,
    "hashes": _hashes,
    "sets_wire": _sets_wire,
    "rates": _rates,
    "between": _between,
    "bans": _bans,
}
