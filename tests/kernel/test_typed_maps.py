"""Maps of every kind with their types: what is written is what the kernel holds, as bpftool reads it."""

from __future__ import annotations

import errno
import json
import shutil
import struct
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from penstock.errors import KernelError, PenstockError, PolicyError
from penstock.kernel import map_listing
from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.kernel.map_entries import entries
from penstock.kernel.maps import Map, MapType, possible_cpus
from penstock.observe.typed.notation import render
from penstock.pipeline.map_names import map_called
from penstock.pipeline.map_overview import overviews
from penstock.pipeline.typed_map import TypedMap

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.privileged

READ_ONLY, WRITE_ONLY = (
    1 << 3,
    1 << 4,
)  # BPF_F_RDONLY, BPF_F_WRONLY: of the descriptor that the creation gives
SOURCE = Path(__file__).with_name("maps.bpf.c")
COMPILERS = [name for name in ("clang-14", "clang-19", "clang") if shutil.which(name)][:2]
FLOW = "{saddr: 10.0.0.1, daddr: 192.0.2.1, sport: 53, dport: 80, proto: UDP}"
ALL = (
    '{name: "ab c", mac: 02:00:00:00:00:01, on: true, small: -3, low: 5, high: 77, negative: -2, word: 16909060, '
    "parts: hex:04030201, six: 2001:db8::1, seq: 9, token: 10, where: 0xffff, wide: 4294967296, "
    "pair: [{a: 1, b: 2}, {a: 0, b: 4}], blob: hex:010203}"
)


@cache
def compiled(clang: str) -> bytes:
    includes = [f"-I{path}" for path in sorted(Path("/usr/include").glob("*-linux-gnu"))]
    argv = [clang, "-O2", "-g", "-target", "bpf", *includes, "-Wall", "-c", str(SOURCE), "-o", "-"]
    return subprocess.run(argv, capture_output=True, check=True).stdout


@pytest.fixture(scope="module", params=COMPILERS)
def loaded(request: pytest.FixtureRequest) -> Iterator[BpfObject]:
    with load_object(compiled(request.param), "maps") as opened:
        yield opened


def typed(loaded: BpfObject, name: str, **options: bool) -> TypedMap:
    """One of the object's maps, opened again as the command line opens it."""
    return TypedMap(Map.by_id(loaded.maps[name].info.id), **options)


def shown(table: TypedMap) -> list[str]:
    """The entries as `penstock map dump` prints them."""
    return sorted(
        f"{'' if one.key is None else render(one.key)} = {render(table.combined(one))}"
        for one in table.entries()
    )


def bpftool(table: TypedMap) -> list[dict[str, Any]]:
    """The entries as bpftool reads them."""
    if not shutil.which("bpftool"):
        pytest.fail("bpftool is what these tests compare with")
    argv = ["bpftool", "-j", "map", "dump", "id", str(table.table.info.id)]
    found: list[dict[str, Any]] = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    return found


def test_structs_are_written_in_part_and_read_by_bpftool(loaded: BpfObject) -> None:
    with typed(loaded, "t_flows") as table:
        table.update(FLOW, "{packets: 3, seen: [1, 2]}")
        table.update(FLOW, "{bytes: 180, seen: [7]}", flags=2)
        assert shown(table) == [f"{FLOW} = {{packets: 3, bytes: 180, seen: [7, 2, 0]}}"]
        (theirs,) = bpftool(table)
        assert theirs["formatted"]["value"] == {"packets": 3, "bytes": 180, "seen": [7, 2, 0]}
        key = theirs["formatted"]["key"]
        assert key["saddr"] == int.from_bytes(bytes([10, 0, 0, 1]), "little")
        assert (key["sport"], key["dport"]) == (53 << 8, 80)
        raw = bytes(int(byte, 16) for byte in theirs["value"])
        assert raw == next(entries(table.table))[1]
        assert table.delete(FLOW)
        assert not table.delete(FLOW)


