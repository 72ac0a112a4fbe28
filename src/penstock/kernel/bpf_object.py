"""Load an ELF object: programs verified and jitted, maps created, variables set.

In: the bytes that clang made, and values for its constants.  Out: `BpfObject`,
which owns a descriptor of every program and map.  Either everything is loaded
or nothing: on an error the kernel holds what it held before.

    with load_object(elf, "edge", rodata={"ps_sample": 100}) as edge:
        edge.programs["ps_filter"].test_run(frame)
        edge.maps["ps_counters"].read_all()
        edge.variable("ps_enabled")[:] = b"\\1"
"""

from __future__ import annotations

import errno
import mmap
import os
import re
import sys
from typing import TYPE_CHECKING, NoReturn

from penstock.errors import InternalError, KernelError, NotSupportedError, PrivilegeError, VerifierError
from penstock.kernel import elf as elf_file
from penstock.kernel.advice import explain
from penstock.kernel.capability import BPF, NET_ADMIN, PERFMON, kernel_error, missing
from penstock.kernel.features import takes_frags
from penstock.kernel.libbpf import RawMap, RawObject, load_frags_as_plain_xdp, open_object
from penstock.kernel.lineinfo import line_of
from penstock.kernel.maps import Map
from penstock.kernel.program import Program
from penstock.kernel.verifier import read_log
from penstock.model import tables
from penstock.model.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from penstock.kernel.elf import Symbol

_FIRST_LOG = 1 << 20
_LARGEST_LOG = 1 << 26
_LOG_GROWTH = 4
_KERNEL_BTF = "/sys/kernel/btf/vmlinux"
_NO_BTF = ("failed to find valid kernel BTF", "Error loading vmlinux BTF", "kernel BTF is missing")
_LIBBPF_ERRNO = 4000
_FRAGS = b"xdp.frags"
_BY_HELPERS = "ps_by_helpers"  # bpf/include/penstock/uapi.bpf.h
# What the verifier says of programs that it guards against speculation, and keeps kernel addresses from.
_NEEDS_PERFMON = re.compile(
    r"pointer \S+ pointer prohibited|leaks? addr|pointer comparison prohibited|prohibited for !root"
    r"|only to CAP_PERFMON|corrupt spilled pointer|sequence of \d+ jumps|speculative"
    # What hides a number from the verifier (uapi.bpf.h) is too much for older ones.
    r"|math between \S+ pointer and register with unbounded|pointer arithmetic with \S+ operator prohibited"
)


class BpfObject(Closing):
    """A loaded object; `programs`, `maps` and `variables` have the names of the C source, sections theirs."""

    def __init__(
        self, name: str, programs: dict[str, Program], maps: dict[str, Map], variables: dict[str, Symbol]
    ) -> None:
        self.name = name
        self.programs = programs
        self.maps = maps
        self.variables = variables
        self.logs: dict[str, str] = {}
        """What the verifier said of each program, where `load_object` was asked for `statistics`."""

    def variable(self, name: str) -> memoryview:
        """The bytes of a global variable, shared with the programs; constants (`.rodata`) are read-only.

        Raises:
            KernelError: its section cannot be mapped (Linux before 5.5).
        """
        found = self.variables[name]
        section = self.maps[found.section]
        constant = found.section.startswith(".rodata")
        access = mmap.PROT_READ if constant else mmap.PROT_READ | mmap.PROT_WRITE
        try:
            memory = mmap.mmap(section.fd, section.info.value_size, mmap.MAP_SHARED, access)
        except OSError as error:
            raise kernel_error("map into memory", found.section, error.errno or 0) from error
        return memoryview(memory)[found.offset : found.offset + found.size]

    def close(self) -> None:
        """Close every descriptor; what is attached or pinned lives on."""
        for owned in (*self.programs.values(), *self.maps.values()):
            owned.close()


