"""Try program types, map types, attach types and helpers on the running kernel.

Out: `Found` for each name of `tables`; a helper is asked of one program type at a time.  Nothing is attached,
and nothing that is made outlives the call that made it.

    program_type("xdp")          ->  Found(True)
    attach_type("tcx_ingress")   ->  Found(False)                          Linux before 6.6
    program_type("lsm")          ->  Found(None, "CAP_PERFMON is missing")
"""

from __future__ import annotations

import errno
import mmap
import struct
from contextlib import ExitStack
from dataclasses import dataclass, replace

from penstock.kernel.capability import BPF, NET_ADMIN, PERFMON, describe, missing
from penstock.kernel.maps import MMAPABLE
from penstock.kernel.probe import attempt, btf
from penstock.kernel.probe.attempt import EXIT, RETURN_ZERO, Answer, MapTry, ProgramTry, call
from penstock.kernel.probe.tables import ATTACH_TYPES, HELPERS, MAP_TYPES, PROGRAM_TYPES
from penstock.kernel.syscall import ENOTSUPP, Command

_SLEEPABLE = 1 << 4
_NO_PREALLOC = 1 << 0
_PERMISSION = (errno.EPERM, errno.EACCES)


@dataclass(frozen=True, slots=True)
class Found:
    """`has` None: it cannot be told, and `why` says so; with an answer `why` says how it was had if not by trying."""

    has: bool | None
    why: str = ""


# ── program types ────────────────────────────────────────────────────────────

# What a type's load insists on beside its number.  A type that is tied to a function is given one that is
# none (BTF type 1 is an integer): a kernel that knows the type has something to say about that.
_PROGRAM_TRIES = {
    "cgroup_sock_addr": {"attach_type": ATTACH_TYPES["cgroup_inet4_connect"].number},
    "cgroup_sockopt": {"attach_type": ATTACH_TYPES["cgroup_getsockopt"].number},
    "sk_lookup": {"attach_type": ATTACH_TYPES["sk_lookup"].number},
    "netfilter": {"attach_type": ATTACH_TYPES["netfilter"].number},
    "syscall": {"flags": _SLEEPABLE},
    "tracing": {"attach_type": ATTACH_TYPES["trace_fentry"].number, "attach_btf_id": 1},
    "lsm": {"attach_type": ATTACH_TYPES["lsm_mac"].number, "attach_btf_id": 1},
    "ext": {"attach_btf_id": 1},
    "struct_ops": {"attach_btf_id": 1},
}
#: A helper cannot be asked of these: the verifier turns to the function they are tied to before it looks at calls.
TIED_TO_A_FUNCTION = ("tracing", "lsm", "ext", "struct_ops")


def program_try(name: str) -> ProgramTry:
    """What the type of that name is loaded with."""
    return replace(ProgramTry(PROGRAM_TYPES[name].number), **_PROGRAM_TRIES.get(name, {}))


def program_type(name: str) -> Found:
    """Whether the kernel loads programs of a type."""
    answer = attempt.load(program_try(name), RETURN_ZERO)
    # A type that the kernel has not is refused before the verifier could write a word.
    return found(answer, knows=bool(answer.log) or answer.code == ENOTSUPP)


def found(answer: Answer, *, knows: bool = False) -> Found:
    """What an answer says of a feature; `knows`: the refusal itself shows that the kernel has it."""
    if answer.done or knows:
        return Found(True)
    if answer.code in _PERMISSION:
        return Found(None, refused(answer.code))
    return Found(False)


def refused(code: int) -> str:
    """Why the kernel does not say: the capabilities that are missing, or what else forbids it."""
    absent = missing(BPF, NET_ADMIN, PERFMON)
    if absent:
        return f"{describe(absent)} {'is' if len(absent) == 1 else 'are'} missing"
    return f"this kernel or sandbox forbids it ({errno.errorcode[code]} in spite of every capability)"


# ── map types ────────────────────────────────────────────────────────────────