def test_every_type_of_c(loaded: BpfObject) -> None:
    with typed(loaded, "t_all") as table:
        table.update("1", ALL)
        found = table.lookup("1")
        assert found is not None
        assert render(table.combined(found)) == ALL
        theirs = bpftool(table)[1]["formatted"]["value"]
        assert (theirs["small"], theirs["seq"], theirs["wide"]) == (-3, 9 << 24, 1 << 32)
        # bpftool shows bit fields in hex, and without their sign.
        assert [int(theirs[name], 16) for name in ("low", "high", "negative")] == [5, 77, -2 & 31]
        assert theirs["pair"] == [{"a": 1, "b": 2}, {"a": 0, "b": 4}]
        table.update("1", "{name: hex:" + "00" * 16 + ", low: 0}")
        found = table.lookup("1")
        assert found is not None
        assert render(table.combined(found)) == ALL.replace('"ab c"', '""').replace("low: 5", "low: 0")


def test_floating_point(loaded: BpfObject) -> None:
    with typed(loaded, "t_real") as table:
        table.update("0", "{large: 2.5, small: -1e-3}")
        found = table.lookup("0")
        assert found is not None
        assert found.values == ({"large": 2.5, "small": pytest.approx(-1e-3)},)


def test_values_of_all_cpus_are_added_up(loaded: BpfObject) -> None:
    with typed(loaded, "t_cpu") as table:
        every = [f"{{packets: {3 + cpu}, bytes: 1}}" for cpu in range(possible_cpus())]
        table.update("0", f"[{', '.join(every)}]", per_cpu=True)
        total = sum(3 + cpu for cpu in range(possible_cpus()))
        theirs = [one["value"] for one in bpftool(table)[0]["formatted"]["values"]]
        assert sum(one["packets"] for one in theirs) == total
        assert shown(table)[0] == f"0 = {{packets: {total}, bytes: {possible_cpus()}, seen: [0, 0, 0]}}"
        table.update("0", "{packets: 7}")
        assert shown(table)[0] == f"0 = {{packets: 7, bytes: {possible_cpus()}, seen: [0, 0, 0]}}"
        with pytest.raises(PolicyError, match="an array belongs here"):
            table.update("0", "7", per_cpu=True)
    with typed(loaded, "t_cpuhash") as table:
        table.update("10.0.0.1", "5")
        assert shown(table) == ["10.0.0.1 = 5"]
        ones = ", ".join("1" for _ in range(possible_cpus()))
        table.update("10.0.0.1", f"[{ones}]", per_cpu=True)
        table.update("10.0.0.1", "[7]", per_cpu=True)
        assert shown(table) == [f"10.0.0.1 = {7 + possible_cpus() - 1}"]


def test_networks(loaded: BpfObject) -> None:
    with typed(loaded, "t_lpm4") as four, typed(loaded, "t_lpm6") as six, typed(loaded, "t_lpmodd") as odd:
        four.update("10.0.0.0/8", "1")
        four.update("10.1.2.3", "2")
        six.update("2001:db8::/32", "3")
        odd.update("{prefixlen: 16, vlan: 3}", "4")
        assert shown(four) == ["10.0.0.0/8 = 1", "10.1.2.3/32 = 2"]
        assert shown(six) == ["2001:db8::/32 = 3"]
        assert shown(odd) == ["{prefixlen: 16, vlan: 3, port: 0} = 4"]
        found = four.lookup("10.9.9.9")
        assert found is not None
        assert found.values == (1,)
        with pytest.raises(PolicyError, match="no network"):
            four.update("2001:db8::/32", "1")
        for host in range(8 - 2):
            four.update(f"192.0.2.{host}", "1")
        with pytest.raises(KernelError, match="it is full: it has room for 8 entries"):
            four.update("198.51.100.0/24", "1")


def test_a_network_inherits_nothing_from_a_shorter_one(loaded: BpfObject) -> None:
    with typed(loaded, "t_lpmpart") as table:
        table.update("10.0.0.0/8", "{packets: 1, bytes: 2}")
        table.update("10.1.0.0/16", "{packets: 3}")
        table.update("10.1.0.0/16", "{seen: [4]}")
        assert shown(table) == [
            "10.0.0.0/8 = {packets: 1, bytes: 2, seen: [0, 0, 0]}",
            "10.1.0.0/16 = {packets: 3, bytes: 0, seen: [4, 0, 0]}",
        ]


