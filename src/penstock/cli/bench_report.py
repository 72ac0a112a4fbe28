"""What `penstock bench` has found, as tables for people and as one record of JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.cli import output

if TYPE_CHECKING:
    from penstock.cli.bench import Found
    from penstock.pipeline.policy import LoadedPolicy
    from penstock.price import Price, TrafficPrice
    from penstock.price.peers import Comparison
    from penstock.price.rules import RulePrices

_SCHEMA = "penstock.bench/1"
_TITLES = ("TRAFFIC", "SHARE", "VERDICT", "NS", "EMPTY", "ABOVE EMPTY", "COLD", "BY HAND", "RATIO")
_RULE_TITLES = ("RULE", "LINE", "NAME", "INSTRUCTIONS", "VERIFIED", "STATES", "NS")


def show(found: Found, *, as_json: bool) -> None:
    """Everything, in the one form or the other."""
    if as_json:
        output.record(_SCHEMA, _as_json(found))
        return
    _show_traffic(found.price)
    _show_figures(found.price, found.compile_s)
    if found.rules is not None:
        _show_rules(found.rules, found.price)
    if found.peers is not None:
        _show_peers(found.peers)
    _show_budget(found)


def show_object(policy: LoadedPolicy, compile_s: float | None, *, as_json: bool) -> None:
    """What can be said without a kernel that lets this process load programs."""
    from penstock.price.figures import object_figures

    found = object_figures(policy.elf)
    if as_json:
        kernel: dict[str, object] = dict.fromkeys((*_KERNEL_FIGURES, "load_ms"))
        record: dict[str, object] = {
            "policy": policy.name,
            "traffic": [],
            **kernel,
            "object_instructions": found.instructions,
            "table_bytes": found.table_bytes,
            "compile_ms": _ms(compile_s),
            "rules": None,
            "peers": None,
            "budget": None,
        }
        output.record(_SCHEMA, {key: record[key] for key in _ORDER})
        return
    compiled = f", compiled in {compile_s * 1000:.0f} ms" if compile_s is not None else ""
    output.answer(
        f"{policy.name}: {found.instructions} instructions in the object, "
        f"{found.table_bytes} bytes of tables{compiled}"
    )


# ── tables ───────────────────────────────────────────────────────────────────


def _show_traffic(found: Price) -> None:
    rows = [_row(one) for one in found.traffic]
    kept = [at for at in range(len(_TITLES)) if at < 1 or any(row[at] != "-" for row in rows)]
    titles = [_TITLES[at] for at in kept]
    right = [at for at, title in enumerate(titles) if title not in ("TRAFFIC", "VERDICT")]
    output.table(titles, [[row[at] for at in kept] for row in rows], right=right)
    output.answer()


def _row(one: TrafficPrice) -> tuple[str, ...]:
    by_hand = None if one.hand_written_ns is None else one.hand_written_ns - one.empty_ns
    return (
        one.name,
        "-" if one.traffic.share is None else f"{100 * one.traffic.share:.1f}%",
        one.traffic.verdict or "-",
        f"{one.ns:.1f}",
        f"{one.empty_ns:.1f}",
        f"{one.above_empty_ns:.1f}",
        _decimal(one.cold_above_empty_ns, 0),
        _decimal(by_hand, 1),
        _decimal(one.ratio, 2),
    )


def _decimal(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _show_figures(price: Price, compile_s: float | None) -> None:
    found = price.figures
    states = "" if found.states is None else f" with {found.states} states ({found.peak_states} at once)"
    stack = "" if found.stack_bytes is None else f", {found.stack_bytes} bytes of stack"
    compiled = "" if compile_s is None else f"compiled in {compile_s * 1000:.0f} ms, "
    output.answer(
        f"{price.policy}: {found.instructions} instructions, {found.verified} verified{states}{stack}, "
        f"{found.jited_bytes} bytes of machine code, {found.map_bytes} bytes of maps "
        f"({found.memory_bytes} in the kernel, {price.object.table_bytes} of them tables), "
        f"{compiled}loaded in {found.load_s * 1000:.1f} ms"
    )
    by_hand = any(one.hand_written_ns is not None for one in price.traffic)
    output.note(
        f"ABOVE EMPTY{', COLD and BY HAND' if by_hand else ' and COLD'} are nanoseconds above the empty program in "
        "this run; packets are warm but for COLD, before each of which the caches are evicted"
    )


def _show_rules(found: RulePrices, price: Price) -> None:
    output.answer()
    output.table(
        _RULE_TITLES,
        [
            (
                str(one.number),
                str(one.line),
                one.name,
                f"{one.instructions:+d}",
                f"{one.verified:+d}",
                "-" if one.states is None else f"{one.states:+d}",
                f"{one.ns:+.1f}",
            )
            for one in found.prices
        ],
        right=(0, 1, 3, 4, 5, 6),
    )
    if not found.is_whole:
        output.answer(
            f"these are the {len(found.prices)} of {found.of} rules that the compiler expects to be dearest"
        )
    output.note(
        f"each figure is the program with the rule less the program without it; NS of {price.worst.name!r}"
    )


def _show_peers(found: Comparison) -> None:
    output.answer()
    names = list(found.sent)
    titles = ["FILTER", *(title for name in names for title in (name.upper(), "RATIO"))]
    rows = [
        [
            price.peer,
            *(
                cell
                for name in names
                for cell in (f"{price.ns[name]:.0f}", f"{found.ratio(price, name):.2f}")
            ),
        ]
        for price in found.prices
    ]
    output.table(titles, rows, right=range(1, len(titles)))
    for one in found.left_out:
        output.answer(f"left out: {one.peer}: {one.reason}")
    output.note(
        f"nanoseconds a packet with the wire, {found.packets} packets a round, and the ratio to dropping "
        "everything at XDP; every filter delivered what the policy passes"
    )
    for name, count in found.aside.items():
        if count:
            output.note(f"{name}: {count} packets were not sent, as the filters do not see them alike")


def _show_budget(found: Found) -> None:
    if found.budget is None:
        return
    output.answer()
    for crossing in found.crossings:
        output.answer(f"over budget: {crossing}")
    if not found.crossings:
        output.answer("within the budget")


# ── the record ───────────────────────────────────────────────────────────────

_KERNEL_FIGURES = (
    "instructions",
    "verified_instructions",
    "verifier_states",
    "verifier_peak_states",
    "stack_bytes",
    "jited_bytes",
    "map_bytes",
    "map_memory_bytes",
)
_ORDER = (
    "policy",
    "traffic",
    *_KERNEL_FIGURES,
    "table_bytes",
    "object_instructions",
    "load_ms",
    "compile_ms",
    "rules",
    "peers",
    "budget",
)


def _as_json(found: Found) -> dict[str, object]:
    price, figures = found.price, found.price.figures
    kernel = (
        figures.instructions,
        figures.verified,
        figures.states,
        figures.peak_states,
        figures.stack_bytes,
        figures.jited_bytes,
        figures.map_bytes,
        figures.memory_bytes,
    )
    record = {
        "policy": price.policy,
        "traffic": [_traffic(one) for one in price.traffic],
        **dict(zip(_KERNEL_FIGURES, kernel, strict=True)),
        "table_bytes": price.object.table_bytes,
        "object_instructions": price.object.instructions,
        "load_ms": _ms(figures.load_s),
        "compile_ms": _ms(found.compile_s),
        "rules": None if found.rules is None else _rules(found.rules),
        "peers": None if found.peers is None else _peers(found.peers),
        "budget": None if found.budget is None else _budget(found),
    }
    return {key: record[key] for key in _ORDER}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def _traffic(one: TrafficPrice) -> dict[str, object]:
    return {
        "name": one.name,
        "packets": one.traffic.packets,
        "share": None if one.traffic.share is None else round(one.traffic.share, 4),
        "verdict": one.traffic.verdict,
        "decided_by": one.traffic.decided_by,
        "ns": round(one.ns, 2),
        "empty_ns": round(one.empty_ns, 2),
        "hand_written_ns": _rounded(one.hand_written_ns),
        "cold_ns": _rounded(one.cold_ns),
        "cold_empty_ns": _rounded(one.cold_empty_ns),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _rules(found: RulePrices) -> dict[str, object]:
    prices = [
        {
            "number": one.number,
            "name": one.name,
            "line": one.line,
            "instructions": one.instructions,
            "verified_instructions": one.verified,
            "verifier_states": one.states,
            "ns": round(one.ns, 2),
        }
        for one in found.prices
    ]
    return {"of": found.of, "prices": prices}


def _peers(found: Comparison) -> dict[str, object]:
    prices = [
        {
            "peer": price.peer,
            "traffic": name,
            "ns": round(price.ns[name], 2),
            "ratio": round(found.ratio(price, name), 3),
            "delivered": price.delivered[name],
        }
        for price in found.prices
        for name in found.sent
    ]
    return {
        "packets": found.packets,
        "rounds": found.rounds,
        "traffic": [
            {"name": name, "sent": found.sent.get(name, 0), "aside": aside}
            for name, aside in found.aside.items()
        ],
        "prices": prices,
        "left_out": [{"peer": one.peer, "reason": one.reason} for one in found.left_out],
    }


def _budget(found: Found) -> list[dict[str, object]]:
    crossings = {crossing.limit.key: crossing for crossing in found.crossings}
    record = []
    for limit in found.budget or ():
        crossing = crossings.get(limit.key)
        rule = crossing.rule if crossing else None
        record.append(
            {
                "key": limit.key,
                "limit": limit.most,
                "crossed": crossing is not None,
                "rule": rule.name if rule else None,
                "line": rule.line if rule else None,
                "text": str(crossing) if crossing else None,
            }
        )
    return record
