"""`penstock map` and `penstock btf` as they are typed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import Here
from tests.e2e.test_json_page import documented, shape
from tests.kernel.test_typed_maps import COMPILERS, compiled

from penstock.kernel.bpf_object import BpfObject, load_object

pytestmark = pytest.mark.privileged

NETWORK = "10.0.0.0/8"


@pytest.fixture(scope="module")
def loaded() -> Iterator[BpfObject]:
    """The maps of tests/kernel/maps.bpf.c."""
    with load_object(compiled(COMPILERS[-1]), "maps") as opened:
        yield opened


def test_a_map_is_filled_looked_into_and_emptied(loaded: BpfObject) -> None:
    cli, trie = Here(), str(loaded.maps["t_lpm4"].info.id)
    assert cli("map", "update", trie, NETWORK, "7").err == "t_lpm4: 10.0.0.0/8 = 7\n"
    assert cli("map", "dump", trie).out == "10.0.0.0/8 = 7\n"
    assert cli("map", "lookup", trie, "10.9.9.9").out == "10.9.9.9/32 = 7\n"
    refused = cli("map", "update", trie, NETWORK, "8", "--flag", "noexist")
    assert (refused.code, "is there already" in refused.err) == (3, True)
    assert cli("map", "update", trie, NETWORK, "-1").code == 1
    assert cli("map", "delete", trie, NETWORK).code == 0
    gone = cli("map", "delete", trie, NETWORK)
    assert (gone.code, gone.err) == (1, "error: map t_lpm4 has no entry 10.0.0.0/8\n")
    assert cli("map", "dump", trie).out == ""


def test_a_fault_has_its_place(loaded: BpfObject) -> None:
    done = Here()(
        "map", "update", str(loaded.maps["t_flows"].info.id), "{sadr: 10.0.0.1, proto: UPD}", "{packets: -1}"
    )
    assert done.code == 1
    assert done.err == (
        "key:1:2: error[PS502]: there is no member `sadr`\n"
        "  1 | {sadr: 10.0.0.1, proto: UPD}\n"
        "    |  ^^^^\n"
        "  hint: did you mean `saddr`?\n"
        "key:1:25: error[PS502]: there is no constant `UPD` here\n"
        "  1 | {sadr: 10.0.0.1, proto: UPD}\n"
        "    |                         ^^^\n"
        "  hint: did you mean `UDP`?\n"
    )


def test_each_cpu_and_all_together(loaded: BpfObject) -> None:
    cli, number = Here(), str(loaded.maps["t_cpu"].info.id)
    assert cli("map", "update", number, "1", "{packets: 5}").code == 0
    assert cli("map", "dump", number, "--nonzero").out == "1 = {packets: 5, bytes: 0, seen: [0, 0, 0]}\n"
    lines = cli("map", "lookup", number, "1", "--per-cpu").out.splitlines()
    assert lines[0] == "1 cpu 0 = {packets: 5, bytes: 0, seen: [0, 0, 0]}"
    assert json.loads(cli("map", "lookup", number, "1", "--json").out)["value"]["packets"] == 5


def test_what_has_no_keys_or_entries(loaded: BpfObject) -> None:
    cli = Here()
    queue, ring = (str(loaded.maps[name].info.id) for name in ("t_queue", "t_ring"))
    assert cli("map", "update", queue, "5").code == 0
    assert "only its next value can be seen" in cli("map", "dump", queue).err
    assert cli("map", "delete", queue).out == "hex:05000000\n"
    assert "is empty" in cli("map", "delete", queue).err
    assert "takes one VALUE and no KEY" in cli("map", "update", queue, "1", "2").err
    assert "t_ring is a ringbuf: it has no entries" in cli("map", "dump", ring).err


def test_names_from_the_kernel_cannot_move_the_cursor() -> None:
    """Maps cannot be called so, files can."""
    done = Here()("btf", "dump", "/tmp/\x1b[2J")
    assert (done.code, "\x1b" in done.err) == (1, False)


def test_the_records_are_documented(loaded: BpfObject, bpffs: Path) -> None:
    cli, shown = Here(), documented()
    flows, cpu, queue = (str(loaded.maps[name].info.id) for name in ("t_flows", "t_cpu", "t_queue"))
    pinned = bpffs / "pinned_by_name"
    key = "{saddr: 10.0.0.1, daddr: 192.0.2.1, sport: 53, dport: 80, proto: UDP}"
    object_file = bpffs.parent / "maps.o"
    object_file.write_bytes(compiled(COMPILERS[-1]))
    calls = [
        ("map", "update", flows, key, "{packets: 1}", "--json"),
        ("map", "lookup", flows, key, "--json"),
        ("map", "lookup", cpu, "0", "--per-cpu", "--json"),
        ("map", "delete", flows, key, "--json"),
        ("map", "update", queue, "5", "--json"),
        ("map", "delete", queue, "--json"),
        ("map", "pin", flows, str(pinned), "--json"),
        ("map", "list", "--json"),
        ("btf", "list", "--json"),
        ("btf", "dump", str(pinned), "--format", "json"),
        ("btf", "dump", str(object_file), "--format", "json"),
    ]
    try:
        for call in calls:
            lines = cli(*call).out.splitlines()
            assert lines, call
            # The map that has users and pins is the one that the page shows.
            chosen = [line for line in lines if call[1] != "list" or '"t_flows"' in line] or lines
            assert all(shape(line) in shown for line in chosen), call
    finally:
        pinned.unlink()


def test_types_of_an_object_as_c_compile(loaded: BpfObject, tmp_path: Path) -> None:
    (tmp_path / "maps.o").write_bytes(compiled(COMPILERS[-1]))
    text = Here()("btf", "dump", str(tmp_path / "maps.o"))
    assert text.code == 0
    assert "struct flow {\n\t__be32 saddr;\n" in text.out
    check = '_Static_assert(sizeof(struct all) == 96, "");'
    argv = [COMPILERS[0], "-target", "bpf", "-Wall", "-Werror", "-fsyntax-only", "-x", "c", "-"]
    done = subprocess.run(argv, input=text.out + check, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    part = Here()("btf", "dump", str(tmp_path / "maps.o"), "--type", "flow", "--format", "text")
    assert part.out.splitlines()[0].endswith("struct flow, 16 bytes")
    missing = Here()("btf", "dump", str(tmp_path / "maps.o"), "--type", "flov")
    assert "did you mean `flow`?" in missing.err
