"""What every test may ask for: privilege, or a skip that says which privilege is missing.

`@pytest.mark.privileged` tests need root and a kernel with BPF.  Without these
they are skipped with a reason of the closed list below; with PENSTOCK_STRICT=1,
as CI sets wherever the kernel offers BPF, that skip is a failure.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING

import hypothesis
import pytest
from tests import warm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A job in a shell's background ignores SIGINT, under nohup SIGHUP, and so would the commands that tests send these.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# hypothesis' deadline goes by the clock: a test run fails by what else the machine does (tests/fuzz/effort.py).
hypothesis.settings.register_profile("penstock", deadline=None)
hypothesis.settings.load_profile("penstock")


class Missing(Enum):
    """The reasons for which a privileged test may be skipped; there are no others."""

    ROOT = "not root"
    CAPABILITY = "root without CAP_BPF, CAP_NET_ADMIN or CAP_SYS_ADMIN in the initial user namespace"
    BPF = "this kernel or sandbox refuses bpf(2)"
    LIBBPF = "libbpf.so.1 is not installed"
    NAMESPACES = "no network namespace can be made: iproute2 is missing, or it is not permitted"


@cache
def missing_privilege() -> Missing | None:
    """The first thing that privileged tests lack here, or None."""
    if os.geteuid() != 0:
        return Missing.ROOT
    from penstock.errors import ToolchainError
    from penstock.kernel import libbpf
    from penstock.kernel.capability import SYS_ADMIN, missing
    from penstock.kernel.features import features

    if features().missing or missing(SYS_ADMIN):
        return Missing.CAPABILITY
    if not features().bpf_permitted:
        return Missing.BPF
    try:
        libbpf.library()
    except ToolchainError:
        return Missing.LIBBPF
    return None if _can_make_namespaces() else Missing.NAMESPACES


def _can_make_namespaces() -> bool:
    try:
        return subprocess.run(["unshare", "--net", "ip", "link"], capture_output=True).returncode == 0
    except OSError:
        return False


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a privileged test, or fail it in strict mode, where it cannot run."""
    if item.get_closest_marker("privileged") is None or (lack := missing_privilege()) is None:
        return
    if os.environ.get("PENSTOCK_STRICT") == "1":
        pytest.fail(f"strict mode: {lack.value}", pytrace=False)
    pytest.skip(f"{lack.name}: {lack.value}")


def pytest_xdist_auto_num_workers() -> int:
    """One process more than processors: tests that wait, for a lapse or a packet, leave no processor idle."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.fixture(scope="session", autouse=True)
def _directories(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What penstock remembers beside the kernel, its locks and its daemon are this test session's own."""
    for name in ("state", "run", "lock"):
        os.environ[f"PENSTOCK_{name.upper()}_DIR"] = str(tmp_path_factory.mktemp(name))


@pytest.fixture(scope="session", autouse=True)
def _bytecode(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Commands that tests start do not compile penstock's source anew: it would be half of what they take."""
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
        os.environ["PYTHONPYCACHEPREFIX"] = str(_of_all_workers(tmp_path_factory) / "bytecode")


@pytest.fixture(scope="session", autouse=True)
def _objects(tmp_path_factory: pytest.TempPathFactory, _bytecode: None) -> None:
    """What clang made once in this test run is not made again."""
    if not os.environ.get(warm.COLD):
        warm.remember_objects(_of_all_workers(tmp_path_factory) / "objects")


def _of_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the processes of one test run have in common."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture
def bpffs(mounted_bpffs: Path) -> Iterator[Path]:
    """An empty BPF file system: what a test before has left, of a namespace whose number comes again, is gone.

    iproute2's own links are among that: it takes the first BPF file system that is mounted anywhere for its own.
    """
    yield mounted_bpffs
    for left in mounted_bpffs.iterdir():
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        elif left.suffix != ".debug":  # the kernel's own
            left.unlink()


@pytest.fixture(scope="session")
def mounted_bpffs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A BPF file system of this test session alone."""
    place = tmp_path_factory.mktemp("bpffs")
    subprocess.run(["mount", "-t", "bpf", "bpf", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
