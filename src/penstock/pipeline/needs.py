"""What a compiled filter needs of the kernel, what is there, and what is done where it is not.

    for need in needs_of(load_policy(text)):
        need.name, need.has, need.outcome      ->  "xdp_frags", False, Outcome.FALLBACK

In: the object, whose instructions, maps and sections are read: nothing is assumed of the policy it came from.
Out: a `Need` for each thing that the object asks for, each tried on the running kernel.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from penstock.kernel import elf as elf_file
from penstock.kernel.libbpf import open_object
from penstock.kernel.probe import kinds
from penstock.kernel.probe.behaviours import BEHAVIOURS, WATCHED_HELPERS
from penstock.kernel.probe.kinds import Found
from penstock.kernel.probe.tables import HELPERS, MAP_TYPES, PROGRAM_TYPES
from penstock.kernel.probe.tries import tries
from penstock.model.hook import TRAITS, Hook

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from penstock.kernel.probe.behaviours import Behaviour
    from penstock.pipeline.policy import LoadedPolicy

_BEHAVIOURS = {one.name: one for one in BEHAVIOURS}
_WATCHED = {one.name: one for one in WATCHED_HELPERS}
_HELPER_NAMES = {known.number: name for name, known in HELPERS.items()}
_MAP_NAMES = {known.number: name for name, known in MAP_TYPES.items()}
_CALL = 0x85
#: An atomic operation on a word, or two; its kind is the immediate, 0 for one that gives nothing back.
_ATOMIC = (0xC3, 0xDB)
_CLASSIC_LIMIT = 4096
_REFUSED = "the kernel refuses the program"

#: Program type by hook, as `kinds.helper` names them.
_PROGRAM_TYPE = {
    Hook.XDP: "xdp",
    Hook.TC_INGRESS: "sched_cls",
    Hook.TC_EGRESS: "sched_cls",
    Hook.SOCKET: "socket_filter",
}
#: Calls that are in the object, but not in what runs on a kernel without them: the C asks the kernel's BTF first.
_GUARDED = ("xdp_get_buff_len", "xdp_load_bytes")
_CAST = "bpf_cast_to_kern_ctx"
_CAST_FOR = {
    Hook.XDP: "frames may have several buffers",
    Hook.SOCKET: "a socket's packet begins elsewhere than its frame",
}


class Outcome(Enum):
    """What becomes of the filter on this kernel, as far as one need goes."""

    MET = "met"
    FALLBACK = "fallback"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Need:
    """One thing the object asks for; `otherwise` is what is done without it."""

    kind: str
    name: str
    title: str
    since: str
    because: str
    found: Found
    required: bool
    otherwise: str

    @property
    def outcome(self) -> Outcome:
        """Whether it is there, and else how much is lost."""
        if self.found.has is None:
            return Outcome.UNKNOWN
        if self.found.has:
            return Outcome.MET
        return Outcome.REFUSED if self.required else Outcome.FALLBACK


def needs_of(policy: LoadedPolicy) -> tuple[Need, ...]:
    """Everything that a filter asks of the kernel, each tried.

    Raises:
        ToolchainError: libbpf, which reads the object, is missing.
    """
    hook = Hook(policy.identity.hook)
    behaviours = dict(_behaviours(policy, hook))
    asked = tries()
    return (
        _program_need(hook),
        *(_behaviour_need(name, because, asked[name](), hook) for name, because in behaviours.items()),
        *_map_needs(policy.elf),
        *_helper_needs(policy.elf, hook),
    )


def _program_need(hook: Hook) -> Need:
    name = _PROGRAM_TYPE[hook]
    since = PROGRAM_TYPES[name].since
    because = f"the filter is at {hook.value}"
    return Need("program type", name, name, since, because, kinds.program_type(name), True, _REFUSED)


def _behaviour_need(name: str, because: str, found: Found, hook: Hook) -> Need:
    one: Behaviour = _BEHAVIOURS[name]
    required = name in _REQUIRED or (name == "atomics" and hook is Hook.SOCKET)
    return Need("behaviour", name, one.title, one.since, because, found, required, one.without)


#: Behaviours without which a filter that asks for them cannot be put in place.
_REQUIRED = (
    *(
        "xdp_link",
        "link_update",
        "generic_xdp",
        "clsact",
        "kernel_btf",
        "btf_load",
        "global_data",
        "map_mmap",
        "inner_map",
    ),
    *("function_calls", "large_programs", "isa_v2", "isa_v3", "bounded_loops"),
)


def _behaviours(policy: LoadedPolicy, hook: Hook) -> Iterator[tuple[str, str]]:
    """Names of behaviours, each with what asks for it."""
    yield from _of_hook(hook)
    yield "btf_load", "its maps have types"
    yield "kernel_btf", "it asks the kernel's types what the kernel can do"
    sections = {section.name: section.data for section in elf_file.sections(policy.elf)}
    if any(name.startswith((".rodata", ".data", ".bss")) for name in sections):
        yield "global_data", "it has constants or tables"
    functions = elf_file.functions(policy.elf)
    if len(functions) > 1:
        yield "function_calls", f"it has {len(functions)} functions"
        yield "global_functions", f"it has {len(functions)} functions"
    length = sum(len(data) for name, data in sections.items() if name == TRAITS[hook].section) // 8
    if length > _CLASSIC_LIMIT:
        yield "large_programs", f"it has {length} instructions"
    if any(code in _ATOMIC and kind for code, _, kind in _code(policy.elf)):
        yield "atomics", "it counts rates"
    if policy.identity.offer is not None:
        yield "map_mmap", "rules may be added while it runs"
    if flat := [spec.name for spec in policy.identity.sets if spec.is_flat]:
        yield "map_mmap", f"@{flat[0]} is flat"
        yield "inner_map", f"@{flat[0]} is flat"
    if _CAST.encode() in sections.get(".strtab", b""):
        yield "cast_to_kern_ctx", _CAST_FOR.get(hook, "it asks for it")


def _of_hook(hook: Hook) -> Iterator[tuple[str, str]]:
    match hook:
        case Hook.XDP:
            yield "xdp_link", "the filter is at xdp"
            yield "link_update", "a policy is replaced in one step"
            yield "generic_xdp", "for interfaces whose driver has no XDP"
            yield "xdp_frags", "interfaces may have jumbo frames"
        case Hook.TC_INGRESS | Hook.TC_EGRESS:
            yield "tcx", f"the filter is at {hook.value}"
            # Where there are links nothing falls back on a queueing discipline.
            if not tries()["tcx"]().has:
                yield "clsact", "there are no links at TC"
        case Hook.SOCKET:
            return


def _map_needs(elf: bytes) -> Iterator[Need]:
    with open_object(elf, "needs") as raw:
        types = {one.name: one.shape[0] for one in raw.maps}
    by_type: dict[str, list[str]] = {}
    for name, number in types.items():
        by_type.setdefault(_MAP_NAMES.get(number, str(number)), []).append(name)
    for kind, names in by_type.items():
        found = kinds.map_type(kind) if kind in MAP_TYPES else Found(None, "penstock does not know this type")
        since = MAP_TYPES[kind].since if kind in MAP_TYPES else ""
        yield Need("map type", kind, kind, since, ", ".join(names), found, True, _REFUSED)


def _helper_needs(elf: bytes, hook: Hook) -> Iterator[Need]:
    program = _PROGRAM_TYPE[hook]
    for number in sorted(_called(elf)):
        name = _HELPER_NAMES.get(number)
        if name is None:
            continue
        answer = kinds.helper(name, program)
        found = Found(answer, kinds.refused(1) if answer is None else "")
        one: Mapping[str, Behaviour] = _WATCHED
        title, without = (one[name].title, one[name].without) if name in one else (f"bpf_{name}", _REFUSED)
        guarded = name in _GUARDED
        otherwise = without if guarded else _REFUSED
        yield Need(
            "helper", name, title, HELPERS[name].since, "the program calls it", found, not guarded, otherwise
        )


def _called(elf: bytes) -> set[int]:
    """The numbers of the helpers that any function calls."""
    # The source register of a call is 1 for the program's own functions and 2 for the kernel's.
    return {value for opcode, registers, value in _code(elf) if opcode == _CALL and registers >> 4 == 0}


def _code(elf: bytes) -> Iterator[tuple[int, int, int]]:
    """Opcode, registers and immediate of every instruction of any function."""
    order = elf_file.byte_order(elf)
    code = {symbol.section for symbol in elf_file.functions(elf).values()}
    for section in elf_file.sections(elf):
        for opcode, registers, _, value in (
            struct.iter_unpack(order + "BBhi", section.data) if section.name in code else ()
        ):
            yield opcode, registers, value
