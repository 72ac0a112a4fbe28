"""Sets that outlive the commands and the programs that use them.

    /sys/fs/bpf/penstock-sets/threats/      a directory for each, named after the set
        v4, v6, all     a map for each family of its keys
        control         which bank counts
        spec            what it is: kind, size, timeout

A set is made by the first policy that is put in place and names it; all policies
that name it share it, so its content outlives reloads.  It stays when the last of
them is detached, and goes by `penstock set delete`.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.errors import KernelError, PenstockError
from penstock.kernel import pin
from penstock.kernel.blob import write_blob
from penstock.kernel.capability import kernel_errors
from penstock.kernel.lock import is_free as lock_is_free
from penstock.kernel.lock import lock
from penstock.kernel.maps import Map
from penstock.model.flat import LINES
from penstock.model.sets import SetSpec, control_map, set_map
from penstock.pipeline.ledger import Ledger
from penstock.pipeline.set_format import SPEC, encoded, incomplete, require_readable, spec_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from penstock.pipeline.live_set import LiveSet
    from penstock.pipeline.set_users import User

_SUFFIX = "-sets"
CONTROL = "control"
_PATIENCE_S = 10.0
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def sets_root() -> Path:
    """The directory of all these pins, beside that of the policies."""
    root = pin.pin_root()
    return root.with_name(root.name + _SUFFIX)


def names() -> list[str]:
    """The sets that there are, sorted.  Raises KernelError."""
    root = sets_root()
    with kernel_errors("list", str(root)):
        try:
            return sorted(path.name for path in root.iterdir() if _NAME.fullmatch(path.name))
        except FileNotFoundError:
            return []


@contextmanager
def changing(name: str) -> Iterator[None]:
    """Hold the lock of a set; waits for another that changes it.  Raises KernelError: it takes too long."""
    with lock(f"%set-{name}", f"the set @{name}", _PATIENCE_S):
        yield


def is_free(name: str) -> bool:
    """Whether nobody changes a set at the moment.  Raises KernelError."""
    return lock_is_free(f"%set-{name}")


def open_set(name: str) -> LiveSet:
    """The set of that name.  Close it, or use it as a context.

    Raises:
        PenstockError: there is none; the hint says how to come by one.
        KernelError: it cannot be opened.
    """
    name = name.removeprefix("@")
    place = sets_root() / name
    spec = spec_at(place) if _NAME.fullmatch(name) else None
    if spec is None and _NAME.fullmatch(name) and place.is_dir():
        raise incomplete(place)
    if spec is None:
        there = names()
        listed = (
            f"there are: {', '.join(there)}"
            if there
            else "a policy that names one makes it when it is applied"
        )
        raise PenstockError(f"there is no set `{name}`", hint=listed)
    mark = place_of(name)
    try:
        maps, control, added = open_maps(place, spec)
    except KernelError as error:
        raise incomplete(place) if error.errno == errno.ENOENT else error from error
    return live(spec, maps, control, added, lambda: _changing_this(name, mark), place)


def open_unlocked(spec: SetSpec, place: Path) -> LiveSet:
    """A set whose pins are at some place, for who holds its lock or has it alone.  Raises KernelError."""
    maps, control, added = open_maps(place, spec)
    return live(spec, maps, control, added, place=place)


@contextmanager
def _changing_this(name: str, mark: tuple[int, int]) -> Iterator[None]:
    """As `changing`, of the very set that was opened.  Raises PenstockError: it is another by now."""
    with changing(name):
        if place_of(name) != mark:
            raise PenstockError(
                f"the set @{name} was made anew or taken away meanwhile",
                hint="nothing was changed: try again",
            )
        yield


def live(
    spec: SetSpec,
    maps: dict[str, Map],
    control: Map,
    added: dict[str, Map],
    lock: Callable[[], AbstractContextManager[None]] = nullcontext,
    place: Path | None = None,
) -> LiveSet:
    """The set of these maps, which become its own; `place` is where they are pinned."""
    if spec.is_flat:
        from penstock.pipeline.flat_set import DynamicFlatSet, FlatSet

        if spec.dynamic:
            return DynamicFlatSet(spec, maps, control, added, lock, place)
        return FlatSet(spec, maps, control, lock, place)
    if spec.dynamic:
        from penstock.pipeline.dynamic_set import DynamicSet

        return DynamicSet(spec, maps, control, added, lock, place)
    from penstock.pipeline.live_set import LiveSet

    return LiveSet(spec, maps, control, lock, place)


def spec_of(name: str) -> SetSpec | None:
    """What the set of that name is; None if there is none.  Raises KernelError: it cannot be read."""
    return spec_at(sets_root() / name) if _NAME.fullmatch(name) else None


def place_of(name: str) -> tuple[int, int]:
    """What tells the set that is there now from another one of its name; (0, 0) for none."""
    try:
        found = os.stat(f"{pin.pin_root()}{_SUFFIX}/{name}/{SPEC}")  # noqa: PTH116 - asked at every change
    except (OSError, ValueError):  # a name with a NUL in it
        return 0, 0
    return found.st_ino, found.st_ctime_ns


def open_maps(place: Path, spec: SetSpec) -> tuple[dict[str, Map], Map, dict[str, Map]]:
    """The maps of what was put in, their control, and the maps of what rules have added."""
    with ExitStack() as opened:
        control = opened.enter_context(Map.open(place / CONTROL))
        maps = {table: opened.enter_context(Map.open(place / table)) for table in spec.tables}
        added = {name: opened.enter_context(Map.open(place / name)) for name in spec.added_tables}
        require_readable(place, spec, maps)
        opened.pop_all()
    return maps, control, added


def _maps_by_id(spec: SetSpec, ids: Mapping[str, int]) -> tuple[dict[str, Map], Map, dict[str, Map]]:
    with ExitStack() as opened:
        every = {name: opened.enter_context(Map.by_id(number)) for name, number in ids.items()}
        opened.pop_all()
    maps = {table: every[table] for table in spec.tables}
    return maps, every[CONTROL], {name: every[name] for name in spec.added_tables}


@contextmanager
def shared(
    sets: Sequence[SetSpec],
    places: Mapping[str, Path] | None = None,
    kept: Sequence[tuple[SetSpec, Mapping[str, int]]] = (),
) -> Iterator[Mapping[str, Map]]:
    """The maps of a program's sets by the names that they have in it; sets that are not there yet are made.

    One that was there before a reboot is filled again with what its ledger and its feeds' copies say.
    Those that were made are taken away again if the block fails.

    `places` are the pins of sets that will be those of their names (set_remaking.py), `kept` the ids of maps
    that have no pins any more (bonds.py).

    Raises:
        PenstockError: a set of that name is there, and is another; it is left alone.
        KernelError: one cannot be made.
    """
    found: dict[str, Map] = {}
    with ExitStack() as opened, ExitStack() as undo:
        for number, spec in enumerate(sets):
            is_new = False
            if ids := next((ids for one, ids in kept if one == spec), None):
                maps, control, added = _maps_by_id(spec, ids)
            elif places and spec.name in places:
                maps, control, added = open_maps(places[spec.name], spec)
            else:
                with changing(spec.name):
                    is_new = _ensure(spec)
                    if is_new:
                        undo.callback(pin.remove, sets_root(), spec.name)
                    maps, control, added = open_maps(sets_root() / spec.name, spec)
            for held in (control, *maps.values(), *added.values()):
                opened.enter_context(held)
            found[control_map(number)] = control
            found.update((set_map(number, name), table) for name, table in {**maps, **added}.items())
            if is_new:
                _restore(spec.name)
        yield found
        undo.pop_all()


def _restore(name: str) -> None:
    """What the set held before the machine started anew comes back, where anything is known of that."""
    if Ledger(name).place.exists():
        from penstock.pipeline.feeding import restore

        restore(name)


def _ensure(spec: SetSpec) -> bool:
    """Make the set unless it is there; whether it was made.  What a killed command has left of one goes."""
    from penstock.pipeline.set_maps import create_maps

    root = sets_root()
    pin.discard_leftovers(root, spec.name)
    there = spec_at(root / spec.name)
    if there is not None:
        if replace(there, dynamic=spec.dynamic) != spec or (there.dynamic and not spec.dynamic):
            raise another(spec, there)
        if there != spec:
            _make_dynamic(root, spec, there)
        return False
    maps, control = create_maps(spec)
    _pin(root, spec, maps, control)
    return True


def _make_dynamic(root: Path, spec: SetSpec, there: SetSpec) -> None:
    """Let rules add to a set that is there, and keeps what it holds."""
    maps, control, _ = open_maps(root / spec.name, there)
    for path in pin.pins(root, spec.name).values():
        if path.name in LINES:
            maps[path.name] = Map.open(path)
    _pin(root, spec, maps, control)


def _pin(root: Path, spec: SetSpec, maps: dict[str, Map], control: Map) -> None:
    """Make these maps the set's, in one step, with new ones for what rules will add; closes them all."""
    made = _staged(root, spec, maps, control)
    try:
        pin.publish(root, spec.name, made)
    except BaseException:
        pin.discard(made)
        raise


