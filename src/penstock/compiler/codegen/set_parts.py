"""The parts of a set's keys in C.

Of a part's bytes: its members in a key, the statements that fill them from the
number or the address that was read, the test of whether the packet lacks it, and
the parameter that it is handed over in.  An IPv6 address is handed over by its
place: of a structure that is passed as it is clang makes a copy when it inlines
the function, and takes that to lie on no boundary (its InlineFunction.cpp), so it
is read byte by byte, and a key of two addresses takes more stack than there is.
"""

from __future__ import annotations

from penstock.model.sets import SetSpec

PARTS = {
    4: (("__be32 {p};",), ("key.{p} = ps_htonl({p});",), "{p} > 0xffffffffULL", "__u64 {p}"),
    16: (
        ("__be64 {p}_hi, {p}_lo;",),
        ("key.{p}_hi = ps_htonll({p}->hi);", "key.{p}_lo = ps_htonll({p}->lo);"),
        "!{p}->present",
        "const struct ps_ip6 *{p}",
    ),
    2: (("__be16 {p};",), ("key.{p} = ps_htons({p});",), "{p} > 0xffff", "__u32 {p}"),
    1: (("__u8 {p};",), ("key.{p} = {p};",), "{p} > 0xff", "__u32 {p}"),
    6: (
        ("__be32 {p}_hi;", "__be16 {p}_lo;"),
        ("key.{p}_hi = ps_htonl({p} >> 16);", "key.{p}_lo = ps_htons({p});"),
        "{p} > 0xffffffffffffULL",
        "__u64 {p}",
    ),
}


def sizes(spec: SetSpec, family: str) -> list[tuple[str, int]]:
    """The parts of a family's keys: what each is called, and its bytes."""
    return [(f"p{at}", size) for at, size in enumerate(spec.part_bytes(family))]
