"""Attaching to real interfaces: two namespaces and a veth pair for each test."""

from __future__ import annotations

import errno
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from tests.kernel.conftest import Wire
from tests.netns import Namespace

from penstock.errors import KernelError, NotSupportedError, VerifierError
from penstock.kernel import netlink, syscall
from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.kernel.foreign import taken_place
from penstock.kernel.link import Link, attach_xdp, attached, links
from penstock.kernel.netlink import GENERIC, NATIVE, interface, interfaces

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kernel.conftest import CompileC

    from penstock.kernel.program import Program

pytestmark = pytest.mark.privileged

Ends = tuple[Namespace, Namespace]

BAD = 'SEC("xdp.frags") int ps_bad(struct xdp_md *ctx) { return *(char *)(long)ctx->data; }'


@pytest.fixture
def passes(passing: BpfObject) -> Program:
    """A program that passes everything."""
    return passing.programs["ps_pass"]


@pytest.fixture
def drops(dropping: BpfObject) -> Program:
    """A program that drops everything."""
    return dropping.programs["ps_drop"]


# XDP runs before the packet socket of the receiver, so what it drops never
# arrives; native or generic mode makes no difference to that.
NOT_COMING_S = 0.3


@pytest.mark.parametrize("mode", [NATIVE, GENERIC])
def test_an_attached_program_decides_about_packets(wire: Wire, v0: int, drops: Program, mode: str) -> None:
    assert wire.carries()
    link = attach_xdp(drops, v0, mode=mode)
    assert not wire.carries(NOT_COMING_S)
    assert [(found.mode, found.program_id) for found in attached(v0)] == [(mode, drops.id)]
    link.close()
    assert wire.carries()


def test_a_link_knows_what_it_ties(v0: int, drops: Program) -> None:
    with attach_xdp(drops, v0, mode=GENERIC) as link:
        info = link.info()
        assert (info.ifindex, info.program_id, info.id) == (v0, drops.id, link.id)
        assert info in list(links())
        assert attached(v0)[0].link_id == link.id


def test_an_update_replaces_the_program_and_keeps_the_link(
    wire: Wire, v0: int, drops: Program, passes: Program
) -> None:
    with attach_xdp(drops, v0, mode=NATIVE) as link:
        before = link.id
        link.update(passes, expected_old=drops)
        assert wire.carries()
        assert (link.id, link.info().program_id) == (before, passes.id)
        link.update(drops)
        assert not wire.carries(NOT_COMING_S)


def test_an_update_over_somebody_elses_is_refused(v0: int, drops: Program, passes: Program) -> None:
    with attach_xdp(drops, v0, mode=GENERIC) as link:
        with pytest.raises(KernelError, match="somebody else has replaced it") as caught:
            link.update(passes, expected_old=passes)
        assert type(caught.value) is KernelError
        assert link.info().program_id == drops.id


def test_a_detached_link_takes_no_update(wire: Wire, v0: int, drops: Program, passes: Program) -> None:
    with attach_xdp(drops, v0, mode=GENERIC) as link:
        link.detach()
        assert wire.carries()
        assert attached(v0) == ()
        with pytest.raises(KernelError, match="the link is detached"):
            link.update(passes)


def test_a_link_outlives_its_interface_empty(ends: Ends, v0: int, drops: Program) -> None:
    with attach_xdp(drops, v0, mode=GENERIC) as link:
        ends[0].ip("link", "del", "v0")
        assert link.info().ifindex == 0


def test_a_pinned_link_outlives_its_descriptor(bpffs: Path, wire: Wire, v0: int, drops: Program) -> None:
    path = bpffs / "link"
    with attach_xdp(drops, v0, mode=GENERIC) as link:
        syscall.pin(link.fd, path)
        number = link.id
    assert not wire.carries(NOT_COMING_S)
    with Link.open(path) as again:
        assert again.id == number
    path.unlink()
    # The last reference is dropped by a kernel worker, a moment later.
    assert any(wire.carries(NOT_COMING_S) for _ in range(20))


