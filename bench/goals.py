"""Our goals, each with what a run has found: met, missed, or not measured.

goals(results)[0]   ->  Goal("one rule …", "≤ 1.1 × by hand", "1.02 ×", True)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from bench.results import Row, Table, above, over_seeds, select

#: A difference below this is more noise than program: its ratio to another one says nothing.
LEAST_NS = 0.5
_UNIFORM_NS = {100: 40, 1_000: 65, 10_000: 100, 100_000: 320}
_TABLE_MIB = {1_000: 2, 10_000: 5, 100_000: 40}
_LOADING_S = {20: 0.4, 1_000: 1.0, 10_000: 5.0}
#: The rows of dns.policy that are usual packets; the others take the exact parser.
_USUAL = 10
_FLAVOURS = ("acl", "fw", "ipc")
Results = Mapping[str, Table]


@dataclass(frozen=True, slots=True)
class Goal:
    """`met` is None where the run has no figure for it."""

    what: str
    wanted: str
    found: str
    met: bool | None


def goals(results: Results) -> list[Goal]:
    """Every goal, in a stable order."""
    return [
        *_by_hand(results),
        *_uniform(results),
        *_zipf(results),
        *_tables(results),
        *_linear(results),
        *_families(results),
        *_loading(results),
        *_adding(results),
        *_verifier(results),
        *_sets(results),
    ]


def _at_most(what: str, unit: str, limit: float, values: Mapping[str, float]) -> Goal:
    """A goal that the worst of some named values has to keep."""
    if not values:
        return Goal(what, f"≤ {limit:g}{unit}", "not measured", None)
    shown = ", ".join(f"{name} {_short(value)}" for name, value in values.items())
    return Goal(what, f"≤ {limit:g}{unit}", shown, max(values.values()) <= limit)


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 20 else f"{value:.2g}" if abs(value) < 1 else f"{value:.1f}"


def _by_hand(results: Results) -> Iterator[Goal]:
    for size in (1, 20):
        rows = select(results.get("small"), rules=size)
        pairs = [(above(row, "warm"), above(row, "warm", "chain")) for row in rows]
        ratios = [_ratio(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
        yield _median_at_most(
            f"{size} five-tuple rule{'s'[: size > 1]}, warm, against ifs in C", "sets", ratios
        )
    twenty = select(results.get("twenty"))
    ratios = [_ratio(float(row["policy"]), float(row["hand"])) for row in twenty]
    yield _median_at_most("twenty.policy, warm, against C by hand", "packets", ratios)
    usual = select(results.get("usual"))[:_USUAL]
    for program, words in (("jumbo", "with"), ("linear", "without")):
        ratios = [_ratio(float(row["policy"]), float(row[program])) for row in usual]
        yield _median_at_most(
            f"dns.policy, warm, against C by hand {words} jumbo frames", "usual packets", ratios
        )
    for name in ("dns", "twenty"):
        rows = select(results.get("hooks"), hook="tc ingress", filter=name)
        for program, words in (("hand", ""), ("exact", " that counts as on the wire")):
            ratios = [_ratio(float(row["policy"]), float(row[program])) for row in rows]
            what = f"{name}.policy at TC, warm, against C by hand{words}"
            yield _median_at_most(what, "packets", ratios, 1.3)


def _ratio(ours: float, theirs: float) -> float:
    return ours / max(theirs, LEAST_NS)


def _median_at_most(what: str, of: str, ratios: list[float], limit: float = 1.1) -> Goal:
    return _at_most(what, " ×", limit, {f"median of the {of}": median(ratios)} if ratios else {})


def _by_flavour(results: Results, size: int, value: Callable[[list[Row]], float | None]) -> dict[str, float]:
    found = {f: value(select(results.get("scale"), set=f, rules=size)) for f in _FLAVOURS}
    return {flavour: figure for flavour, figure in found.items() if figure is not None}


def _median_of(traffic: str, program: str = "penstock") -> Callable[[list[Row]], float | None]:
    def value(rows: list[Row]) -> float | None:
        found = over_seeds(rows, traffic, program)
        return median(found) if found else None

    return value


def _uniform(results: Results) -> Iterator[Goal]:
    for size, limit in _UNIFORM_NS.items():
        values = _by_flavour(results, size, _median_of("uniform"))
        yield _at_most(f"{size:,} rules, uniform traffic, the whole program", " ns", limit, values)
        alone = _alone(results, size, "ipv4")
        yield _at_most(f"{size:,} rules, uniform traffic, the classifier alone", " ns", limit, alone)


def _alone(results: Results, size: int, kind: str, traffic: str = "uniform") -> dict[str, float]:
    """The classifier's ns by flavour, medians over the seeds."""
    found = {f: select(results.get("classifier"), rules=size, kind=kind, flavour=f) for f in _FLAVOURS}
    return {f: alone_ns(rows, traffic) for f, rows in found.items() if rows}


