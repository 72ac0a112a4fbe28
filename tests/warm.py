"""Commands that start warm: forks of a process that has penstock's modules in memory.

Starting Python and importing penstock is most of what a command takes, and the
tests run thousands of them.  `Warm.run` gives the code, the output and the
errors of a command that ran in a process, an environment, a working directory
and a network namespace of its own, as one started cold does; what it shares is
that its modules were imported before.  Tests that kill, stop or look at a
process start it cold (`Cli.start`); PENSTOCK_TESTS_COLD=1 starts all of them so.

    Warm().run(["status", "--json"], dict(os.environ))  ->  (0, '{"schema":…', '')

Objects are compiled once in a test run: `remember_objects` keeps what clang made
of a text, for the same clang and arguments, in a folder of the run's processes.
Tests that ask whether clang does the same thing twice forget it (`forget_objects`).
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import os
import pkgutil
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import penstock
from penstock.compiler import clang
from penstock.kernel import netns as namespaces

COLD = "PENSTOCK_TESTS_COLD"
PATIENCE_S = 60.0
_OBJECTS = "PENSTOCK_TESTS_OBJECTS"
_MESSAGE = 1 << 18
_FILES = 1 << 10
#: What Python reads when it starts, which a fork cannot make up for.
_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "COVERAGE")
#: Without a command of the user's own; imported by nothing that one needs.
_LEFT_OUT = ("penstock.__main__",)


# ── the side of the tests ────────────────────────────────────────────────────


class Warm:
    """A process that waits for commands, until this one ends."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._environment = dict(os.environ)
        with theirs:
            argv = [sys.executable, "-P", __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(
                argv, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, start_new_session=True
            )

    def takes(self, environment: dict[str, str]) -> bool:
        """Whether a fork is all that this environment needs."""
        names = {name for name in (*environment, *self._environment) if name.startswith(_AT_START)}
        return all(environment.get(name) == self._environment.get(name) for name in names)

    def run(
        self, arguments: Sequence[str], environment: dict[str, str], netns: str | None = None
    ) -> tuple[int, str, str]:
        """A command's exit code, what it printed and what it complained of.

        `netns` is a namespace's file; without one the command is in that of the calling thread.
        """
        place = netns or f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"
        request = json.dumps(
            {"arguments": arguments, "environment": environment, "netns": place, "cwd": str(Path.cwd())}
        ).encode()
        with ExitStack() as opened:
            out, err = (opened.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            ended, told = socket.socketpair()
            with told:
                socket.send_fds(self._ours, [request], [out.fileno(), err.fileno(), told.fileno()])
            opened.enter_context(ended)
            ended.settimeout(PATIENCE_S)
            code = int(ended.recv(16))
            return code, _text(out), _text(err)

    def close(self) -> None:
        """The process ends, and whatever of its commands still runs goes on."""
        self._ours.close()
        self._process.wait(PATIENCE_S)


def _text(file: Any) -> str:
    file.seek(0)
    text: str = file.read().decode()
    return text


# ── objects ──────────────────────────────────────────────────────────────────

_run = clang.run


def remember_objects(folder: Path) -> None:
    """From here on, in this process and in warm commands, what was compiled before is not compiled again."""
    folder.mkdir(exist_ok=True)
    os.environ[_OBJECTS] = str(folder)
    clang.run = _remembering


@contextmanager
def forget_objects() -> Iterator[None]:
    """Every object is compiled within the block."""
    usual, clang.run = clang.run, _run
    try:
        yield
    finally:
        clang.run = usual


def _remembering(
    argv: Sequence[str], text: str, folder: str, *, cwd: str | None = None
) -> subprocess.CompletedProcess[bytes]:
    known = Path(os.environ[_OBJECTS], _key(argv, text, folder))
    made = Path(folder, "object.o")
    if known.exists():
        made.write_bytes(known.read_bytes())
        return subprocess.CompletedProcess(argv, 0, b"", b"")
    done = _run(argv, text, folder, cwd=cwd)
    if done.returncode == 0 and not done.stderr and made.exists():
        partial = known.with_suffix(f".{os.getpid()}")
        partial.write_bytes(made.read_bytes())
        partial.rename(known)
    return done


def _key(argv: Sequence[str], text: str, folder: str) -> str:
    """Everything that gets into an object: the command, the text, and the files that it quotes."""
    beside = sorted((file.name, file.read_bytes().hex()) for file in Path(folder).iterdir())
    return hashlib.sha256(json.dumps([list(argv), text, beside]).encode()).hexdigest()


# ── the process ──────────────────────────────────────────────────────────────


def _serve(requests: socket.socket) -> None:
    """Fork for each request; whoever asked is told the code when the command is gone."""
    _import_everything()
    gc.freeze()
    with selectors.DefaultSelector() as waiting:
        waiting.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in waiting.select():
                if key.data is not None:
                    waiting.unregister(key.fd)
                    _tell(key.fd, *key.data)
                elif not (begun := _begin(requests)):
                    return
                else:
                    waiting.register(os.pidfd_open(begun[0]), selectors.EVENT_READ, begun)


def _begin(requests: socket.socket) -> tuple[int, int] | None:
    """A command's process and whom to tell of its end; None when nobody is left to ask for commands."""
    message, files, _, _ = socket.recv_fds(requests, _MESSAGE, 3)
    if not message:
        return None
    process = os.fork()
    if process == 0:
        _command(json.loads(message), *files[:2])
    for file in files[:2]:
        os.close(file)
    return process, files[2]


def _tell(ended: int, process: int, told: int) -> None:
    status = os.waitpid(process, 0)[1]
    os.write(told, str(os.waitstatus_to_exitcode(status)).encode())
    os.close(told)
    os.close(ended)


def _import_everything() -> None:
    for module in pkgutil.walk_packages(penstock.__path__, "penstock."):
        if module.name not in _LEFT_OUT:
            importlib.import_module(module.name)


def _command(request: dict[str, Any], out: int, err: int) -> NoReturn:
    """In the fork: what `python -m penstock` would do."""
    code = 1
    try:
        _settle(request, out, err)
        code = _main(request["arguments"])
    except BaseException:  # noqa: BLE001 - what the interpreter would have done with it
        traceback.print_exc()
    finally:
        os._exit(code)


def _settle(request: dict[str, Any], out: int, err: int) -> None:
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.closerange(3, _FILES)
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if Path(request["netns"]).stat().st_ino != namespaces.inode():
        namespaces.enter(request["netns"])
    if _OBJECTS in os.environ:
        clang.run = _remembering


def _main(arguments: list[str]) -> int:
    main: Callable[[list[str]], NoReturn] = importlib.import_module("penstock.cli.start").main
    sys.argv = [str(Path(penstock.__file__).parent / "__main__.py"), *arguments]
    try:
        main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as _requests:
        _serve(_requests)