def test_native_mode_that_the_driver_refuses_is_told_apart(ends: Ends, v0: int, compile_c: CompileC) -> None:
    """A program without xdp.frags cannot run natively on veth with a jumbo MTU; generic mode takes it."""
    ends[0].ip("link", "set", "v0", "mtu", "9000")
    ends[1].ip("link", "set", "v1", "mtu", "9000")
    with load_object(compile_c('SEC("xdp") int ps_one(struct xdp_md *ctx) { return 2; }'), "one") as one:
        with pytest.raises(NotSupportedError, match="v0"):
            attach_xdp(one.programs["ps_one"], v0, mode=NATIVE)
        attach_xdp(one.programs["ps_one"], v0, mode=GENERIC).close()


def test_native_mode_on_an_interface_without_it(ends: Ends, drops: Program) -> None:
    with ends[0].inside(), pytest.raises(NotSupportedError, match="lo"):
        attach_xdp(drops, interface("lo").index, mode=NATIVE)


def test_a_jumbo_interface_takes_a_program_with_fragments(ends: Ends, v0: int, passes: Program) -> None:
    ends[0].ip("link", "set", "v0", "mtu", "9000")
    ends[1].ip("link", "set", "v1", "mtu", "9000")
    with attach_xdp(passes, v0, mode=NATIVE):
        assert attached(v0)[0].mode == NATIVE


def test_an_interface_that_is_not_there(ends: Ends, drops: Program) -> None:
    with ends[0].inside():
        with pytest.raises(KernelError, match="no such interface") as caught:
            interface("v00")
        assert caught.value.hint == "did you mean v0?"
        with pytest.raises(KernelError, match="interface 4711"):
            attach_xdp(drops, 4711, mode=GENERIC)


def test_interfaces_are_listed_with_mtu_and_programs(ends: Ends, v0: int, drops: Program) -> None:
    ends[0].ip("link", "set", "v0", "mtu", "1400")
    with attach_xdp(drops, v0, mode=NATIVE):
        found = {entry.name: entry for entry in interfaces()}
    assert set(found) == {"lo", "v0"}
    assert found["v0"].mtu == 1400
    assert found["v0"].xdp == (netlink.XdpProgram(NATIVE, drops.id),)
    assert found["lo"].xdp == ()


@pytest.mark.check(11)
def test_a_refused_load_leaves_the_old_program_in_place(
    wire: Wire, v0: int, drops: Program, compile_c: CompileC
) -> None:
    with attach_xdp(drops, v0, mode=NATIVE) as link:
        before = link.info()
        with pytest.raises(VerifierError) as caught:
            load_object(compile_c(BAD), "bad")
        assert caught.value.exit_code == 3
        assert caught.value.place == "edge.policy:1"
        assert link.info() == before
        assert not wire.carries(NOT_COMING_S)


@pytest.mark.check(11)
def test_a_refused_update_leaves_the_old_program_in_place(
    wire: Wire, v0: int, drops: Program, compile_c: CompileC
) -> None:
    other_kind = 'SEC("tc") int ps_tc(struct __sk_buff *skb) { return 0; }'
    with attach_xdp(drops, v0, mode=NATIVE) as link, load_object(compile_c(other_kind), "tc") as other:
        before = link.info()
        with pytest.raises(KernelError):
            link.update(other.programs["ps_tc"], expected_old=drops)
        assert link.info() == before
        assert not wire.carries(NOT_COMING_S)


@pytest.mark.check(17)
@pytest.mark.parametrize("ours", [NATIVE, GENERIC])
@pytest.mark.parametrize("theirs", [NATIVE, GENERIC])
@pytest.mark.parametrize("way", ["link", "netlink"])
def test_a_foreign_program_is_named_and_stays(
    v0: int, drops: Program, passes: Program, way: str, theirs: str, ours: str
) -> None:
    foreign = attach_xdp(passes, v0, mode=theirs) if way == "link" else None
    if foreign is None:
        netlink.set_xdp(v0, passes.fd, theirs)
    with pytest.raises(KernelError) as caught:
        attach_xdp(drops, v0, mode=ours)
    assert caught.value.errno == errno.EBUSY
    assert f"id {passes.id} (ps_pass), {theirs} mode" in caught.value.message
    assert "--replace" in str(caught.value.hint)
    assert [found.program_id for found in attached(v0)] == [passes.id]