_STORAGE = {"value": 4, "entries": 0, "flags": _NO_PREALLOC}
_MAP_TRIES: dict[str, dict[str, int]] = {
    "stack_trace": {"value": 8},
    "lpm_trie": {"key": 8, "flags": _NO_PREALLOC},
    "cgroup_storage": {"key": 16, "value": 8, "entries": 0},
    "percpu_cgroup_storage": {"key": 16, "value": 8, "entries": 0},
    "queue": {"key": 0},
    "stack": {"key": 0},
    "bloom_filter": {"key": 0},
    "sk_storage": _STORAGE,
    "inode_storage": _STORAGE,
    "task_storage": _STORAGE,
    "cgrp_storage": _STORAGE,
    "struct_ops": {"value": 4, "vmlinux_value": 1},
    "ringbuf": {"key": 0, "value": 0, "entries": mmap.PAGESIZE},
    "user_ringbuf": {"key": 0, "value": 0, "entries": mmap.PAGESIZE},
    "arena": {"key": 0, "value": 0, "flags": MMAPABLE},
    "insn_array": {"value": 16},
}
_WITH_BTF = ("sk_storage", "inode_storage", "task_storage", "cgrp_storage")
_OF_MAPS = ("array_of_maps", "hash_of_maps")


def map_type(name: str) -> Found:
    """Whether the kernel makes maps of a type."""
    with ExitStack() as held:
        wanted = map_try(name, held)
        if wanted is None:
            return Found(False, "what it is made of is missing")
        answer = attempt.create_map(wanted)
    # BTF type 1 is no struct_ops: a kernel that has the map type says so by a code of its own.
    return found(answer, knows=name == "struct_ops" and answer.code == ENOTSUPP)


def map_try(name: str, held: ExitStack) -> MapTry | None:
    """The smallest map of a type; what it is made of lives as long as `held`.  None: that cannot be made."""
    wanted = replace(MapTry(MAP_TYPES[name].number), **_MAP_TRIES.get(name, {}))
    if name in _WITH_BTF:
        described, _ = held.enter_context(attempt.loaded_btf(btf.small()))
        return replace(wanted, btf=described) if described is not None else None
    if name in _OF_MAPS:
        inner = held.enter_context(attempt.created(MapTry(MAP_TYPES["array"].number)))
        return replace(wanted, inner=inner) if inner is not None else None
    return wanted


# ── attach types ─────────────────────────────────────────────────────────────


def attach_type(name: str) -> Found:
    """Whether the kernel knows an attach type.

    PROG_ATTACH is asked to attach a program that cannot exist (descriptor -1): a kernel that knows the
    type looks for the program and answers EBADF.  Types that are attached by links alone are not known to
    PROG_ATTACH: for them the kernel's own enumeration is read in its BTF.
    """
    answer = attempt.ask(Command.PROG_ATTACH, struct.pack("=iiII", -1, -1, ATTACH_TYPES[name].number, 0))
    if answer.code == errno.EBADF:
        return Found(True)
    if answer.code in _PERMISSION:
        return Found(None, refused(answer.code))
    named = btf.names(f"BPF_{name.upper()}")
    return Found(named, "this kernel shows no BTF" if named is None else "by the kernel's BTF")


# ── helpers ──────────────────────────────────────────────────────────────────

#: How the verifier refuses a call that a program of the type may not make; the words changed in 6.10.
NOT_FOR_THIS = ("invalid func ", "unknown func ", "program of this type cannot use helper")

#: A program that calls one of these makes the kernel write a warning into its log, and the first two make it
#: set buffers apart for good, already when it is loaded.
LOUD = ("trace_printk", "trace_vprintk", "probe_write_user")


def helper(name: str, program: str) -> bool | None:
    """Whether programs of a type may call a helper; None: it cannot be told."""
    answer = attempt.load(program_try(program), call(HELPERS[name].number) + EXIT)
    if answer.code in _PERMISSION and not answer.log:
        return None
    return not any(words in answer.log for words in NOT_FOR_THIS) and (answer.done or bool(answer.log))


def helpers(program: str, *, full: bool = False) -> frozenset[str] | None:
    """The helpers that programs of a type may call, the `LOUD` ones only if `full`; None: it cannot be told."""
    if program in TIED_TO_A_FUNCTION or not program_type(program).has:
        return None
    asked = (name for name in HELPERS if full or name not in LOUD)
    return frozenset(name for name in asked if helper(name, program))
