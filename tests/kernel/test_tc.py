"""Programs at TC: by tcx links, by clsact and cls_bpf, and both on one hook."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.conftest import CompileC, Ends, Wire
from tests.netns import Namespace

from penstock.errors import KernelError, PenstockError
from penstock.kernel import syscall
from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.kernel.clsact import Filter, filters, plan_filter
from penstock.kernel.link import TCX_LINK, Link
from penstock.kernel.netlink import interface
from penstock.kernel.order import FIRST, LAST, Order, read_order
from penstock.kernel.program import Program
from penstock.kernel.tcx import attach_tcx, has_tcx, query
from penstock.model.hook import Hook

privileged = pytest.mark.privileged

INGRESS, EGRESS = Hook.TC_INGRESS, Hook.TC_EGRESS
HOOKS = [pytest.param(INGRESS, id="ingress"), pytest.param(EGRESS, id="egress")]
NOT_COMING_S = 0.3
#: Three programs that let others go on (TCX_NEXT), one that drops (TC_ACT_SHOT), one that ends it (TC_ACT_OK).
SOURCE = """
SEC("tc") int ps_a(struct __sk_buff *skb) { return -1; }
SEC("tc") int ps_b(struct __sk_buff *skb) { return -1; }
SEC("tc") int ps_c(struct __sk_buff *skb) { return -1; }
SEC("tc") int ps_shot(struct __sk_buff *skb) { return 2; }
SEC("tc") int ps_ok(struct __sk_buff *skb) { return 0; }
"""


@pytest.fixture
def loaded(compile_c: CompileC) -> Iterator[BpfObject]:
    """The programs of SOURCE."""
    with load_object(compile_c(SOURCE), "tc") as found:
        yield found


@pytest.fixture
def a(loaded: BpfObject) -> Program:
    """Passes."""
    return loaded.programs["ps_a"]


@pytest.fixture
def b(loaded: BpfObject) -> Program:
    """Passes."""
    return loaded.programs["ps_b"]


@pytest.fixture
def c(loaded: BpfObject) -> Program:
    """Passes."""
    return loaded.programs["ps_c"]


@pytest.fixture
def shot(loaded: BpfObject) -> Program:
    """Drops."""
    return loaded.programs["ps_shot"]


@pytest.fixture
def ok(loaded: BpfObject) -> Program:
    """Lets the packet through, and no other program see it."""
    return loaded.programs["ps_ok"]


@pytest.fixture(params=HOOKS)
def place(request: pytest.FixtureRequest, ends: Ends) -> Iterator[tuple[int, Hook]]:
    """Where frames from v1 to v0 can be stopped: v0's ingress or v1's egress; this thread is there."""
    hook: Hook = request.param
    side, name = (ends[0], "v0") if hook is INGRESS else (ends[1], "v1")
    with side.inside():
        yield interface(name).index, hook


def order_at(place: tuple[int, Hook]) -> list[int]:
    """The ids of the tcx programs, as they run."""
    return [found.id for found in query(*place).programs]


# ── tcx ──────────────────────────────────────────────────────────────────────


@privileged
def test_a_tcx_link_decides_until_it_is_closed(wire: Wire, place: tuple[int, Hook], shot: Program) -> None:
    assert has_tcx(place[0])
    assert wire.carries()
    link = attach_tcx(shot, *place)
    assert not wire.carries(NOT_COMING_S)
    info = link.info()
    assert (info.type, info.program_id, info.ifindex, info.attach_type) == (
        TCX_LINK,
        shot.id,
        place[0],
        {INGRESS: 46, EGRESS: 47}[place[1]],
    )
    assert [(found.id, found.link_id) for found in query(*place).programs] == [(shot.id, link.id)]
    link.close()
    assert wire.carries()


@privileged
def test_every_order_is_kept(place: tuple[int, Hook], a: Program, b: Program, c: Program) -> None:
    with attach_tcx(a, *place), attach_tcx(b, *place, FIRST):
        assert order_at(place) == [b.id, a.id]
        for order, expected in (
            (FIRST, [c, b, a]),
            (LAST, [b, a, c]),
            (Order("before", a.id), [b, c, a]),
            (Order("before", b.id), [c, b, a]),
            (Order("after", b.id), [b, c, a]),
            (Order("after", a.id), [b, a, c]),
        ):
            with attach_tcx(c, *place, order):
                found = order_at(place)
                assert found == [one.id for one in expected]
                assert order.holds(c.id, found)
            assert order_at(place) == [b.id, a.id]


@privileged
def test_the_order_is_the_order_of_packets(
    wire: Wire, place: tuple[int, Hook], shot: Program, ok: Program
) -> None:
    with attach_tcx(shot, *place):
        with attach_tcx(ok, *place, LAST):
            assert not wire.carries(NOT_COMING_S)
        with attach_tcx(ok, *place, Order("before", shot.id)):
            assert wire.carries()


@privileged
def test_places_that_there_are_not(place: tuple[int, Hook], a: Program, b: Program) -> None:
    with attach_tcx(a, *place):
        with pytest.raises(KernelError, match=f"no program {b.id} on this hook") as caught:
            attach_tcx(b, *place, Order("before", b.id))
        assert caught.value.errno == errno.ENOENT
        with pytest.raises(KernelError, match="no priority"):
            attach_tcx(b, *place, Order("priority", 7))
        assert order_at(place) == [a.id]
    with pytest.raises(KernelError, match="interface 4711"):
        attach_tcx(a, 4711, INGRESS)


@privileged
def test_a_revision_that_is_over_is_refused(place: tuple[int, Hook], a: Program, b: Program) -> None:
    with attach_tcx(a, *place):
        seen = query(*place).revision
        with attach_tcx(b, *place, revision=seen):
            assert query(*place).revision != seen
        with pytest.raises(KernelError, match="changed meanwhile") as caught:
            attach_tcx(b, *place, revision=seen)
        assert caught.value.errno == errno.ESTALE


@privileged
def test_an_update_keeps_the_link_and_its_place(
    wire: Wire, place: tuple[int, Hook], a: Program, b: Program, shot: Program
) -> None:
    with attach_tcx(a, *place) as link, attach_tcx(b, *place):
        link.update(shot, expected_old=a)
        assert order_at(place) == [shot.id, b.id]
        assert not wire.carries(NOT_COMING_S)
        with pytest.raises(KernelError, match="somebody else has replaced it"):
            link.update(a, expected_old=a)
        assert order_at(place) == [shot.id, b.id]


@privileged
def test_a_pinned_tcx_link_outlives_its_descriptor(
    bpffs: Path, wire: Wire, place: tuple[int, Hook], shot: Program, a: Program
) -> None:
    path = bpffs / f"tcx-{place[1].name}"
    with attach_tcx(shot, *place) as link:
        syscall.pin(link.fd, path)
    assert not wire.carries(NOT_COMING_S)
    with Link.open(path) as again:
        again.detach()
        assert again.info().ifindex == 0
        with pytest.raises(KernelError, match="the link is detached"):
            again.update(a)
    path.unlink()
    assert wire.carries()


# ── clsact ───────────────────────────────────────────────────────────────────


@privileged
def test_a_filter_decides_until_it_is_detached(
    wire: Wire, place: tuple[int, Hook], shot: Program, a: Program
) -> None:
    with plan_filter(*place, LAST) as made:
        assert (filters(*place), made.info().ifindex) == ((), 0)
        made.attach(shot)
        assert not wire.carries(NOT_COMING_S)
        info = made.info()
        assert (info.program_id, info.ifindex) == (shot.id, place[0])
        (found,) = filters(*place)
        assert (found.kind, found.name, found.program_id) == ("bpf", made.name, shot.id)
        made.update(a, expected_old=shot)
        assert wire.carries()
        assert [one.program_id for one in filters(*place)] == [a.id]
        with pytest.raises(KernelError, match="somebody else has replaced it"):
            made.update(shot, expected_old=shot)
        made.detach()
        with pytest.raises(KernelError, match="the filter is gone"):
            made.update(shot)


def qdiscs(side: Namespace, name: str) -> str:
    """What `tc` says of an interface's qdiscs."""
    return side.run("tc", "qdisc", "show", "dev", name).stdout


