"""A set that a policy defines otherwise than before: made anew beside the old one, with its content.

    with remade(specs, Applying({4711}, owner)) as made:
        made.places      {"threats": Path("/sys/fs/bpf/penstock-sets/%new-…-threats")}
        …                programs that use these maps are put in place

Size, timeout, counters and structure may change, what it is of may not.  While the block lasts
nobody else changes the set.  If it fails all is as it was; if it succeeds the new pins take the
place of the old ones in one step, and programs never meet a set that is half full.  Entries keep
their ends, what they counted begins anew.  What rules add until their program is replaced
comes over behind it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.errors import KernelError, LimitError, PenstockError
from penstock.kernel import pin
from penstock.model.boot_clock import boot_clock_ns
from penstock.model.sets import SetSpec, count_text
from penstock.pipeline import set_store
from penstock.pipeline.set_users import User, policies_with
from penstock.pipeline.subscriptions import owner_of

if TYPE_CHECKING:
    from penstock.pipeline.live_set import LiveSet
    from penstock.pipeline.set_keys import Content


@dataclass(frozen=True, slots=True)
class Applying:
    """What is put in place: the programs that it replaces, the owner of its file, and whether it may be taken back."""

    programs: frozenset[int]
    owner: str
    is_on_probation: bool = False


@dataclass(frozen=True, slots=True)
class Remade:
    """Where the new pins of each set are until they take the place of the old, and what is to be said of it."""

    places: dict[str, Path]
    notices: tuple[str, ...] = ()


@contextmanager
def remade(specs: Iterable[SetSpec], applying: Applying | None, *, is_dry: bool = False) -> Iterator[Remade]:
    """The sets that are made anew for these definitions; none without `applying`.

    If `is_dry` they are copies, for the block alone, and the old ones stay.

    Raises:
        PenstockError: another policy uses one, it has more entries than the new one takes, or the policy
            is on probation; nothing is changed.
        KernelError: one cannot be made.
    """
    with ExitStack() as held, ExitStack() as undo:
        moved: dict[str, tuple[LiveSet, LiveSet]] = {}
        notices: list[str] = []
        for _, spec in sorted({spec.name: spec for spec in specs}.items()) if applying else ():
            assert applying is not None
            if not _is_another(spec, set_store.spec_of(spec.name)):
                continue
            notices += _users_left(spec, applying)
            held.enter_context(set_store.changing(spec.name))
            there = set_store.spec_of(spec.name)
            if there is None or not _is_another(spec, there):
                continue
            old = held.enter_context(set_store.open_unlocked(there, set_store.sets_root() / spec.name))
            new = held.enter_context(_made(spec, undo))
            _fill(old, new)
            moved[spec.name] = old, new
            notices.append(f"@{spec.name} was made anew, with all {new.count:,} of its entries: {spec.text}")
        yield Remade({name: _place(new) for name, (_, new) in moved.items()}, tuple(notices))
        if is_dry:
            return
        for old, new in moved.values():
            # Programs add to the new one by now, which may be full of that.
            with suppress(KernelError):
                _carry_added(old, new)
        undo.pop_all()
        for name, (_, new) in moved.items():
            pin.publish(set_store.sets_root(), name, _place(new))


def foreseen(specs: Iterable[SetSpec], applying: Applying) -> Iterator[str]:
    """What `apply` would say of the sets that it makes anew; nothing is changed.

    Raises:
        PenstockError: it would be refused for a set that is there.
    """
    for spec in specs:
        there = set_store.spec_of(spec.name)
        if there is None or replace(there, dynamic=spec.dynamic) == spec:
            if there is not None and there.dynamic and not spec.dynamic:
                raise set_store.another(spec, there)
            continue
        if not _is_another(spec, there):
            raise set_store.another(spec, there)
        yield from _users_left(spec, applying)
        with set_store.open_set(spec.name) as old:
            if old.count > spec.size and _most_of_a_family(old) > spec.size:
                raise _too_many(old, spec)
            yield f"@{spec.name} would be made anew, with all {old.count:,} of its entries: {spec.text}"


def _most_of_a_family(old: LiveSet) -> int:
    lines = [one.text for one in old if not one.by_rule]
    of_6 = sum(":" in line for line in lines)
    return max(of_6, len(lines) - of_6)


def _too_many(old: LiveSet, spec: SetSpec) -> PenstockError:
    return PenstockError(
        f"@{old.spec.name} holds {old.count:,} entries, and this policy gives it a size of "
        f"{count_text(spec.size)}; nothing was changed",
        hint="write a larger `size`, or `penstock set remove` what is too much",
    )


def _is_another(wanted: SetSpec, there: SetSpec | None) -> bool:
    """Whether a set is there that differs in what may change."""
    if there is None or there.kind != wanted.kind or (there.dynamic and not wanted.dynamic):
        return False
    return replace(there, dynamic=wanted.dynamic) != wanted


def _place(new: LiveSet) -> Path:
    assert new.place is not None
    return new.place


def _users_left(spec: SetSpec, applying: Applying) -> Iterator[str]:
    """What is said of those that go on with the old set.  Raises PenstockError: they are others than this policy."""
    if applying.is_on_probation:
        raise PenstockError(
            f"this policy makes @{spec.name} another set, which --confirm could not take back: {spec.text}",
            hint="apply that without --confirm first; `penstock rollback` undoes it",
        )
    left = [(user, one) for user, one in policies_with(spec.name) if user.program not in applying.programs]
    others = [user for user, one in left if owner_of(one.place) != applying.owner]
    if others:
        raise _in_use(spec, others)
    for user, _ in left:
        yield f"{user} goes on with what @{spec.name} held: apply the policy there too"


def _in_use(spec: SetSpec, others: list[User]) -> PenstockError:
    there = set_store.spec_of(spec.name)
    told = f"the set @{spec.name} is there already, and is another: {there.text if there else 'none'}"
    listed = ", ".join(map(str, others))
    return PenstockError(
        f"{told}; {listed} use it",
        hint=f"this policy says `{spec.text}`: let all of them say the same, or detach those first",
    )


@contextmanager
def _made(spec: SetSpec, undo: ExitStack) -> Iterator[LiveSet]:
    """An empty set, pinned where nobody looks."""
    pin.discard_leftovers(set_store.sets_root(), spec.name)
    place = set_store.staged(spec)
    undo.callback(pin.discard, place)
    with set_store.open_unlocked(spec, place) as new:
        yield new


def _fill(old: LiveSet, new: LiveSet) -> None:
    """Raises PenstockError: there is no room for all of it."""
    old.sweep()
    try:
        new.replace(_content(old))
        _carry_added(old, new)
    except (LimitError, KernelError) as error:
        if isinstance(error, KernelError) and error.errno not in (errno.E2BIG, errno.ENOSPC):
            raise
        raise _too_many(old, new.spec) from error


def _content(old: LiveSet) -> Content:
    """All that commands and feeds have put in, with its ends."""
    from penstock.pipeline.ledger_content import together
    from penstock.pipeline.set_keys import read_entries
    from penstock.pipeline.set_maps import read_map

    spec = old.spec.timed
    parts = [{family: read_map(spec, old.maps[family]).entries(spec) for family in spec.families}]
    if old.spec.is_flat:
        lines = "\n".join(one.text for one in old if one.expires_in is None and not one.by_rule)
        parts.append(read_entries(spec, lines.encode(), 0, boot_clock_ns()))
    return together(spec, parts)


def _carry_added(old: LiveSet, new: LiveSet) -> None:
    """Let what rules have added be there too."""
    from penstock.pipeline.dynamic_set import DynamicSet

    if isinstance(old, DynamicSet) and isinstance(new, DynamicSet):
        new.added.take(old.added)


__all__ = ["Applying", "Remade", "foreseen", "remade"]