def load_object(
    elf: bytes,
    name: str,
    *,
    rodata: Mapping[str, bytes | int] | None = None,
    reuse: Mapping[str, Map] | None = None,
    only: Collection[str] | None = None,
    kinds: Mapping[str, tuple[int, int]] | None = None,
    statistics: bool = False,
    pinned: bool = True,
) -> BpfObject:
    """Load an object; `name` prefixes the kernel's names of its data sections.

    `rodata` sets variables of `.rodata`, `.data` or `.bss` before the load, as
    do the tables that the object carries; `reuse` puts existing maps in the place
    of new ones; `only` loads these programs and no others; `kinds` gives program and
    attach types where libbpf does not know a program's section; without `pinned`
    maps that the object wants in bpffs are made anew and stay out of it.

    Raises:
        VerifierError: the verifier refused a program: which line, why, and its whole log.
        PrivilegeError: a capability is missing.
        NotSupportedError: the object needs the kernel's BTF, and there is none.
        KernelError: not a BPF object, or a map could not be made.
        ToolchainError: libbpf is not installed.
    """
    size = _FIRST_LOG
    while True:
        try:
            loaded = _load_once(
                elf, name, size, rodata or {}, reuse or {}, only, kinds or {}, statistics, pinned
            )
        except VerifierError:
            if not statistics:
                raise
            # The log of the figures has no instructions, and so no place to blame.
            return load_object(elf, name, rodata=rodata, reuse=reuse, only=only, kinds=kinds, pinned=pinned)
        if loaded is not None:
            return loaded
        # The kernel answers ENOSPC when the log did not fit, and by then the
        # program is lost: there is nothing to resume.  Each try verifies the
        # whole program again, so the room grows in large steps.
        size *= _LOG_GROWTH


def _load_once(
    elf: bytes,
    name: str,
    log_size: int,
    values: Mapping[str, bytes | int],
    reuse: Mapping[str, Map],
    only: Collection[str] | None,
    kinds: Mapping[str, tuple[int, int]],
    statistics: bool,
    pinned: bool,
) -> BpfObject | None:
    """The loaded object, or None when the verifier's log needs more than `log_size`."""
    if _FRAGS in elf and takes_frags() is False:
        load_frags_as_plain_xdp()
    try:
        variables = elf_file.variables(elf)
        by_helpers = _BY_HELPERS in variables and bool(missing(PERFMON))
        with open_object(elf_file.guarded(elf) if by_helpers else elf, name) as raw:
            # Where the verifier forbids arithmetic with pointers, packets are read by helpers.
            told: dict[str, int] = {_BY_HELPERS: 1} if by_helpers else {}
            _set_up(raw, variables, {**_tables(elf, variables), **told, **values}, reuse, only)
            for program in raw.programs:
                if program.name in kinds:
                    program.set_kind(*kinds[program.name])
            for table in () if pinned else raw.maps:
                table.forget_pin()
            raw.reserve_logs(log_size, statistics=statistics)
            try:
                raw.load()
            except OSError as error:
                if _needs_more_room(raw, error, log_size):
                    return None
                _refuse(raw, elf, name, error)
            return _take_over(raw, name, variables, raw.logs() if statistics else {})
    except (OSError, ValueError) as error:
        raise _open_error(name, error) from error


def _tables(elf: bytes, variables: Mapping[str, Symbol]) -> dict[str, bytes]:
    """The tables that the object carries.  Raises ValueError: they are not this program's."""
    found = elf_file.tables_in(elf)
    if any(name not in variables or len(data) != variables[name].size for name, data in found.items()):
        raise ValueError("its tables are another program's")
    return found


def _set_up(
    raw: RawObject,
    variables: Mapping[str, Symbol],
    values: Mapping[str, bytes | int],
    reuse: Mapping[str, Map],
    only: Collection[str] | None,
) -> None:
    maps = {found.name: found for found in raw.maps}
    for wanted in raw.programs:
        wanted.want(only is None or wanted.name in only)
    if tables.missing(variables, values):
        raise ValueError("its tables are missing: it is not whole")
    for variable, value in values.items():
        if variable not in variables:
            raise InternalError(f"the object has no variable {variable!r}")
        _set_initial(maps[variables[variable].section], variables[variable], value)
    for name, existing in reuse.items():
        if name not in maps:
            raise _without_map(name)
        _reuse(maps[name], existing)


def _set_initial(section: RawMap, variable: Symbol, value: bytes | int) -> None:
    size = variable.size
    if isinstance(value, int):
        value = (value & ((1 << 8 * size) - 1)).to_bytes(size, sys.byteorder)
    if len(value) > size:
        raise InternalError(f"{len(value)} bytes do not fit a variable of {size}")
    section.initial_value()[variable.offset : variable.offset + len(value)] = value