@privileged
def test_clsact_goes_with_the_last_filter_of_ours(ends: Ends, v0: int, a: Program, b: Program) -> None:
    first = plan_filter(v0, INGRESS, LAST).attach(a)
    second = plan_filter(v0, EGRESS, LAST).attach(b)
    assert (first.owns_qdisc, second.owns_qdisc) == (True, False)
    first.detach()
    assert "clsact" in qdiscs(ends[0], "v0")
    second.owns_qdisc = first.owns_qdisc
    second.detach()
    assert "clsact" not in qdiscs(ends[0], "v0")


@privileged
def test_clsact_stays_where_others_use_it_or_made_it(ends: Ends, v0: int, a: Program) -> None:
    made = plan_filter(v0, INGRESS, LAST).attach(a)
    u32 = "protocol", "ip", "pref", "7", "u32", "match", "u32", "0", "0", "flowid", "1:1"
    ends[0].run("tc", "filter", "add", "dev", "v0", "egress", *u32)
    made.detach()
    assert [(one.kind, one.priority) for one in filters(v0, EGRESS)] == [("u32", 7)]
    ends[0].run("tc", "filter", "del", "dev", "v0", "egress")
    with plan_filter(v0, INGRESS, LAST) as again:
        assert not again.owns_qdisc
        again.attach(a).detach()
    assert "clsact" in qdiscs(ends[0], "v0")


