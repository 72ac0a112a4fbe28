"""Run clang: the only module that starts a compiler.

In go C text and the files its #line directives name, out comes an ELF object
for the BPF machine.  The same text and the same clang give the same bytes,
wherever and whenever: no path of this machine gets into the object.

What is compiled never reaches a command line or a shell: the argv is fixed, the
C comes by standard input, and the only folder that #include finds is penstock's
own.  clang runs in a private folder, without capabilities and network, with bounds
on time and memory (`confinement`).

Why -mcpu=v3: 32-bit compares and arithmetic, which most fields are, as single
instructions, on every kernel since 5.1; v4 would need 6.6.

    compile_c(source.text)  ->  b"\\x7fELF\\x02..."
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from penstock.compiler.confinement import CPU_LIMIT_S, confine
from penstock.errors import ToolchainError

LEAST_VERSION = 14
TIME_LIMIT_S = CPU_LIMIT_S
ENVIRONMENT = "PENSTOCK_CLANG"
BPF_FOLDER = Path(__file__).parent.parent / "bpf"

_INSTALL = "apt install clang (Debian, Ubuntu) or dnf install clang (Fedora); clang 14 or newer"
_NAME = re.compile(r"(?:.*/)?clang(?:-(\d+))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Clang:
    """A compiler on this machine."""

    path: str
    version: int


def find_clang() -> Clang:
    """The newest clang in PATH, or the one that PENSTOCK_CLANG names.

    Raises:
        ToolchainError: there is none, or none that is new enough.
    """
    return _find_clang(os.environ.get(ENVIRONMENT, ""), os.environ.get("PATH", os.defpath))


@cache
def _find_clang(chosen: str, path: str) -> Clang:
    if chosen:
        return _chosen(chosen, path)
    candidates = sorted(_candidates(path), key=lambda clang: -clang.version)
    if not candidates:
        raise ToolchainError("there is no clang on this machine", hint=_INSTALL)
    if candidates[0].version < LEAST_VERSION:
        newest = candidates[0]
        raise ToolchainError(f"{newest.path} is clang {newest.version}, which is too old", hint=_INSTALL)
    return candidates[0]


def _chosen(chosen: str, path: str) -> Clang:
    found = shutil.which(chosen, path=path)
    if found is None:
        raise ToolchainError(f"{ENVIRONMENT} names {chosen}, which is no program", hint=_INSTALL)
    version = _version_of(found)
    if version < LEAST_VERSION:
        raise ToolchainError(
            f"{ENVIRONMENT} names {chosen}, clang {version}, which is too old", hint=_INSTALL
        )
    return Clang(found, version)


def _candidates(path: str) -> Iterator[Clang]:
    """Versioned names tell their version; a bare `clang` is asked, unless it is one of these under another name."""
    found = [match for folder in path.split(os.pathsep) for match in _matches(folder)]
    versions = {os.path.realpath(match.string): int(match[1]) for match in found if match[1]}
    for match in found:
        target = os.path.realpath(match.string)
        if target not in versions:
            versions[target] = _version_of(match.string)
        yield Clang(match.string, versions[target])


def _matches(folder: str) -> Iterator[re.Match[str]]:
    """The programs in a folder that are called like a clang, by their paths."""
    # Of thousands of names hardly any is clang's: only those become paths.
    paths = (str(Path(folder, name)) for name in sorted(_names(folder)) if name.startswith("clang"))
    matches = (_NAME.fullmatch(path) for path in paths)
    return (match for match in matches if match and os.access(match.string, os.X_OK))


def _names(folder: str) -> list[str]:
    with suppress(OSError):
        return os.listdir(folder or ".")  # noqa: PTH208 - a Path for each of thousands takes 30 ms
    return []


def _version_of(file: str) -> int:
    """The major version, 0 if the program does not say; `major * 10000 + …` is how it tells its own macros."""
    argv = [file, "-dumpversion"]
    with suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(argv, capture_output=True, timeout=20, check=False, text=True).stdout
        if match := re.match(r"(\d+)\.", answer):
            return int(match[1])
    return 0


def arguments(clang: Clang) -> list[str]:
    """The command that compiles standard input; always the same for one clang."""
    return [
        clang.path,
        "-target",
        "bpf",
        "-mcpu=v3",
        "-O2",
        "-g",
        "-std=gnu11",
        "-ffreestanding",
        "-nostdinc",
        "-fno-ident",
        "-fbracket-depth=65536",
        "-ffile-compilation-dir=.",
        f"-fdebug-prefix-map={BPF_FOLDER}=penstock",
        f"-ffile-prefix-map={BPF_FOLDER}=penstock",
        "-Wall",
        "-Wno-unused-function",
        "-Wno-parentheses-equality",
        "-Wno-tautological-compare",
        f"-I{BPF_FOLDER}",
        f"-I{BPF_FOLDER / 'include'}",
        "-x",
        "c",
        "-c",
        "-",
        "-o",
        "object.o",
    ]


def compile_c(
    text: str, files: Iterable[tuple[str, str]] = (), clang: Clang | None = None, *, strict: bool = False
) -> bytes:
    """The ELF object of some C.

    `files` are (name, text) of the files that its #line directives name: clang
    copies their lines into the debug information, so the verifier's log can
    quote the policy.  `strict` makes warnings errors, as the tests have it.

    Raises:
        ToolchainError: no clang, or it failed; with its argv and messages and
            the path of the C, which is kept.
    """
    clang = clang or find_clang()
    argv = [*arguments(clang), *(["-Werror"] if strict else [])]
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        for name, content in files:
            _write_beside(Path(folder), name, content)
        result = run(argv, text, folder)
        if result.returncode:
            raise _failed(argv, result, text)
        return Path(folder, "object.o").read_bytes()


def _write_beside(folder: Path, name: str, content: str) -> None:
    """Never outside the folder, never over clang's output; without the file only quotes are lost."""
    if Path(name).name == name and name not in ("object.o", "..", ".") and "\0" not in name:
        with suppress(OSError, UnicodeError):
            (folder / name).write_text(content, encoding="utf-8", newline="")


