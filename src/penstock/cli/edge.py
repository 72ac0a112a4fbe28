"""The outermost edge: what becomes of every failure, and of streams that are closed, full or gone.

    end(lambda: 0)       ends the process with the code of a command

No failure ends in a traceback: what penstock foresees is shown as a sentence, a place
and a hint with the exit code of its kind, and anything else as a bug to be reported
(PENSTOCK_DEBUG=1 shows where).

    0 fine   1 policy or usage   2 toolchain   3 kernel   4 permission   5 daemon   7 taken back
    70 a bug   130 interrupted
"""

from __future__ import annotations

import errno
import os
import sys

from penstock.cli import output
from penstock.errors import (
    InternalError,
    KernelError,
    LockoutError,
    PenstockError,
    PolicyError,
    ToolchainError,
    VerifierError,
)

TYPE_CHECKING = False  # `typing` takes long to import (cli/start.py)
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

    from penstock.pipeline.guard import Loss


def end(command: Callable[[], int]) -> NoReturn:
    """Run a command, which gives its exit code, and end the process with it."""
    _settle_streams()
    sys.exit(_flush(_code(command)))


def _code(command: Callable[[], int]) -> int:
    try:
        return command()
    except KeyboardInterrupt:
        return 130
    except PenstockError as error:
        show(error)
        return error.exit_code
    except BrokenPipeError:
        return _broken_pipe()
    except OSError as error:
        # Click writes help by itself.
        return _unwritten(error) if error.errno in (errno.ENOSPC, errno.EBADF) else _bug(error)
    except UnicodeEncodeError as error:
        # What Python reads of an argument that is no UTF-8 (PEP 383) can be written nowhere.
        if not any("\udc80" <= char <= "\udcff" for char in error.object[error.start : error.end]):
            return _bug(error)
        show(PenstockError(f"`{error.object[:60]}` is not UTF-8 text"))
        return 1
    except MemoryError:
        show(PenstockError("there is not enough memory for this"))
        return KernelError.exit_code
    except Exception as error:  # noqa: BLE001 - the outermost edge: a bug is shown as one
        return _bug(error)


def show(error: PenstockError) -> None:
    """Print an error of penstock's on standard error: diagnostics under their text, anything else as a sentence."""
    if isinstance(error, PolicyError) and error.diagnostics:
        from penstock.cli.diagnostics import show_diagnostics

        show_diagnostics(error.diagnostics)
        return
    output.fault(error, _details(error))
    if isinstance(error, VerifierError):
        _show_log("the verifier's log", error.log)
    elif isinstance(error, ToolchainError) and error.argv:
        _show_log("clang said", error.stderr)


def _details(error: PenstockError) -> list[str]:
    match error:
        case VerifierError():
            return _explained(error)
        case LockoutError():
            return [text for loss in error.losses for text in _lost(loss)]
        case _:
            return []


def _lost(loss: Loss) -> Iterator[str]:
    """What drops a packet that must pass, the packet, and the line that would let it pass."""
    yield f"{loss.lifeline.what}: {loss.decider}"
    yield f"    packet  {loss.lifeline.packet}"
    yield f"    mend    {loss.mending_line}"


def _explained(error: VerifierError) -> list[str]:
    """The line that the verifier refused, what it objects to and why; the hint says what mends it."""
    line = f"{error.place}:  {error.source}" if error.place and error.source else ""
    objection = f"it objects: {error.objection}" if error.objection else ""
    reason = f"why: {error.reason}" if error.reason else ""
    return [text for text in (line, objection, reason) if text]


def _show_log(title: str, log: str) -> None:
    if output.logs_are_shown() and log:
        output.fault_text(f"{title}:\n{log}")
    elif log:
        output.note(f"({title} is shown with {output.log_words()})")


def _bug(error: Exception) -> int:
    if os.environ.get("PENSTOCK_DEBUG"):
        raise error
    kind = type(error).__name__
    output.fault(InternalError(f"{kind}: {error}" if str(error) else kind))
    output.note("(PENSTOCK_DEBUG=1 shows where it happened)")
    return InternalError.exit_code


def _settle_streams() -> None:
    """Text that the terminal's encoding lacks is shown as escapes; a closed stream fails as a full disk does."""
    # Opened the wrong way round, it answers EBADF as the closed one would, and no file that is
    # opened later gets its number.
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_WRONLY), closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _flush(code: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _broken_pipe()
    except OSError as error:
        return _unwritten(error, code)
    return code


def _unwritten(error: OSError, code: int = 0) -> int:
    _forget_output()
    output.fault(PenstockError(f"write to standard output: {error.strerror}"))
    return code or 1


def _broken_pipe() -> int:
    """The reader has gone: end quietly, with the code of a process that SIGPIPE has ended."""
    _forget_output()
    return 141


def _forget_output() -> None:
    """Point standard output at nothing, so that the flush at exit does not fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
