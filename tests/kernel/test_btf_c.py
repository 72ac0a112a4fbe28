"""vmlinux.h: what clang makes of it has the sizes and offsets of the running kernel, and programs load with it."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from typing import TYPE_CHECKING

import pytest

from penstock.kernel.bpf_object import load_object
from penstock.kernel.btf_c import header
from penstock.kernel.btf_source import btf_of_object, kernel_btf
from penstock.kernel.btf_types import Composite, Enum, Kind, Variable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from penstock.kernel.btf import Btf

pytestmark = pytest.mark.privileged

COMPILERS = [name for name in ("clang-14", "clang-19", "clang") if shutil.which(name)][:2]
CORE = """\
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
struct sk_buff___other { unsigned int len; int no_such_member; } __attribute__((preserve_access_index));
SEC("xdp") int core(struct xdp_md *ctx)
{
    struct task_struct *task = (void *)bpf_get_current_task();
    struct net_device *device = 0;
    int found = bpf_core_field_exists(device->ifindex) + bpf_core_type_size(struct sk_buff);
    if (bpf_core_field_exists(((struct sk_buff___other *)0)->no_such_member)) return XDP_ABORTED;
    if (BPF_CORE_READ(task, group_leader, tgid) == 0 && found == 0) return XDP_DROP;
    return bpf_core_enum_value(enum xdp_action, XDP_PASS);
}
char _license[] SEC("license") = "GPL";
"""


@cache
def vmlinux_h() -> str:
    return header(kernel_btf())


def compiled(clang: str, folder: Path, text: str, *options: str) -> bytes:
    """The object that a compiler makes of C beside vmlinux.h, without a warning."""
    (folder / "vmlinux.h").write_text(vmlinux_h())
    (folder / "it.c").write_text(text)
    argv = [clang, "-g", "-target", "bpf", "-Wall", "-Werror", *options, "-c", "it.c", "-o", "it.o"]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:2000]
    return (folder / "it.o").read_bytes()


def members(btf: Btf, number: int, start: int = 0) -> Iterator[tuple[str, int, int, int]]:
    """Name, bit, bits and bytes of all members, those of nameless structs included; paddings are not counted."""
    found = btf.type(number)
    assert isinstance(found, Composite)
    for member in found.members:
        inner = btf.strip(member.type)
        held = btf.type(inner)
        if isinstance(held, Composite) and not held.name:
            yield from members(btf, inner, start + member.offset)
        elif not member.name.startswith("__pad"):
            yield member.name.rstrip("_"), start + member.offset, member.bits, btf.size(member.type)


def sample(btf: Btf) -> dict[int, str]:
    """A few hundred structs, unions and enumerations whose name no other type has, with the C that names each."""
    found = {}
    for number in range(3, len(btf), 1):
        kind, name = btf.kind(number), btf.name(number)
        if kind in {Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64} and name and number % 19 in {0, 7}:
            made = btf.type(number)
            same = btf.find_all(name, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64, Kind.FWD)
            if len(same) == 1 and not (isinstance(made, Enum) and not made.values):
                found[number] = f"{made.keyword if isinstance(made, Composite) else 'enum'} {name}"
    return found


@pytest.mark.parametrize("clang", COMPILERS)
def test_every_type_has_the_kernels_layout(clang: str, tmp_path: Path) -> None:
    kernel, wanted = kernel_btf(), sample(kernel_btf())
    assert len(wanted) > 500
    text = "".join(f"{name} v{number};\n" for number, name in wanted.items())
    made = btf_of_object(compiled(clang, tmp_path, f'#include "vmlinux.h"\n{text}'))
    bit_fields = 0
    for number, name in wanted.items():
        variable = made.type(made.find(f"v{number}", Kind.VAR) or 0)
        assert isinstance(variable, Variable)
        theirs, ours = kernel.type(number), made.strip(variable.type)
        assert made.size(ours) == kernel.size(number), name
        if isinstance(theirs, Composite):
            expected = list(members(kernel, number))
            assert list(members(made, ours)) == expected, name
            bit_fields += sum(bits > 0 for _, _, bits, _ in expected)
        else:
            assert isinstance(theirs, Enum)
            found = made.type(ours)
            assert isinstance(found, Enum)
            mask = (1 << theirs.size * 8) - 1  # clang 14 says nothing of the sign
            assert [value & mask for _, value in found.values] == [value & mask for _, value in theirs.values]
    assert bit_fields > 20


@pytest.mark.parametrize("clang", COMPILERS)
def test_a_relocatable_program_loads(clang: str, tmp_path: Path) -> None:
    with load_object(compiled(clang, tmp_path, CORE, "-O2"), "core") as loaded:
        assert loaded.programs["core"].test_run(bytes(64)).retval == 2


def test_a_part_has_what_it_needs_and_no_more(tmp_path: Path) -> None:
    kernel = kernel_btf()
    number = kernel.find("ethhdr", Kind.STRUCT)
    assert number is not None
    text = header(kernel, [number])
    assert "struct ethhdr {" in text
    assert "typedef" in text
    assert len(text) < 1000
    compiled(COMPILERS[0], tmp_path, f'{text}struct ethhdr it;\n_Static_assert(sizeof it == 14, "");\n')