def _reuse(declared: RawMap, existing: Map) -> None:
    # libbpf takes any map here, of another type too; programs verified for one shape would run on another.
    info = existing.info
    if declared.shape != (info.type, info.key_size, info.value_size, info.max_entries):
        raise KernelError(
            "reuse map", declared.name, errno.EINVAL, meaning="the existing map has another shape"
        )
    declared.reuse(existing.fd)


def _without_map(name: str) -> KernelError:
    meaning = "the object has no such map: another version of penstock compiled it"
    return KernelError("reuse map", name, errno.ENOENT, meaning=meaning, hint="compile its policy again")


def _take_over(raw: RawObject, name: str, variables: dict[str, Symbol], logs: dict[str, str]) -> BpfObject:
    programs = {
        program.name: Program(os.dup(program.fd), program.name) for program in raw.programs if program.fd >= 0
    }
    maps = {found.name: Map(os.dup(found.fd), found.name) for found in raw.maps if found.fd >= 0}
    loaded = BpfObject(name, programs, maps, variables)
    loaded.logs = logs
    return loaded


def _needs_more_room(raw: RawObject, error: OSError, log_size: int) -> bool:
    # Since Linux 6.4 a log that is too long keeps its end.  Of a program that
    # used up the verifier's budget the end says all there is to know; the whole
    # would be hundreds of megabytes.
    if error.errno != errno.ENOSPC or log_size >= _LARGEST_LOG:
        return False
    logs = raw.logs()
    return bool(logs) and not any(read_log(log).is_too_complex for log in logs.values())


def _refuse(raw: RawObject, elf: bytes, name: str, error: OSError) -> NoReturn:
    code = error.errno or 0
    for program, log in raw.logs().items():
        raise _verifier_error(elf, program, log, code) from error
    if any(sentence in message for message in raw.messages for sentence in _NO_BTF):
        raise NotSupportedError(
            f"BTF ({_KERNEL_BTF})", wanted_for=f"the relocations of {name}", errno=code
        ) from error
    said, needs = _said(raw.messages, code), (BPF, NET_ADMIN, PERFMON)
    raise kernel_error("load", name, code, needs=needs, meaning=said, hint=_advice(code)) from error


def _verifier_error(elf: bytes, program: str, log: str, code: int) -> KernelError:
    refusal = read_log(log)
    if _NEEDS_PERFMON.search(refusal.summary) and missing(PERFMON):
        return PrivilegeError("load", program, code, capability=PERFMON)
    place, source = refusal.place, refusal.source
    if place is None and refusal.instruction is not None:
        found = line_of(elf, program, refusal.instruction)
        place, source = (found.place, found.text) if found else (None, source)
    advice = explain(refusal, log, program)
    # ENOSPC is about the log; what it hides is the verifier's own answer.
    code = errno.E2BIG if refusal.is_too_complex else code
    return VerifierError(
        program,
        code,
        summary=refusal.summary,
        place=place,
        log=log,
        source=source,
        objection=advice.objection if advice else None,
        reason=advice.reason if advice else None,
        hint=advice.change if advice else None,
    )


def _said(messages: list[str], code: int) -> str | None:
    """libbpf's own account of a failure, from its first warning: the later ones only unwind."""
    first = next((message for message in messages if "failed" in message or "Error" in message), None)
    return first.removeprefix("libbpf: ") if first else _meaning(code)


def _meaning(code: int) -> str | None:
    return "libbpf finds a fault in the object" if code >= _LIBBPF_ERRNO else None


def _advice(code: int) -> str | None:
    if code == errno.EPERM and not missing(BPF, NET_ADMIN):
        return "a locked-down kernel refuses bpf(2); before Linux 5.11 maps count against `ulimit -l`"
    return None


def _open_error(name: str, error: OSError | ValueError) -> KernelError:
    code = (error.errno or 0) if isinstance(error, OSError) else errno.ENOEXEC
    said = error.strerror if isinstance(error, OSError) else str(error)
    return kernel_error("open object", name, code, meaning=f"this is no BPF object: {said}")
