"""What would change at another hook, and only where a rule touches it."""

from __future__ import annotations

import pytest

from penstock.compiler.lang.diagnostic import Severity
from penstock.compiler.lang.source import Source
from penstock.model.hook import Hook
from penstock.pipeline.elsewhere import elsewhere


def codes(rule: str, hook: Hook, at: str = "xdp", severity: Severity = Severity.WARNING) -> set[str]:
    (place,) = elsewhere(Source("f.policy", f"filter f at {at} {{\n    {rule}\n}}\n"), (hook,))
    return {found.code for found in place.diagnostics if found.severity is severity}


@pytest.mark.parametrize(
    ("rule", "hook", "wanted"),
    [
        ("pass if vlan 5", Hook.XDP, {"PS250"}),
        ("pass if ether[12:2] = 0x8100", Hook.XDP, {"PS250"}),
        ("pass if ether[10:2] = 1", Hook.XDP, set()),
        ("pass if vlan 5", Hook.TC_INGRESS, set()),
        ("pass if vlan 5", Hook.SOCKET, {"PS251"}),
        ("pass if ip[2:2] > 1000", Hook.TC_INGRESS, {"PS252"}),
        ("pass if udp.len > 1000", Hook.SOCKET, {"PS252"}),
        ("pass if greater 1000", Hook.TC_INGRESS, set()),
        ("pass if ip[8] > 10", Hook.TC_INGRESS, set()),
        ("pass if frag", Hook.SOCKET, {"PS253"}),
        ("pass if frag", Hook.TC_INGRESS, set()),
        ("on fragment drop", Hook.SOCKET, {"PS253"}),
        ("on fragment continue", Hook.SOCKET, set()),
        ("pass if ether src host 02:00:00:00:00:01", Hook.SOCKET, {"PS254"}),
        ("pass if tcp[16:2] = 0", Hook.TC_EGRESS, {"PS255"}),
        ("pass if tcp[18:2] = 0", Hook.TC_EGRESS, set()),
        ("drop if tcp", Hook.SOCKET, {"PS256"}),
        ("default drop", Hook.SOCKET, {"PS256"}),
        ("drop if tcp", Hook.TC_INGRESS, set()),
        ("on malformed drop", Hook.SOCKET, {"PS257"}),
        ("pass if src host 10.0.0.1", Hook.TC_EGRESS, {"PS258"}),
        ("pass if dst port 53", Hook.TC_EGRESS, {"PS258"}),
        ("pass if tcp", Hook.TC_EGRESS, set()),
    ],
)
def test_a_difference_is_told_where_a_rule_touches_it(rule: str, hook: Hook, wanted: set[str]) -> None:
    assert codes(rule, hook) == wanted


def test_the_way_matters_in_both_directions() -> None:
    assert codes("pass if src port 53", Hook.XDP, at="tc egress") == {"PS258"}
    assert codes("pass if src port 53", Hook.TC_EGRESS, at="tc egress") == set()


@pytest.mark.parametrize(
    ("rule", "at", "hook"),
    [
        ("bounce if tcp", "xdp", Hook.TC_INGRESS),
        ("bounce if tcp", "xdp", Hook.SOCKET),
        ("mark 7 if tcp", "tc ingress", Hook.XDP),
        ("mirror eth1 if tcp", "tc egress", Hook.SOCKET),
        ("reject if tcp", "xdp", Hook.TC_EGRESS),
    ],
)
def test_an_action_that_the_hook_lacks_is_an_error(rule: str, at: str, hook: Hook) -> None:
    assert codes(rule, hook, at, Severity.ERROR) == {"PS118"}
    assert codes(rule, Hook(at), at, Severity.ERROR) == set()


def test_one_warning_names_the_other_rules() -> None:
    text = "filter f at xdp {\n  a: pass if vlan 5\n  b: pass if vlan 6\n  c: pass if vlan.pcp > 3\n  pass if tcp\n}"
    (place,) = elsewhere(Source("f.policy", text), (Hook.XDP,))
    (found,) = place.diagnostics
    assert (found.line, found.notes) == (2, ("so do b, c",))


def test_every_filter_at_every_hook() -> None:
    text = "filter a at xdp { pass if tcp }\nfilter b at tc egress { pass if udp }"
    places = elsewhere(Source("f.policy", text), tuple(Hook))
    assert [(place.filter, place.hook) for place in places] == [
        (name, hook) for name in "ab" for hook in Hook
    ]


def test_a_text_that_is_no_policy_says_nothing() -> None:
    assert elsewhere(Source("f.policy", "filter f at xdp { drop if"), tuple(Hook)) == ()
