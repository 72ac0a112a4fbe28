"""Texts of entries from files, pipes and devices that never end."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from penstock.errors import PenstockError
from penstock.model import entry_text
from penstock.model.entry_text import is_told_once, read_entries


@pytest.mark.parametrize("text", [b"", b"192.0.2.1", b"192.0.2.1\r\n# \xe4\n", b"192.0.2.1\n" * 200_000])
def test_a_file_is_read_as_it_is(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "entries"
    file.write_bytes(text)
    assert read_entries(str(file)) == text
    assert not is_told_once(str(file))


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom"])
def test_a_device_without_end_is_refused_at_once(device: str) -> None:
    with pytest.raises(PenstockError, match=r"has a zero byte|is longer than any entry"):
        read_entries(device)


@pytest.mark.parametrize(
    ("content", "said", "hint"),
    [
        ("192.0.2.1\n".encode("utf-16"), ":1 has a zero byte", "UTF-8"),
        (b"192.0.2.1\n" * 300_000 + b"\0", ":300001 has a zero byte", "UTF-8"),
        (b"\x1f\x8b\x08\x00\x00", ":1 has a zero byte", "zcat"),
        (b"192.0.2.1\n" * (1 << 20) + b"1" * (2 << 20), ":1048577 is longer than any entry", "a line"),
    ],
)
def test_what_is_no_text_is_refused_with_its_line(
    tmp_path: Path, content: bytes, said: str, hint: str
) -> None:
    file = tmp_path / "entries"
    file.write_bytes(content)
    with pytest.raises(PenstockError, match=said) as refused:
        read_entries(str(file))
    assert hint in str(refused.value.hint)


def test_a_pipe_that_never_ends_is_left_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    monkeypatch.setattr(entry_text, "LONGEST", 1 << 22)
    written: list[int] = []

    def write() -> None:
        with suppress(BrokenPipeError), pipe.open("wb", buffering=0) as file:
            while sum(written) < 64 << 20:
                written.append(file.write(b"192.0.2.1\n" * 1000))

    writing = threading.Thread(target=write)
    writing.start()
    assert is_told_once(str(pipe))
    with pytest.raises(PenstockError, match="is longer than"):
        read_entries(str(pipe))
    writing.join(10)
    assert 1 << 22 < sum(written) < 8 << 20


@pytest.mark.parametrize("name", ["missing", "", "a\0b"])
def test_what_cannot_be_read_is_a_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(PenstockError, match=r"^read "):
        read_entries(str(tmp_path / name))
