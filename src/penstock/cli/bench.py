"""`penstock bench`: what a policy costs a packet, measured before anyone meets it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.options import json_option
from penstock.errors import LimitError, PenstockError, PrivilegeError, ToolchainError

if TYPE_CHECKING:
    from penstock.compiler.ir.ops import RuleSet
    from penstock.pipeline.policy import LoadedPolicy
    from penstock.price import Price
    from penstock.price.budget import Crossing, Limit
    from penstock.price.peers import Comparison
    from penstock.price.rules import RulePrices
    from penstock.price.traffic import TrafficClass

_BY_HAND = ".hand.bpf.c"
_COMPILER = ("driver", "ir.lower", "lang.check", "lang.parser")
_DRAWN = 1 << 16
RANDOM, WHOLE_CAPTURE = "random over the rules", "the capture in turn"
_ROUNDS, _SAMPLES_A_ROUND, _MOST_PEER_ROUNDS = 31, 3, 7
#: Looking for a rule compiles the policy several times; if that would take longer it is not done.
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Found:
    """All that a call of the command has found out; None is what was not asked for or cannot be said."""

    price: Price
    compile_s: float | None
    rules: RulePrices | None
    peers: Comparison | None
    budget: tuple[Limit, ...] | None
    crossings: Sequence[Crossing]
    fault: PenstockError | None = None
    """Why there are no peers, where they were asked for; the rest is worth showing all the same."""


@click.command("bench")
@click.argument("file", type=click.Path())
@click.option("--pcap", type=click.Path(), metavar="CAPTURE", help="Measure with the traffic of a capture.")
@click.option(
    "--hand",
    type=click.Path(),
    metavar="FILE",
    help=f"C of the same filter by hand; by default FILE's {_BY_HAND}.",
)
@click.option("--peers", is_flag=True, help="The same rules in nft, iptables, xdp-filter and C, on a wire.")
@click.option("--rules", is_flag=True, help="What each rule adds.")
@click.option(
    "--budget",
    metavar="LIMITS",
    help="Exit code 1 beyond ns=40,insns=2000; also verified, states, stack, memory, table, load, compile.",
)
@click.option(
    "--rounds", type=click.IntRange(1, 999), default=_ROUNDS, show_default=True, help="Rounds; medians count."
)
@click.option("--filter", "filter_name", metavar="NAME", help="Which filter, when the policy has several.")
@json_option
def command(
    file: str,
    pcap: str | None,
    hand: str | None,
    peers: bool,
    rules: bool,
    budget: str | None,
    rounds: int,
    filter_name: str | None,
    as_json: bool,
) -> int:
    """Measure what a policy costs a packet, in nanoseconds.

    Beside it, in the same run, an empty program and, where there is one, the
    same filter written by hand in C.  Compare what stands in one table and
    nothing else.  No interface of this machine is touched.
    """
    from penstock.cli import bench_report
    from penstock.price.budget import parse_budget

    limits = parse_budget(budget) if budget is not None else None
    policy, compile_s = _compiled(file, filter_name)
    try:
        found = _found(policy, compile_s, limits, file, pcap, hand, rounds, peers=peers, rules=rules)
    except PrivilegeError:
        bench_report.show_object(policy, compile_s, as_json=as_json)
        raise
    finally:
        output.progress()
    bench_report.show(found, as_json=as_json)
    if found.fault is not None:
        raise found.fault
    return 1 if found.crossings else 0


def _compiled(file: str, filter_name: str | None) -> tuple[LoadedPolicy, float | None]:
    """The policy and how long its compilation took, None for a built file."""
    from penstock.cli.policy_load import load_file

    for module in _COMPILER:  # Importing them is no part of compiling.
        import_module(f"penstock.compiler.{module}")
    start = perf_counter()
    policy = load_file(file, filter_name)
    took = perf_counter() - start
    return policy, None if policy.rule_set is None else took


def _found(
    policy: LoadedPolicy,
    compile_s: float | None,
    limits: tuple[Limit, ...] | None,
    file: str,
    pcap: str | None,
    hand: str | None,
    rounds: int,
    *,
    peers: bool,
    rules: bool,
) -> Found:
    from penstock.price import price
    from penstock.price.budget import crossed, unknown

    rule_set = _rules_of(policy)
    classes, streams = _traffic(rule_set, pcap)
    hand_written = _hand_written(file, hand)
    found = price(
        policy,
        classes,
        streams,
        hand_written=hand_written,
        rounds=rounds,
        samples=_SAMPLES_A_ROUND * rounds,
        told=output.progress,
    )
    crossings = crossed(limits or (), found, compile_s)
    for key in unknown(limits or (), found, compile_s):
        output.progress()
        output.warn(f"nothing can be said of {key} here: its limit is not looked at")
    rule_prices = _rule_prices(rule_set, found, compile_s, rounds) if rules else None
    told = [_blamed(one, rule_set, found, compile_s) for one in crossings]
    compared, fault = None, None
    if peers:
        try:
            compared = _compared(policy, rule_set, classes, streams, hand_written, rounds)
        except PenstockError as error:
            fault = error
    return Found(found, compile_s, rule_prices, compared, limits, told, fault)


def _rules_of(policy: LoadedPolicy) -> RuleSet:
    """The rules, of a built file those of the text that it carries."""
    from penstock.pipeline.policy import rule_set_of

    identity = policy.identity
    return policy.rule_set or rule_set_of(identity.text, name=identity.path, filter=identity.name)


def _traffic(rules: RuleSet, pcap: str | None) -> tuple[list[TrafficClass], dict[str, Sequence[bytes]]]:
    """Classes, and streams of different packets; a stream of one packet would be warm."""
    from penstock.observe.capture import ethernet_frames
    from penstock.price.draw import drawn_frames
    from penstock.price.traffic import capture_classes, usual_classes

    streams: dict[str, Sequence[bytes]] = {}
    output.progress("reading traffic")
    if pcap is None:
        classes = usual_classes(rules)
    else:
        classes, kept = capture_classes((bytes(frame.data) for frame in ethernet_frames(pcap)), rules)
        if not classes:
            raise PenstockError(f"{pcap} has no packet that could be measured with")
        streams[WHOLE_CAPTURE] = kept
    streams[RANDOM] = drawn_frames(rules, _DRAWN)
    return classes, {name: frames for name, frames in streams.items() if len(frames) > 1}


def _hand_written(file: str, hand: str | None) -> str | None:
    path = Path(hand) if hand else Path(file).with_suffix(_BY_HAND)
    if hand is None and not path.is_file():
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PenstockError(f"{path} cannot be read: {error}") from error


def _rule_prices(rules: RuleSet, found: Price, compile_s: float | None, rounds: int) -> RulePrices:
    from penstock.price.rules import MOST_RULES, affordable_rules, rule_prices

    most = MOST_RULES if compile_s is None else affordable_rules(compile_s)
    return rule_prices(rules, found.worst.frames, most=most, rounds=rounds, told=output.progress)


def _compared(
    policy: LoadedPolicy,
    rules: RuleSet,
    classes: Sequence[TrafficClass],
    streams: dict[str, Sequence[bytes]],
    hand_written: str | None,
    rounds: int,
) -> Comparison:
    """The peers, on every stream and on the classes in turn."""
    from penstock.price.peers import compare
    from penstock.price.peers.compare import ALL, BY_HAND

    traffic = {"the classes in turn": [one.frame for one in classes], **streams}
    chosen = [peer for peer in ALL if hand_written is not None or peer.name != BY_HAND]
    return compare(
        rules,
        policy.elf,
        traffic,
        hand_written=hand_written,
        peers=chosen,
        rounds=min(rounds, _MOST_PEER_ROUNDS),
        told=output.progress,
    )


def _blamed(crossing: Crossing, rules: RuleSet, found: Price, compile_s: float | None) -> Crossing:
    """The crossing with its rule, where one can be found in time."""
    from penstock.price.budget import Crossing as Told
    from penstock.price.budget import blamed, can_be_blamed

    if not can_be_blamed(crossing.limit.key) or not rules.rules:
        return crossing
    if compile_s is None or compile_s * (len(rules.rules).bit_length() + 1) > _PATIENCE_S:
        why = "which rule crosses it was not looked for: that takes too many compilations"
        return Told(crossing.limit, crossing.found, None, why)
    try:
        return blamed(crossing, rules, found.worst.frames, output.progress)
    except (LimitError, ToolchainError):
        return crossing
