"""A filter that lasts as long as a block of Python.

    with attach("eth0", "filter guard at xdp { drop if udp dst port 53 }") as running:
        running.counters()["guard:1"]       ->  Counter(packets=3, bytes=180)
        running.replace(better)

Nothing is pinned: when the block ends, or the process however it ends, the
kernel takes the filter off.  (One on clsact, for which no link exists, stays if
the process is killed.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from penstock.errors import NotSupportedError, PenstockError
from penstock.kernel.attach_point import attach_point
from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.kernel.clsact import Filter
from penstock.kernel.features import has_atomics
from penstock.kernel.netlink import Interface, interface
from penstock.kernel.order import read_order
from penstock.model.closing import Closing
from penstock.model.hook import Hook
from penstock.model.limiter import limiter_map
from penstock.model.sets import control_map, set_map
from penstock.model.spec import COUNTERS_MAP, PROGRAM
from penstock.pipeline.counters import Counter, Totals, added, carried_over, named, nothing, read_totals
from penstock.pipeline.devices import fill, located, values
from penstock.pipeline.identity import kept_slots
from penstock.pipeline.limiters import kept_limiters, seed_values, seeded
from penstock.pipeline.link_header import link_constants
from penstock.pipeline.placing import AUTO, Wish, mode_of, put_on, wishes
from penstock.pipeline.policy import LoadedPolicy, load_policy
from penstock.pipeline.slot import Holder

if TYPE_CHECKING:
    from penstock.kernel.maps import Map
    from penstock.pipeline.live_set import LiveSet


def load(policy: LoadedPolicy, place: Interface, kept: Mapping[str, Map] | None = None) -> BpfObject:
    """The policy's program and maps in the kernel, made for an interface, attached nowhere.  Close it.

    `kept` are maps of sets and limiters to be used, by their names in the program; without
    them it has its own.

    Raises:
        KernelError: VerifierError, PrivilegeError, NotSupportedError among them; or no policy
            can read that interface's packets, or a device that this one names does not exist.
    """
    devices = located(policy.identity.devices)
    rodata = {**link_constants(policy, place), **values(devices), **seed_values(policy.identity)}
    loaded = load_object(_elf(policy), policy.name, rodata=rodata, reuse=kept)
    try:
        fill(loaded, devices)
    except BaseException:
        loaded.close()
        raise
    return loaded


def _elf(policy: LoadedPolicy) -> bytes:
    """The policy's object; one with rates is compiled again for a kernel without an atomic exchange.

    Raises:
        NotSupportedError: there is nothing to compile: it was built elsewhere.
    """
    if not policy.identity.limiters or has_atomics() is not False:
        return policy.elf
    if policy.rule_set is None:
        what = "rates of a policy that was built elsewhere"
        raise NotSupportedError("atomic operations that fetch", wanted_for=what, least_kernel="5.12")
    from penstock.compiler.driver import compile_rule_set

    return compile_rule_set(policy.rule_set, kernel_locks=True).elf


class Attached(Closing):
    """A filter on an interface; `notices` tells what was done differently from what was asked."""

    def __init__(
        self,
        place: Interface,
        policy: LoadedPolicy,
        loaded: BpfObject,
        link: Holder,
        notices: tuple[str, ...],
    ) -> None:
        self.policy = policy
        self.notices = notices
        self._place = place
        self._object = loaded
        self._link = link
        self._base = nothing(len(policy.counters))
        self._sets = _sets_of(policy, loaded, {})

    @property
    def program_id(self) -> int:
        """The kernel's id of the program that decides at this moment."""
        return self._object.programs[PROGRAM].id

    @property
    def mode(self) -> str:
        """``native``, ``generic``, ``tcx``, ``clsact``; empty once the interface is gone, or in another namespace."""
        return mode_of(self._link.info())

    def counters(self) -> dict[str, Counter]:
        """Packets and bytes by name: ``default``, ``on malformed`` and so on, then the rules in order."""
        return named(self.policy.counters, self._totals())

    @property
    def sets(self) -> Mapping[str, LiveSet]:
        """The policy's sets by name: this filter's own, nobody else changes or meets them."""
        return self._sets

    def replace(self, policy: LoadedPolicy | str) -> None:
        """Put another policy in place in one step; rules with the same label keep their counters.

        Sets that both define alike keep their entries.

        Raises:
            PenstockError: the new one cannot be compiled or loaded; the old one runs on.
        """
        new = policy if isinstance(policy, LoadedPolicy) else load_policy(policy)
        if new.identity.hook != self.policy.identity.hook:
            raise PenstockError(
                f"{new.name} is at {new.identity.hook}, and takes no place at {self.policy.identity.hook}"
            )
        new = seeded(new, self.policy.identity)
        old_identity = self.policy.identity
        pairs = kept_limiters(old_identity, old_identity.counters, new.identity)
        kept = {limiter_map(at): self._object.maps[limiter_map(old)] for old, at in pairs}
        loaded = load(new, self._place, {**kept, **dict(self._kept(new))})
        try:
            self._link.update(loaded.programs[PROGRAM], self._object.programs[PROGRAM])
        except BaseException:
            loaded.close()
            raise
        slots = kept_slots(self.policy.counters, new.counters)
        self._base = carried_over(slots, self._totals(), nothing(len(new.counters)))
        sets = _sets_of(new, loaded, self._sets)
        self._close_sets()
        self._object.close()
        self.policy, self._object, self._sets = new, loaded, sets

    def _kept(self, new: LoadedPolicy) -> Iterator[tuple[str, Map]]:
        """The maps of sets that a new policy defines as this one does, by their names there."""
        from penstock.pipeline.dynamic_set import DynamicSet

        for number, spec in enumerate(new.identity.sets):
            held = self._sets.get(spec.name)
            if held is not None and held.spec == spec:
                yield control_map(number), held.control
                yield from ((set_map(number, family), table) for family, table in held.maps.items())
                added = held.added.maps if isinstance(held, DynamicSet) else {}
                yield from ((set_map(number, name), table) for name, table in added.items())

    def _close_sets(self) -> None:
        for held in self._sets.values():
            held.close()

    def close(self) -> None:
        """Take the filter off the interface."""
        if isinstance(self._link, Filter) and self._link.is_open:
            self._link.detach()
        self._link.close()
        self._close_sets()
        self._object.close()

    def _totals(self) -> Totals:
        own = read_totals(self._object.maps[COUNTERS_MAP], len(self.policy.counters))
        return added(own, self._base)


