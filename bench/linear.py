"""Policies of n five-tuple rules that are tried one after the other.

Out: for each n how long it takes from the policy's text to a program on an
interface, step by step, and for an access list of as many rules (rulesets.py)
all in all.

    drop if src host 10.0.3.1 and dst host 192.0.2.3 and tcp src port 1003 and dst port 4
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TypeVar

from bench import rulesets
from bench.usual import Row
from penstock.compiler.codegen.emit import emit
from penstock.compiler.driver import object_of
from penstock.compiler.ir.lower import lower_filter
from penstock.compiler.ir.verify import verify
from penstock.compiler.lang.check import check_policy
from penstock.compiler.lang.parser import parse_policy
from penstock.compiler.lang.source import Source
from penstock.kernel.bpf_object import load_object
from penstock.kernel.link import attach_xdp
from penstock.kernel.netlink import GENERIC
from penstock.kernel.netns import isolated
from penstock.model.spec import PROGRAM
from penstock.pipeline.collector import paused

SIZES = (1, 20, 100, 1_000, 10_000)
STEPS = ("parse", "check", "lower", "emit", "clang", "load", "attach")
#: From this many rules on a run takes seconds, and is repeated no more often than this.
_LARGE, _FEW = 5_000, 3
_LOOPBACK = 1
T = TypeVar("T")


def policy_text(size: int) -> str:
    """A policy of `size` rules, none of which makes another superfluous."""
    return "filter linear at xdp {\n" + "".join(f"    drop if {_rule(n)}\n" for n in range(size)) + "}\n"


def _addresses(number: int) -> tuple[str, str, int, int]:
    return f"10.{number // 250}.{number % 250}.1", f"192.0.2.{number % 250}", 1000 + number, 1 + number


def _rule(number: int) -> str:
    source, target, sport, dport = _addresses(number)
    return f"src host {source} and dst host {target} and tcp src port {sport} and dst port {dport}"


def loading_rows(runs: int) -> list[Row]:
    """A row a size: milliseconds from text to attached, of the quickest run; other work only adds to a run."""
    return [_loading_row(size, runs) for size in SIZES]


def _loading_row(size: int, runs: int) -> Row:
    quickest = _quickest(policy_text(size), size, runs)
    steps = {step: round(quickest[step] * 1000, 1) for step in STEPS}
    acl = _quickest(rulesets.policy_text(rulesets.generate("acl", size)), size, runs)
    totals = {"total": quickest, "acl": acl}
    return {
        "rules": size,
        **steps,
        **{name: round(sum(times.values()) * 1000, 1) for name, times in totals.items()},
    }


def _quickest(text: str, size: int, runs: int) -> dict[str, float]:
    times = [_load_once(text) for _ in range(runs if size < _LARGE else min(runs, _FEW))]
    return min(times, key=lambda one: sum(one.values()))


@paused()
def _load_once(text: str) -> dict[str, float]:
    """Seconds of each step, as `load_policy` and `attach` take them."""
    times: dict[str, float] = {}
    policy = _timed(times, "parse", lambda: parse_policy(Source("linear.policy", text)))
    _timed(times, "check", lambda: check_policy(policy))
    rules = _timed(times, "lower", lambda: lower_filter(policy, policy.filters[0]))
    source = _timed(times, "emit", lambda: emit(verify(rules)))
    elf = _timed(times, "clang", lambda: object_of(source))
    with _timed(times, "load", lambda: load_object(elf, "linear")) as loaded, isolated():
        program = loaded.programs[PROGRAM]
        with _timed(times, "attach", lambda: attach_xdp(program, _LOOPBACK, mode=GENERIC)):
            return times


def _timed(times: dict[str, float], step: str, work: Callable[[], T]) -> T:
    start = perf_counter()
    result = work()
    times[step] = perf_counter() - start
    return result
