"""What sets contain for a question: as told, as files have it, or as the running sets have it.

    given(specs, ["threats=192.0.2.0/24,2001:db8::/32", "open=@ports.txt"])   ->  {"threats": {"v4": …}, …}
    running(specs)                                  ->  (the same of the sets that run here, those that do not)
    modelled(specs, contents)                       ->  {"threats": SetContent(…), …} for the reference evaluator

An entry stays while it is asked for: times of a text's lines, and what is left of a running
entry's time, mean nothing to a question about now.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from penstock.compiler.ir.stores import SetContent
from penstock.errors import LimitError, PenstockError
from penstock.model.entry_text import read_entries
from penstock.model.set_text import Keys, read_lines
from penstock.model.sets import SetSpec

_BITS = {"v4": 32, "v6": 128, "all": 0}
_FAMILIES = {bits: family for family, bits in _BITS.items()}

Contents = dict[str, Keys]
"""Entries by the name of their set."""


def given(specs: Iterable[SetSpec], texts: Sequence[str]) -> Contents:
    """The contents that options say: `NAME=ENTRY,ENTRY…` or `NAME=@FILE`, of which one set may have several.

    Raises:
        PenstockError: there is no such set, a file cannot be read, or something is no entry.
    """
    named = {spec.name: spec for spec in specs}
    found: Contents = {}
    for text in texts:
        name, equals, entries = text.partition("=")
        name = name.strip().removeprefix("@")
        if not equals:
            raise PenstockError(
                f"`{text[:60]}` says no content", hint="as in threats=192.0.2.0/24,2001:db8::/32"
            )
        if name not in named:
            known = ", ".join(f"@{one}" for one in named)
            raise PenstockError(
                f"no rule asks a set @{name[:60]}", hint=f"the rules ask {known}" if known else None
            )
        if entries.startswith("@"):
            more = of_file(named[name], Path(entries[1:]))
        else:
            more = of_entries(named[name], [one for one in entries.split(",") if one.strip()])
        found = joined(found, {name: more})
    return found


def of_file(spec: SetSpec, path: Path) -> Keys:
    """The entries that a file lists, an entry a line.

    Raises:
        PenstockError: it cannot be read, or one of its lines is no entry.
    """
    text = read_entries(str(path)).decode("utf-8-sig", "replace")
    return _staying(read_lines(spec, text, 0, 0, str(path)))


def of_entries(spec: SetSpec, entries: Iterable[str]) -> Keys:
    """Entries as commands take them.

    Raises:
        PenstockError: one is no entry of such a set.
    """
    return _staying(read_lines(spec, "\n".join(entries), 0, 0))


def running(specs: Iterable[SetSpec]) -> tuple[Contents, tuple[str, ...]]:
    """What the sets that run on this machine contain now, and which of the policy's do not run here.

    Raises:
        PenstockError: a running set is of something else than the policy says, or cannot be read.
    """
    from penstock.pipeline.set_store import names, open_set

    found: Contents = {}
    here, missing = names(), []
    for spec in specs:
        if spec.name not in here:
            missing.append(spec.name)
            continue
        with open_set(spec.name) as live:
            if live.spec.kind != spec.kind:
                raise PenstockError(
                    f"the set @{spec.name} that runs here is of {' . '.join(live.spec.kind)}, "
                    f"and the policy's of {' . '.join(spec.kind)}"
                )
            found[spec.name] = of_entries(spec, (entry.text for entry in live))
    return found, tuple(missing)


def joined(some: Mapping[str, Keys], more: Mapping[str, Keys]) -> Contents:
    """Both together; neither is changed."""
    found: Contents = {name: {**keys} for name, keys in some.items()}
    for name, keys in more.items():
        before = found.setdefault(name, {})
        for family, entries in keys.items():
            before[family] = before.get(family, {}) | entries
    return found


def require_room(specs: Iterable[SetSpec], contents: Mapping[str, Keys]) -> None:
    """Raises LimitError: a set would have more entries than it takes."""
    for spec in specs:
        most = max(map(len, contents.get(spec.name, {}).values()), default=0)
        if most > spec.size:
            raise LimitError(
                f"@{spec.name} takes {spec.size:,} entries, and it was given {most:,}",
                limit="entries of a set",
                hint="write a larger `size`",
            )


def modelled(specs: Iterable[SetSpec], contents: Mapping[str, Keys]) -> dict[str, SetContent]:
    """The sets as the reference evaluator has them; those of which nothing was said are empty.

    Raises:
        LimitError: a set would have more entries than it takes.
    """
    specs = tuple(specs)
    require_room(specs, contents)
    return {
        spec.name: SetContent(spec.kind, _Entries(spec, contents.get(spec.name, {})), spec.timeout_ns)
        for spec in specs
    }


class _Entries(Mapping[tuple[int, ...], int]):
    """Keys as the kernel has them, as those of `SetContent`: a million are not made over for one question."""

    def __init__(self, spec: SetSpec, keys: Keys) -> None:
        self._spec, self._keys = spec, keys

    def __getitem__(self, key: tuple[int, ...]) -> int:
        *parts, bits = key
        family = _FAMILIES[bits]
        return self._keys.get(family, {})[self._packed(parts, family)]

    def _packed(self, parts: list[int], family: str) -> bytes:
        spec = self._spec
        if spec.kind == ("net",):
            address, length = parts
            return struct.pack("=I", length) + address.to_bytes(spec.part_bytes(family)[0], "big")
        packed = b"".join(
            part.to_bytes(count, "big") for part, count in zip(parts, spec.part_bytes(family), strict=True)
        )
        return packed.ljust(spec.key_bytes(family), b"\0")

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        for family, keys in self._keys.items():
            for key in keys:
                yield (*self._parts(key, family), _BITS[family])

    def _parts(self, key: bytes, family: str) -> Iterator[int]:
        if self._spec.kind == ("net",):
            yield int.from_bytes(key[4:], "big")
            yield struct.unpack("=I", key[:4])[0]
            return
        at = 0
        for count in self._spec.part_bytes(family):
            yield int.from_bytes(key[at : at + count], "big")
            at += count

    def __len__(self) -> int:
        return sum(map(len, self._keys.values()))


def _staying(keys: Keys) -> Keys:
    return {family: dict.fromkeys(entries, 0) for family, entries in keys.items()}