def _sets_of(policy: LoadedPolicy, loaded: BpfObject, before: Mapping[str, LiveSet]) -> dict[str, LiveSet]:
    """The sets of a loaded program, opened apart from it; those that were there `before` go on."""
    from penstock.pipeline.set_store import live

    found: dict[str, LiveSet] = {}
    for number, spec in enumerate(policy.identity.sets):
        maps = {table: loaded.maps[set_map(number, table)].duplicate() for table in spec.tables}
        control = loaded.maps[control_map(number)].duplicate()
        added = {name: loaded.maps[set_map(number, name)].duplicate() for name in spec.added_tables}
        found[spec.name] = live(spec, maps, control, added)
        if spec.name in before and before[spec.name].spec == spec:
            found[spec.name].take_over(before[spec.name])
    return found


def attach(
    ifname: str,
    policy: LoadedPolicy | str,
    mode: str = AUTO,
    *,
    replace: bool = False,
    order: str | None = None,
) -> Attached:
    """Put a policy on an interface, at its filter's hook, until the result is closed.

    `mode` is native or generic at XDP, tcx or clsact at TC, or auto; `order` is
    the place among other programs at TC (`first`, `last`, `before:ID`, `after:ID`).

    Raises:
        PolicyError: the text is no policy.
        KernelError: there is no such interface, it carries another XDP program (`replace`
            takes over), a capability is missing, or the kernel refuses the program.
    """
    wanted = seeded(policy if isinstance(policy, LoadedPolicy) else load_policy(policy))
    hook = Hook(wanted.identity.hook)
    (wish,) = wishes([hook], Wish(mode, read_order(order) if order else None, replace))
    point = attach_point(ifname, hook)
    place = interface(point.ifindex)
    notices: list[str] = []
    with ExitStack() as opened:
        loaded = opened.enter_context(load(wanted, place))
        program = loaded.programs[PROGRAM]
        with put_on(program, point, wish, notices) as link:
            if isinstance(link, Filter):
                link.attach(program)
            opened.pop_all()
    return Attached(place, wanted, loaded, link, tuple(notices))