def test_queues_and_stacks(loaded: BpfObject) -> None:
    for name, first in (("t_queue", 5), ("t_stack", 6)):
        with typed(loaded, name) as table:
            for value in ("5", "6"):
                table.update(None, value)
            assert shown(table) == [f" = hex:{first:02x}000000"]
            assert table.pop() == f"hex:{first:02x}000000"
            assert table.pop() == f"hex:{11 - first:02x}000000"
            assert table.pop() is None


def test_what_the_kernel_keeps_of_its_own(loaded: BpfObject) -> None:
    with typed(loaded, "t_devices") as table:
        table.update("0", "lo")
        assert shown(table) == ["0 = lo"]
        with pytest.raises(PolicyError, match="there is no constant `eth"):
            table.update("0", "eth77")
    with typed(loaded, "t_outer") as table:
        inner = loaded.maps["t_inner"].info.id
        table.update("1", str(inner))
        assert shown(table) == [f"hex:01000000 = {inner}"]
        with pytest.raises(PenstockError, match="there is no map called nosuch"):
            table.update("1", "nosuch")
    with typed(loaded, "t_jumps") as table:
        program = loaded.programs["maps"]
        table.update("2", str(program.info.id))
        assert shown(table) == [f"2 = {program.info.id}"]
        assert table.delete("2")
    with typed(loaded, "t_ring") as table:
        assert shown(table) == []


@pytest.mark.parametrize(
    ("kind", "sizes", "key", "value", "expected"),
    [
        (MapType.CPUMAP, (4, 8), "1", "{queue_size: 64}", "1 = {queue_size: 64, program: 0}"),
        (MapType.CPUMAP, (4, 4), "1", "64", "1 = 64"),
        (MapType.DEVMAP_HASH, (4, 8), "7", "{device: lo}", "7 = {device: lo, program: 0}"),
        (MapType.HASH, (4, 4), "10.0.0.1", "[1, 2, 3, 4]", "hex:0a000001 = hex:01020304"),
        (MapType.HASH, (2, 3), "0x0201", "hex:010203", "hex:0102 = hex:010203"),
        (MapType.LPM_TRIE, (20, 1), "2001:db8::/32", "1", "2001:db8::/32 = hex:01"),
        (
            MapType.LPM_TRIE,
            (12, 1),
            "hex:100000000102000000000000",
            "1",
            "hex:100000000102000000000000 = hex:01",
        ),
    ],
)
def test_maps_without_types(
    kind: MapType, sizes: tuple[int, int], key: str, value: str, expected: str
) -> None:
    flags = int(kind == MapType.LPM_TRIE)  # BPF_F_NO_PREALLOC
    made = Map.create(kind, "ps_bare", key_size=sizes[0], value_size=sizes[1], max_entries=2, flags=flags)
    with TypedMap(made) as table:
        table.update(key, value)
        assert shown(table) == [expected]


def test_global_variables(loaded: BpfObject) -> None:
    with typed(loaded, ".data") as table:
        table.update("0", "{totals: {packets: 9}}")
        assert shown(table) == ["0 = {totals: {packets: 9, bytes: 0, seen: [1, 2, 3]}}"]
    with typed(loaded, ".rodata") as table:
        assert shown(table) == ["0 = {limit: 7}"]
        with pytest.raises(KernelError, match="it is frozen"):
            table.update("0", "{limit: 8}")


def test_bytes_and_addresses_on_request(loaded: BpfObject) -> None:
    with typed(loaded, "t_lru") as table, typed(loaded, "t_lru", addresses=True) as addresses:
        table.update("10.0.0.1", "300")
        assert shown(table) == [f"{int.from_bytes(bytes([10, 0, 0, 1]), 'little')} = 300"]
        assert shown(addresses) == ["10.0.0.1 = 300"]
        with typed(loaded, "t_lru", is_raw=True) as raw:
            assert shown(raw) == ["hex:0a000001 = hex:2c010000"]
            raw.update("hex:0a000002", "hex:01000000")
        assert table.delete("10.0.0.2")


