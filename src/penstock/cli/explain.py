"""`penstock explain FILE PACKET`: which rule decides a packet, and why no rule before it did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.contents import chosen_contents, contents_options
from penstock.cli.options import json_option
from penstock.compiler.ir.ops import FIRST_RULE_SLOT
from penstock.compiler.ir.outcome import Asked, asked, decision_on
from penstock.errors import PenstockError
from penstock.model.action import Dscp, spell
from penstock.pipeline.policy_file import read_policy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.compiler.ir.explain import Explanation
    from penstock.compiler.ir.ops import Rule, RuleSet


@click.command("explain")
@click.argument("file", type=click.Path())
@click.argument("packet", required=False)
@click.option("--hex", "hex_text", metavar="BYTES", help="The frame as hex digits.")
@click.option("--pcap", type=click.Path(), metavar="CAPTURE", help="The frame is in this capture …")
@click.option(
    "--packet", "number", type=click.IntRange(1), metavar="N", help="… and has this number, from 1."
)
@click.option("--filter", "filter_name", metavar="NAME", help="Which filter, when the policy has several.")
@contents_options
@click.option("--spent", is_flag=True, help="Take the buckets of rates as spent and not as full.")
@json_option
def command(
    file: str,
    packet: str | None,
    hex_text: str | None,
    pcap: str | None,
    number: int | None,
    filter_name: str | None,
    set_texts: tuple[str, ...],
    sets_are: str,
    spent: bool,
    as_json: bool,
) -> None:
    """Say which rule of the policy FILE decides a packet, and for every rule before it what did not hold.

    PACKET is written as layers: 'IPv4(src="1.2.3.4")/UDP(dport=53)'.  Sets are empty unless --set or --sets says
    otherwise: --set threats=192.0.2.0/24,2001:db8::/32 or --set threats=@drop.txt.
    """
    from penstock.compiler.ir.buckets import FULL, SPENT
    from penstock.compiler.ir.explain import explain
    from penstock.pipeline.policy import rule_set_of
    from penstock.pipeline.set_contents import modelled

    data, wire_length = _frame(packet, hex_text, pcap, number)
    source = read_policy(file)
    rules = rule_set_of(source.text, name=source.name, filter=filter_name)
    sets = modelled(rules.sets, chosen_contents(rules.sets, set_texts, sets_are))
    found = explain(rules, data, wire_length, sets=sets, buckets=SPENT if spent else FULL)
    if as_json:
        output.record("penstock.explain/1", _record(rules, found, data, wire_length))
        return
    for line in _lines(rules, found):
        output.answer(line)


def _frame(
    packet: str | None, hex_text: str | None, pcap: str | None, number: int | None
) -> tuple[bytes, int]:
    given = [value for value in (packet, hex_text, pcap) if value is not None]
    if len(given) != 1 or (number is not None and pcap is None):
        raise click.UsageError("give one packet: PACKET, --hex BYTES, or --pcap CAPTURE --packet N")
    if pcap is not None:
        from penstock.engine.trials import frame_of_capture

        return frame_of_capture(pcap, number or 1)
    data = _built(packet) if packet is not None else _from_hex(hex_text or "")
    return data, len(data)


def _built(text: str) -> bytes:
    from penstock.model.packet import build_packet, parse_packet

    return build_packet(parse_packet(text))


def _from_hex(text: str) -> bytes:
    digits = "".join(text.replace(":", " ").split()).removeprefix("0x")
    try:
        return bytes.fromhex(digits)
    except ValueError as error:
        raise PenstockError(
            "--hex takes an even number of hex digits", hint="--hex 'ffff ffff ffff …'"
        ) from error


def _lines(rules: RuleSet, found: Explanation) -> list[str]:
    from penstock.engine.trials import decider_name

    outcome = found.outcome
    odd = ", ".join(condition.word for condition in sorted(outcome.conditions))
    lines = [f"odd packet: {odd}"] if odd else []
    lines += [
        f"{rules.source.name}:{tried.rule.line}  {tried.rule.name}: {tried.rule.doing}  "
        + (tried.reason if tried.matched else f"no: {tried.reason}")
        for tried in found.rules
    ]
    decider = deciding_rule(rules, found)
    place = f"{rules.source.name}:{decider.line}  " if decider else ""
    verdict = output.verdict_word(decision_on(rules, outcome).value)
    also = ", ".join(_also(asked(rules, outcome)))
    lines.append(f"{place}{verdict} by {decider_name(outcome, rules)}")
    lines += [f"    {reason}" for reason in found.because]
    return [*lines, f"    and: {also}"] if also else lines


def _also(found: Asked) -> Iterator[str]:
    """What is done with a packet besides its verdict, in words."""
    for device in found.mirrors:
        yield f"a copy to {device}"
    if found.mark is not None:
        yield f"mark {spell(found.mark)}"
    if found.dscp is not None:
        yield f"dscp {spell(Dscp(found.dscp))}"


def deciding_rule(rules: RuleSet, found: Explanation) -> Rule | None:
    """The rule that decided; None if the default or a condition did."""
    at = found.outcome.slot - FIRST_RULE_SLOT
    return rules.rules[at] if at >= 0 else None


def _record(rules: RuleSet, found: Explanation, data: bytes, wire_length: int) -> dict[str, object]:
    from penstock.engine.trials import decider_name

    tried = [
        {
            "rule": one.rule.name,
            "line": one.rule.line,
            "action": one.rule.doing,
            "matched": one.matched,
            "reason": one.reason,
        }
        for one in found.rules
    ]
    decider = deciding_rule(rules, found)
    also = asked(rules, found.outcome)
    return {
        "policy": rules.name,
        "frame": data.hex(),
        "wire_length": wire_length,
        "verdict": found.outcome.verdict.value,
        "decided_by": decider_name(found.outcome, rules),
        "device": also.device,
        "mirrors": list(also.mirrors),
        "mark": {"value": also.mark.value, "mask": also.mark.mask} if also.mark else None,
        "dscp": also.dscp,
        "line": decider.line if decider else None,
        "because": list(found.because),
        "conditions": [condition.word for condition in sorted(found.outcome.conditions)],
        "rules_before": tried,
    }
