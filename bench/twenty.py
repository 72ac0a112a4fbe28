"""A policy of twenty rules beside the same filter written by hand, and beside its rules compared in order.

Out: a row a kind of traffic, nanoseconds above an empty program, medians over
several loads of all programs in interleaved rounds.  What the three decide is
compared first.  The hand-written one neither takes jumbo frames, which costs the
policy a call for the length, nor looks for malformed packets.

    python -m bench.twenty
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench.turns import undisturbed
from bench.usual import HAND, Row, measured, xdp_program
from penstock.compiler.clang import compile_c
from penstock.compiler.codegen.emit import emit
from penstock.compiler.codegen.plan import Wish
from penstock.compiler.codegen.weigh import Form
from penstock.compiler.driver import object_of
from penstock.model.packet import read_packet
from penstock.pipeline.policy import rule_set_of
from penstock.price.report import EMPTY

POLICY = HAND / "twenty.policy"
LOADS = 5
NAMES = ("policy", "linear", "hand")
TRAFFIC = {
    "web": 'IPv4(src="203.0.113.9")/TCP(dport=80)',
    "tcp other": 'IPv4(src="203.0.113.9")/TCP(dport=9000)',
    "ssh": 'IPv4(src="203.0.113.9")/TCP(dport=22)',
    "private source": 'IPv4(src="10.1.2.3")/TCP(dport=80)',
    "dns": 'IPv4(src="203.0.113.9")/UDP(dport=53)',
    "udp other": 'IPv4(src="203.0.113.9")/UDP(dport=4000)',
    "chargen": 'IPv4(src="203.0.113.9")/UDP(sport=19)',
    "tcp6": "IPv6/TCP(dport=443)",
    "udp6 other": "IPv6/UDP(dport=4000)",
    "echo": 'IPv4(src="203.0.113.9")/ICMP(type=8)/Raw("12345678901234567890123456789012")',
}


def objects() -> dict[str, bytes]:
    """The programs' ELF objects by name."""
    rules = rule_set_of(POLICY.read_text(), name=POLICY.name)
    return {
        "empty": compile_c(EMPTY),
        "policy": object_of(emit(rules)),
        "linear": object_of(emit(rules, wish=Wish(Form.LINEAR, inline=True))),
        "hand": compile_c(Path(POLICY).with_suffix(".hand.bpf.c").read_text()),
    }


def twenty_rows(rounds: int) -> list[Row]:
    """One row a kind of traffic."""
    frames = {name: read_packet(text) for name, text in TRAFFIC.items()}
    made = objects()
    _compare(made, frames)
    with undisturbed():
        loads = [measured(made, frames, rounds) for _ in range(LOADS)]
    rows: list[Row] = []
    for frame in frames:
        above = {name: median(load[name][frame] - load["empty"][frame] for load in loads) for name in NAMES}
        rounded = {name: round(value, 2) for name, value in above.items()}
        rows.append({"traffic": frame, **rounded, "ratio": round(above["policy"] / above["hand"], 2)})
    return rows


def _compare(made: dict[str, bytes], frames: dict[str, bytes]) -> None:
    with ExitStack() as held:
        programs = {name: xdp_program(made[name], name, held) for name in NAMES}
        for name, frame in frames.items():
            decided = {program.test_run(frame).retval for program in programs.values()}
            assert len(decided) == 1, name


def main() -> None:
    """Print the rows."""
    rows = twenty_rows(7)
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    print(f"median ratio {median(float(row['ratio']) for row in rows):.2f}")


if __name__ == "__main__":
    main()