def run(
    argv: Sequence[str], text: str, folder: str, *, cwd: str | None = None
) -> subprocess.CompletedProcess[bytes]:
    """clang, run to its end with bounds; its temporary files are in `folder`, where it also runs unless told `cwd`.

    Raises:
        ToolchainError: it cannot be run, or did not finish in time.
    """
    try:
        return subprocess.run(
            argv,
            input=text.encode(),
            capture_output=True,
            cwd=cwd or folder,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TMPDIR": folder},
            timeout=TIME_LIMIT_S,
            preexec_fn=confine,
            start_new_session=True,  # Ctrl-C is for penstock, which may be compiling in order to put things back.
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(
            f"clang did not finish within {TIME_LIMIT_S} s",
            argv=argv,
            source_path=_keep(text) if text else None,
        ) from error
    except OSError as error:
        raise ToolchainError(
            f"{argv[0]} cannot be run: {error.strerror}", argv=argv, hint=_INSTALL
        ) from error


def _failed(argv: Sequence[str], result: subprocess.CompletedProcess[bytes], text: str) -> ToolchainError:
    stderr = result.stderr.decode("utf-8", "replace")
    first = next((line for line in stderr.splitlines() if "error:" in line), "")
    how = f"signal {-result.returncode}" if result.returncode < 0 else f"exit code {result.returncode}"
    return ToolchainError(
        f"clang failed ({how}){': ' if first else ''}{first}",
        argv=argv,
        stderr=stderr,
        source_path=_keep(text),
        hint="the C it was given is kept; this is a bug in penstock unless memory ran out",
    )


def _keep(text: str) -> str:
    """Save the C for whoever looks into the failure; the path."""
    handle, path = tempfile.mkstemp(prefix="penstock-", suffix=".bpf.c")
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    return path
