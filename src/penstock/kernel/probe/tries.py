"""A try for each of `behaviours.BEHAVIOURS`: a call that would fail without it and changes nothing with it.

    tries()["xdp_frags"]()   ->  Found(True)

What needs an interface, a queueing discipline or a mount is in `isolated.py`.
"""

from __future__ import annotations

import errno
import mmap
import resource
import struct
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.kernel import libc
from penstock.kernel.maps import INNER_MAP, MMAPABLE, RDONLY_PROG
from penstock.kernel.probe import attempt, btf, isolated
from penstock.kernel.probe.attempt import EXIT, RETURN_ZERO, ZERO, Answer, MapTry, ProgramTry, instruction
from penstock.kernel.probe.kinds import Found, attach_type, found, helper, map_try, program_type, refused
from penstock.kernel.probe.tables import MAP_TYPES, PROGRAM_TYPES
from penstock.kernel.syscall import Command

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.kernel.probe.behaviours import Behaviour

_XDP = PROGRAM_TYPES["xdp"].number
_PASS = instruction(0xB7, value=2) + EXIT
_XDP_HAS_FRAGS = 1 << 5
_LIVE_FRAMES = 1 << 1
_NONE_OPEN = -1
_FRAME = bytes(12) + b"\x08\x00" + bytes(46)
_TEST_RUN = struct.Struct("=IIIIQQIIIIQQIII4x")
_XDP_MD = struct.Struct("=IIIIII")


def _program(code: bytes, **more: int) -> Found:
    # The verifier's words on a long program would not fit, and that alone would be an error.
    return found(attempt.load(ProgramTry(_XDP, **more), code, log=False))


def _with_descriptor(command: Command, attr: bytes) -> Found:
    """A command on a descriptor that cannot exist: EBADF of a kernel that has it, EINVAL of one that has not."""
    answer = attempt.ask(command, attr)
    return Found(True) if answer.code == errno.EBADF else found(answer)


# ── maps ─────────────────────────────────────────────────────────────────────


def _mmapable() -> Found:
    with attempt.created(MapTry(MAP_TYPES["array"].number, value=8, flags=MMAPABLE)) as fd:
        if fd is None:
            return found(attempt.create_map(MapTry(MAP_TYPES["array"].number, value=8, flags=MMAPABLE)))
        try:
            mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED).close()
        except OSError:
            return Found(False)
    return Found(True)


def _inner_map() -> Found:
    flags = MMAPABLE | INNER_MAP
    return found(attempt.create_map(MapTry(MAP_TYPES["array"].number, value=8, flags=flags)))


def _freeze() -> Found:
    return _with_descriptor(Command.MAP_FREEZE, struct.pack("=i", _NONE_OPEN))


def _global_data() -> Found:
    """r1 = &map's value + 0; the value's address has to be known when the program is loaded."""
    with attempt.created(MapTry(MAP_TYPES["array"].number, value=8, flags=RDONLY_PROG)) as fd:
        if fd is None:
            return found(attempt.create_map(MapTry(MAP_TYPES["array"].number, value=8, flags=RDONLY_PROG)))
        address = instruction(0x18, dst=1, src=2, value=fd) + instruction(0)
        return _program(address + RETURN_ZERO)


def _memcg() -> Found:
    """With a limit of no locked memory a map is refused where that limit still counts."""
    limits = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    wanted = MapTry(MAP_TYPES["array"].number, value=8)
    before = attempt.create_map(wanted)
    if not before.done:
        return found(before)
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, limits[1]))
        return Found(attempt.create_map(wanted).done)
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, limits)


def _batch(kind: str) -> Found:
    with ExitStack() as held:
        wanted = map_try(kind, held)
        fd = held.enter_context(attempt.created(wanted)) if wanted else None
        if fd is None:
            return found(attempt.create_map(wanted)) if wanted else Found(False)
        no_entries = struct.pack("=QQQQIiQQ", 0, 0, 0, 0, 0, fd, 0, 0)
        return found(attempt.ask(Command.MAP_LOOKUP_BATCH, no_entries))


# ── programs ─────────────────────────────────────────────────────────────────


def _kernel_btf() -> Found:
    return Found(btf.names("task_struct") is True)


def _function_call() -> Found:
    return _program(instruction(0x85, src=1, value=1) + EXIT + RETURN_ZERO)


def _loop() -> Found:
    """r1 = 4; do r1 -= 1; while (r1 != 0)"""
    body = instruction(0xB7, dst=1, value=4) + instruction(0x17, dst=1, value=1)
    return _program(body + instruction(0x55, dst=1, offset=-2) + RETURN_ZERO)


def _less_than() -> Found:
    return _program(ZERO + instruction(0xA5, value=1) + EXIT)


def _less_than_32() -> Found:
    return _program(ZERO + instruction(0xA6, value=1) + EXIT)


def _sign_extension() -> Found:
    return _program(ZERO + instruction(0xBF, offset=8) + EXIT)


def _atomic_fetch() -> Found:
    """*(u64 *)(r10 - 8) = 0; r1 = 1; r1 = atomic_fetch_add(r10 - 8, r1)"""
    store = instruction(0x7A, dst=10, offset=-8) + instruction(0xB7, dst=1, value=1)
    return _program(store + instruction(0xDB, dst=10, src=1, offset=-8, value=1) + RETURN_ZERO)


