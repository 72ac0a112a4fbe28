"""The same rules in C by hand: a loop over a table, a chain of ifs, a hash of five-tuples.

In: rules of IPv4.  Out: a loaded program each, and where it counts; what the
kernel or clang refuses is told, not left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.answers import DROP, PASS
from bench.rulesets import Rules
from bench.usual import HAND
from penstock.compiler.clang import compile_c
from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.kernel.maps import Map
from penstock.kernel.program import XDP, Program

#: Counter slots of these programs: 0 for no rule, then the rules.
FIRST_SLOT = 1
_AT_ONCE = 16
_NO_PORT = 65536
#: Read again for each test: the verifier would keep what an equality taught it, and its states would never meet again.
_FIELD = "*(volatile __u32 *)&p.{}"
_RULE = np.dtype(
    [
        *((name, "u4") for name in ("src", "src_mask", "dst", "dst_mask")),
        *((name, "u4") for name in ("sport", "sport_span", "dport", "dport_span")),
        ("proto_and_mask", "u4"),
        ("code", "u4"),
    ]
)
_TUPLE = np.dtype([(name, "u4") for name in ("src", "dst", "sport", "dport", "proto")])


@dataclass(frozen=True, slots=True)
class ByHand:
    """A program written by hand, loaded."""

    program: Program
    counters: Map


@contextmanager
def linear(rules: Rules) -> Iterator[ByHand]:
    """The rules in an array, tried in order."""
    size = -(-len(rules) // _AT_ONCE) * _AT_ONCE
    with load_object(_compiled("linear", size), "linear") as loaded:
        loaded.variable("rules")[:] = _records(rules, size).tobytes()
        yield _only(loaded)


@contextmanager
def hashed(rules: Rules) -> Iterator[ByHand]:
    """The rules, all of them exact five-tuples, in a hash."""
    keys = np.zeros(len(rules), _TUPLE)
    for name in _TUPLE.names or ():
        assert (rules.low[name] == rules.high[name]).all()
        keys[name] = rules.low[name]
    values = (np.arange(len(rules)) + FIRST_SLOT) << 2 | np.where(rules.drops, DROP, PASS)
    with load_object(_compiled("hash", len(rules)), "hash") as loaded:
        loaded.maps["tuples"].update_all(keys, values.astype(np.uint32))
        yield _only(loaded)


@contextmanager
def chain(rules: Rules) -> Iterator[ByHand]:
    """The rules as ifs, in order, each with its constants.

    Raises:
        PenstockError: clang or the verifier refuses; beyond some hundred rules one of them does.
    """
    tests = (
        f"\tif ({_condition(rules, n)}) {{ slot = {FIRST_SLOT + n}; code = {_code(rules, n)}; goto out; }}"
        for n in range(len(rules))
    )
    body = [
        '#include "five_tuple.bpf.h"',
        'SEC("xdp.frags") int chain(struct xdp_md *ctx)',
        "{",
        "\tstruct five_tuple p;",
        "\t__u32 slot = 0, code = XDP_PASS;",
        "\tif (!five_tuple(ctx, &p))",
        "\t\treturn XDP_PASS;",
        *tests,
        "out:",
        "\treturn decided(ctx, slot, code);",
        "}",
        'char _license[] SEC("license") = "Dual BSD/GPL";',
    ]
    elf = _object(f"#define RULES {len(rules)}\n" + "\n".join(body) + "\n")
    with load_object(elf, "chain") as loaded:
        yield _only(loaded)


def _compiled(name: str, size: int) -> bytes:
    return _object(f"#define RULES {size}\n" + (HAND / f"{name}.bpf.c").read_text())


def _object(text: str) -> bytes:
    header = (HAND / "five_tuple.bpf.h").read_text()
    return compile_c(text.replace('#include "five_tuple.bpf.h"', header))


def _only(loaded: BpfObject) -> ByHand:
    program = next(found for found in loaded.programs.values() if found.info.type == XDP)
    return ByHand(program, loaded.maps["counters"])


def _records(rules: Rules, size: int) -> npt.NDArray[np.void]:
    """The rules as the C reads them; those that fill the last sixteen match nothing."""
    found = np.zeros(size, _RULE)
    found["sport"][len(rules) :] = _NO_PORT + 1
    here = found[: len(rules)]
    for name in ("src", "dst"):
        here[name] = rules.low[name]
        here[f"{name}_mask"] = ~(rules.low[name] ^ rules.high[name]) & np.uint64(0xFFFFFFFF)
    for name in ("sport", "dport"):
        here[name] = rules.low[name]
        here[f"{name}_span"] = _last_port(rules, name) - rules.low[name]
    any_protocol = rules.high["proto"] > rules.low["proto"]
    here["proto_and_mask"] = np.where(any_protocol, 0, rules.low["proto"] | np.uint64(0xFF00))
    here["code"] = np.where(rules.drops, DROP, PASS)
    return found


def _last_port(rules: Rules, name: str) -> npt.NDArray[np.uint64]:
    """The end of each range; one that does not test the port takes packets without ports too."""
    tested = (rules.low[name] > 0) | (rules.high[name] < 0xFFFF)
    return np.where(tested, rules.high[name], np.uint64(_NO_PORT))


def _condition(rules: Rules, n: int) -> str:
    parts = []
    for name in ("src", "dst"):
        mask = ~int(rules.low[name][n] ^ rules.high[name][n]) & 0xFFFFFFFF
        if mask:
            parts.append(f"({_FIELD.format(name)} & {mask:#x}U) == {int(rules.low[name][n]):#x}U")
    if rules.low["proto"][n] == rules.high["proto"][n]:
        parts.append(f"{_FIELD.format('proto')} == {int(rules.low['proto'][n])}")
    for name in ("sport", "dport"):
        low, high = int(rules.low[name][n]), int(rules.high[name][n])
        if (low, high) != (0, 0xFFFF):
            parts.append(f"{_FIELD.format(name)} - {low}U <= {high - low}U")
    return " && ".join(parts) or "1"


def _code(rules: Rules, n: int) -> str:
    return "XDP_DROP" if rules.drops[n] else "XDP_PASS"
