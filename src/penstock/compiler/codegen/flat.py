"""A flat set in C: a front and a map of maps beside the tries of a set, and the functions that ask them.

set threats : net size 1M        ->  ps_set0_front, ps_set0_flat, and the maps of any set of networks
src in @threats                  ->  (ps_in_set0_v4(s[0].addr_src, len) || ps_in_set0_v6(&s[0].ip6_src, len))
"""

from __future__ import annotations

from collections.abc import Iterator

from penstock.model.flat import front_lines
from penstock.model.sets import ADDED, FLAT, FRONT, SetSpec, control_of, set_map

_ARGUMENTS = {"v4": "__u64 p0", "v6": "const struct ps_ip6 *p0"}


def flat_map_lines(spec: SetSpec, number: int) -> Iterator[str]:
    """The map that is asked first, and that in whose slots the content lies."""
    yield f"PS_FLAT_FRONT({set_map(number, FRONT)}, {front_lines(spec.size)});"
    yield f"PS_FLAT_MAP({set_map(number, FLAT)});"


def flat_function_lines(spec: SetSpec, number: int, family: str) -> Iterator[str]:
    """The function that asks a flat set for addresses of a family, and what rules have added to it."""
    trie = set_map(number, family)
    function = f"ps_in_{trie.removeprefix('ps_')}"
    flat = f"{function}_given" if spec.dynamic else function
    maps = ", ".join((control_of(number), set_map(number, FRONT), set_map(number, FLAT), trie))
    yield f"PS_FLAT_ASK_{family.upper()}({flat}, {maps}, {front_lines(spec.size)})"
    if spec.dynamic:
        yield f"static __always_inline bool {function}({_ARGUMENTS[family]}, __u32 len)"
        yield "{"
        yield f"\treturn {flat}(p0, len) || {function}_{ADDED}(p0, len);"
        yield "}"
