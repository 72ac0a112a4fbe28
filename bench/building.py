"""Compile a policy in a process of its own: its object, how long each step took, how much memory it needed.

    build(text).steps_ms    ->  {"parse": 3.1, "emit": 1.2, "clang": 160.4}

The steps are those of `penstock build`; starting Python and importing is not
in them.  As a program: text on standard input, the object to a file, figures
as JSON on standard output.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from penstock.errors import PenstockError

#: Rules enough for every part of the compiler to have a part in them.
_WARM_UP = (
    "filter warm at xdp {\n"
    + "".join(f"    drop if src net 10.{n}.0.0/16 and tcp dst port {n + 1}\n" for n in range(120))
    + "}\n"
)


@dataclass(frozen=True, slots=True)
class Build:
    """`peak_mib` is the largest memory of the compiling process, clang's apart; `tables` the bytes of all tables.

    `cpu_ms` is the CPU time of all steps, clang's with it: what the steps would take on an idle machine.
    """

    elf: bytes = field(repr=False)
    steps_ms: dict[str, float]
    cpu_ms: float
    peak_mib: float
    tables: int

    @property
    def seconds(self) -> float:
        """All steps together."""
        return sum(self.steps_ms.values()) / 1000


def build(text: str) -> Build:
    """The object of a policy's only filter.

    Raises:
        PenstockError: it does not compile.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        place = Path(folder, "object.o")
        argv = [sys.executable, "-m", "bench.building", str(place)]
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise PenstockError(f"the policy does not compile: {last[0]}")
        return Build(place.read_bytes(), **json.loads(done.stdout))


def main() -> None:
    """Compile what is on standard input."""
    text = sys.stdin.read()
    # What a policy needs is imported before the clock runs, numpy and the tables' modules among it.
    from penstock.compiler.codegen.emit import emit
    from penstock.compiler.driver import object_of
    from penstock.compiler.ir.verify import verify
    from penstock.pipeline.collector import paused
    from penstock.pipeline.policy import rule_set_of

    emit(verify(rule_set_of(_WARM_UP)))
    with paused():  # as load_policy does it
        begun, times = _cpu_s(), [perf_counter()]
        rules = rule_set_of(text)
        times.append(perf_counter())
        source = emit(verify(rules))
        times.append(perf_counter())
        elf = object_of(source)
        times.append(perf_counter())
    Path(sys.argv[1]).write_bytes(elf)
    steps = ("front", "decide", "clang")
    figures = {
        "steps_ms": {
            name: round((end - start) * 1000, 1)
            for name, start, end in zip(steps, times[:-1], times[1:], strict=True)
        },
        "cpu_ms": round((_cpu_s() - begun) * 1000, 1),
        "peak_mib": _peak_mib(),
        "tables": sum(len(data) for _, data in source.tables),
    }
    sys.stdout.write(json.dumps(figures))


def _cpu_s() -> float:
    """CPU time of this process and of those it has waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def _peak_mib() -> float:
    """The largest resident size so far; ru_maxrss would begin with that of the process that started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024, 1)


if __name__ == "__main__":
    main()
