"""Maps: one entry, all entries, memory."""

from __future__ import annotations

import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from penstock.errors import KernelError
from penstock.kernel import maps, syscall
from penstock.kernel.blob import LARGEST, read_blob, write_blob
from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.kernel.map_pieces import value_pieces
from penstock.kernel.maps import EXIST, MMAPABLE, NOEXIST, Map, MapType, possible_cpus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kernel.conftest import CompileC

pytestmark = pytest.mark.privileged

NO_PREALLOC = 1


def word(value: int) -> bytes:
    """A u32 as the kernel holds it."""
    return struct.pack("=I", value)


@pytest.fixture
def table() -> Iterator[Map]:
    """A hash of u32 to 3 bytes with room for four entries."""
    with Map.create(MapType.HASH, "ps_table", key_size=4, value_size=3, max_entries=4) as created:
        yield created


def test_a_map_describes_itself(table: Map) -> None:
    info = table.info
    assert (info.type, info.key_size, info.value_size, info.max_entries) == (MapType.HASH, 4, 3, 4)
    assert info.name == table.name == "ps_table"
    assert info.id > 0


@pytest.mark.parametrize("room", [1, 7, 100, 1 << 14])
def test_values_of_a_large_array_come_in_pieces(room: int) -> None:
    with Map.create(MapType.ARRAY, "ps_large", key_size=4, value_size=8, max_entries=700) as table:
        table.update_all(np.arange(700, dtype=np.uint32), np.arange(700, dtype=np.uint64))
        pieces = [rows.view(np.uint64)[:, 0].tolist() for rows in value_pieces(table, room)]
    assert [number for piece in pieces for number in piece] == list(range(700))
    assert max(map(len, pieces)) <= room


def test_entries_come_and_go(table: Map) -> None:
    assert table.lookup(word(1)) is None
    table.update(word(1), b"abc")
    assert table.lookup(word(1)) == b"abc"
    assert table.delete(word(1)) is True
    assert table.delete(word(1)) is False
    assert list(table.keys()) == []


def test_update_flags_are_kept(table: Map) -> None:
    with pytest.raises(KernelError):
        table.update(word(1), b"abc", EXIST)
    table.update(word(1), b"abc", NOEXIST)
    with pytest.raises(KernelError):
        table.update(word(1), b"xyz", NOEXIST)
    assert table.lookup(word(1)) == b"abc"


def test_a_full_map_says_so_and_keeps_what_it_had(table: Map) -> None:
    for key in range(4):
        table.update(word(key), b"abc")
    with pytest.raises(KernelError) as caught:
        table.update(word(9), b"abc")
    assert caught.value.subject == "ps_table"
    assert sorted(table.keys()) == [word(key) for key in range(4)]


@pytest.mark.parametrize(("key", "value"), [(b"abc", b"abc"), (word(1), b"ab"), (word(1), b"abcd")])
def test_a_wrong_size_never_reaches_the_kernel(table: Map, key: bytes, value: bytes) -> None:
    with pytest.raises(ValueError, match="bytes, not"):
        table.update(key, value)


def test_an_array_has_no_delete() -> None:
    with (
        Map.create(MapType.ARRAY, "ps_array", key_size=4, value_size=8, max_entries=2) as array,
        pytest.raises(KernelError),
    ):
        array.delete(word(0))


def test_all_entries_of_a_hash_at_once() -> None:
    count = 10_000
    with Map.create(MapType.HASH, "ps_big", key_size=4, value_size=8, max_entries=count) as big:
        keys = np.arange(count, dtype=np.uint32)
        big.update_all(keys, keys.astype(np.uint64) * 3)
        got_keys, got_values = big.read_all()
        assert got_keys.shape == (count, 4)
        order = got_keys.view(np.uint32)[:, 0]
        assert sorted(order) == list(range(count))
        assert np.array_equal(got_values.view(np.uint64)[:, 0], order.astype(np.uint64) * 3)


def test_reading_an_empty_hash_gives_empty_arrays(table: Map) -> None:
    keys, values = table.read_all()
    assert keys.shape == (0, 4)
    assert values.shape == (0, 3)


def test_a_batch_that_does_not_fit_tells_how_far_it_came(table: Map) -> None:
    with pytest.raises(KernelError, match="after 4 of 6 entries"):
        table.update_all(np.arange(6, dtype=np.uint32), np.zeros((6, 3), np.uint8))


@pytest.mark.parametrize("shape", [(2, 4), (3, 3)])
def test_a_batch_of_the_wrong_shape_never_reaches_the_kernel(table: Map, shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"bytes|values"):
        table.update_all(np.arange(2, dtype=np.uint32), np.zeros(shape, np.uint8))


def test_a_prefix_tree_reads_whole() -> None:
    shape = {"key_size": 8, "value_size": 4, "max_entries": 16}
    with Map.create(MapType.LPM_TRIE, "ps_tree", flags=NO_PREALLOC, **shape) as tree:
        keys = {struct.pack("=I4B", length, 10, 0, 0, 0) for length in (8, 16, 24)}
        for key in keys:
            tree.update(key, word(7))
        got, values = tree.read_all()
        assert {row.tobytes() for row in got} == keys
        assert values.shape == (3, 4)


PER_CPU = """
struct counts { __u64 packets; __u64 bytes; __u32 odd; };
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 5);
    __type(key, __u32);
    __type(value, struct counts);
} ps_counts SEC(".maps");
SEC("xdp.frags") int ps_count(struct xdp_md *ctx) {
    __u32 key = 3;
    struct counts *counts = bpf_map_lookup_elem(&ps_counts, &key);
    if (counts) {
        counts->packets += 1;
        counts->bytes += ctx->data_end - ctx->data;
        counts->odd += 1;
    }
    return XDP_PASS;
}
"""


