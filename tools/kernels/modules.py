"""Which modules of a kernel are loaded, each after what it depends on.

    in_order(Path("…/kernel"), ("veth",))   ->  [Path("…/net/core/x.ko"), Path("…/drivers/net/veth.ko.xz")]

The packages have no modules.dep (that is made where they are installed), so the modules themselves are asked.
"""

from __future__ import annotations

import lzma
import re
from functools import cache
from pathlib import Path

#: What the tries and the attaching need; the kernels have the rest built in.
WANTED = ("veth", "sch_ingress", "cls_bpf", "act_bpf", "tun", "ifb", "netkit")


def in_order(folder: Path, names: tuple[str, ...] = WANTED) -> list[Path]:
    """Files of modules; a name that the kernel does not have (or has built in) is left out."""
    found: list[Path] = []
    for name in names:
        _add(folder, name, found)
    return found


def _add(folder: Path, name: str, found: list[Path]) -> None:
    file = _file(folder, name)
    if file is None or file in found:
        return
    for needed in _depends(file):
        _add(folder, needed, found)
    found.append(file)


@cache
def _files(folder: Path) -> dict[str, Path]:
    return {path.name.partition(".")[0].replace("-", "_"): path for path in folder.glob("**/*.ko*")}


def _file(folder: Path, name: str) -> Path | None:
    return _files(folder).get(name.replace("-", "_"))


def content(file: Path) -> bytes:
    """The module itself, unpacked."""
    data = file.read_bytes()
    return lzma.decompress(data) if file.suffix == ".xz" else data


def _depends(file: Path) -> list[str]:
    said = re.search(rb"\0depends=([^\0]*)\0", content(file))
    return [name for name in said[1].decode().split(",") if name] if said else []
