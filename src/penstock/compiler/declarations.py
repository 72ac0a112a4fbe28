"""Which header declares a name, and which package brings a header.

In: what clang said of C that it could not compile.  Out: the headers that the C
does not include although it uses what they declare.

    missing_headers("a.c:15:21: error: use of undeclared identifier 'IPPROTO_UDP'", "")
        ->  (Missing(name="IPPROTO_UDP", header="linux/in.h"),)

Only names of the kernel's user-space headers and libbpf's, which a hand-written
program of the network hooks is likely to use.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# clang 14 calls an undeclared function a warning, later ones an error.
_NAMES = re.compile(
    r"""(?:
        use\ of\ undeclared\ identifier
      | call\ to\ undeclared\ (?:library\ )?function
      | implicit\ declaration\ of\ function
      | unknown\ type\ name
      | incomplete\ (?:definition\ of\ )?type
    )\ '(?:struct\ )?(?P<name>\w+)'""",
    re.VERBOSE,
)
_NO_FILE = re.compile(r"fatal error: '(?P<header>[^']+)' file not found")
_SECTION_MACRO = re.compile(r"^\s*(?:\d+ \|)?\s*SEC\(", re.MULTILINE)

_BY_NAME = {
    "bool": "stdbool.h",
    "true": "stdbool.h",
    "false": "stdbool.h",
    "ethhdr": "linux/if_ether.h",
    "iphdr": "linux/ip.h",
    "ipv6hdr": "linux/ipv6.h",
    "frag_hdr": "linux/ipv6.h",
    "in6_addr": "linux/in6.h",
    "in_addr": "linux/in.h",
    "tcphdr": "linux/tcp.h",
    "udphdr": "linux/udp.h",
    "icmphdr": "linux/icmp.h",
    "icmp6hdr": "linux/icmpv6.h",
    "IPPROTO_ICMPV6": "linux/in6.h",
    "bpf_htons": "bpf/bpf_endian.h",
    "bpf_ntohs": "bpf/bpf_endian.h",
    "bpf_htonl": "bpf/bpf_endian.h",
    "bpf_ntohl": "bpf/bpf_endian.h",
    "bpf_cpu_to_be64": "bpf/bpf_endian.h",
    "bpf_be64_to_cpu": "bpf/bpf_endian.h",
    "__constant_htons": "asm/byteorder.h",
    "__constant_htonl": "asm/byteorder.h",
    "xdp_md": "linux/bpf.h",
    "__sk_buff": "linux/bpf.h",
    "bpf_sock": "linux/bpf.h",
    "bpf_sock_tuple": "linux/bpf.h",
    "bpf_fib_lookup": "linux/bpf.h",
    "SEC": "bpf/bpf_helpers.h",
    "__uint": "bpf/bpf_helpers.h",
    "__type": "bpf/bpf_helpers.h",
    "__always_inline": "bpf/bpf_helpers.h",
    "BPF_CORE_READ": "bpf/bpf_core_read.h",
    "bpf_core_field_exists": "bpf/bpf_core_read.h",
    **dict.fromkeys(("uint8_t", "uint16_t", "uint32_t", "uint64_t", "int32_t", "int64_t"), "stdint.h"),
    **dict.fromkeys(("__u8", "__u16", "__u32", "__u64", "__be16", "__be32", "__be64"), "linux/types.h"),
}
# First those that stand for fewer names.
_BY_PREFIX = (
    ("IPPROTO_", "linux/in.h"),
    ("INADDR_", "linux/in.h"),
    ("ETH_", "linux/if_ether.h"),
    ("TC_ACT_", "linux/pkt_cls.h"),
    ("XDP_", "linux/bpf.h"),
    ("BPF_", "linux/bpf.h"),
    ("ICMPV6_", "linux/icmpv6.h"),
    ("ICMP_", "linux/icmp.h"),
    ("PACKET_", "linux/if_packet.h"),
    ("SKF_", "linux/filter.h"),
    ("bpf_", "bpf/bpf_helpers.h"),
)
_PACKAGES = (
    ("bpf/", "libbpf-dev (Debian, Ubuntu) or libbpf-devel (Fedora)"),
    ("linux/", "linux-libc-dev (Debian, Ubuntu) or kernel-headers (Fedora)"),
    ("asm", "linux-libc-dev (Debian, Ubuntu) or kernel-headers (Fedora)"),
)


@dataclass(frozen=True, slots=True)
class Missing:
    """A name that the C uses, and the header that declares it."""

    name: str
    header: str


def missing_headers(messages: str, source: str) -> tuple[Missing, ...]:
    """The headers that would declare what clang did not know, each once and for its first name.

    A program over `vmlinux.h` gets none: that file has the kernel's types, and
    the headers would declare them again.
    """
    if "vmlinux.h" in source:
        return ()
    names = [match["name"] for match in _NAMES.finditer(messages)]
    if "expected parameter declarator" in messages and _SECTION_MACRO.search(messages):
        names.insert(0, "SEC")
    found: dict[str, str] = {}
    for name in names:
        header = _header_of(name)
        if header is not None and header not in found and f"<{header}>" not in source:
            found[header] = name
    return tuple(Missing(name, header) for header, name in found.items())


def absent_file(messages: str) -> str | None:
    """The header file that clang did not find, None if that is not what it said."""
    match = _NO_FILE.search(messages)
    return match["header"] if match else None


def package_hint(header: str) -> str | None:
    """What to do about a header file that this machine does not have; None where nothing is known."""
    if header == "vmlinux.h":
        return "`--vmlinux` makes it from the running kernel's BTF"
    package = next((package for prefix, package in _PACKAGES if header.startswith(prefix)), None)
    return f"install {package}" if package else None


def _header_of(name: str) -> str | None:
    by_prefix = (header for prefix, header in _BY_PREFIX if name.startswith(prefix))
    return _BY_NAME.get(name) or next(by_prefix, None)