def test_what_the_kernel_refuses_is_explained(loaded: BpfObject) -> None:
    with typed(loaded, "t_cpu") as table:
        with pytest.raises(KernelError, match="it has the entries 0 to 1"):
            table.update("2", "{packets: 1}")
        with pytest.raises(KernelError, match="always has all"):
            table.delete("0")
    with typed(loaded, "t_flows") as table:
        with pytest.raises(KernelError, match="there is no such entry"):
            table.update(FLOW, "{packets: 1}", flags=2)
        table.update(FLOW, "{packets: 1}", flags=1)
        with pytest.raises(KernelError, match="is there already"):
            table.update(FLOW, "{packets: 2}", flags=1)
    sizes = {"key_size": 4, "value_size": 4, "max_entries": 1}
    with TypedMap(Map.create(MapType.HASH, "ps_ro", flags=READ_ONLY, **sizes)) as table:
        with pytest.raises(KernelError, match="processes may not write it") as refused:
            table.update("1", "1")
        assert refused.value.errno == errno.EPERM
    with (
        TypedMap(Map.create(MapType.HASH, "ps_wo", flags=WRITE_ONLY, **sizes)) as table,
        pytest.raises(KernelError, match="processes may not read it"),
    ):
        list(table.entries())


def test_large_maps_come_in_batches() -> None:
    """More than one batch, and buckets that hold more than their share."""
    count = 10_000
    with Map.create(MapType.HASH, "ps_large", key_size=4, value_size=4, max_entries=count) as table:
        import numpy as np

        keys = np.arange(count, dtype=np.uint32)
        table.update_all(keys, keys)
        found = dict(entries(table))
    assert len(found) == count
    assert all(value == key for key, value in found.items())


def test_maps_without_batches_are_walked() -> None:
    with Map.create(MapType.DEVMAP, "ps_walked", key_size=4, value_size=4, max_entries=3) as table:
        table.update(struct.pack("=I", 2), struct.pack("=I", 1))
        assert list(entries(table)) == [(struct.pack("=I", 2), struct.pack("=I", 1))]


def test_maps_are_listed_with_users_and_pins(loaded: BpfObject, bpffs: Path) -> None:
    pinned = bpffs / "t_flows"
    with typed(loaded, "t_flows") as table:
        table.pin(str(pinned))
        try:
            with map_called(str(pinned)) as same:
                assert same.info == table.table.info
            (found,) = (one for one in overviews() if one.info.id == table.table.info.id)
        finally:
            pinned.unlink()
        with pytest.raises(KernelError, match="no path in a BPF file system"):
            table.pin("/proc/self/here")
    assert found.kind == "hash"
    assert found.pins == (str(pinned),)
    assert found.programs == ((loaded.programs["maps"].info.id, "maps"),)
    assert (found.key_type, found.value_type) == ("struct flow", "struct stats")
    assert found.memory
    assert found.used == sum(1 for _ in entries(loaded.maps["t_flows"]))
    assert not found.is_frozen
    assert map_listing.memory(loaded.maps[".rodata"])[1]


def test_a_name_that_several_maps_have_is_not_guessed() -> None:
    sizes = {"key_size": 4, "value_size": 4, "max_entries": 1}
    with (
        Map.create(MapType.ARRAY, "ps_twice", **sizes) as one,
        Map.create(MapType.ARRAY, "ps_twice", **sizes) as two,
    ):
        with pytest.raises(PenstockError, match="2 maps are called ps_twice") as refused:
            map_called("ps_twice")
        assert refused.value.hint
        assert str(one.info.id) in refused.value.hint
        with map_called(str(two.info.id)) as found:
            assert found.info.id == two.info.id
    with pytest.raises(KernelError):
        map_called("4294967295")