@pytest.mark.check(17)
@pytest.mark.parametrize("theirs", [NATIVE, GENERIC])
@pytest.mark.parametrize("way", ["link", "netlink"])
def test_a_foreign_program_is_replaced_when_told_to(
    wire: Wire, v0: int, drops: Program, passes: Program, way: str, theirs: str
) -> None:
    foreign = attach_xdp(drops, v0, mode=theirs) if way == "link" else None
    if foreign is None:
        netlink.set_xdp(v0, drops.fd, theirs)
    with taken_place(v0) as removed:
        pass
    assert [(found.program_id, found.mode) for found in removed] == [(drops.id, theirs)]
    assert wire.carries()
    with attach_xdp(passes, v0, mode=NATIVE):
        assert [found.program_id for found in attached(v0)] == [passes.id]


@pytest.mark.check(17)
@pytest.mark.parametrize("theirs", [NATIVE, GENERIC])
@pytest.mark.parametrize("way", ["link", "netlink"])
def test_a_foreign_program_comes_back_if_taking_its_place_fails(
    wire: Wire, v0: int, drops: Program, way: str, theirs: str
) -> None:
    foreign = attach_xdp(drops, v0, mode=theirs) if way == "link" else None
    if foreign is None:
        netlink.set_xdp(v0, drops.fd, theirs)
    with suppress(ZeroDivisionError), taken_place(v0):
        assert wire.carries()
        raise ZeroDivisionError
    assert [(found.mode, found.program_id) for found in attached(v0)] == [(theirs, drops.id)]
    assert not wire.carries(NOT_COMING_S)


@pytest.mark.check(17)
def test_a_program_of_ip_link_is_named_and_replaced(
    ends: Ends, v0: int, drops: Program, compile_c: CompileC, tmp_path: Path
) -> None:
    path = tmp_path / "theirs.o"
    path.write_bytes(compile_c('SEC("xdp") int theirs(struct xdp_md *ctx) { return 2; }'))
    # ip makes directories and links in the BPF file system that it finds first, and mounts one if there is none.
    hidden = 'mount -t bpf bpf /sys/fs/bpf && exec ip link set dev v0 xdpgeneric obj "$0" sec xdp'
    ends[0].run("unshare", "--mount", "--propagation", "private", "sh", "-c", hidden, str(path))
    with pytest.raises(KernelError, match=r"\(theirs\), generic mode"):
        attach_xdp(drops, v0, mode=NATIVE)
    with taken_place(v0):
        attach_xdp(drops, v0, mode=NATIVE).close()


@pytest.mark.check(17)
def test_a_link_of_another_namespace_is_never_touched(ends: Ends, v0: int, drops: Program) -> None:
    """Interface indices repeat across namespaces; a link on the same index elsewhere is somebody else's."""
    with Namespace("kernel-twin") as twin:
        peer = "type", "veth", "peer", "name", "x1", "index", "4000"
        twin.ip("link", "add", "x0", "index", str(v0), *peer)
        with twin.inside():
            assert interface("x0").index == v0
            theirs = attach_xdp(drops, v0, mode=GENERIC)
        here = attach_xdp(drops, v0, mode=GENERIC)
        with pytest.raises(KernelError, match="cannot be told for certain"), taken_place(v0):
            pass
        assert theirs.info().ifindex == here.info().ifindex == v0
        here.close()
        with taken_place(v0) as removed:
            assert removed == ()
        assert theirs.info().ifindex == v0
        theirs.close()


def test_removing_by_netlink_checks_that_the_program_is_the_one_seen(
    v0: int, drops: Program, passes: Program
) -> None:
    netlink.set_xdp(v0, drops.fd, GENERIC)
    with pytest.raises(KernelError):
        netlink.set_xdp(v0, -1, GENERIC, expected_fd=passes.fd)
    assert [found.program_id for found in attached(v0)] == [drops.id]


def test_attribute_parsing_survives_any_bytes() -> None:
    for length in range(64):
        for seed in range(8):
            data = struct.pack("=Q", seed * 0x9E3779B97F4A7C15 & (1 << 64) - 1) * 8
            assert all(isinstance(kind, int) for kind, _ in netlink.attributes(data[:length]))
