"""The benchmark suite in small: programs meet many packets, and wrong answers are told from right ones."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench.actions import action_rows
from bench.answers import WrongAnswerError, check
from bench.feed import FRAMES, Feed
from bench.hooks import HOOKS, POLICIES, agree, frames_for, objects, only_program
from bench.results import ROOT, load_results
from bench.scale import scale_rows
from bench.sets_wire import set_wire_rows
from bench.workload import Traffic, Workload, generated, mixed

from penstock.kernel.bpf_object import load_object
from penstock.kernel.program import skb_context
from penstock.model.hook import Hook
from penstock.model.spec import COUNTERS_MAP, PROGRAM
from penstock.pipeline.policy import load_policy

pytestmark = pytest.mark.privileged


def test_rule_sets_through_the_whole_path() -> None:
    told: list[str] = []
    both = [generated("fw", 20, 1), mixed("ipc", 20, 1)]
    row, of_both_families = scale_rows(both, 2, told.append)
    assert row["checked"] == of_both_families["checked"] == 2 * FRAMES
    assert row["refused"] == {}
    assert isinstance(row["traffic"], dict)
    assert set(row["traffic"]) == {"uniform", "zipf", "warm"}
    for samples in row["traffic"].values():
        assert set(samples) == {"empty", "penstock", "linear", "chain"}
        assert all(len(rounds) == 2 and min(rounds) > 0 for rounds in samples.values())
    assert told == ["fw ipv4 20 rules, seed 1", "ipc mixed 20 rules, seed 1"]


def test_a_set_that_cannot_be_compiled_is_told_of() -> None:
    broken = replace(_small(), text="filter bench at xdp { drop if")
    [row] = scale_rows([broken], 1, lambda _: None)
    assert "does not compile" in str(row["failed"])


@pytest.mark.parametrize("fault", ["verdict", "rule"])
def test_a_wrong_answer_is_noticed(fault: str) -> None:
    """The program is right and the expectation wrong, in one packet: by its verdict, or by its rule alone."""
    workload = _small()
    loaded_policy = load_policy(workload.text)
    with load_object(loaded_policy.elf, "small") as loaded:
        answers = loaded.programs[PROGRAM], loaded.maps[COUNTERS_MAP]
        assert check("small", *answers, workload, most=256) == 256
        with pytest.raises(WrongAnswerError, match="1 of 256 verdicts" if fault == "verdict" else "0 of 256"):
            check("small", *answers, _spoiled(workload, fault), most=256)


def _small() -> Workload:
    whole = generated("acl", 12, 1)
    return replace(whole, traffic={"uniform": whole.traffic["uniform"]})


def _spoiled(workload: Workload, fault: str) -> Workload:
    traffic = workload.traffic["uniform"]
    expected = traffic.expected.copy()
    right = workload.drops[expected[:256]] & (expected[:256] >= 0)
    at = int(np.flatnonzero(right)[0])
    others = workload.drops if fault == "rule" else ~workload.drops
    expected[at] = next(number for number in np.flatnonzero(others) if number != expected[at])
    return replace(workload, traffic={"uniform": Traffic(traffic.frames, expected)})


def test_the_command_measures_and_writes(tmp_path: Path) -> None:
    argv = ["--quick", "--only", "small", "--rounds", "1", "--results", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "bench", *argv], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    [row] = load_results(tmp_path)["small"].rows
    assert row["checked"] == 3 * FRAMES
    assert "| 20 five-tuple rules, warm, against ifs in C | ≤ 1.1 × | median of the sets" in done.stdout


def test_a_fed_program_meets_every_frame_once_a_round() -> None:
    workload = _small()
    policy = load_policy(workload.text)
    with Feed() as feed, load_object(policy.elf, "small") as loaded:
        feed.fill(workload.traffic["uniform"].frames)
        with feed.fed(loaded.programs[PROGRAM]) as fed:
            fed.run(FRAMES)
        _, counted = loaded.maps[COUNTERS_MAP].read_all()
    expected = workload.traffic["uniform"].expected
    packets = counted[:, :, 0].sum(axis=1)
    assert packets.sum() == FRAMES
    assert packets[0] == (expected < 0).sum()
    assert packets[-12:].tolist() == np.bincount(expected[expected >= 0], minlength=12).tolist()


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("policy", POLICIES)
def test_programs_by_hand_decide_as_the_policy_at_each_hook(hook: Hook, policy: str) -> None:
    with ExitStack() as held:
        programs = {name: only_program(elf, name, held) for name, elf in objects(hook, policy).items()}
        agree(programs, frames_for(policy))
        with pytest.raises(AssertionError):
            agree({**programs, "another": programs["empty"]}, frames_for(policy))


@pytest.mark.parametrize("frame", ["tcp data", "tcp6 data"])
def test_a_program_by_hand_counts_segments_as_the_policy_does(frame: str) -> None:
    made = objects(Hook.TC_INGRESS, "dns")
    context, packet = skb_context(segments=4, segment_size=128), frames_for("dns")[frame]
    counted = []
    for name, counters in (("policy", COUNTERS_MAP), ("exact", "counters")):
        with load_object(made[name], name) as loaded:
            next(iter(loaded.programs.values())).test_run(packet, ctx=context)
            counted.append(loaded.maps[counters].read_all()[1].sum(axis=1)[0].tolist())
    assert counted[0] == counted[1]
    assert counted[0][0] == 4


def test_every_action_is_measured() -> None:
    rows = action_rows(3)
    assert {row["action"] for row in rows} >= {
        "drop",
        "reject",
        "redirect out",
        "mark 7",
        "dscp ef",
        "mirror out",
    }


def test_every_filter_drops_what_its_set_holds_and_nothing_else() -> None:
    """`set_wire_rows` compares what each lets through, of packets that are in the set and of others."""
    rows = set_wire_rows((200,), 1, lambda _: None)
    kinds = {(row["kind"], row["traffic"]): set(dict(row["ns"])) for row in rows}
    some = {"drops all", "passes all", "ipset", "nft"}
    assert kinds["host", "hit"] == kinds["host", "miss"] == {*some, "penstock"}
    assert kinds["net", "hit"] == kinds["net", "miss"] == {*some, "penstock, flat", "penstock, trie"}
