"""qemu without an accelerator: a kernel, an image, and what the guest wrote to its second serial port."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.kernels.packages import Kernel

QEMU = "qemu-system-x86_64"
#: Seconds after which a guest is ended; the slowest takes a third of it on two processors.
PATIENCE_S = 240
_MEMORY = "1G"
_ARGUMENTS = "console=ttyS0 panic=-1 quiet loglevel=4 mitigations=off random.trust_cpu=on"


class BootError(Exception):
    """The guest did not do what it was to do; the message ends with what its console said last."""


@dataclass(frozen=True)
class Run:
    """What a guest reported, and how long it took from start to end."""

    report: dict[str, Any]
    seconds: float


def available() -> bool:
    """Whether qemu is installed."""
    return shutil.which(QEMU) is not None


def boot(kernel: Kernel, image: bytes) -> Run:
    """Boot a kernel with an image and wait for its report.

    Raises:
        BootError: it panicked, took too long, or reported nothing.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-kernel-") as place:
        folder = Path(place)
        (folder / "initramfs").write_bytes(image)
        start = time.monotonic()
        ended = _run(kernel, folder)
        seconds = time.monotonic() - start
        console = (folder / "console").read_text("utf-8", "replace")
        reported = (folder / "report").read_text("utf-8", "replace").strip()
    if not reported:
        raise BootError(f"{ended} without a report; its console ends:\n{_end_of(console)}")
    return Run(json.loads(reported), seconds)


def _run(kernel: Kernel, folder: Path) -> str:
    argv = [
        QEMU,
        "-accel",
        "tcg",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        _MEMORY,
        "-display",
        "none",
        "-no-reboot",
    ]
    argv += ["-nodefaults", "-kernel", str(kernel.image), "-initrd", str(folder / "initramfs")]
    argv += ["-append", _ARGUMENTS]
    for name in ("console", "report"):
        (folder / name).touch()
        argv += ["-serial", f"file:{folder / name}"]
    running = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        said, _ = running.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        running.kill()
        running.communicate()
        return f"it was ended after {PATIENCE_S} s"
    except BaseException:
        running.kill()
        raise
    return f"it ended ({said.decode(errors='replace').strip()})" if said.strip() else "it ended"


def _end_of(console: str) -> str:
    return "\n".join(console.replace("\r", "").splitlines()[-25:])
