"""Actions that need more than their code: which devices a program knows, and what each rule asks for.

redirect eth1 if icmp     ->  ps_device_of(9) is 0, the number of eth1 in ps_devices
mark 0x10/0xff if udp     ->  ps_want_mark(0x10, 0xff);
mirror eth2               ->  ps_want_mirror(1);

What a program does not do costs it nothing: it is not in its text.
"""

from __future__ import annotations

from collections.abc import Iterator

from penstock.compiler.ir.depth import interfaces_of
from penstock.compiler.ir.ops import FIRST_RULE_SLOT, Rule, RuleSet
from penstock.errors import LimitError
from penstock.model.action import Argument, Change, Device, Dscp, Mark
from penstock.model.device import MAX_DEVICES
from penstock.model.hook import Hook
from penstock.model.verdict import Verdict


def devices_of(rule_set: RuleSet) -> tuple[str, ...]:
    """The devices that a filter names, each once, in the order of their numbers.

    Raises:
        LimitError: naming the rule that has one too many.
    """
    found: dict[str, None] = {}
    for rule in rule_set.rules:
        if isinstance(rule.argument, Device):
            found.setdefault(rule.argument.name)
        found.update(dict.fromkeys(interfaces_of(rule.condition)))
        if len(found) > MAX_DEVICES:
            raise LimitError(
                f"line {rule.line}: rule {rule.name} names one device too many; a filter can name {MAX_DEVICES}",
                limit="devices per filter",
            )
    return tuple(found)


def verdicts_of(rule_set: RuleSet) -> set[Verdict]:
    """Every verdict that the filter's text can come to."""
    odd = {verdict for _, verdict in rule_set.conditions if verdict is not None}
    rules = {rule.action for rule in rule_set.rules if isinstance(rule.action, Verdict)}
    return {rule_set.default, *odd, *rules}


def action_lines(rule_set: RuleSet, devices: tuple[str, ...]) -> Iterator[str]:
    """The headers of what the filter's actions need, behind what the hook's frame asks for."""
    verdicts = verdicts_of(rule_set)
    if devices:
        yield f"#define PS_DEVICES {len(devices)}"
        yield "#include <penstock/device.bpf.h>"
    if any(wants(rule.argument, devices) for rule in rule_set.rules if not rule.decides):
        yield "#define PS_MANGLES 1"
        yield f"#define PS_EGRESS {int(rule_set.hook is Hook.TC_EGRESS)}"
        yield "#include <penstock/mangle.bpf.h>"
    if Verdict.REDIRECT in verdicts:
        yield "#define PS_REDIRECTS 1"
    if Verdict.REJECT in verdicts:
        yield "#define PS_REJECTS 1"


def wants(argument: Argument | None, devices: tuple[str, ...]) -> str:
    """The statement by which a rule that does not decide asks for something; empty if it only counts."""
    match argument:
        case None | Change():
            return ""
        case Mark(value, mask):
            return f"ps_want_mark({value:#x}U, {mask:#x}U);"
        case Dscp(value):
            return f"ps_want_dscp({value});"
        case Device(name):
            return f"ps_want_mirror({devices.index(name)});"


def device_lines(rule_set: RuleSet, devices: tuple[str, ...]) -> Iterator[str]:
    """The function that tells to which device a rule redirects; nothing for a filter without such a rule."""
    numbers = dict(_redirections(rule_set.rules, devices))
    if not numbers:
        return
    yield ""
    if len(set(numbers.values())) > 1:
        cells = [f"{numbers.get(slot, 0)}," for slot in range(FIRST_RULE_SLOT + len(rule_set.rules))]
        yield f"static const __u8 ps_device_numbers[{len(cells)}] = {{"
        yield from ("\t" + " ".join(cells[at : at + 32]) for at in range(0, len(cells), 32))
        yield "};"
        yield ""
        told = f"slot < {len(cells)} ? ps_device_numbers[slot] : 0"
    else:
        told = str(next(iter(numbers.values())))
    yield "static __always_inline __u32 ps_device_of(__u32 slot)"
    yield "{"
    yield f"\treturn {told};"
    yield "}"


def _redirections(rules: tuple[Rule, ...], devices: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    for slot, rule in enumerate(rules, FIRST_RULE_SLOT):
        if rule.action is Verdict.REDIRECT and isinstance(rule.argument, Device):
            yield slot, devices.index(rule.argument.name)
