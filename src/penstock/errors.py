"""Every error that penstock raises on purpose, as one tree.

    PenstockError
    ├── PolicyError          the policy is wrong; carries all its diagnostics          exit 1
    ├── LimitError           the policy is right but too big: which limit, which rule  exit 1
    ├── LockoutError         the policy would cut off who puts it in place             exit 1
    ├── CaptureError         a capture file is not one, or is cut                      exit 1
    ├── BtfError             type information is damaged, or says what no C can say    exit 1
    ├── PacketNotationError  a packet as written in a test or for explain is wrong     exit 1
    ├── FeedError            a feed cannot be had or is not what it should be          exit 1
    ├── SettingsError        /etc/penstock/settings.toml says what cannot be           exit 1
    ├── ToolchainError       clang is missing or failed                                exit 2
    ├── KernelError          a bpf or netlink call failed                              exit 3
    │   ├── VerifierError    the kernel refused the program
    │   ├── NotSupportedError  this kernel lacks a feature
    │   └── PrivilegeError   a capability is missing                                   exit 4
    ├── DaemonError          the daemon is away, or does not answer as it should       exit 5
    └── InternalError        a broken invariant: a bug in penstock                     exit 70

The user's own mistakes are collected as diagnostics and raised together; the
world's failures are wrapped once, where their meaning is known; our own bugs
are never caught to be hidden.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # `typing` takes long to import (cli/start.py)
if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.compiler.lang.diagnostic import Diagnostic
    from penstock.pipeline.guard import Loss


class PenstockError(Exception):
    """Any failure that penstock foresees.  `exit_code` is what the command ends with."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class PolicyError(PenstockError):
    """The policy text is wrong.  `diagnostics` holds every fault that was found in it."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        first = self.diagnostics[0].message if self.diagnostics else "the policy is wrong"
        more = len(self.diagnostics) - 1
        super().__init__(first if more < 1 else f"{first} (and {more} more)")


class LimitError(PenstockError):
    """The policy is correct but crosses a stated limit; `limit` names it."""

    def __init__(self, message: str, *, limit: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.limit = limit


class LockoutError(PenstockError):
    """A policy would drop what its host cannot do without; `losses` says of each packet what drops it."""

    def __init__(self, message: str, losses: Sequence[Loss], *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.losses = tuple(losses)


class CaptureError(PenstockError):
    """A file is not a capture, or its contents contradict its own headers."""


class BtfError(PenstockError):
    """Type information (BTF) contradicts its own layout, or there is none where it was asked for."""


class PacketNotationError(PenstockError):
    """A packet's text is wrong between the character offsets `offset` and `end` of what was parsed."""

    def __init__(self, message: str, *, offset: int, end: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.offset = offset
        self.end = offset + 1 if end is None else end


class FeedError(PenstockError):
    """A feed cannot be had, or is not what it should be; what it filled stays as it was.

    `line` is the place in its text, where there is one; `retry_after_s` is how long its server
    asks to be left alone.
    """

    def __init__(
        self,
        reason: str,
        *,
        feed: str | None = None,
        line: int | None = None,
        retry_after_s: float | None = None,
        hint: str | None = None,
    ) -> None:
        at = f"line {line}: " if line else ""
        super().__init__(f"{feed}: {at}{reason}" if feed else f"{at}{reason}", hint=hint)
        self.feed = feed
        self.line = line
        self.reason = reason
        self.retry_after_s = retry_after_s


class SettingsError(PenstockError):
    """The daemon's settings are wrong; `key` is the one to blame (`policy."edge.policy".mode`), where one is."""

    def __init__(self, message: str, *, key: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.key = key


class ToolchainError(PenstockError):
    """clang is missing, too old, or refused our C.  Keeps what is needed to repeat the call."""

    exit_code = 2

    def __init__(
        self,
        message: str,
        *,
        argv: Sequence[str] = (),
        stderr: str = "",
        source_path: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.argv = tuple(argv)
        self.stderr = stderr
        self.source_path = source_path


class KernelError(PenstockError):
    """A call into the kernel failed: `operation` on `subject`, with the kernel's `errno`."""

    exit_code = 3

    def __init__(
        self, operation: str, subject: str, errno: int, *, meaning: str | None = None, hint: str | None = None
    ) -> None:
        self.operation = operation
        self.subject = subject
        self.errno = errno
        reason = meaning or (os.strerror(errno) if errno else "the kernel gave no reason")
        super().__init__(f"{operation} {subject}: {reason}", hint=hint)


class VerifierError(KernelError):
    """The kernel's verifier refused `subject`.

    `summary` is its decisive line, `place` the policy or C line it blames
    (``edge.policy:12``) when the log names one, `source` that line's text, `log`
    the whole log; `objection` and `reason` are sentences about what is known of
    such a refusal, and the hint is what mends it.
    """

    def __init__(
        self,
        program: str,
        errno: int,
        *,
        summary: str,
        place: str | None,
        log: str,
        source: str | None = None,
        objection: str | None = None,
        reason: str | None = None,
        hint: str | None = None,
    ) -> None:
        at = f" at {place}" if place else ""
        refusal = f"the kernel's verifier refused it{at}: {summary}"
        super().__init__("load", program, errno, meaning=refusal, hint=hint)
        self.summary = summary
        self.place = place
        self.log = log
        self.source = source
        self.objection = objection
        self.reason = reason


class NotSupportedError(KernelError):
    """This kernel lacks `feature`; `least_kernel` is the first one that has it."""

    def __init__(
        self, feature: str, *, wanted_for: str, least_kernel: str | None = None, errno: int = 0
    ) -> None:
        since = f" (Linux {least_kernel} and newer have it)" if least_kernel else ""
        super().__init__(
            "use", feature, errno, meaning=f"this kernel does not support it{since}; wanted for {wanted_for}"
        )
        self.feature = feature
        self.least_kernel = least_kernel


class PrivilegeError(KernelError):
    """The process lacks `capability` (``CAP_BPF``, ``CAP_NET_ADMIN`` …)."""

    exit_code = 4

    def __init__(
        self, operation: str, subject: str, errno: int, *, capability: str, hint: str | None = None
    ) -> None:
        super().__init__(
            operation,
            subject,
            errno,
            meaning=f"not permitted; this needs {capability}",
            hint=hint or "run it as root, or give the process that capability",
        )
        self.capability = capability


class DaemonError(PenstockError):
    """The daemon cannot be reached, hangs, speaks another protocol, or turns this user away."""

    exit_code = 5


class InternalError(PenstockError):
    """An invariant of penstock is broken."""

    exit_code = 70

    def __init__(self, message: str) -> None:
        super().__init__(
            f"this is a bug in penstock: {message}", hint="please report it with the policy and the command"
        )