def alone_ns(rows: list[Row], traffic: str) -> float:
    """The classifier's ns of some seeds' rows, their median."""
    return median(float(row["times"][traffic]["median"]) for row in rows)


def _zipf(results: Results) -> Iterator[Goal]:
    differences = dict[str, float]()
    for size in _UNIFORM_NS:
        uniform, zipf = (_by_flavour(results, size, _median_of(kind)) for kind in ("uniform", "zipf"))
        differences |= {f"{f} {size:,}": zipf[f] - uniform[f] for f in uniform}
    met = all(value <= 0 for value in differences.values()) if differences else None
    above_it = [f"{name} +{value:.0f} ns" for name, value in differences.items() if value > 0]
    found = ", ".join(above_it) or ("below in all" if differences else "not measured")
    yield Goal("Zipf traffic, 100 rules and more", "below uniform", found, met)


def _tables(results: Results) -> Iterator[Goal]:
    for size, limit in _TABLE_MIB.items():
        values = _by_flavour(
            results, size, lambda rows: max(row["table_bytes"] for row in rows) / 1e6 if rows else None
        )
        yield _at_most(f"{size:,} rules, tables", " MB", limit, values)


def _linear(results: Results) -> Iterator[Goal]:
    ours, theirs = (_by_flavour(results, 10_000, _median_of("uniform", p)) for p in ("penstock", "linear"))
    ratios = {f: theirs[f] / ours[f] for f in ours if f in theirs}
    met = min(ratios.values()) >= 100 if ratios else None
    found = ", ".join(f"{f} {ratio:.0f}" for f, ratio in ratios.items()) or "not measured"
    yield Goal("10,000 rules, a loop over a table in C against penstock", "≥ 100 ×", found, met)


def _families(results: Results) -> Iterator[Goal]:
    rows = {f: select(results.get("families"), set=f, rules=10_000, family="ipv6") for f in _FLAVOURS}
    values = {f: found for f, some in rows.items() if (found := _median_of("uniform")(some)) is not None}
    yield _at_most("10,000 rules of IPv6, uniform traffic", " ns", 180, values)
    alone = _alone(results, 10_000, "ipv6")
    yield _at_most("10,000 rules of IPv6, uniform traffic, the classifier alone", " ns", 180, alone)
    worst = {}
    for flavour, ipv6 in values.items():
        both = _median_of("uniform")(
            select(results.get("families"), set=flavour, rules=10_000, family="mixed")
        )
        ipv4 = _median_of("uniform")(select(results.get("scale"), set=flavour, rules=10_000))
        if both is not None and ipv4 is not None:
            worst[flavour] = both / max(ipv4, ipv6)
    yield _at_most("10,000 rules of both families, against the dearer one", " ×", 1, worst)


def _loading(results: Results) -> Iterator[Goal]:
    for size, limit in _LOADING_S.items():
        values = dict[str, float]()
        for row in select(results.get("loading"), rules=size):
            values["five-tuples"] = float(row["total"]) / 1000
        values |= _by_flavour(results, size, _seconds)
        yield _at_most(f"{size:,} rules, from text to attached", " s", limit, values)


def _seconds(rows: list[Row]) -> float | None:
    totals = [
        sum(row["build_ms"].values()) + median(row["load_ms"]) + median(row["attach_ms"]) for row in rows
    ]
    return median(totals) / 1000 if totals else None


def _adding(results: Results) -> Iterator[Goal]:
    rows = select(results.get("overlay"), rules=10_000)
    names = {"median": "effect_ms", "most": "effect_most_ms"}
    values = {name: float(row[key]) for row in rows for name, key in names.items()}
    yield _at_most("a rule added to 10,000 running ones, until it is in force", " ms", 50, values)


