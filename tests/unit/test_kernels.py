"""`make kernels`, as far as it needs no qemu: the archive, the order of modules, what counts as expected, the page."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from tools.kernels import page, verdict
from tools.kernels.cpio import Archive
from tools.kernels.modules import in_order

from penstock.kernel.probe.behaviours import BEHAVIOURS, WATCHED_HELPERS
from penstock.kernel.probe.tables import ATTACH_TYPES, HELPERS, MAP_TYPES, PROGRAM_TYPES, release


def test_the_page_is_what_the_tables_and_results_say() -> None:
    """`python -m tools.kernels.page` writes it."""
    assert page.PAGE.read_text() == page.text()


def test_the_results_are_as_expected_of_their_kernels() -> None:
    """What is kept was seen, and no table says otherwise."""
    kept = page.results()
    assert kept
    for found in kept.values():
        here = release(found["release"])
        for one in (*BEHAVIOURS, *WATCHED_HELPERS):
            assert (one.name in found["behaviours"]) == (here >= release(one.since)), (
                found["release"],
                one.name,
            )


def sound(version: str) -> dict[str, Any]:
    """A report in which everything is as the tables have it."""
    here = release(version)
    tables = {
        "behaviours": {one.name: one.since for one in (*BEHAVIOURS, *WATCHED_HELPERS)},
        "programs": {name: known.since for name, known in PROGRAM_TYPES.items()},
        "maps": {name: known.since for name, known in MAP_TYPES.items()},
        "attach": {name: known.since for name, known in ATTACH_TYPES.items()},
    }
    probe: dict[str, Any] = {
        section: {
            name: here >= release(since) and name not in verdict.NOT_CONFIGURED.get(section, ())
            for name, since in names.items()
        }
        for section, names in tables.items()
    }
    askable = [name for name, known in HELPERS.items() if here >= release(known.since)]
    probe["helpers"] = {"xdp": [name for name in askable if name not in verdict.NOT_ASKED]}
    way = "tcx" if here >= (6, 6) else "clsact"
    return {
        "release": f"{version}.7-cloud",
        "failed": [],
        "probe": probe,
        "objects": [{"name": "policy edge", "refused": None, "wrong": []}],
        "attached": [
            {"name": "at xdp", "refused": None, "way": "native"},
            {"name": "at tc ingress", "refused": None, "way": way},
        ],
    }


@pytest.mark.parametrize("version", ["5.10", "6.1", "6.12", "7.3"])
def test_a_sound_report_has_no_complaint(version: str) -> None:
    assert verdict.complaints(sound(version)) == []


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("probe", "behaviours", "tcx"), True, "behaviours tcx (Linux 6.6): there"),
        (("probe", "maps", "ringbuf"), None, "maps ringbuf (Linux 5.8): said to be untellable"),
        (("probe", "programs", "xdp"), False, "programs xdp (Linux 4.8): not there"),
        (("probe", "helpers", "xdp"), [], "helper map_lookup_elem"),
        (("objects", 0, "refused"), "the verifier refused it", "policy edge: the verifier refused it"),
        (("objects", 0, "wrong"), ["dns.case:5"], "policy edge: dns.case:5"),
        (("attached", 0, "way"), "generic", "at xdp: attached by generic, expected native"),
        (("attached", 1, "refused"), "no", "at tc ingress: not attached: no"),
        (("failed",), ["mount /proc"], "it could not mount /proc"),
    ],
)
def test_each_departure_is_a_complaint(path: tuple[Any, ...], value: object, complaint: str) -> None:
    report = copy.deepcopy(sound("6.1"))
    place: Any = report
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert any(one.startswith(complaint) for one in verdict.complaints(report)), verdict.complaints(report)


def test_a_guest_that_broke_is_a_complaint() -> None:
    assert verdict.complaints({"broken": "Traceback"}) == ["the guest broke: Traceback"]


def entries(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Mode and content of each entry, read as initramfs-buffer-format.rst has it."""
    found, at = {}, 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, length = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + length - 1].decode()
        start = at + (110 + length + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found[name] = mode, data[start : start + size]
        at = start + (size + 3) // 4 * 4


def test_the_archive_has_files_links_and_the_directories_above_them() -> None:
    archive = Archive()
    archive.file("/etc/deep/name", b"hello", mode=0o755)
    archive.link("/etc/other", "deep/name")
    assert entries(archive.bytes()) == {
        "etc": (0o040755, b""),
        "etc/deep": (0o040755, b""),
        "etc/deep/name": (0o100755, b"hello"),
        "etc/other": (0o120777, b"deep/name"),
    }


def test_an_archive_is_the_same_twice_and_aligned() -> None:
    first, second = Archive(), Archive()
    for archive in (first, second):
        archive.directory("/a/b")
        archive.file("/a/b/c", b"12345")
        archive.node("/dev/console", 5, 1)
    data = first.bytes()
    assert data == second.bytes()
    assert len(data) % 4 == 0
    assert data.count(b"070701") == 6
    assert "/a/b" in first


def test_a_module_comes_after_what_it_needs(tmp_path: Path) -> None:
    for name, needs in (("veth", "one,two"), ("one", "two"), ("two", ""), ("unused", "")):
        (tmp_path / f"{name}.ko").write_bytes(b"\x7fELF\0depends=" + needs.encode() + b"\0name=x\0")
    found = [path.stem for path in in_order(tmp_path, ("veth", "built_in"))]
    assert found == ["two", "one", "veth"]
