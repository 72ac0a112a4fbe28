"""What commands write: the old file or the new one, whatever happens in between."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.cli.whole_file import write_whole


def interrupted() -> Iterator[str]:
    yield "192.0.2.1\n" * 10_000
    raise KeyboardInterrupt


@pytest.mark.parametrize("before", [None, "old\n"])
def test_whoever_is_interrupted_leaves_what_was_there(tmp_path: Path, before: str | None) -> None:
    file = tmp_path / "out"
    if before is not None:
        file.write_text(before)
    with pytest.raises(KeyboardInterrupt):
        write_whole(file, interrupted())
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == ({"out": before} if before else {})


def test_a_link_stays_one_and_a_file_keeps_its_mode(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("old\n")
    file.chmod(0o640)
    link.symlink_to("file")
    write_whole(link, ["a\n", "b\n"])
    assert (link.is_symlink(), file.read_text(), file.stat().st_mode & 0o777) == (True, "a\nb\n", 0o640)


def test_a_device_is_written_to(tmp_path: Path) -> None:
    write_whole(Path("/dev/null"), ["a\n"])
    with pytest.raises(OSError, match="No space left"):
        write_whole(Path("/dev/full"), ["a\n"])
    assert not Path("/dev/null").is_file()


def test_ctrl_c_while_the_command_is_imported_ends_it_quietly() -> None:
    script = (
        "import sys; import penstock.__main__ as it\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'penstock.cli.edge': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted()); it.run()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
