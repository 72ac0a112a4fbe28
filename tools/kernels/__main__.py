"""`python -m tools.kernels [SERIES]...`: boot kernels, see what penstock does on them, compare with what is expected.

Exit codes: 0 as expected (or skipped, and said why), 1 not.  With PENSTOCK_STRICT=1 nothing may be skipped.
`--write` keeps what was seen for docs/kernels.md and writes that page anew.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tools.kernels import image, machine, packages, page, verdict, work
from tools.kernels.cpio import Archive

#: Guests at a time; each keeps a processor busy.
_AT_ONCE = min(2, os.cpu_count() or 1)


@dataclass(frozen=True)
class Result:
    """What came of one kernel: complaints, or a reason why there is nothing to say."""

    series: str
    lines: tuple[str, ...]
    skipped: bool = False
    failed: bool = False


def main(arguments: list[str]) -> int:
    """Boot what is asked for, print what was seen, and give the exit code."""
    write = "--write" in arguments
    wanted = [one for one in arguments if not one.startswith("-")] or list(packages.SERIES)
    if os.uname().machine != "x86_64":
        return _skip("the guests are x86-64, and run this machine's Python")
    if not machine.available():
        return _skip(f"{machine.QEMU} is not installed")
    common = image.base()
    work.work()
    with ThreadPoolExecutor(_AT_ONCE) as guests:
        results = list(guests.map(lambda series: _one(series, common, write=write), wanted))
    for result in results:
        for line in result.lines:
            print(line)
    if write:
        page.PAGE.write_text(page.text())
    if any(result.failed for result in results):
        return 1
    skipped = [result.series for result in results if result.skipped]
    return _skip(f"no kernel {', '.join(skipped)}") if skipped else 0


def _skip(reason: str) -> int:
    print(f"kernels: skipped: {reason}")
    return 1 if os.environ.get("PENSTOCK_STRICT") == "1" else 0


def _one(series: str, common: Archive, *, write: bool) -> Result:
    try:
        kernel = packages.find(series)
    except packages.NoKernelError as error:
        return Result(series, (f"Linux {series}: not here: {error}",), skipped=True)
    try:
        run = machine.boot(kernel, image.complete(common, kernel, work.work()))
    except machine.BootError as error:
        return Result(series, (f"Linux {kernel.release}: {error}",), failed=True)
    found = verdict.complaints(run.report)
    if write and "broken" not in run.report:
        page.keep(series, verdict.kept(run.report))
    done = "" if "broken" in run.report else f" {verdict.summary(run.report)}"
    said = f"{len(found)} complaints" if found else "as expected"
    head = f"Linux {kernel.release}: {said};{done} ({run.seconds:.0f} s)"
    return Result(series, (head, *(f"  {line}" for line in found)), failed=bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
