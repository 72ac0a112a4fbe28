"""What the daemon decides to do about the difference between what is wanted and what runs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from penstock.daemon.desired import Desired
from penstock.daemon.journal import Journal
from penstock.daemon.keep import Keeper
from penstock.daemon.patience import CALM_S, LONGEST_S, Patience
from penstock.daemon.policies import Place, PolicyFile, Wanted, read_policies, where
from penstock.daemon.reconcile import Keep, Kept, Leave, Put, Step, TakeOff, decide
from penstock.daemon.settings import PolicySettings, Settings, read_settings
from penstock.daemon.state import Memory
from penstock.errors import SettingsError
from penstock.model.hook import Hook
from penstock.pipeline.identity import Identity, Probation
from penstock.pipeline.running import Running
from penstock.version import VERSION

TEXT = "filter edge at xdp { drop if udp }\n"
FILE = PolicyFile(
    Path("/etc/penstock/eth0.policy"), PolicySettings(), TEXT.encode(), ((Hook.XDP, "edge"),), TEXT
)
PLACE = Place("eth0", Hook.XDP)
WANTED = {PLACE: Wanted(FILE, "edge")}
KEPT = {PLACE: Kept(FILE.name, FILE.mark, 42, 2)}
IDENTITY = Identity("edge", "xdp", str(FILE.path), TEXT, (), interface="eth0", program=42, version=VERSION)
RUNS = Running("eth0", 2, Hook.XDP, 42, IDENTITY)


def one(running: tuple[Running, ...], memory: dict[Place, Kept] | None = None, **more: object) -> Step:
    (step,) = decide(WANTED, running, memory or {}, indices={"eth0": 2}, **more)  # type: ignore[arg-type]
    return step


def changed(**fields: object) -> Running:
    return replace(RUNS, identity=msgspec.structs.replace(IDENTITY, **fields))


def test_where_nothing_runs_it_is_put() -> None:
    assert one(()) == Put(PLACE, WANTED[PLACE], "nothing was there")


def test_what_runs_already_is_taken_over_and_then_kept() -> None:
    assert one((RUNS,)) == Keep(PLACE, WANTED[PLACE], RUNS, is_new=True)
    assert one((RUNS,), KEPT) == Keep(PLACE, WANTED[PLACE], RUNS, is_new=False)


def test_a_filter_with_emergency_or_added_rules_is_the_same_policy() -> None:
    assert isinstance(one((replace(changed(program=43), program=43),), KEPT), Keep)


def test_another_text_is_replaced_when_the_file_is_new_and_left_when_it_was_put_by_hand() -> None:
    other = changed(text="filter edge at xdp { pass }\n", name="other")
    assert one((other,)) == Put(PLACE, WANTED[PLACE], "other was there", running=other)
    stale = {PLACE: Kept(FILE.name, "an older mark", 41, 2)}
    assert isinstance(one((other,), stale), Put)
    step = one((other,), KEPT)
    assert isinstance(step, Leave)
    assert "by hand" in step.why


def test_what_is_undone_at_two_hooks_of_a_file_is_waited_for_once(tmp_path: Path) -> None:
    """They are put back together, here in vain: the file is none by then."""
    said: list[str] = []
    keeper = Keeper(tmp_path, Journal(lambda _priority, text: said.append(text)), Memory())
    keeper._desired.settings = Settings()
    broken = replace(FILE, text="filter edge at xdp {", content=b"filter edge at xdp {")
    steps = [
        Put(Place("eth0", hook), Wanted(broken, "edge"), "somebody has taken it off", is_foreign=True)
        for hook in (Hook.XDP, Hook.TC_INGRESS)
    ]
    assert [one.state for one in keeper._put(steps, {"eth0": 2})] == ["open", "open"]
    assert [one.partition("next time ")[2] for one in said[:2]] == 2 * ["not within 1 s"]
    assert said[-1].endswith("it is tried again in 1 s, or when something changes")


def test_what_somebody_has_undone_is_foreign() -> None:
    gone = replace(RUNS, ifindex=0, program=0)
    assert one((gone,), KEPT) == Put(PLACE, WANTED[PLACE], "somebody has taken it off", is_foreign=True)
    assert one((), KEPT) == Put(PLACE, WANTED[PLACE], "somebody has taken it off", is_foreign=True)
    swapped = replace(RUNS, program=99)
    step = one((swapped,), KEPT)
    assert isinstance(step, Put)
    assert step.is_foreign


def test_an_interface_that_has_come_back_is_another_one() -> None:
    gone = replace(RUNS, ifindex=0, program=0)
    earlier = {PLACE: Kept(FILE.name, FILE.mark, 42, 1)}
    assert one((gone,), earlier) == Put(PLACE, WANTED[PLACE], "nothing was there")


def test_pins_left_of_an_interface_do_not_hide_the_one_of_its_name() -> None:
    gone = replace(RUNS, ifindex=0, program=0)
    assert isinstance(one((RUNS, gone), KEPT), Keep)
    assert isinstance(one((gone, RUNS), KEPT), Keep)


def test_a_policy_on_probation_is_left() -> None:
    step = one((changed(text="other", probation=Probation("t", 5)),), KEPT)
    assert isinstance(step, Leave)
    assert "probation" in step.why
    assert isinstance(one((changed(probation=Probation("t", 5)),)), Leave), (
        "not even its own text is taken over"
    )


def test_after_an_upgrade_it_is_compiled_anew() -> None:
    old = changed(version="0.0.9")
    assert one((old,), KEPT) == Put(PLACE, WANTED[PLACE], "it was compiled by penstock 0.0.9", running=old)


def test_one_whose_sets_were_taken_away_is_put_anew() -> None:
    cut = replace(RUNS, unbound=("threats", "own"))
    step = one((cut,), KEPT)
    assert isinstance(step, Put)
    assert step.why.startswith("@threats, @own was taken away or made anew under it")


def test_what_was_released_is_left_until_it_runs_again() -> None:
    assert isinstance(one((), KEPT, released={PLACE}), Leave)
    assert isinstance(one((RUNS,), KEPT, released={PLACE}), Keep)


def test_pins_that_cannot_be_read_are_left() -> None:
    step = one((Running("eth0", 0, Hook.XDP, 0, None, "no identity"),), KEPT)
    assert isinstance(step, Leave)
    assert "no identity" in step.why


def test_only_what_the_daemon_has_put_is_taken_off() -> None:
    assert decide({}, (RUNS,), KEPT) == [TakeOff(PLACE, RUNS)]
    assert decide({}, (RUNS,), {}) == []
    assert decide({}, (replace(RUNS, program=99),), KEPT) == []
    assert decide({}, (RUNS,), KEPT, spared={FILE.name}) == [], "its file has an error now"
    on_probation = changed(probation=Probation("t", 5))
    assert decide({}, (on_probation,), KEPT) == []


def test_where_files_go(tmp_path: Path) -> None:
    (tmp_path / "eth0.policy").write_text(TEXT)
    (tmp_path / "wan.policy").write_text(
        "filter in1 at tc ingress { drop if udp }\nfilter out1 at tc egress { drop if udp }\n"
    )
    (tmp_path / "zz.policy").write_text(TEXT)
    (tmp_path / "notes.txt").write_text("no policy")
    settings = Settings({"wan.policy": PolicySettings(("wan?",)), "zz.policy": PolicySettings(("*",))})
    files = read_policies(tmp_path, settings, {})
    assert [one.name for one in files] == ["eth0.policy", "wan.policy", "zz.policy"]
    found, beaten = where(files, ["eth0", "wan1", "wan22"])
    assert {f"{place}": one.file.name for place, one in found.items()} == {
        "eth0": "eth0.policy",
        "wan1 (tc ingress)": "wan.policy",
        "wan1 (tc egress)": "wan.policy",
        "wan1": "zz.policy",
        "wan22": "zz.policy",
    }
    assert beaten == (f"{tmp_path}/zz.policy: eth0 has eth0.policy already",)
    known = {one.name: one for one in files}
    assert all(one is known[one.name] for one in read_policies(tmp_path, settings, known))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"filter edge at xdp { drop if udp dst prot 3 }\n", r"eth0.policy:1:\d+: "),
        (b"\xff\xff", "is not UTF-8"),
        (b"filter s at socket { drop if udp }\n", "has no filter for an interface"),
        (b"filter a at xdp { pass }\nfilter b at xdp { pass }\n", "several filters at one hook"),
        (b"\x7fELF and no more", "not a whole object"),
    ],
)
def test_a_file_with_a_fault_has_no_filters(tmp_path: Path, text: bytes, words: str) -> None:
    (tmp_path / "eth0.policy").write_bytes(text)
    (file,) = read_policies(tmp_path, Settings(), {})
    assert file.fault is not None
    import re

    assert re.search(words, file.fault), file.fault
    assert where((file,), ["eth0"]) == ({}, ())


def test_a_file_that_everybody_may_write_to_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "eth0.policy").write_text(TEXT)
    (tmp_path / "eth0.policy").chmod(0o666)
    (file,) = read_policies(tmp_path, Settings(), {})
    assert file.fault is not None
    assert "every user" in file.fault


def test_patience_doubles_ends_and_begins_anew() -> None:
    patience = Patience()
    now, pauses = 100.0, []
    for _ in range(12):
        assert patience.may("eth0", now)
        pauses.append(patience.wait("eth0", now))
        assert not patience.may("eth0", now + pauses[-1] / 2)
        now += pauses[-1]
    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses[-1] == LONGEST_S
    assert patience.may("eth1", now)
    assert patience.wait("eth0", now + CALM_S + 1) == 1
    patience.forget()
    assert patience.next_s(now) is None
    assert patience.wait("eth0", now) == 1
    assert patience.next_s(now) == 1
    assert patience.next_s(now + 2) is None, "what is over makes nobody look again and again"


def test_a_file_that_would_keep_the_daemon_waiting_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "good.policy").write_text(TEXT)
    os.mkfifo(tmp_path / "pipe.policy")
    (tmp_path / "endless.policy").symlink_to("/dev/zero")
    found = {one.name: one.fault for one in read_policies(tmp_path, Settings(), {})}
    assert found.pop("good.policy") is None
    assert all(fault and "no regular file" in fault for fault in found.values())
    os.mkfifo(tmp_path / "settings.toml")
    with pytest.raises(SettingsError, match="no regular file"):
        read_settings(tmp_path)


def test_a_link_that_leads_nowhere_hides_no_change(tmp_path: Path) -> None:
    """As the lock that an editor puts beside the file it edits."""
    (tmp_path / ".#good.policy").symlink_to("somebody@host.4711")
    (tmp_path / "good.policy").write_text(TEXT)
    desired = Desired(tmp_path, Journal(lambda *_: None), lambda *_: None)
    desired.read()
    assert desired.is_new
    (tmp_path / "good.policy").write_text(TEXT.replace("udp", "tcp"))
    assert desired.read() is not None, "it has changed, and may go on changing"
    desired.read()
    assert "tcp" in desired.files["good.policy"].text
