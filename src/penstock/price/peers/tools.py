"""Start the programs of other filters, in the network namespace of the calling thread.

In: a program's name, arguments and what it reads.  Out: nothing, or an error
with what it said.  Nothing goes through a shell but xdp-filter's calls, which
have to share a mount namespace: they are quoted.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from shutil import which

from penstock.errors import ToolchainError

#: A rule set of ten thousand rules takes nft about ten seconds.
PATIENCE_S = 120
#: program -> the packages that bring it (Debian, Fedora).
PACKAGES = {
    "ip": "iproute2 (Debian, Ubuntu), iproute (Fedora)",
    "nft": "nftables",
    "ipset": "ipset",
    "iptables-restore": "iptables (Debian, Ubuntu), iptables-nft (Fedora)",
    "ip6tables-restore": "iptables (Debian, Ubuntu), iptables-nft (Fedora)",
    "iptables-legacy-restore": "iptables (Debian, Ubuntu), iptables-legacy (Fedora)",
    "ip6tables-legacy-restore": "iptables (Debian, Ubuntu), iptables-legacy (Fedora)",
    "xdp-filter": "xdp-tools",
    "unshare": "util-linux",
}
_ADMINISTRATORS = "/usr/sbin:/sbin:/usr/local/sbin"


def path_of(program: str) -> str | None:
    """Where the program is; an ordinary user's PATH may lack the administrators' folders."""
    return which(program) or which(program, path=_ADMINISTRATORS)


def missing(*programs: str) -> str | None:
    """A sentence that names the first program that is not installed, and what brings it."""
    for program in programs:
        if path_of(program) is None:
            return f"{program} is not installed; the package is {PACKAGES[program]}"
    return None


def run(program: str, *arguments: str, text: str = "") -> str:
    """What the program prints; `text` is its standard input.

    Raises:
        ToolchainError: it is missing, it failed, or took longer than PATIENCE_S.
    """
    found = path_of(program)
    if found is None:
        raise ToolchainError(
            f"the program `{program}` is missing", hint=f"install {PACKAGES.get(program, program)}"
        )
    argv = [found, *arguments]
    try:
        # In a session of its own: Ctrl-C is for penstock, which then takes everything away at once.
        done = subprocess.run(
            argv,
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(f"{program} did not finish within {PATIENCE_S} s", argv=argv) from error
    if done.returncode:
        raise ToolchainError(f"{program}: {_first_line(done.stderr)}", argv=argv, stderr=done.stderr)
    return done.stdout


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "it failed without a word")


@contextmanager
def own_bpffs(commands: Sequence[Sequence[str]]) -> Iterator[None]:
    """Run commands where /sys/fs/bpf is a file system of their own; what they pinned there lives as long as the block.

    Raises:
        ToolchainError: one of them failed.
    """
    lines = ["exec 2>&1", "mount -t bpf bpf /sys/fs/bpf || exit 1"]
    lines += [f"{shlex.join([path_of(line[0]) or line[0], *line[1:]])} || exit 1" for line in commands]
    script = "\n".join([*lines, "echo ready", "read -r end"])
    argv = [path_of("unshare") or "unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    # It ends when its standard input does, and that is when this process ends, however it ends.
    with subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "LC_ALL": "C"},
    ) as shell:
        said = list[str]()
        assert shell.stdout is not None
        assert shell.stdin is not None
        for line in shell.stdout:
            if line == "ready\n":
                break
            said.append(line)
        else:
            raise ToolchainError(f"{commands[0][0]}: {_first_line(''.join(said))}", stderr="".join(said))
        try:
            yield
        finally:
            shell.stdin.close()
