"""What a program is before it meets a packet: instructions, the verifier's effort, stack, memory, times.

In: an object.  Out: what can be said of it without a kernel (`object_figures`),
and, once it is loaded, what the kernel says (`loaded_figures`).

    object_figures(policy.elf).instructions         ->  1069
    loaded_figures(loaded, 0.012).verified          ->  6759
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from penstock.errors import KernelError
from penstock.kernel.bpf_object import BpfObject
from penstock.kernel.elf import functions, tables_in
from penstock.kernel.maps import Map
from penstock.kernel.program import XDP, Program
from penstock.kernel.verifier import read_statistics

_INSTRUCTION_SIZE = 8


@dataclass(frozen=True, slots=True)
class ObjectFigures:
    """`instructions` as clang made them, of all functions; `table_bytes` are those of look-up tables."""

    instructions: int
    table_bytes: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What the kernel says of a loaded program.

    `instructions` is what it runs from, `verified` what its verifier followed,
    `states` and `peak_states` what it kept for that, `stack_bytes` what the
    program and the deepest of its functions need.  These three are None where
    the kernel does not tell.  `map_bytes` is the values of the maps, tables
    included, `memory_bytes` what they take in the kernel, for every processor.
    """

    instructions: int
    verified: int
    states: int | None
    peak_states: int | None
    stack_bytes: int | None
    jited_bytes: int
    map_bytes: int
    memory_bytes: int
    load_s: float


def object_figures(elf: bytes) -> ObjectFigures:
    """What can be said without a kernel.  Raises ValueError: this is no object."""
    size = sum(function.size for function in functions(elf).values())
    return ObjectFigures(size // _INSTRUCTION_SIZE, sum(map(len, tables_in(elf).values())))


def loaded_figures(loaded: BpfObject, load_s: float) -> Figures:
    """What the kernel says of an object that was loaded with `statistics`."""
    program = only_program(loaded)
    effort = read_statistics(loaded.logs.get(program.name, ""))
    info, maps = program.info, loaded.maps.values()
    return Figures(
        instructions=info.xlated_size // _INSTRUCTION_SIZE,
        verified=info.verified_insns,
        states=effort.total_states if effort else None,
        peak_states=effort.peak_states if effort else None,
        stack_bytes=effort.stack_bytes if effort else None,
        jited_bytes=info.jited_size,
        map_bytes=sum(found.info.value_size * found.info.max_entries for found in maps),
        memory_bytes=sum(map(_memory, maps)),
        load_s=load_s,
    )


def only_program(loaded: BpfObject) -> Program:
    """The object's one XDP program.  Raises KernelError: it has none, or several."""
    found = [program for program in loaded.programs.values() if program.info.type == XDP]
    if len(found) != 1:
        raise KernelError("measure", loaded.name, 0, meaning=f"it has {len(found)} XDP programs, not one")
    return found[0]


def _memory(found: Map) -> int:
    """What the kernel has set aside for a map (bpf_map_show_fdinfo)."""
    lines = Path(f"/proc/self/fdinfo/{found.fd}").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("memlock:")), 0)
