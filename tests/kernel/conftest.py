"""Small hand-written programs for the kernel tests."""

from __future__ import annotations

import errno
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from tests.netns import Namespace, veth

from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.kernel.netlink import interface

Ends = tuple[Namespace, Namespace]

CompileC = Callable[[str], bytes]

PREAMBLE = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char ps_license[] SEC("license") = "GPL";
#line 1 "edge.policy"
"""


@cache
def _clang() -> str:
    names = ("clang", *(f"clang-{version}" for version in range(30, 13, -1)))
    found = next(filter(None, map(shutil.which, names)), None)
    assert found, "the tests compile C: install clang"
    return found


@cache
def _compile(text: str) -> bytes:
    includes = [f"-I{path}" for path in sorted(Path("/usr/include").glob("*-linux-gnu"))]
    argv = [_clang(), "-O2", "-g", "-target", "bpf", *includes, "-x", "c", "-", "-c", "-o", "-"]
    done = subprocess.run(argv, input=(PREAMBLE + text).encode(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture(scope="session")
def compile_c() -> CompileC:
    """Compile C after `PREAMBLE`; its first line is edge.policy:1."""
    return _compile


PASS = 'SEC("xdp.frags") int ps_pass(struct xdp_md *ctx) { return XDP_PASS; }'
DROP = 'SEC("xdp.frags") int ps_drop(struct xdp_md *ctx) { return XDP_DROP; }'


@pytest.fixture
def passing(compile_c: CompileC) -> Iterator[BpfObject]:
    """An object whose program ps_pass passes everything."""
    with load_object(compile_c(PASS), "passing") as loaded:
        yield loaded


@pytest.fixture
def dropping(compile_c: CompileC) -> Iterator[BpfObject]:
    """An object whose program ps_drop drops everything."""
    with load_object(compile_c(DROP), "dropping") as loaded:
        yield loaded


@pytest.fixture
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    """Two namespaces joined by a veth pair: v0 in the first, v1 in the second."""
    with Namespace("kernel-left") as left, Namespace("kernel-right") as right:
        veth(left, "v0", right, "v1")
        yield left, right


@pytest.fixture
def v0(ends: Ends) -> Iterator[int]:
    """The index of the left end; this thread is in its namespace."""
    with ends[0].inside():
        yield interface("v0").index


class Wire:
    """Sends raw frames out of the right end; says whether one came up from the left."""

    def __init__(self, ends: Ends) -> None:
        with ends[0].inside():
            self.receiver = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5))
            self.receiver.bind(("v0", 0x88B5))
        with ends[1].inside():
            self.sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            self.sender.bind(("v1", 0))

    def carries(self, timeout_s: float = 5.0) -> bool:
        """Whether a frame with an experimental ethertype arrives within the deadline."""
        self.receiver.settimeout(timeout_s)
        try:
            self.sender.send(b"\xff" * 6 + b"\x02" * 6 + b"\x88\xb5" + bytes(46))
        except OSError as error:
            # What is dropped on its way out is refused to a packet socket.
            if error.errno == errno.ENOBUFS:
                return False
            raise
        try:
            return bool(self.receiver.recv(100))
        except TimeoutError:
            return False

    def close(self) -> None:
        """Close both sockets."""
        self.receiver.close()
        self.sender.close()


@pytest.fixture
def wire(ends: Ends) -> Iterator[Wire]:
    """A way to send a frame through the pair."""
    made = Wire(ends)
    yield made
    made.close()
