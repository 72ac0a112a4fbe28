"""What asking a set of addresses costs a packet: `drop if src in @s` beside the same by hand with a BPF hash.

    rows = hash_rows((1_000, 100_000), rounds=15)

Both count what they drop and what they pass, and ask the very same map: of two that are alike one may have
the better places in memory.  Packets whose source the set holds (`hit`), or not (`miss`): one again and again,
1,000 in turn, or 65,536 random ones; as far apart as packets from a driver are, and close behind each other
(`penstock_close`, `hand_close`), where a processor overlaps the searches of programs that are short enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from statistics import median

import numpy as np

from bench.feed import FRAMES, Feed
from bench.frames import Frames, frames_of
from bench.turns import undisturbed
from bench.usual import HAND
from penstock.compiler.clang import compile_c
from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.kernel.program import Program
from penstock.model.sets import control_map, set_map
from penstock.model.spec import PROGRAM
from penstock.pipeline.live_set import LiveSet
from penstock.pipeline.policy import load_policy
from penstock.pipeline.set_keys import Entries, nothing

Row = dict[str, object]
_FIRST, _LAST = 0x0B00_0000, 0xDF00_0000
_DROP, _PASS = 1, 2
_NO_PREALLOC = 1
#: More than processors look ahead (Zen 4: 320, Golden Cove: 512, with what the feeder and a program have).
_APART = 512


def hash_rows(sizes: tuple[int, ...], rounds: int) -> list[Row]:
    """A row a size and kind of packets."""
    return [row for size in sizes for row in _rows(size, rounds)]


def _rows(size: int, rounds: int) -> Iterator[Row]:
    rng = np.random.default_rng([1, size])
    listed = rng.permutation(np.unique(rng.integers(_FIRST, _LAST, size + size // 20)))[:size]
    with ExitStack() as held:
        loaded = policy_of(held, listed)
        programs = {"penstock": loaded.programs[PROGRAM], "hand": _by_hand(held, loaded, size)}
        feeds = {"": held.enter_context(Feed(_APART)), "_close": held.enter_context(Feed())}
        for kind, verdict in (("hit", _DROP), ("miss", _PASS)):
            columns = {
                name: rng.integers(1024, 65535, FRAMES).astype(np.uint64) for name in ("sport", "dport")
            }
            columns |= {
                name: rng.integers(_FIRST, _LAST, FRAMES).astype(np.uint64) for name in ("src", "dst")
            }
            columns["proto"] = np.full(FRAMES, 17, np.uint64)
            if kind == "hit":
                columns["src"] = rng.choice(listed, FRAMES).astype(np.uint64)
            else:
                columns["src"][np.isin(columns["src"], listed)] = _FIRST - 1
            frames = frames_of(columns, ipv6=False)
            _agree(programs, frames, verdict)
            for traffic, some in (("warm", 1), ("1k", 1000), ("random", FRAMES)):
                row: Row = {"entries": size, "kind": kind, "traffic": traffic}
                for suffix, feed in feeds.items():
                    feed.fill(frames[np.arange(FRAMES) % some])
                    with undisturbed():
                        found = _above(feed.measure(programs, rounds))
                    row |= {name + suffix: ns for name, ns in found.items()}
                yield row


def policy_of(held: ExitStack, listed: np.ndarray) -> BpfObject:
    """A loaded policy that drops packets of these sources."""
    policy = load_policy(f"set s : host size {len(listed)}\nfilter bench at xdp {{\n drop if src in @s\n}}\n")
    assert policy.rule_set is not None
    (spec,) = policy.rule_set.sets
    loaded = held.enter_context(load_object(policy.elf, "bench"))
    maps = {family: loaded.maps[set_map(0, family)].duplicate() for family in spec.families}
    with LiveSet(spec, maps, loaded.maps[control_map(0)].duplicate()) as found:
        found.replace({**nothing(spec), "v4": Entries(_keys(listed), np.zeros(len(listed), np.uint64))})
    return loaded


def _by_hand(held: ExitStack, policy: BpfObject, size: int) -> Program:
    head = f"#define ENTRIES {2 * size}\n#define FLAGS {_NO_PREALLOC}\n"
    elf = compile_c(head + (HAND / "set.bpf.c").read_text())
    same = {"sources": policy.maps[set_map(0, "v4")]}
    return held.enter_context(load_object(elf, "hand", reuse=same)).programs["set"]


def _keys(addresses: np.ndarray) -> np.ndarray:
    return addresses.astype(">u4").view(np.uint8).reshape(-1, 4)


def _agree(programs: Mapping[str, Program], frames: Frames, verdict: int) -> None:
    for name, program in programs.items():
        answers = {program.test_run(frame.tobytes()).retval for frame in frames[:500]}
        assert answers == {verdict}, name


def _above(samples: Mapping[str, list[float]]) -> dict[str, float]:
    empty = samples["empty"]
    return {
        name: round(median(one - least for one, least in zip(found, empty, strict=True)), 1)
        for name, found in samples.items()
        if name != "empty"
    }