def _verifier(results: Results) -> Iterator[Goal]:
    rows = [
        row
        for name in ("scale", "families", "exact", "saved")
        for row in select(results.get(name))
        if row["table_bytes"]
    ]
    values = {"most of all sets": float(max(row["verified"] for row in rows))} if rows else {}
    what = "instructions the verifier walks, any policy with tables"
    yield _at_most(f"{what}, the whole program", "", 2_000, values)
    alone = [float(row["verified"]) for row in select(results.get("classifier"))]
    yield _at_most(
        f"{what}, the classifier alone", "", 2_000, {"most of all sets": max(alone)} if alone else {}
    )


_SET_LOAD_S = {"host": ("addresses", 1.0), "net": ("prefixes", 1.5)}
_SET_ADD_S = 0.1
#: Commands that do it themselves, and through a daemon.
_WAYS = {"penstock": "", "daemon": ", through the daemon"}
_LARGE, _MANY, _TIMES = 900_000, 1 << 20, 12


def _sets(results: Results) -> Iterator[Goal]:
    table = results.get("sets")
    for kind, (word, limit) in _SET_LOAD_S.items():
        rows = select(table, task="load", kind=kind, entries=1_000_000)
        values = {
            key: float(row["penstock"][at]) for row in rows for key, at in (("clock", "s"), ("CPU", "cpu_s"))
        }
        yield _at_most(f"a million {word} from a file into a set", " s", limit, values)
    for tool, words in _WAYS.items():
        rows = [row for row in select(table, task="add one") if tool in row]
        values = {f"{row['kind']} {row['entries']:,}": float(row[tool]["s"]) for row in rows}
        if values or tool == "penstock":
            yield _at_most(f"one `penstock set add`{words}", " s", _SET_ADD_S, values)
    yield from _beside(table)
    hashes = [_ratio(float(row["penstock"]), float(row["hand"])) for row in select(results.get("hashes"))]
    yield _median_at_most("`src in @s`, against a hash by hand, packets apart", "rows", hashes)
    yield from _lookups(results.get("lookups"))
    yield from _asking(results.get("sets_wire"))
    rows = select(results.get("rates"))
    ratios = [_ratio(float(row["policy_ns"]), float(row["hand_ns"])) for row in rows]
    yield _median_at_most("`over 1000/s per src`, against a token bucket by hand", "rows", ratios)
    rates = {row["way"]: float(row["per_s"]) for row in select(results.get("bans"))}
    found = ", ".join(f"{way} {rate:,.0f}" for way, rate in rates.items()) or "not measured"
    least = min(rates.values()) >= 2000 if rates else None
    yield Goal("single adds through the daemon", "≥ 2,000 a second", found, least)


def _beside(table: Table | None) -> Iterator[Goal]:
    for task in ("load", "update", "add 1 %", "replace"):
        for tool, words in {**_WAYS, "python": ", in Python"}.items():
            values = {
                f"{row['kind']} {row['entries']:,}, {peer}": float(row[tool]["s"]) / float(row[peer]["s"])
                for row in select(table, task=task)
                for peer in ("ipset", "nft")
                if peer in row and tool in row
            }
            if values or tool == "penstock":
                yield _at_most(f"sets, {task}{words}: against ipset and nft", " ×", 1, values)


def _lookups(table: Table | None) -> Iterator[Goal]:
    rows = [row for row in select(table, family="v4") if row["packets"] >= _MANY and row["entries"] > _LARGE]
    ns = {(row["traffic"], row["structure"]): float(row["ns"]) for row in rows}
    ratios = {one: _ratio(ns[one, "trie"], ns[one, "flat"]) for one in ("random", "hit", "miss") if ns}
    found = ", ".join(f"{name} {_short(value)}" for name, value in ratios.items()) or "not measured"
    met = ratios["random"] >= _TIMES if ratios else None
    yield Goal(
        "a million random networks, LPM_TRIE against flat, random packets", f"≥ {_TIMES} ×", found, met
    )
    misses = {"random misses": ns["miss", "flat"]} if ns else {}
    yield _at_most("a million random networks, flat, above an empty program", " ns", 20, misses)


def _asking(table: Table | None) -> Iterator[Goal]:
    values = {}
    for row in select(table):
        ours = min(ns for name, ns in row["ns"].items() if name.startswith("penstock"))
        for peer in ("ipset", "nft"):
            if peer in row["ns"]:
                values[f"{row['kind']} {row['entries']:,} {row['traffic']}, {peer}"] = ours / row["ns"][peer]
    yield _at_most("a packet over veth through a set, against ipset and nft", " ×", 1, values)
