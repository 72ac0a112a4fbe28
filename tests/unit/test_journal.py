"""What the daemon tells its log and its service manager."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from penstock.daemon.journal import Journal, to_stderr
from penstock.daemon.notify import Notifier


@pytest.mark.check(44)
def test_check_44_what_comes_from_outside_is_escaped_and_stays_in_its_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    to_stderr(3, "policy \x1b[2J\n<0>eth0\u202e: gone")
    assert capsys.readouterr().err == "<3>policy \\x1b[2J | <0>eth0\\u202e: gone\n"
    monkeypatch.delenv("JOURNAL_STREAM")
    to_stderr(4, "careful")
    to_stderr(6, "done")
    assert capsys.readouterr().err == "warning: careful\ndone\n"


def test_an_alarm_is_told_once_and_once_more_when_it_is_over() -> None:
    told: list[tuple[int, str]] = []
    journal = Journal(lambda priority, text: told.append((priority, text)))
    for _ in range(3):
        journal.alarm("eth0", "it does not load")
    journal.alarm("eth0", "it does not load either")
    (alarm,) = journal.alarms
    assert (alarm.key, alarm.message) == ("eth0", "it does not load either")
    journal.settle("eth0", "it loads")
    journal.settle("eth0", "it loads")
    assert told == [(3, "it does not load"), (3, "it does not load either"), (6, "it loads")]
    assert journal.alarms == ()


@pytest.mark.parametrize("is_abstract", [False, True])
def test_the_service_manager_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_abstract: bool
) -> None:
    name = "@penstock-test-notify" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if is_abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        monkeypatch.setenv("WATCHDOG_USEC", "2000000")
        notifier = Notifier()
        notifier.tell("READY=1", "STATUS=two filters")
        assert manager.recv(1000) == b"READY=1\nSTATUS=two filters"
        notifier.reloading()
        assert manager.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert notifier.watchdog_s == 2.0
        monkeypatch.setenv("WATCHDOG_PID", "1")
        assert notifier.watchdog_s is None, "another process is meant"
    notifier.tell("READY=1")


def test_without_a_service_manager_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert Notifier().watchdog_s is None
    Notifier().tell("READY=1")
