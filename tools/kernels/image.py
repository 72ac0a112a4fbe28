"""The initramfs: a Python, penstock, the kernel's modules, and what is to be done; guest.py is its /init.

Everything lies where it lies on this machine, so that the interpreter and its libraries find each other.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

from tools.kernels import modules
from tools.kernels.cpio import Archive
from tools.kernels.packages import Kernel

_TOP = Path(__file__).parents[2]
#: What penstock's modules for the kernel import.
_PACKAGES = ("pyroute2", "msgspec")
#: Parts of the standard library that nothing here imports.
_LEFT_OUT = re.compile(
    r"^(test|idlelib|tkinter|turtledemo|ensurepip|lib2to3|pydoc_data|distutils|site-packages|dist-packages"
    r"|venv|curses|dbm|wsgiref|xmlrpc|config-.*|__pycache__)(/|$)"
)
_WORK = "/work.json"
_MODULES = "/modules"


def base() -> Archive:
    """What is the same for every kernel: Python, its libraries, penstock and what it imports."""
    archive = Archive()
    for path in ("/proc", "/sys", "/dev", "/run", "/tmp", "/etc"):
        archive.directory(path)
    archive.node("/dev/console", 5, 1)
    _interpreter(archive)
    _package(archive, Path(_TOP / "src/penstock"), "/penstock/penstock")
    for name in _PACKAGES:
        _package(archive, _folder(name), f"/penstock/{name}")
    return archive


def complete(common: Archive, kernel: Kernel, work: bytes) -> bytes:
    """The image for one kernel: two archives, one behind the other, as the kernel takes them."""
    own = Archive()
    for number, file in enumerate(modules.in_order(kernel.modules)):
        name = file.name.partition(".")[0]
        own.file(f"{_MODULES}/{number:03}-{name}.ko", modules.content(file))
    own.file(_WORK, work)
    guest = Path(__file__).with_name("guest.py").read_bytes()
    own.file("/init", f"#!{_python()} -B\n".encode() + guest, mode=0o755)
    return common.bytes() + own.bytes()


def _python() -> str:
    return os.path.realpath(sys.executable)


def _interpreter(archive: Archive) -> None:
    binaries = [
        Path(_python()),
        _libbpf(),
        *(path for name in _PACKAGES for path in _folder(name).rglob("*.so")),
    ]
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*")):
        if path.is_file() and not _LEFT_OUT.search(str(path.relative_to(library))):
            if path.suffix in (".py", ".so"):
                archive.file(str(path), path.read_bytes())
            if path.suffix == ".so":
                binaries.append(path)
    archive.file(_python(), Path(_python()).read_bytes(), mode=0o755)
    for needed in _libraries(binaries):
        if needed not in archive:
            archive.file(needed, Path(needed).read_bytes(), mode=0o755)


def _libbpf() -> Path:
    said = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"libbpf\.so\.1 .*=> (\S+)", said)
    assert found, "libbpf.so.1 is not installed"
    return Path(found[1])


def _libraries(binaries: list[Path]) -> list[str]:
    """Every library that these need, under the names by which they are asked for."""
    said = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False).stdout
    needed = set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", said, re.MULTILINE))
    return sorted({*needed, str(_libbpf())})


def _folder(package: str) -> Path:
    found = importlib.import_module(package).__file__
    assert found
    return Path(found).parent


def _package(archive: Archive, folder: Path, target: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            archive.file(f"{target}/{path.relative_to(folder)}", path.read_bytes())
