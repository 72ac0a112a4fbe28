"""Filling sets and changing them: whole processes, beside ipset and nft that do the same in the same run.

    python -m bench.sets --entries 100000

A row is a task, of so many entries: for each program the seconds that its process took, by
the clock and of processors, the medians of some turns.  `penstock set …` does what users do,
with its ledger; sets are in a BPF file system of their own, those of ipset and nft in a
network namespace of their own.  What takes ipset or nft longer than LIMIT_S is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from bench.set_tools import COMMAND, ITS_OWN, OPEN, Penstock, Took, Update, took, tools
from bench.turns import undisturbed, unpreempted
from penstock.kernel import libc
from penstock.kernel.bpf_object import load_object
from penstock.kernel.netns import isolated
from penstock.kernel.program import Program
from penstock.model.packet import build_packet, parse_packet
from penstock.model.sets import SetSpec
from penstock.model.spec import PROGRAM
from penstock.pipeline.policy import load_policy
from penstock.pipeline.set_store import delete, open_set, shared

_SINGLES = 200
_GIVEN_BACK_S = 0.5
_CHANGED = 100
"""One in so many entries is exchanged by an update."""
#: Prefix lengths of the networks, and how often each occurs.
_LENGTHS = {16: 1, 19: 1, 20: 3, 21: 3, 22: 4, 23: 4, 24: 24, 29: 3, 30: 3, 31: 3, 32: 51}
_DROP = 1
Row = dict[str, object]
Numbers = npt.NDArray[np.int64]


def set_rows(sizes: tuple[int, ...], turns: int, told: Callable[[str], None] = print) -> list[Row]:
    """A row a task and size."""
    rows: list[Row] = []
    with sets_place() as folder:
        for size in sizes:
            for kind in ("host", "net"):
                told(f"sets: {size:,} of {kind}")
                rows += _rows(folder, kind, size, turns)
    return rows


def _rows(folder: Path, kind: str, size: int, turns: int) -> Iterator[Row]:
    entries, strangers = _entries(kind, size), _entries(kind, size, seed=2)
    come = strangers[: size // _CHANGED]
    gone, kept = entries[: len(come)], entries[len(come) :]
    every = dict(tools(folder, kind, size))
    taken: dict[str, dict[str, list[Took]]] = {}
    for name, tool in every.items():
        for _ in range(turns):
            tool.empty()
            # Memory is given back some time behind the end of all readers.
            libc.synchronize_rcu()
            time.sleep(_GIVEN_BACK_S)
            steps = {
                "load": lambda tool=tool: tool.load(entries),
                "update": lambda tool=tool: tool.update(Update(gone, come, kept + come)),
                "add 1 %": lambda tool=tool: tool.add(strangers[-len(come) :]),
                "add one": lambda tool=tool: tool.add([_STRANGER[kind]]),
                "replace": lambda tool=tool: tool.replace(entries),
            }
            if not all(_kept(taken.setdefault(task, {}), name, step) for task, step in steps.items()):
                break
        if name == "penstock":
            assert isinstance(tool, Penstock)
            with undisturbed(), unpreempted():
                one = {"task": "to effect", "kind": kind, "entries": size, **_to_effect(tool.spec)}
            yield one
            yield {"task": "reopen", "kind": kind, "entries": size, "penstock": _reopening(tool.spec)}
        tool.empty()
    for task, way in product(ITS_OWN, OPEN):
        del taken[task][way]
    for task, found in taken.items():
        times = {name: _middle(one) for name, one in found.items()}
        yield {"task": task, "kind": kind, "entries": size, **times}


def _kept(found: dict[str, list[Took]], name: str, step: Callable[[], Took]) -> bool:
    try:
        with undisturbed(), unpreempted():
            found.setdefault(name, []).append(step())
    except subprocess.TimeoutExpired:
        del found[name]
        return False
    return True


def _middle(found: list[Took]) -> dict[str, float]:
    wall, cpu = median(took.wall for took in found), median(took.cpu for took in found)
    # What others give back meanwhile, or a set that was there before, makes it less.
    return {"s": round(wall, 4), "cpu_s": round(cpu, 4), "bytes": max(took.memory for took in found)}


#: Entries that are in no list of ours.
_STRANGER = {"host": "203.0.113.9", "net": "203.0.113.9/32"}


def _entries(kind: str, count: int, seed: int = 1) -> list[str]:
    """So many different entries; networks may lie in one another."""
    rng = np.random.default_rng([seed, count, kind == "net"])
    length = np.full(2 * count, 32)
    if kind == "net":
        weights = np.array(list(_LENGTHS.values()), float)
        length = rng.choice(list(_LENGTHS), 2 * count, p=weights / weights.sum())
    # Each seed has a half of its own of the addresses, told apart by a bit that all lengths have.
    address = rng.integers(0x0100_0000, 0x6F00_0000, 2 * count) | (seed - 1) << 16
    address = (address & ~(1 << 16) | (seed - 1) << 16) >> 32 - length << 32 - length
    one_each = rng.permutation(np.unique(address << 6 | length))[:count]
    address, length = one_each >> 6, one_each & 63
    dotted = [".".join(map(str, octets)) for octets in _octets(address).tolist()]
    if kind == "host":
        return dotted
    return [f"{text}/{bits}" for text, bits in zip(dotted, length.tolist(), strict=True)]


def _octets(address: Numbers) -> Numbers:
    return np.stack([address >> shift & 255 for shift in (24, 16, 8, 0)], axis=1)


# ── penstock in this process ─────────────────────────────────────────────────


def _to_effect(spec: SetSpec) -> Row:
    """Microseconds of single adds and removals until a packet is dropped, or passes."""
    policy = load_policy(f"{spec.text}\nfilter bench at xdp {{\n    drop if src in @{spec.name}\n}}\n")
    with ExitStack() as held:
        maps = held.enter_context(shared([spec]))
        program = held.enter_context(load_object(policy.elf, "bench", reuse=dict(maps))).programs[PROGRAM]
        found = held.enter_context(open_set(spec.name))
        suffix = "/32" if spec.kind == ("net",) else ""
        times: dict[str, list[float]] = {"add": [], "remove": []}
        for number in range(_SINGLES):
            address = f"198.18.{number >> 8}.{number & 255}"
            frame = build_packet(parse_packet(f"IPv4(src='{address}')/UDP(dport=53)"))
            for task, change in (("add", found.update), ("remove", found.discard)):
                begun = time.perf_counter()
                change([address + suffix])
                times[task].append((time.perf_counter() - begun) * 1e6)
                _decides(program, frame, drops=task == "add")
    return {f"{task}_us": round(median(each), 1) for task, each in times.items()}


def _decides(program: Program, frame: bytes, *, drops: bool) -> None:
    assert (program.test_run(frame).retval == _DROP) == drops


def _reopening(spec: SetSpec) -> dict[str, float]:
    """What a policy that is applied anew does with a set that is there: seconds of the clock and of processors."""
    begun, worked = time.perf_counter(), time.process_time()
    with shared([spec]), open_set(spec.name) as found:
        assert found.count
    return {"s": round(time.perf_counter() - begun, 4), "cpu_s": round(time.process_time() - worked, 4)}


@contextmanager
def sets_place() -> Iterator[Path]:
    """A network namespace, a BPF file system and a state directory; and a place for compiled Python, as installed."""
    variables = ("PENSTOCK_BPFFS", "PENSTOCK_STATE_DIR", "PENSTOCK_RUN_DIR", "PYTHONPYCACHEPREFIX")
    before = {name: os.environ.get(name) for name in (*variables, "PYTHONDONTWRITEBYTECODE")}
    with tempfile.TemporaryDirectory() as name, isolated():
        folder = Path(name)
        (folder / "bpf").mkdir()
        subprocess.run(["mount", "-t", "bpf", "bpf", str(folder / "bpf")], check=True)
        for variable, place in zip(variables, ("bpf/penstock", "state", "run", "pyc"), strict=True):
            os.environ[variable] = str(folder / place)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        try:
            with shared([SetSpec("bench", ("host",))]):
                took([*COMMAND, "set", "add", "bench", "192.0.2.1"])
                (folder / "one").write_text("192.0.2.2\n" * 2000)
                took([*COMMAND, "set", "replace", "bench", str(folder / "one")])
                took([*COMMAND, "set", "import", "bench", str(folder / "one")])
            delete("bench")
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder / "bpf")], check=True)
            for variable, value in before.items():
                if value is None:
                    os.environ.pop(variable, None)
                else:
                    os.environ[variable] = value


def main() -> None:
    """Measure and print a line of JSON for each row."""
    parser = argparse.ArgumentParser(prog="python -m bench.sets", description="Measure changes of sets.")
    parser.add_argument("--entries", type=int, nargs="+", default=[100_000])
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    for row in set_rows(tuple(options.entries), options.turns, sys.stderr.write):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
