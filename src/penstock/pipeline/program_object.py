"""A hand-written program's object: from a C file or somebody's object file to a program in the kernel.

In: a path.  Out: `ProgramObject`, and from it, with one of its programs chosen
and its variables set, a `BpfObject`.

    found = open_program("filter.c")                  compiled, nothing loaded yet
    chosen = choose(found, name="xdp")                ->  ProgramSpec("drop_dns", "xdp", 6)
    load(found, chosen, Hook.XDP, {"limit": "100"})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.errors import PenstockError
from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.kernel.object_programs import (
    SCHED_ACT,
    SCHED_CLS,
    SOCKET_FILTER,
    XDP,
    ObjectContents,
    ProgramSpec,
    contents_of,
    kind_name,
)
from penstock.model.hook import Hook

if TYPE_CHECKING:
    from penstock.compiler.declarations import Missing

_ELF = b"\x7fELF"
_NAME_LENGTH = 15
_KINDS = {Hook.XDP: XDP, Hook.TC_INGRESS: SCHED_CLS, Hook.TC_EGRESS: SCHED_CLS, Hook.SOCKET: SOCKET_FILTER}
# Sections that libbpf 1.1 does not know, or that say less to it than to people.
_SECTION_HOOKS = (
    ("tcx/ingress", Hook.TC_INGRESS),
    ("tcx/egress", Hook.TC_EGRESS),
    ("tc/ingress", Hook.TC_INGRESS),
    ("tc/egress", Hook.TC_EGRESS),
)


@dataclass(frozen=True, slots=True)
class ProgramObject:
    """An object that can be loaded; `messages` is what clang said of its C, `added` the headers it did not include."""

    path: str
    elf: bytes
    contents: ObjectContents
    messages: str = ""
    added: tuple[Missing, ...] = ()

    @property
    def name(self) -> str:
        """The object's name, which the kernel puts before its data sections'."""
        return Path(self.path).name.split(".", 1)[0][:_NAME_LENGTH] or "program"

    def warnings(self) -> list[str]:
        """What is odd about it, and yet no reason not to load it."""
        lost = "no source lines where the verifier refuses it, no types of its variables and maps"
        return [] if self.contents.has_btf else [f"{self.path} has no BTF (it was built without -g): {lost}"]


def open_program(path: str, *, folders: Sequence[str] = ()) -> ProgramObject:
    """The object in a file, or made of the C in it.

    Raises:
        DoesNotCompileError: clang found errors in the C.
        ToolchainError: there is no clang, or no libbpf.
        PenstockError: the file cannot be read.
        KernelError: it is no BPF object.
    """
    if Path(path).suffix == ".policy":
        hint = "`penstock apply` puts a policy in place, `penstock build` compiles it"
        raise PenstockError(f"{path} is a policy and no C", hint=hint)
    data = _head_or_all(path)
    if data.startswith(_ELF):
        return ProgramObject(path, data, contents_of(data, path))
    from penstock.compiler.handwritten import build_program

    built = build_program(path, folders=folders)
    return ProgramObject(path, built.elf, contents_of(built.elf, path), built.messages, built.added)


def choose(found: ProgramObject, hook: Hook | None = None, name: str | None = None) -> ProgramSpec:
    """The program that is meant: by its name or section, or the only one, or the only one for the hook.

    Raises:
        PenstockError: there is none, or several; the message lists them.
    """
    programs = found.contents.programs
    if not programs:
        raise PenstockError(
            f"{found.path} has no program", hint='a program is a function after SEC("xdp"), SEC("tc") …'
        )
    wanted = [one for one in programs if name in (one.name, one.section)] if name else list(programs)
    if hook is not None and len(wanted) > 1:
        wanted = [one for one in wanted if _fits(one, hook)]
    if len(wanted) == 1:
        return wanted[0]
    listed = ", ".join(f"{one.name} (section {one.section})" for one in programs)
    if not wanted:
        what = f"program or section {name}" if name else f"program for {hook.value if hook else 'any hook'}"
        raise PenstockError(f"{found.path} has no {what}", hint=f"it has {listed}")
    raise PenstockError(
        f"{found.path} has several programs: which?", hint=f"name one with --section: {listed}"
    )


def hook_of(program: ProgramSpec) -> Hook | None:
    """The hook that a program's section says; None where it leaves that open, as `tc` does."""
    for prefix, hook in _SECTION_HOOKS:
        if program.section.startswith(prefix):
            return hook
    return {XDP: Hook.XDP, SOCKET_FILTER: Hook.SOCKET}.get(program.kind)


def hooks_of(program: ProgramSpec) -> tuple[Hook, ...]:
    """The hooks at which a program can run, as far as its section tells."""
    return tuple(hook for hook in Hook if _fits(program, hook))


def check_hook(program: ProgramSpec, hook: Hook) -> None:
    """Make sure that a program can run at a hook.  Raises PenstockError: it is of another kind."""
    if not _fits(program, hook):
        raise PenstockError(
            f"{program.name} in section {program.section} is {_article(kind_name(program.kind))} program: "
            f"it cannot run at {hook.value}",
            hint=f"{hook.value} takes {_article(kind_name(_KINDS[hook]))} program: SEC({_section_for(hook)})",
        )


def load(
    found: ProgramObject,
    program: ProgramSpec,
    hook: Hook | None,
    values: Mapping[str, str],
    *,
    pinned: bool = True,
) -> BpfObject:
    """A program in the kernel with its variables set, and with it, where there are tail calls, those of its kind.

    Without `pinned`, maps that the object itself wants in bpffs stay out of it.

    Raises:
        PenstockError: there is no such variable, or the value does not fit it.
        KernelError: VerifierError, PrivilegeError, NotSupportedError among them.
    """
    kind = program.kind or _KINDS.get(hook or Hook.SOCKET, 0)
    together = {one.name for one in found.contents.programs if one.kind == program.kind}
    only = together if found.contents.has_tail_calls else {program.name}
    kinds = {} if program.kind or hook is None else dict.fromkeys(only, (kind, 0))
    if not program.kind and hook is None:
        raise PenstockError(
            f"the section of {program.name}, {program.section}, does not say what it is",
            hint="say where it is to run: --hook xdp, tc-ingress, tc-egress or socket",
        )
    initial = {name: _value(found, name, text) for name, text in values.items()}
    return load_object(found.elf, found.name, rodata=initial, only=only, kinds=kinds, pinned=pinned)


def _value(found: ProgramObject, name: str, text: str) -> bytes:
    from penstock.pipeline.program_value import parse_value

    if name not in found.contents.variables:
        listed = ", ".join(sorted(found.contents.variables)) or "none"
        raise PenstockError(f"{found.path} has no variable {name}", hint=f"it has {listed}")
    return parse_value(found.elf, name, found.contents.variables[name], text)


def _fits(program: ProgramSpec, hook: Hook) -> bool:
    if not program.kind:
        return True
    if program.kind == SCHED_ACT:
        return False
    exact = next((at for prefix, at in _SECTION_HOOKS if program.section.startswith(prefix)), None)
    return program.kind == _KINDS[hook] and exact in (None, hook)


def _section_for(hook: Hook) -> str:
    return {Hook.XDP: '"xdp"', Hook.SOCKET: '"socket"'}.get(hook, '"tc"')


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeioX" else f"a {kind}"


def _head_or_all(path: str) -> bytes:
    """All of an object file; of any other file its first bytes."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(len(_ELF))
            return head + file.read() if head == _ELF else head
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise PenstockError(f"{path} cannot be read: {reason}") from error
