"""The units of packaging/ under a systemd of their own: `make units` tries more of what they promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.privileged

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.check(24)
@pytest.mark.check(41)
def test_the_units_start_before_the_network_without_privilege_and_are_started_again() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.units", "--quick"],
        cwd=REPOSITORY,
        env={**os.environ, "PENSTOCK_STRICT": "0"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    if "skipped: " in done.stdout:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("fine ") == 3, done.stdout
