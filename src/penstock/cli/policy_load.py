"""A compiled policy from a file: a policy text or what `penstock build` made of one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.cli import output
from penstock.cli.diagnostics import show_diagnostics
from penstock.pipeline.policy_file import STDIN, read_policy, refuse_untrusted

if TYPE_CHECKING:
    from penstock.pipeline.policy import LoadedPolicy


def built_policy(path: str) -> LoadedPolicy | None:
    """The policy in a file that `penstock build` made; None if the file is something else.

    Raises:
        PenstockError: it is one, but it is cut.
    """
    from penstock.pipeline.policy import load_built

    data = _object_in(path)
    return None if data is None else load_built(data, path)


def load_file(path: str, filter_name: str | None = None) -> LoadedPolicy:
    """The compiled policy of a file; its warnings are shown.

    Raises:
        PenstockError: the file cannot be read, PolicyError among them.
    """
    from penstock.pipeline.policy import load_policy

    built = built_policy(path)
    if built is not None:
        return built
    source = read_policy(path)
    policy = load_policy(source.text, name=source.name, filter=filter_name)
    show_warnings(policy)
    return policy


def load_filters(path: str, filter_name: str | None = None) -> tuple[LoadedPolicy, ...]:
    """The compiled filters of a file for one interface, one at each hook, or the one that is named.

    Raises:
        PenstockError: the file cannot be read or is not to be trusted, PolicyError among them.
    """
    from penstock.pipeline.policy import at_sockets, load_built, load_policies

    data = _object_in(path, trusted=True)
    if data is not None:
        return (load_built(data, path),)
    source = read_policy(path, trusted=True)
    policies = load_policies(source.text, name=source.name, filter=filter_name)
    show_diagnostics(policies[0].warnings)
    for left in () if filter_name else at_sockets(source.text, source.name):
        output.warn(
            f"{left} is at socket, and left out here: `penstock.attach_socket` in Python puts it on a socket"
        )
    for policy in policies:
        _show_dear(policy)
    return policies


def show_warnings(policy: LoadedPolicy) -> None:
    """What is odd in the policy's text, and what makes it slow."""
    show_diagnostics(policy.warnings)
    _show_dear(policy)


def _show_dear(policy: LoadedPolicy) -> None:
    for dear in policy.dear:
        output.warn(f"some rules are dear: {dear}")


def _object_in(path: str, *, trusted: bool = False) -> bytes | None:
    """The file's bytes when it is an object file; whatever cannot be read is left to `read_policy` to explain."""
    from penstock.pipeline.built import is_built

    if path == STDIN:
        return None
    try:
        with Path(path).open("rb") as file:
            head = file.read(4)
            if not is_built(head):
                return None
            if trusted:
                refuse_untrusted(path, os.fstat(file.fileno()))
            return head + file.read()
    except (OSError, ValueError):
        return None
