"""Compile eBPF C that somebody wrote by hand.

In: a C file.  Out: the ELF object, what clang said about it, and which headers
had to be put in front because the file uses names that it does not include.

    build_program("drop_dns.c").elf            ->  b"\\x7fELF…"
    build_program("drop_dns.c").added          ->  (Missing("IPPROTO_UDP", "linux/in.h"),)

The command is `clang -O2 -g -target bpf -mcpu=v3` with the headers that a
program needs in sight: penstock's own as `<penstock/…>`, the kernel's and
libbpf's from /usr/include, and those of the machine (`asm/types.h`), which lie
in a folder that clang does not look into for this target.

Why -g: without it there is no BTF, so no maps, and no source lines when the
verifier refuses the program.
"""

from __future__ import annotations

import platform
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.compiler.clang import BPF_FOLDER, Clang, find_clang, run
from penstock.compiler.declarations import Missing, absent_file, missing_headers, package_hint
from penstock.errors import PenstockError, ToolchainError

_LARGEST = 16 << 20
_ERROR = re.compile(r"(?:^|: )(?:fatal )?error: (.*)")
# As <bpf/bpf_tracing.h> wants to be told whose registers are meant; and the macro without which glibc's
# headers take the target for a 32-bit machine.
_MACHINES = {
    "x86_64": ("-D__TARGET_ARCH_x86", "-D__x86_64__"),
    "aarch64": ("-D__TARGET_ARCH_arm64", "-D__aarch64__"),
    "riscv64": ("-D__TARGET_ARCH_riscv",),
    "s390x": ("-D__TARGET_ARCH_s390", "-D__s390x__"),
    "ppc64le": ("-D__TARGET_ARCH_powerpc", "-D__powerpc64__"),
    "loongarch64": ("-D__TARGET_ARCH_loongarch",),
}


@dataclass(frozen=True, slots=True)
class BuiltProgram:
    """The object; `messages` is clang's text about it, `added` what it did not include itself."""

    elf: bytes
    messages: str
    added: tuple[Missing, ...]


class DoesNotCompileError(ToolchainError):
    """clang refused the user's C; `stderr` is what it said."""


def build_program(path: str, *, folders: Sequence[str] = (), clang: Clang | None = None) -> BuiltProgram:
    """The object of a C file; `folders` are searched for its headers too.

    Raises:
        DoesNotCompileError: clang found errors in it.
        ToolchainError: there is no clang, or it did not finish.
        PenstockError: the file cannot be read.
    """
    clang, source = clang or find_clang(), _text_of(path)
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        target = str(Path(folder, "object.o"))
        code, said = _run(_arguments(clang, path, folders, (), target), folder)
        added: tuple[Missing, ...] = ()
        messages = said
        while more := _not_included(messages, source, added):
            added += more
            code, messages = _run(_arguments(clang, path, folders, added, target), folder)
        if code:
            raise _refused(path, said, added, code)
        # What clang said the first time is about the file as it stands.
        return BuiltProgram(Path(target).read_bytes(), said, added)


def _run(argv: Sequence[str], folder: str) -> tuple[int, str]:
    done = run(argv, "", folder, cwd=".")
    return done.returncode, done.stderr.decode("utf-8", "replace")


def _not_included(messages: str, source: str, added: Sequence[Missing]) -> tuple[Missing, ...]:
    """Headers that would help and were not tried yet; none when a file is missing, which no header mends."""
    if absent_file(messages):
        return ()
    known = {one.header for one in added}
    return tuple(one for one in missing_headers(messages, source) if one.header not in known)


def _arguments(
    clang: Clang, path: str, folders: Sequence[str], added: Sequence[Missing], target: str
) -> list[str]:
    machine = platform.machine()
    return [
        clang.path,
        *("-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-ffile-compilation-dir=."),
        f"-fdebug-prefix-map={BPF_FOLDER}=penstock",
        *_MACHINES.get(machine, ()),
        *(f"-I{folder}" for folder in folders),
        f"-I{BPF_FOLDER / 'include'}",
        # Behind everything else: where the file or the system has a header of that name, it is meant.
        *("-idirafter", f"/usr/include/{machine}-linux-gnu"),
        *(word for header in _in_order(added) for word in ("-include", header)),
        *("-x", "c", "-c", path if not path.startswith("-") else f"./{path}", "-o", target),
    ]


def _in_order(added: Sequence[Missing]) -> list[str]:
    """The headers, those that others rely on first: libbpf's leave the kernel's types to whoever includes them."""
    headers = [one.header for one in added]
    if any(header.startswith("bpf/") for header in headers):
        headers.insert(0, "linux/bpf.h")
    return list(dict.fromkeys(sorted(headers, key=lambda header: header.startswith("bpf/"))))


def _text_of(path: str) -> str:
    """The file's text, for what it includes.  Raises PenstockError."""
    try:
        with Path(path).open("rb") as file:
            return file.read(_LARGEST).decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise PenstockError(f"{path} cannot be read: {reason}") from error


def _refused(path: str, messages: str, added: Sequence[Missing], code: int) -> DoesNotCompileError:
    errors = [match[1] for line in messages.splitlines() if (match := _ERROR.search(line))]
    absent = absent_file(messages)
    count = f"{len(errors)} error{'s' if len(errors) != 1 else ''}" if errors else f"exit code {code}"
    first = f", the first: {errors[0]}" if errors else ""
    return DoesNotCompileError(
        f"{path} does not compile: {count}{first}",
        stderr=messages,
        hint=package_hint(absent) if absent else include_hint(added),
    )


def include_hint(added: Sequence[Missing]) -> str | None:
    """The lines that the file lacks: `#include <linux/in.h>` for IPPROTO_UDP; None where it lacks none."""
    lines = [f"`#include <{one.header}>` for {one.name}" for one in added]
    return f"the file lacks {', '.join(lines)}" if lines else None
