"""`python -m tools.units [--quick]`: systemd in namespaces of its own, the units in it, and what became of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

_TOP = Path(__file__).parents[2]
_SYSTEMD = Path("/lib/systemd/systemd")
_UNIFIED = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
PATIENCE_S = 300


def main() -> int:
    """Boot, wait, and tell."""
    lacking = _lacking()
    if lacking:
        print(f"units: skipped: {lacking}")
        return 1 if os.environ.get("PENSTOCK_STRICT") == "1" else 0
    with tempfile.TemporaryDirectory(prefix="penstock-units-") as place:
        report = Path(place, "report")
        report.mkdir()
        Path(place, "guest").mkdir()
        _boot(Path(place, "guest"), report)
        return _tell(report)


def _lacking() -> str:
    if os.geteuid() != 0:
        return "systemd is started by root alone"
    if not _SYSTEMD.exists():
        return "systemd is not installed"
    if _control_groups() is None:
        return "no unified control groups are mounted"
    return ""


def _control_groups() -> Path | None:
    return next((place for place in _UNIFIED if (place / "cgroup.procs").exists()), None)


def _boot(place: Path, report: Path) -> None:
    """Run the guest to its end, in a control group of its own."""
    parent = _control_groups()
    assert parent is not None
    group = parent / f"penstock-units-{os.getpid()}"
    group.mkdir()
    argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--net", "--cgroup"]
    boot = [str(_TOP / "tools/units/boot.sh"), str(place), sys.base_prefix, sysconfig.get_path("purelib")]
    join = f'echo $$ >"{group}/cgroup.procs" && exec "$@"'
    try:
        subprocess.run(
            ["sh", "-ec", join, "sh", *argv, "sh", *boot, str(_TOP), str(report), *sys.argv[1:]],
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        print(f"units: it was ended after {PATIENCE_S} s")
    finally:
        _remove(group)


def _remove(group: Path) -> None:
    for one in sorted(group.glob("**/"), reverse=True):
        one.rmdir()


def _tell(report: Path) -> int:
    found = report / "report.json"
    if not found.exists():
        for name in ("furnish", "console", "journal"):
            if (report / name).exists():
                print(
                    f"--- {name}", *(report / name).read_text("utf-8", "replace").splitlines()[-80:], sep="\n"
                )
        print("units: no report")
        return 1
    failed = False
    for name, wrong, seconds in json.loads(found.read_text()):
        failed |= bool(wrong)
        print(f"{'WRONG' if wrong else 'fine '}  {name} ({seconds} s){': ' if wrong else ''}{wrong}")
    if keep := os.environ.get("PENSTOCK_UNITS_KEEP"):
        shutil.copytree(report, keep, dirs_exist_ok=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
