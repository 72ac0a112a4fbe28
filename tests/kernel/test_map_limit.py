"""A filter that has more maps than the kernel lets a program have is refused before the kernel is asked."""

from __future__ import annotations

import pytest

from penstock.compiler.codegen.emit import has_effects
from penstock.compiler.codegen.maps import MAX_MAPS, own_maps
from penstock.compiler.codegen.room import ensure_room
from penstock.compiler.driver import compile_rule_set
from penstock.compiler.ir.ops import RuleSet
from penstock.errors import LimitError
from penstock.kernel.bpf_object import load_object
from penstock.model.sets import maps_of
from penstock.pipeline.policy import rule_set_of

ACTIONS = {
    "xdp": "reject if udp\nredirect lo if icmp\nbounce if icmp6\n",
    "tc ingress": "mirror lo if tcp\nmark 3 if udp\nredirect lo if icmp\nreject if icmp6\n",
    "tc egress": "dscp 3 if udp\n",
}


def rule_set(adding: int, rates: int, hook: str = "xdp", more: str = "") -> RuleSet:
    sets = "".join(f"set s{number} : host size 64\n" for number in range(adding))
    rules = "".join(
        f"drop if src in @s{n}\nadd src to @s{n} if tcp dst port {n + 1}\n" for n in range(adding)
    )
    limits = "".join(
        f"drop if udp dst port {n + 1} and over {n + 1}/s per src size 64\n" for n in range(rates)
    )
    return rule_set_of(f"{sets}filter edge at {hook} {{\ndefault pass\n{rules}{limits}{more}}}\n")


@pytest.mark.privileged
@pytest.mark.parametrize(("hook", "many"), [("xdp", 0), ("xdp", 1000), ("tc ingress", 0), ("tc egress", 0)])
def test_the_own_maps_of_a_program_are_known(hook: str, many: int) -> None:
    tail = "".join(
        f"drop if src host 10.0.{n >> 8}.{n & 255} and tcp dst port {n + 1}\n" for n in range(many)
    )
    for adding in (0, 1):
        rules = rule_set(adding, 0, hook, ACTIONS[hook] + tail)
        built = compile_rule_set(rules)
        own = own_maps(rules, effects=has_effects(rules), overlay=bool(built.spec.overlay))
        with load_object(built.elf, "edge") as loaded:
            assert own + len(maps_of(rules.sets)) == len(loaded.maps), list(loaded.maps)


@pytest.mark.privileged
def test_as_many_maps_as_there_may_be() -> None:
    rules = rule_set(7, 4)
    ensure_room(rules)
    with load_object(compile_rule_set(rules).elf, "edge") as loaded:
        assert len(loaded.maps) == MAX_MAPS


@pytest.mark.check(15)
@pytest.mark.parametrize(("adding", "rates", "parts"), [(7, 5, "5 rates 5"), (8, 0, "4 more sets 32")])
def test_one_too_many_is_told_with_what_takes_how_many(adding: int, rates: int, parts: str) -> None:
    for refuse in (ensure_room, compile_rule_set):
        with pytest.raises(
            LimitError, match=r"filter edge needs \d+ maps.*can have 64: set s0 8, "
        ) as caught:
            refuse(rule_set(adding, rates))  # type: ignore[operator]
        assert f"{parts}, the program itself 4" in caught.value.message
        assert caught.value.limit == "maps per filter"
        assert "fewer sets" in (caught.value.hint or "")
