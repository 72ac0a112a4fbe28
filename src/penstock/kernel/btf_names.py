"""Names of BTF types as C takes them: identifiers, no keywords, no two of them alike.

identifier("core::Option<u8>")        ->  "core__Option_u8_"
unique("foo", {"foo": 1})             ->  "foo___2"
c_number(Int("u128", 16, …))          ->  "", C calls it something else
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from penstock.kernel.btf_types import Int

if TYPE_CHECKING:
    from penstock.kernel.btf_types import Float

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEYWORDS = frozenset(
    """auto break case char const continue default do double else enum extern float for goto if inline int long
    register restrict return short signed sizeof static struct switch typedef union unsigned void volatile while
    _Alignas _Alignof _Atomic _Bool _Complex _Generic _Imaginary _Noreturn _Static_assert _Thread_local
    asm typeof __attribute__ __builtin_va_list""".split()  # noqa: SIM905 - as a list it would be 60 lines
)
_INT_WORDS = frozenset(("char", "short", "int", "long", "signed", "unsigned", "_Bool", "__int128", "bool"))
_FLOATS = frozenset(("float", "double", "long double", "_Float16", "__bf16", "__float128"))
INT_OF_SIZE = {1: "char", 2: "short", 4: "int", 8: "long long", 16: "__int128"}


def identifier(name: str) -> str:
    """The name as C takes it."""
    if _IDENTIFIER.fullmatch(name):
        return f"{name}_" if name in _KEYWORDS else name
    return re.sub(r"[^A-Za-z0-9_]|^(?=[0-9])", "_", name) or "_"


def unique(name: str, taken: dict[str, int]) -> str:
    """The name, or the name with the first free number behind it."""
    count = taken[name] = taken.get(name, 0) + 1
    if count == 1:
        return name
    return unique(f"{name}___{count}", taken)


def c_number(found: Int | Float) -> str:
    """The number's name in C; empty if C has no such number, or its own of that name is of another size."""
    if isinstance(found, Int):
        words = found.name.split()
        return found.name if words and _INT_WORDS.issuperset(words) and _is_size(found) else ""
    return found.name if found.name in _FLOATS and found.size in {2, 4, 8} else ""


def _is_size(found: Int) -> bool:
    """Whether C's integer of that name has that size."""
    words = found.name.split()
    if "char" in words or "_Bool" in words or "bool" in words:
        return found.size == 1
    expected = 16 if "__int128" in words else 2 if "short" in words else 8 if "long" in words else 4
    return found.size == expected
