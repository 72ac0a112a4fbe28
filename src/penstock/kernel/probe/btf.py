"""What the running kernel's own types name, and a few types to be loaded on trial.

    names("BPF_TRACE_KPROBE_MULTI")              ->  True
    function_id("bpf_cast_to_kern_ctx")          ->  61372, None if there is no such function
    small()                                      ->  BTF of ``int`` alone

None in place of an answer: this kernel shows no BTF.  Format: Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import struct
from itertools import accumulate
from typing import TYPE_CHECKING

from penstock.errors import BtfError, KernelError
from penstock.kernel.btf_source import kernel_btf
from penstock.kernel.btf_types import Kind

if TYPE_CHECKING:
    from penstock.kernel.btf import Btf

_HEADER = struct.Struct("=HBBIIIII")
_TYPE = struct.Struct("=III")
_MAGIC = 0xEB9F


def _kernel() -> Btf | None:
    try:
        return kernel_btf()
    except (KernelError, BtfError):
        return None


def names(word: str) -> bool | None:
    """Whether something of the kernel has this name."""
    found = _kernel()
    return None if found is None else found.has_string(word)


def function_id(name: str) -> int | None:
    """The type id of a function of the kernel's own; None if there is none, or no BTF."""
    found = _kernel()
    return found.find(name, Kind.FUNC) if found is not None and found.has_string(name) else None


def small(*types: bytes, names: tuple[str, ...] = ()) -> bytes:
    """Type information of a few types; the first is always ``int``, number 1."""
    words = ("", "int", *names)
    strings = b"".join(word.encode() + b"\0" for word in words)
    body = _TYPE.pack(1, Kind.INT << 24, 4) + struct.pack("=I", 32) + b"".join(types)
    header = _HEADER.pack(_MAGIC, 1, 0, _HEADER.size, 0, len(body), len(body), len(strings))
    return header + body + strings


def name_offset(index: int, names: tuple[str, ...]) -> int:
    """Where `small` puts the name of that index."""
    return list(accumulate((len(word) + 1 for word in ("", "int", *names)), initial=0))[2 + index]


def global_function() -> bytes:
    """``int f(void)``, said to be global."""
    proto = _TYPE.pack(0, Kind.FUNC_PROTO << 24, 1)
    function = _TYPE.pack(name_offset(0, ("f",)), Kind.FUNC << 24 | 1, 2)
    return small(proto, function, names=("f",))
