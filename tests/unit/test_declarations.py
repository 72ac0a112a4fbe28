"""Which header declares what clang did not know; its messages are those of clang 14 and 19."""

from __future__ import annotations

import pytest

from penstock.compiler.declarations import Missing, absent_file, missing_headers, package_hint


@pytest.mark.parametrize(
    ("message", "name", "header"),
    [
        ("a.c:15:21: error: use of undeclared identifier 'IPPROTO_UDP'", "IPPROTO_UDP", "linux/in.h"),
        ("a.c:1:1: error: use of undeclared identifier 'IPPROTO_ICMPV6'", "IPPROTO_ICMPV6", "linux/in6.h"),
        ("a.c:1:1: error: use of undeclared identifier 'ETH_P_IP'", "ETH_P_IP", "linux/if_ether.h"),
        ("a.c:1:1: error: use of undeclared identifier 'TC_ACT_SHOT'", "TC_ACT_SHOT", "linux/pkt_cls.h"),
        ("a.c:1:1: error: unknown type name 'bool'", "bool", "stdbool.h"),
        ("a.c:1:1: error: incomplete definition of type 'struct iphdr'", "iphdr", "linux/ip.h"),
        (
            "a.c:1:1: error: invalid application of 'sizeof' to an incomplete type 'struct tcphdr'",
            "tcphdr",
            "linux/tcp.h",
        ),
        (
            "a.c:1:1: error: call to undeclared function 'bpf_htons'; ISO C99 …",
            "bpf_htons",
            "bpf/bpf_endian.h",
        ),
        (
            "a.c:1:1: warning: implicit declaration of function 'bpf_htons' is …",
            "bpf_htons",
            "bpf/bpf_endian.h",
        ),
        ('a.c:2:5: error: expected parameter declarator\nSEC("xdp")\n    ^\n', "SEC", "bpf/bpf_helpers.h"),
        ('a.c:2:5: error: expected parameter declarator\n    2 | SEC("xdp")\n', "SEC", "bpf/bpf_helpers.h"),
    ],
)
def test_a_name_has_its_header(message: str, name: str, header: str) -> None:
    assert missing_headers(message, "") == (Missing(name, header),)


def test_a_header_is_named_once_and_not_if_it_is_there() -> None:
    messages = "error: use of undeclared identifier 'IPPROTO_UDP'\nerror: use of undeclared identifier 'IPPROTO_TCP'\n"
    assert missing_headers(messages, "") == (Missing("IPPROTO_UDP", "linux/in.h"),)
    assert missing_headers(messages, "#include <linux/in.h>\n") == ()
    assert missing_headers("error: use of undeclared identifier 'my_own'", "") == ()


def test_headers_do_not_go_with_the_kernels_own_types() -> None:
    assert missing_headers("error: use of undeclared identifier 'ETH_P_IP'", '#include "vmlinux.h"\n') == ()


@pytest.mark.parametrize(
    ("header", "hint"),
    [("bpf/bpf_helpers.h", "libbpf-dev"), ("linux/bpf.h", "linux-libc-dev"), ("vmlinux.h", "--vmlinux")],
)
def test_a_file_that_is_not_there_comes_with_a_package(header: str, hint: str) -> None:
    assert absent_file(f"a.c:1:10: fatal error: '{header}' file not found") == header
    assert hint in str(package_hint(header))


def test_an_unknown_file_has_no_hint() -> None:
    assert package_hint("mine.h") is None
    assert absent_file("a.c:1:1: error: something else") is None
