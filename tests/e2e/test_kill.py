"""kill -9 beside every step of an `apply`: afterwards the kernel runs exactly the old policy or exactly the new."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.conftest import CLIENT, Cli, Wire, counters, write
from tests.e2e.killing import killed

pytestmark = [pytest.mark.privileged, pytest.mark.check(14)]

_APPLY = """
from penstock.pipeline.apply import apply_all
from penstock.pipeline.policy import load_policies
path, mode = arguments
apply_all("v1", load_policies(open(path).read(), name=path), mode)
"""

STEPS = {
    "load": ("penstock.pipeline.apply", "", "load", "after", "old"),
    "before stage": ("penstock.kernel.pin", "", "stage", "before", "old"),
    "after stage": ("penstock.kernel.pin", "", "stage", "after", "old"),
    "before update": ("penstock.kernel.link", "Link", "update", "before", "old"),
    "after update": ("penstock.kernel.link", "Link", "update", "after", "new"),
    "before carry": ("penstock.pipeline.slot", "", "carry", "before", "new"),
    "after carry": ("penstock.pipeline.slot", "", "carry", "after", "new"),
    "before publish": ("penstock.kernel.pin", "", "publish", "before", "new"),
    "within publish": ("penstock.kernel.libc", "", "exchange", "after", "new"),
    "after publish": ("penstock.kernel.pin", "", "publish", "after", "new"),
}

NEW = "filter guard at xdp { dns: drop if udp dst port 5353\n ntp: drop if udp dst port 123 }"


def _killed_apply(host: Cli, step: tuple[str, ...], path: Path, mode: str = "auto") -> None:
    killed(host, step[:4], _APPLY, str(path), mode)


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_a_replacement(
    wire: Wire, host: Cli, policy: Path, tmp_path: Path, root: Path, step: tuple[str, ...]
) -> None:
    host("apply", str(policy), "-i", "v1")
    wire.arrived(53, count=3)
    wire.arrived(123, count=2)
    _killed_apply(host, step, write(tmp_path / "new.policy", NEW))
    arrived = {"old": 0, "new": 4}[step[4]]
    assert wire.arrived(53, count=4) == arrived
    found = host("status", "--json")
    assert found.code == 0, found.out
    assert found.record["filters"][0]["trouble"] is None
    after = counters(found)
    assert after["dns"] == {"old": 7, "new": 3}[step[4]]
    assert after["ntp"] == 2
    assert len(list(root.iterdir())) == 1
    assert host("detach", "-i", "v1").code == 0
    assert wire.arrived(53) == 5


@pytest.mark.parametrize("name", ["before stage", "after stage", "before publish", "after publish"])
def test_a_first_apply(wire: Wire, host: Cli, policy: Path, root: Path, name: str) -> None:
    _killed_apply(host, STEPS[name], policy)
    is_new = name != "before stage"
    assert wire.arrived(53) == (0 if is_new else 5)
    found = host("status", "--json").record["filters"]
    assert [one["policy"] for one in found] == (["guard"] if is_new else [])
    host("detach", "-i", "v1")
    assert list(root.iterdir()) == []
    assert wire.arrived(53) == 5


# What is not the same at TC: a tcx link, and a filter on clsact, which nothing holds but the qdisc.
TC_STEPS = {
    "tcx, after update": ("tcx", STEPS["after update"]),
    "before update": ("clsact", ("penstock.kernel.clsact", "Filter", "update", "before", "old")),
    "after update": ("clsact", ("penstock.kernel.clsact", "Filter", "update", "after", "new")),
    "before publish": ("clsact", STEPS["before publish"]),
}
TC_FIRST_STEPS = {
    "tcx, after stage": ("tcx", (*STEPS["after stage"][:4], "new")),
    "before stage": ("clsact", STEPS["before stage"]),
    "before attach": ("clsact", ("penstock.kernel.clsact", "Filter", "attach", "before", "old")),
    "with clsact alone": ("clsact", ("penstock.kernel.clsact", "", "_make_qdisc", "after", "old")),
    "after attach": ("clsact", ("penstock.kernel.clsact", "Filter", "attach", "after", "new")),
    "before publish": ("clsact", STEPS["before publish"]),
}


def _at_tc(path: Path, text: str) -> Path:
    return write(path, text.replace("at xdp", "at tc ingress"))


@pytest.mark.parametrize(("mode", "step"), TC_STEPS.values(), ids=TC_STEPS.keys())
def test_a_replacement_at_tc(
    wire: Wire, host: Cli, policy: Path, tmp_path: Path, root: Path, mode: str, step: tuple[str, ...]
) -> None:
    host("apply", str(_at_tc(policy, policy.read_text())), "-i", "v1", "--mode", mode)
    wire.arrived(53, count=3)
    wire.arrived(123, count=2)
    _killed_apply(host, step, _at_tc(tmp_path / "new.policy", NEW))
    assert wire.arrived(53, count=4) == {"old": 0, "new": 4}[step[4]]
    found = host("status", "--json")
    assert (found.code, found.record["filters"][0]["mode"]) == (0, mode)
    after = counters(found)
    assert (after["dns"], after["ntp"]) == ({"old": 7, "new": 3}[step[4]], 2)
    assert len(list(root.iterdir())) == 1
    assert host("detach", "-i", "v1").code == 0
    assert wire.arrived(53) == 5


@pytest.mark.parametrize(("mode", "step"), TC_FIRST_STEPS.values(), ids=TC_FIRST_STEPS.keys())
def test_a_first_apply_at_tc(
    wire: Wire, host: Cli, policy: Path, root: Path, mode: str, step: tuple[str, ...]
) -> None:
    _killed_apply(host, step, _at_tc(policy, policy.read_text()), mode)
    is_new = step[4] == "new"
    assert wire.arrived(53) == (0 if is_new else 5)
    found = host("status", "--json").record["filters"]
    assert [one["policy"] for one in found] == (["guard"] if is_new else [])
    if not is_new:
        assert list(root.iterdir()) == []
        assert "clsact" not in wire.server.run("tc", "qdisc", "show", "dev", "v1").stdout
    host("detach", "-i", "v1")
    assert list(root.iterdir()) == []
    assert wire.arrived(53) == 5
    assert "clsact" not in wire.server.run("tc", "qdisc", "show", "dev", "v1").stdout


def test_filters_of_several_hooks_are_each_old_or_new(
    wire: Wire, host: Cli, tmp_path: Path, root: Path
) -> None:
    """Killed when one of two is replaced: it is finished, and the other one is as it was."""
    text = "filter guard at xdp {{ dns: drop if udp dst port {} }}\n"
    text += "filter inward at tc ingress {{ ntp: drop if udp dst port {} }}"
    path = write(tmp_path / "both.policy", text.format(53, 123))
    assert host("apply", str(path), "-i", "v1").code == 0
    wire.arrived(53, count=3)
    wire.arrived(123, count=2)
    _killed_apply(host, STEPS["after update"], write(path, text.format(5353, 1123)))
    assert (wire.arrived(53, count=4), wire.arrived(123, count=4)) == (4, 0)
    found = host("status", "--json")
    assert found.code == 3
    guard, inward = [one["trouble"] for one in found.record["filters"]]
    assert (f"at tc ingress an older {path} runs still" in guard, inward) == (True, None)
    counted = [{one["name"]: one["packets"] for one in each["counters"]} for each in found.record["filters"]]
    assert (counted[0]["dns"], counted[1]["ntp"]) == (3, 6)
    assert host("apply", str(path), "-i", "v1").code == 0
    assert (wire.arrived(53), wire.arrived(123)) == (5, 5)
    assert host("status").code == 0
    # One of them alone, because somebody wants it so, is no trouble.
    write(path, text.format(53, 123))
    assert host("apply", str(path), "-i", "v1", "--filter", "inward").code == 0
    assert host("status").code == 0
    assert host("detach", "-i", "v1").code == 0
    assert list(root.iterdir()) == []


#: name -> (hook, mode, the step, whether the filter still runs).
DETACH_STEPS = {
    "xdp, before": ("xdp", "auto", ("penstock.kernel.link", "Link", "detach", "before"), True),
    "xdp, after": ("xdp", "auto", ("penstock.kernel.link", "Link", "detach", "after"), False),
    "xdp, within discard": ("xdp", "auto", ("os", "", "unlink", "after"), False),
    "tcx, within discard": ("tc ingress", "tcx", ("os", "", "unlink", "after"), False),
    "clsact, before": (
        "tc ingress",
        "clsact",
        ("penstock.kernel.clsact", "Filter", "detach", "before"),
        True,
    ),
    "clsact, after": ("tc ingress", "clsact", ("penstock.kernel.clsact", "Filter", "detach", "after"), False),
    "clsact, within discard": ("tc ingress", "clsact", ("os", "", "unlink", "after"), False),
}


@pytest.mark.parametrize(("hook", "mode", "step", "runs"), DETACH_STEPS.values(), ids=DETACH_STEPS.keys())
def test_a_detach(
    wire: Wire, host: Cli, policy: Path, root: Path, hook: str, mode: str, step: tuple[str, ...], runs: bool
) -> None:
    write(policy, policy.read_text().replace("at xdp", f"at {hook}"))
    host("apply", str(policy), "-i", "v1", "--mode", mode)
    killed(host, step, "from penstock.pipeline.apply import detach\ndetach('v1')\n")
    assert wire.arrived(53) == (0 if runs else 5)
    found = host("status", "--json").record["filters"]
    assert [one["trouble"] for one in found] == ([None] if runs else [])
    assert host("detach", "-i", "v1").code == (0 if runs else 3)
    assert wire.arrived(53) == 5
    assert list(root.iterdir()) == []
    assert "clsact" not in wire.server.run("tc", "qdisc", "show", "dev", "v1").stdout


SET_STEPS = {
    "half filled": ("penstock.pipeline.set_remaking", "", "_carry_added", "before", "old"),
    "after update": STEPS["after update"],
    "between both publications": STEPS["after publish"],
}
WITH_SET = """set banned : host size {size}
filter guard at xdp {{ drop if udp dst port 53 and src in @banned }}
"""


@pytest.mark.parametrize("step", SET_STEPS.values(), ids=SET_STEPS.keys())
def test_a_set_that_is_made_anew(
    wire: Wire, host: Cli, tmp_path: Path, root: Path, step: tuple[str, ...]
) -> None:
    place = tmp_path / "guard.policy"
    assert host("apply", str(write(place, WITH_SET.format(size=100))), "-i", "v1").code == 0
    assert host("set", "add", "banned", CLIENT, "192.0.2.1").code == 0
    _killed_apply(host, step, write(place, WITH_SET.format(size=200)))
    assert wire.arrived(53) == 0
    if step[4] == "old":
        assert host("status").code == 0
        assert host("set", "remove", "banned", CLIENT).code == 0
        assert wire.arrived(53) == 5
        assert host("set", "add", "banned", CLIENT).code == 0
    else:
        found = host("status")
        assert (found.code, "@banned was taken away or made anew under it" in found.out) == (3, True)
    assert host("apply", str(place), "-i", "v1").code == 0
    told = host("set", "info", "banned", "--json").record
    assert (told["size"], told["entries"], host("status").code, wire.arrived(53)) == (200, 2, 0, 0)
    assert [path.name for path in root.with_name(f"{root.name}-sets").iterdir()] == ["banned"]
    assert host("detach", "-i", "v1").code == 0
    assert host("set", "delete", "banned").code == 0


def test_a_set_that_was_not_made_anew_goes_with_all_that_was_left(
    wire: Wire, host: Cli, tmp_path: Path, root: Path
) -> None:
    place = tmp_path / "guard.policy"
    assert host("apply", str(write(place, WITH_SET.format(size=100))), "-i", "v1").code == 0
    _killed_apply(host, SET_STEPS["half filled"], write(place, WITH_SET.format(size=200)))
    assert host("detach", "-i", "v1").code == 0
    assert host("set", "delete", "banned").code == 0
    assert list(root.with_name(f"{root.name}-sets").iterdir()) == []
