"""What the running kernel's own type information names: enumerators and functions.

    names_enumerator("BPF_TRACE_KPROBE_MULTI")   ->  True
    function_id("bpf_cast_to_kern_ctx")          ->  61372, None if there is no such function

None in place of an answer: this kernel shows no BTF.  Format: Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import struct
from functools import cache
from itertools import accumulate
from pathlib import Path

_KERNEL = Path("/sys/kernel/btf/vmlinux")
_HEADER = struct.Struct("=HBBIIIII")
_TYPE = struct.Struct("=III")
_MAGIC = 0xEB9F
_INT, _ARRAY, _STRUCT, _UNION, _ENUM, _FUNC, _PROTO = 1, 3, 4, 5, 6, 12, 13
_VAR, _DATASEC, _DECL_TAG, _ENUM64 = 14, 15, 17, 19
#: Bytes behind a type's own twelve: so many always, so many for each of its `vlen` members.
_FIXED = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}
_EACH = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _PROTO: 8, _DATASEC: 12, _ENUM64: 12}


@cache
def _kernel() -> bytes:
    try:
        return _KERNEL.read_bytes()
    except OSError:
        return b""


@cache
def _sections() -> tuple[bytes, bytes]:
    """The types and the strings."""
    data = _kernel()
    _, _, _, header, types, types_size, strings, strings_size = _HEADER.unpack_from(data)
    start = header + types, header + strings
    return data[start[0] : start[0] + types_size], data[start[1] : start[1] + strings_size]


def names(word: str) -> bool | None:
    """Whether something of the kernel has this name."""
    return b"\0%s\0" % word.encode() in _sections()[1] if _kernel() else None


def function_id(name: str) -> int | None:
    """The type id of a function of the kernel's own; None if there is none, or no BTF."""
    if not names(name):
        return None
    types, strings = _sections()
    wanted = strings.index(b"\0%s\0" % name.encode()) + 1
    at, number = 0, 1
    while at < len(types):
        name_at, info, _ = _TYPE.unpack_from(types, at)
        kind, count = info >> 24 & 0x1F, info & 0xFFFF
        if kind == _FUNC and name_at == wanted:
            return number
        at += _TYPE.size + _FIXED.get(kind, 0) + _EACH.get(kind, 0) * count
        number += 1
    return None


def small(*types: bytes, names: tuple[str, ...] = ()) -> bytes:
    """Type information of a few types; the first is always ``int``, number 1."""
    words = ("", "int", *names)
    strings = b"".join(word.encode() + b"\0" for word in words)
    body = _TYPE.pack(1, _INT << 24, 4) + struct.pack("=I", 32) + b"".join(types)
    header = _HEADER.pack(_MAGIC, 1, 0, _HEADER.size, 0, len(body), len(body), len(strings))
    return header + body + strings


def name_offset(index: int, names: tuple[str, ...]) -> int:
    """Where `small` puts the name of that index."""
    return list(accumulate((len(word) + 1 for word in ("", "int", *names)), initial=0))[2 + index]


def global_function() -> bytes:
    """``int f(void)``, said to be global."""
    proto = _TYPE.pack(0, _PROTO << 24, 1)
    function = _TYPE.pack(name_offset(0, ("f",)), _FUNC << 24 | 1, 2)
    return small(proto, function, names=("f",))