def staged(spec: SetSpec) -> Path:
    """The pins of an empty set, where nobody looks.  Raises KernelError."""
    from penstock.pipeline.set_maps import create_maps

    return _staged(sets_root(), spec, *create_maps(spec))


def _staged(root: Path, spec: SetSpec, maps: dict[str, Map], control: Map) -> Path:
    from penstock.pipeline.added_entries import create_added

    with ExitStack() as held:
        for one in (control, *maps.values()):
            held.enter_context(one)
        added = create_added(spec) if spec.dynamic else {}
        for one in added.values():
            held.enter_context(one)
        blob = held.enter_context(write_blob(encoded(spec), "ps_set_spec"))
        return pin.stage(root, spec.name, {CONTROL: control, SPEC: blob, **maps, **added})


def another(wanted: SetSpec, there: SetSpec) -> PenstockError:
    """What is said where a set is there that is not the one of a policy."""
    if there.dynamic and not wanted.dynamic and there.kind == wanted.kind:
        return PenstockError(
            f"rules of other policies add to the set @{wanted.name}, and this policy does not say so",
            hint=f"write `dynamic` behind it: {replace(wanted, dynamic=True).text}",
        )
    return PenstockError(
        f"the set @{wanted.name} is there already, and is another: {there.text}",
        hint=f"the policy says `{wanted.text}`: give it another name, or take the old set away with "
        f"`penstock set delete {wanted.name}` (`set export` keeps its entries)",
    )


def delete(name: str, *, force: bool = False) -> tuple[User, ...]:
    """Take a set away: its pins; programs that use it, which are given back, keep it until they go.

    Of one that cannot be opened, which takes `force`, the ledger stays, and fills the next set of that name.

    Raises:
        PenstockError: there is none, or a program uses it and `force` is false.
        KernelError: it cannot be removed.
    """
    name = name.removeprefix("@")
    if force and not _can_be_opened(name):
        pin.remove(sets_root(), name)
        return ()
    from penstock.pipeline.set_users import users_of

    with open_set(name) as found, changing(name) if not force else nullcontext():
        users = users_of(found)
        if users and not force:
            listed = ", ".join(map(str, users))
            raise PenstockError(
                f"the set @{name} is in use by {listed}", hint="detach what uses it, or --force"
            )
        if not force:
            pin.discard_leftovers(sets_root(), name)
        pin.remove(sets_root(), name)
        Ledger(name).forget()
        return users


def _can_be_opened(name: str) -> bool:
    """False for a set that another version of penstock has made, or of which pins are missing.

    Raises PenstockError: there is none.
    """
    try:
        open_set(name).close()
    except KernelError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True