@privileged
def test_priorities(v0: int, a: Program, b: Program, c: Program, ends: Ends) -> None:
    made = plan_filter(v0, INGRESS, LAST).attach(a)
    for order, expected in (
        (FIRST, [b, a]),
        (LAST, [a, b]),
        (Order("before", a.id), [b, a]),
        (Order("after", a.id), [a, b]),
        (Order("priority", 1), [b, a]),
        (Order("priority", 65535), [a, b]),
    ):
        other = plan_filter(v0, INGRESS, order).attach(b)
        found = [one.program_id for one in filters(v0, INGRESS)]
        assert found == [one.id for one in expected]
        assert order.holds(b.id, found, other.priority)
        other.detach()
    with pytest.raises(KernelError, match="no priority is free") as caught:
        plan_filter(v0, INGRESS, Order("priority", made.priority))
    assert "v0 ingress" in str(caught.value.hint)
    with pytest.raises(KernelError, match="no program 4711"):
        plan_filter(v0, INGRESS, Order("after", 4711))
    made.detach()


@privileged
def test_another_one_that_is_quicker_keeps_the_place(v0: int, a: Program, b: Program) -> None:
    slow, quick = plan_filter(v0, INGRESS, LAST), plan_filter(v0, INGRESS, LAST)
    quick.attach(a)
    with pytest.raises(KernelError) as caught:
        slow.attach(b)
    assert caught.value.errno == errno.EEXIST
    assert slow.info().program_id == 0
    assert [one.program_id for one in filters(v0, INGRESS)] == [a.id]


@privileged
def test_an_ingress_qdisc_serves_packets_that_come_in_alone(
    wire: Wire, ends: Ends, v0: int, shot: Program
) -> None:
    ends[0].run("tc", "qdisc", "add", "dev", "v0", "ingress")
    with pytest.raises(KernelError, match="an ingress qdisc is there"):
        plan_filter(v0, EGRESS, LAST).attach(shot)
    made = plan_filter(v0, INGRESS, LAST).attach(shot)
    assert not wire.carries(NOT_COMING_S)
    made.detach()
    assert "qdisc ingress" in qdiscs(ends[0], "v0")
    assert wire.carries()


@privileged
def test_a_filter_is_found_from_another_namespace(ends: Ends, v0: int, a: Program, b: Program) -> None:
    made = plan_filter(v0, INGRESS, LAST).attach(a)
    with ends[1].inside():
        assert filters(v0, INGRESS) == ()
        made.update(b)
        assert made.info().program_id == b.id
        with Filter(v0, INGRESS, made.name, made.priority, owns_qdisc=True) as elsewhere:
            assert elsewhere.info().ifindex == 0
        made.detach()
    assert filters(v0, INGRESS) == ()


@privileged
def test_filters_are_changed_from_within_an_event_loop_too(v0: int, a: Program, b: Program) -> None:
    async def change() -> list[int]:
        made = plan_filter(v0, INGRESS, LAST).attach(a)
        made.update(b)
        found = [one.program_id for one in filters(v0, INGRESS)]
        made.detach()
        return found

    assert asyncio.run(change()) == [b.id]
    assert filters(v0, INGRESS) == ()


@privileged
def test_tcx_comes_before_clsact(
    wire: Wire, place: tuple[int, Hook], shot: Program, ok: Program, a: Program
) -> None:
    made = plan_filter(*place, FIRST).attach(shot)
    with attach_tcx(a, *place):
        assert not wire.carries(NOT_COMING_S)
    with attach_tcx(ok, *place):
        assert wire.carries()
    made.detach()


@privileged
def test_bpftool_sees_what_is_seen_here(place: tuple[int, Hook], ends: Ends, a: Program, b: Program) -> None:
    made = plan_filter(*place, LAST).attach(a)
    with attach_tcx(b, *place):
        side = ends[0] if place[1] is INGRESS else ends[1]
        try:
            said = side.run("bpftool", "net", "show").stdout
        except FileNotFoundError:
            pytest.skip("bpftool is not installed")
        assert f"{made.name} id {a.id}" in said, said
    made.detach()


# ── orders as text ───────────────────────────────────────────────────────────


def test_orders_are_read() -> None:
    for text, order in (
        ("first", FIRST),
        (" last ", LAST),
        ("before:42", Order("before", 42)),
        ("after 7", Order("after", 7)),
        ("100", Order("priority", 100)),
        (100, Order("priority", 100)),
    ):
        assert read_order(text) == order
    for wrong in ("", "before", "before:x", "0", "65536", "middle", "-1", "before:-1"):
        with pytest.raises(PenstockError, match="no place among other programs"):
            read_order(wrong)