@pytest.fixture
def counting(compile_c: CompileC) -> Iterator[BpfObject]:
    """A program that counts each frame in slot 3."""
    with load_object(compile_c(PER_CPU), "counting") as loaded:
        yield loaded


def test_per_cpu_values_have_a_row_for_each_possible_cpu(counting: BpfObject) -> None:
    counting.programs["ps_count"].test_run_many([bytes(60)] * 7 + [bytes(100)] * 3)
    keys, values = counting.maps["ps_counts"].read_all()
    assert keys.view(np.uint32)[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert values.shape == (5, possible_cpus(), 3)
    assert values.dtype == np.uint64
    assert values.sum(axis=1)[3].tolist() == [10, 7 * 60 + 3 * 100, 10]
    assert not values[[0, 1, 2, 4]].any()


def test_per_cpu_values_are_set_in_one_call(counting: BpfObject) -> None:
    counts = counting.maps["ps_counts"]
    wanted = np.arange(5 * possible_cpus() * 3, dtype=np.uint64).reshape(5, possible_cpus(), 3)
    counts.update_all(np.arange(5, dtype=np.uint32), wanted)
    assert np.array_equal(counts.read_all()[1], wanted)
    assert counts.lookup(word(2)) == wanted[2].tobytes()


def test_reading_one_by_one_gives_what_the_batch_gives(counting: BpfObject) -> None:
    counts = counting.maps["ps_counts"]
    counting.programs["ps_count"].test_run(bytes(64))
    keys, values = np.zeros((5, 4), np.uint8), np.zeros((5, counts.size), np.uint8)
    assert counts._read_each(keys, values) == 5
    batch_keys, batch_values = counts.read_all()
    assert np.array_equal(keys, batch_keys)
    assert values.tobytes() == batch_values.tobytes()


def test_possible_cpus_is_what_the_kernel_uses() -> None:
    """A per-CPU value one CPU short would be overrun by the kernel, so the size must be exact."""
    shape = {"key_size": 4, "value_size": 4, "max_entries": 1}
    with Map.create(MapType.PERCPU_ARRAY, "ps_one", **shape) as one:
        value = one.lookup(word(0))
        assert value is not None
        assert len(value) == 8 * possible_cpus()


@pytest.mark.parametrize(
    ("text", "count"), [("0\n", 1), ("0-1\n", 2), ("0-127\n", 128), ("0,2-3\n", 3), ("0-1,4\n", 3)]
)
def test_the_list_of_cpus_is_read(text: str, count: int) -> None:
    assert maps.count_cpus(text) == count


def test_the_memory_of_an_array_is_the_map() -> None:
    shape = {"key_size": 4, "value_size": 12, "max_entries": 600}
    with Map.create(MapType.ARRAY, "ps_memory", flags=MMAPABLE, **shape) as array:
        view = array.view(np.uint32)
        assert view.shape == (600, 4)
        view[599, :3] = 1, 2, 3
        assert array.lookup(word(599)) == struct.pack("=III", 1, 2, 3)
        array.update(word(0), struct.pack("=III", 7, 8, 9))
        assert view[0].tolist() == [7, 8, 9, 0]
    assert view[599, 0] == 1


def test_a_map_that_is_no_memory_says_so(table: Map) -> None:
    with pytest.raises(KernelError) as caught:
        table.view()
    assert caught.value.subject == "ps_table"


def test_a_frozen_map_is_read_only() -> None:
    shape = {"key_size": 4, "value_size": 8, "max_entries": 1}
    with Map.create(MapType.ARRAY, "ps_frozen", flags=MMAPABLE, **shape) as array:
        array.freeze()
        with pytest.raises(KernelError):
            array.update(word(0), bytes(8))
        with pytest.raises(KernelError):
            array.view()
        assert array.view(writable=False).shape == (1, 8)


def test_a_pinned_map_opens_as_a_map_only(bpffs: Path, table: Map, passing: BpfObject) -> None:
    table.update(word(1), b"abc")
    syscall.pin(table.fd, bpffs / "table")
    syscall.pin(passing.programs["ps_pass"].fd, bpffs / "program")
    with Map.open(bpffs / "table") as again:
        assert again.info.id == table.info.id
        assert again.lookup(word(1)) == b"abc"
    with pytest.raises(KernelError, match="it is a prog, not a map"):
        Map.open(bpffs / "program")
    with pytest.raises(KernelError, match="No such file"):
        Map.open(bpffs / "nothing")


@pytest.mark.parametrize("size", [0, 1, 7, 4096, (1 << 20) - 4, (1 << 20) - 3, LARGEST])
def test_a_blob_comes_back_as_it_was(bpffs: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
    path = bpffs / f"blob-{size}"
    with write_blob(content, "ps_identity") as blob:
        syscall.pin(blob.fd, path)
        with pytest.raises(KernelError):
            blob.update(word(0), bytes(blob.size))
    assert read_blob(path) == content
    path.unlink()


def test_a_blob_has_a_limit() -> None:
    with pytest.raises(KernelError, match="the most is"):
        write_blob(bytes(LARGEST + 1), "ps_identity")


def test_another_map_is_no_blob(bpffs: Path, table: Map) -> None:
    path = bpffs / "no-blob"
    syscall.pin(table.fd, path)
    with pytest.raises(KernelError, match="something else"):
        read_blob(path)


def test_the_kernel_modules_import_without_numpy() -> None:
    names = ("libc", "libbpf", "bpf_object", "maps", "program", "link", "pin", "lock", "blob", "features")
    modules = ", ".join(f"penstock.kernel.{name}" for name in names)
    code = f"import sys, {modules}; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