def _kfunc(name: str, prepare: bytes) -> Found:
    number = btf.function_id(name)
    if number is None:
        return Found(False) if btf.names("int") else Found(None, "this kernel shows no BTF")
    return _program(prepare + instruction(0x85, src=2, value=number) + RETURN_ZERO)


def _iterator() -> Found:
    """bpf_iter_num_new(r10 - 8, 0, 1); bpf_iter_num_destroy(r10 - 8)"""
    ends = btf.function_id("bpf_iter_num_new"), btf.function_id("bpf_iter_num_destroy")
    if None in ends:
        return Found(False) if btf.names("int") else Found(None, "this kernel shows no BTF")
    new, destroy = (instruction(0x85, src=2, value=number or 0) for number in ends)
    place = instruction(0xBF, dst=1, src=10) + instruction(0x07, dst=1, value=-8)
    bounds = instruction(0xB7, dst=2, value=0) + instruction(0xB7, dst=3, value=1)
    return _program(place + bounds + new + place + destroy + RETURN_ZERO)


def _test_run(*, context: bool = False, flags: int = 0) -> Found:
    """A test run of a program that passes the packet, or drops it where it would be a real one."""
    code = instruction(0xB7, value=1) + EXIT if flags else _PASS
    with attempt.loaded(ProgramTry(_XDP), code) as fd:
        if fd is None:
            return found(attempt.load(ProgramTry(_XDP), code))
        return found(_run(fd, context or bool(flags), flags))


def _run(fd: int, context: bool, flags: int) -> Answer:
    frame = bytearray(_FRAME)
    described = bytearray(_XDP_MD.pack(0, len(frame), 0, 0, 0, 0)) if context else bytearray()
    out = bytearray(0 if flags else 256)
    addresses = libc.address_of(frame), libc.address_of(out)
    attr = _TEST_RUN.pack(
        *(fd, 0, len(frame), len(out), *addresses, 1, 0, len(described), 0),
        *(libc.address_of(described), 0, flags, 0, 0),
    )
    return attempt.ask(Command.PROG_TEST_RUN, attr)


def _statistics() -> Found:
    return Found(Path("/proc/sys/kernel/bpf_stats_enabled").exists())


def _tokens() -> Found:
    return _with_descriptor(Command.TOKEN_CREATE, struct.pack("=Ii", 0, _NONE_OPEN))


def _map_with_program(kind: str) -> Found:
    """A map whose values hold a program beside the device or the processor."""
    return found(attempt.create_map(MapTry(MAP_TYPES[kind].number, value=8)))


# ── all of them ──────────────────────────────────────────────────────────────

_CTX_TO_KERNEL = b""  # r1 is the context already
_BATCHED = ("hash", "lru_hash", "percpu_hash", "lru_percpu_hash", "array", "percpu_array", "lpm_trie")
_BATCHED_MAPS = ("hash_of_maps", "array_of_maps")


def tries() -> dict[str, Callable[[], Found]]:
    """A try for each behaviour; each may be called by itself."""
    return {
        "generic_xdp": isolated.generic_xdp,
        "native_xdp_veth": isolated.native_xdp_on_veth,
        "xdp_frags": partial(_program, _PASS, flags=_XDP_HAS_FRAGS),
        "live_frames": partial(_test_run, flags=_LIVE_FRAMES),
        "devmap_programs": partial(_map_with_program, "devmap"),
        "cpumap_programs": partial(_map_with_program, "cpumap"),
        "cast_to_kern_ctx": partial(_kfunc, "bpf_cast_to_kern_ctx", _CTX_TO_KERNEL),
        "xdp_link": partial(_with_descriptor, Command.LINK_DETACH, struct.pack("=i", _NONE_OPEN)),
        "link_update": partial(_with_descriptor, Command.LINK_UPDATE, struct.pack("=iiII", -1, -1, 0, 0)),
        "tcx": partial(attach_type, "tcx_ingress"),
        "clsact": isolated.clsact,
        "netfilter_link": partial(program_type, "netfilter"),
        "netkit": partial(attach_type, "netkit_primary"),
        "bpffs_exchange": isolated.bpffs_exchange,
        "map_mmap": _mmapable,
        "inner_map": _inner_map,
        "map_freeze": _freeze,
        "global_data": _global_data,
        "memcg_accounting": _memcg,
        **{f"batch_{kind}": partial(_batch, kind) for kind in (*_BATCHED, *_BATCHED_MAPS)},
        "btf_load": lambda: found(attempt.load_btf(btf.small())),
        "kernel_btf": _kernel_btf,
        "function_calls": _function_call,
        "global_functions": lambda: found(attempt.load_btf(btf.global_function())),
        "bounded_loops": _loop,
        "large_programs": lambda: _program(ZERO * 5000 + EXIT),
        "isa_v2": _less_than,
        "isa_v3": _less_than_32,
        "isa_v4": _sign_extension,
        "atomics": _atomic_fetch,
        "open_coded_iterators": _iterator,
        "test_run": _test_run,
        "test_run_context": partial(_test_run, context=True),
        "run_time_statistics": _statistics,
        "tokens": _tokens,
    }


def watched_helper(behaviour: Behaviour) -> Found:
    """Whether programs at XDP may call one of `behaviours.WATCHED_HELPERS`."""
    answer = helper(behaviour.name, "xdp")
    return Found(answer, refused(errno.EPERM) if answer is None else "")
