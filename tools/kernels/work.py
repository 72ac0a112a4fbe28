"""What a guest is to do: objects of the verdict cases and of the examples, made on this machine."""

from __future__ import annotations

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

from tests.verdict_cases import Case, cases, wanted

from penstock.compiler.driver import compile_rule_set
from penstock.compiler.ir.ops import RuleSet
from penstock.model.hook import TRAITS
from penstock.model.overlay import RULES
from penstock.model.spec import PROGRAM, ProbeLayout
from penstock.pipeline.policy import load_policy

_TOP = Path(__file__).parents[2]
#: A test run takes no shorter frame.
_LEAST_FRAME = 14


@cache
def work() -> bytes:
    """The work of every guest, as JSON."""
    examples = [_example(path) for path in sorted((_TOP / "examples").glob("*.policy"))]
    objects = [*map(_case, cases()), *examples]
    return json.dumps({"objects": objects, "attach": examples[:1]}).encode()


def _case(case: Case) -> dict[str, Any]:
    rules = case.rule_set()
    built = compile_rule_set(rules, probe=True)
    layout = ProbeLayout(len(built.spec.slots) + (RULES if built.spec.overlay else 0))
    packets = [
        {
            "text": f"{case.path.name}:{packet.line}",
            "frame": packet.frame.hex(),
            "wire": packet.wire_length or 0,
            "wanted": _wanted(rules, case, number),
        }
        for number, packet in enumerate(case.packets)
        if len(packet.frame) >= _LEAST_FRAME
    ]
    return {
        "name": f"case {case.name}",
        "elf": base64.b64encode(built.elf).decode(),
        "program": PROGRAM,
        "layout": {"slot": layout.slot, "hits": layout.hits, "slots": layout.slots},
        "packets": packets,
    }


def _wanted(rules: RuleSet, case: Case, number: int) -> list[int]:
    """Code, slot, conditions and hits as the guest compares them."""
    outcome = wanted(rules, case.packets[number])
    conditions = sum(1 << condition for condition in outcome.conditions)
    return [
        TRAITS[rules.hook].codes[outcome.verdict],
        outcome.slot,
        conditions,
        sum(1 << slot for slot in outcome.hits),
    ]


def _example(path: Path) -> dict[str, Any]:
    policy = load_policy(path.read_text(), name=path.name)
    return {"name": f"policy {path.stem}", "elf": base64.b64encode(policy.elf).decode(), "program": PROGRAM}
