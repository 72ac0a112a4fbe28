"""What another version of penstock has left in the kernel: migrated or refused, never silently emptied; check 20."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
from tests import once
from tests.netns import Namespace, veth

from penstock.errors import KernelError, PenstockError
from penstock.kernel import pin
from penstock.kernel.blob import write_blob
from penstock.kernel.maps import Map, MapType
from penstock.model.sets import SetSpec
from penstock.pipeline import set_format
from penstock.pipeline.apply import apply, detach
from penstock.pipeline.identity import encode
from penstock.pipeline.set_store import delete, open_set, sets_root
from penstock.pipeline.slot import IDENTITY, read_identity
from penstock.pipeline.status import status

pytestmark = [pytest.mark.privileged, pytest.mark.check(20)]

POLICY = "set old : host size 100\nfilter edge at xdp { drop if src in @old }\n"


@pytest.fixture
def wired(bpffs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Within a namespace that has v0; gives the directory of pins."""
    root = bpffs / "upgrade"
    monkeypatch.setenv("PENSTOCK_BPFFS", str(root))
    with Namespace("upgrade") as left, Namespace("upgrade") as right:
        veth(left, "v0", right, "v1")
        with left.inside():
            yield root


def other_maps(spec: SetSpec) -> dict[int, bytes | None]:
    """Put maps in the place of a set's that have a word more in each value, with an entry; what they hold by id."""
    place, found = sets_root() / spec.name, {}
    for family in spec.families:
        key, size = bytes(spec.key_bytes(family)), 8 * spec.value_words + 8
        with Map.create(MapType.HASH, "ps_old", key_size=len(key), value_size=size, max_entries=8) as table:
            table.update(key, b"\1" * size)
            (place / family).unlink()
            from penstock.kernel import syscall

            syscall.pin(table.fd, place / family)
            found[table.info.id] = table.lookup(key)
    return found


def test_check_20_a_set_whose_maps_have_another_shape_is_refused_and_left_as_it_is(wired: Path) -> None:
    apply("v0", POLICY)
    detach("v0")
    once.add("old", ["192.0.2.7"], by="me")
    with open_set("old") as old:
        spec = old.spec
    before = other_maps(spec)
    for attempt in (
        lambda: apply("v0", POLICY),
        lambda: open_set("old"),
        lambda: once.add("old", ["192.0.2.1"], by="me"),
    ):
        with pytest.raises(KernelError, match="another version of penstock made it") as error:
            attempt()
        assert error.value.hint is not None
        assert "set delete --force old" in error.value.hint
    assert status() == (), "nothing was attached"
    with ExitStack() as opened:
        maps = [opened.enter_context(Map.open(sets_root() / "old" / family)) for family in spec.families]
        after = {one.info.id: one.lookup(bytes(one.info.key_size)) for one in maps}
    assert after == before
    delete("old", force=True)
    apply("v0", POLICY)
    with open_set("old") as old:
        assert [one.text for one in old] == ["192.0.2.7"], "what commands have put there is there again"
    detach("v0")
    delete("old")


def test_check_20_a_set_that_a_later_version_describes_is_refused(wired: Path) -> None:
    apply("v0", POLICY)
    detach("v0")
    with write_blob(b'{"name":"old","kind":"a word","size":"large"}', "ps_set_spec") as blob:
        pin.exchange_pin(sets_root() / "old", "spec", blob, without="spec-")
    with pytest.raises(KernelError, match="another version of penstock"):
        apply("v0", POLICY)
    pin.remove(sets_root(), "old")


def test_check_20_a_filter_whose_identity_is_of_another_schema_runs_on(wired: Path) -> None:
    done = apply("v0", POLICY)
    (directory,) = [one for one in wired.iterdir() if one.name.startswith("v0")]
    mine = read_identity(directory)
    later = msgspec.structs.replace(mine, schema="penstock.identity/9", version="9.0")
    with write_blob(encode(later), "ps_identity") as blob:
        pin.exchange_pin(directory, IDENTITY, blob, without="none-")
    with pytest.raises(PenstockError, match="another version of penstock"):
        apply("v0", POLICY)
    with write_blob(encode(mine), "ps_identity") as blob:
        pin.exchange_pin(directory, IDENTITY, blob, without="none-")
    (one,) = status()
    assert one.identity.program == done.program_id
    detach("v0")
    delete("old")


def test_check_20_a_flat_set_of_another_layout_is_refused_and_not_misread(
    wired: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = "set nets : net size 1M\nfilter edge at xdp { drop if src in @nets }\n"
    apply("v0", policy)
    detach("v0")
    once.add("nets", ["192.0.2.0/24"], by="me")
    with monkeypatch.context() as later:
        later.setattr(set_format, "LAYOUT", 99)
        for attempt in (lambda: apply("v0", policy), lambda: open_set("nets")):
            with pytest.raises(KernelError, match="another version of penstock made it") as error:
                attempt()
            assert "set delete --force nets" in (error.value.hint or "")
    with open_set("nets") as nets:
        assert "192.0.2.7" in nets, "it was left as it was"
    with monkeypatch.context() as later:
        later.setattr(set_format, "LAYOUT", 99)
        delete("nets", force=True)
        apply("v0", policy)
        with open_set("nets") as nets:
            assert "192.0.2.7" in nets
        detach("v0")
        delete("nets")
