"""What the units do, seen from inside: runs as a unit of the guest, when everything else has been started.

    python -m tools.units.checks REPORT      REPORT/report.json: [[what is promised, what is wrong], …]

Packets are real: v0, which the policies are for, and v1 in a network namespace beside it.
"""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from penstock.kernel import netns

PATIENCE_S = 20.0
EXACTLY_TWO = f"{1 << 12 | 1 << 39:016x}"
POLICY = Path("/etc/penstock/v0.policy")
OURS, THEIRS = "10.9.0.2", "10.9.0.1"
MARKER = 9


class WrongError(Exception):
    """Something is not as promised; the message says what."""


def expect(holds: object, said: object) -> None:
    """Go on if it holds."""
    if not holds:
        raise WrongError(str(said))


def soon(is_so: Callable[[], object], told: Callable[[], object] = str) -> None:
    """Go on when it is so, within PATIENCE_S."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        expect(time.monotonic() < deadline, told())
        time.sleep(0.05)


def run(*argv: str, code: int = 0, as_user: str = "") -> str:
    """What a command printed; it has to end with this code."""
    before = ["setpriv", f"--reuid={as_user}", "--regid=nogroup", "--init-groups", "--"] if as_user else []
    done = subprocess.run([*before, *argv], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    expect(done.returncode == code, f"{' '.join(argv)}: code {done.returncode}, not {code}: {said[-600:]}")
    return said


def shown(unit: str, key: str) -> str:
    """A property of a unit."""
    return run("systemctl", "show", "-P", key, unit).strip()


def pid(unit: str = "penstock") -> int:
    """The unit's main process; 0 if it has none."""
    return int(shown(unit, "MainPID"))


def journal(unit: str = "penstock") -> str:
    """The unit's log."""
    return run("journalctl", "--no-pager", "-b", "-o", "cat", "-u", unit)


def filters() -> dict[str, int]:
    """`v0 xdp` and so on -> program id, of what is in place by penstock's own account."""
    found = json.loads(run("penstock", "status", "--json"))
    return {f"{one['interface']} {one['hook']}": one["program_id"] for one in found["filters"]}


def kept() -> list[str]:
    """What the daemon says of each filter that it keeps."""
    argv = ["penstock", "daemon", "status"]
    said = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    return [line.strip() for line in said.splitlines()[1:]]


def in_place(*names: str) -> None:
    """Wait until the daemon has these filters in place, and nothing is wrong."""
    soon(
        lambda: len(kept()) == len(names) and all(one.endswith("in place") for one in kept()),
        lambda: f"{kept()} in place of {names}: {journal()[-800:]}",
    )


def bound(port: int) -> socket.socket:
    """A socket of v0's."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((OURS, port))
    made.settimeout(0.2)
    return made


def arrives(port: int) -> bool:
    """Whether a datagram from v1 reaches a socket; one to another port behind it surely does."""
    with bound(port) as target, bound(MARKER) as marker:
        with netns.inside("peer"):
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender:
            deadline = time.monotonic() + PATIENCE_S
            sender.sendto(b"", (OURS, port))
            while True:
                expect(time.monotonic() < deadline, "no packet comes through at all")
                sender.sendto(b"", (OURS, MARKER))
                try:
                    marker.recv(9)
                except TimeoutError:
                    continue
                break
        target.setblocking(False)
        try:
            target.recv(9)
        except BlockingIOError:
            return False
        return True


def status_of(number: int) -> dict[str, str]:
    """/proc/PID/status."""
    lines = Path(f"/proc/{number}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def drop_in(name: str, text: str, unit: str = "penstock") -> None:
    """Settings of a unit's beside its own."""
    place = Path(f"/run/systemd/system/{unit}.service.d")
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{name}.conf").write_text(f"[Service]\n{text}\n")
    run("systemctl", "daemon-reload")


def rewrite(path: Path, text: str) -> None:
    """Exchange a file in one step."""
    new = path.with_name(f".{path.name}")
    new.write_text(text)
    new.replace(path)


# ── what is promised ─────────────────────────────────────────────────────────


def filters_are_in_place_before_the_network_is_up() -> None:
    in_place("v0 xdp", "v0 tc ingress")
    ready = int(shown("penstock", "ActiveEnterTimestampMonotonic"))
    for later in ("network-pre.target", "manager.service"):
        expect(ready <= int(shown(later, "ActiveEnterTimestampMonotonic")), f"{later} did not wait")
    expect((arrives(53), arrives(80)) == (False, True), "packets are not decided as the policy says")
    expect(shown("penstock", "StatusText") == "2 of 2 filters in place", shown("penstock", "StatusText"))


def the_daemon_has_two_capabilities_and_the_fetcher_none() -> None:
    for unit, wanted in (("penstock", EXACTLY_TWO), ("penstock-feeds", f"{0:016x}")):
        soon(partial(pid, unit), partial(journal, unit))
        found = status_of(pid(unit))
        held = {found[key].strip() for key in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")}
        expect(held == {wanted}, f"{unit}: {held}")
        expect((found["NoNewPrivs"], found["Seccomp"]) == ("1", "2"), f"{unit}: {found}")
        expect(found["Uid"].split()[0] == run("id", "-u", unit).strip(), f"{unit}: {found['Uid']}")


def a_reload_puts_a_changed_policy_in_place() -> None:
    number, before = pid(), filters()
    rewrite(POLICY, POLICY.read_text().replace("dst port 53", "dst port 54"))
    run("systemctl", "reload", "penstock")
    soon(lambda: filters()["v0 xdp"] != before["v0 xdp"], journal)
    in_place("v0 xdp", "v0 tc ingress")
    expect((arrives(53), arrives(54)) == (True, False), "the new policy is not in place")
    soon(lambda: shown("penstock", "ActiveState") == "active", lambda: shown("penstock", "ActiveState"))
    expect((pid(), "reloading" in journal()) == (number, True), journal()[-600:])


def killed_it_filters_on_and_the_next_one_takes_over() -> None:
    number, before, port = pid(), filters(), int(re.findall(r"dst port (5\d)", POLICY.read_text())[0])
    os.kill(number, signal.SIGKILL)
    expect(not arrives(port), "nothing filters while it is dead")
    soon(lambda: pid() not in (0, number), journal)
    in_place("v0 xdp", "v0 tc ingress")
    expect(filters() == before, f"{filters()} in place of {before}")
    expect("taken over as it is" in journal(), journal()[-600:])


def the_watchdog_ends_one_that_hangs() -> None:
    drop_in("watchdog", "WatchdogSec=2")
    before = filters()
    run("systemctl", "restart", "penstock")
    number = pid()
    time.sleep(3)
    expect(pid() == number, "it did not tell that it lives")
    os.kill(number, signal.SIGSTOP)
    soon(lambda: pid() not in (0, number), journal)
    in_place("v0 xdp", "v0 tc ingress")
    expect(filters() == before, f"{filters()} in place of {before}")
    drop_in("watchdog", "")


def the_compiler_has_neither_capabilities_nor_a_network() -> None:
    seen, wrapper = Path("/var/lib/penstock/seen"), Path("/usr/bin/seen-clang")
    clang = run("sh", "-c", "ls /usr/bin/clang /usr/bin/clang-[0-9]* 2>/dev/null | tail -1").strip()
    wrapper.write_text(f'#!/bin/sh\ncat /proc/self/status /proc/self/net/dev >{seen}\nexec {clang} "$@"\n')
    wrapper.chmod(0o755)
    drop_in("clang", f"Environment=PENSTOCK_CLANG={wrapper}")
    run("systemctl", "restart", "penstock")
    rewrite(POLICY, POLICY.read_text().replace("dst port 54", "dst port 55"))
    soon(lambda: not arrives(55), journal)
    said = seen.read_text()
    expect(set(re.findall(r"Cap\w+:\t(\w+)", said)) == {"0" * 16}, said)
    expect(re.findall(r"^ *(\w+):", said.partition("Receive")[2], re.MULTILINE) == ["lo"], said)
    drop_in("clang", "")
    run("systemctl", "restart", "penstock")


def an_interface_that_comes_gets_its_policy() -> None:
    rewrite(POLICY.with_name("w0.policy"), "filter late at xdp { drop if udp dst port 53 }\n")
    run("ip", "link", "add", "w0", "type", "veth", "peer", "name", "w1")
    in_place("v0 xdp", "v0 tc ingress", "w0 xdp")
    run("ip", "link", "delete", "w0")
    POLICY.with_name("w0.policy").unlink()
    in_place("v0 xdp", "v0 tc ingress")


def members_of_the_group_change_sets_and_others_ask() -> None:
    run("penstock", "set", "add", "banned", THEIRS, as_user="operator")
    listed = run("penstock", "set", "list", "banned", as_user="stranger")
    expect(THEIRS in listed, listed)
    expect(not answers(), "what is banned comes through")
    said = run("penstock", "set", "add", "banned", "192.0.2.1", as_user="stranger", code=5)
    expect("may not" in said or "refuse" in said, said)
    said = run("penstock", "why", THEIRS, as_user="stranger")
    expect("operator" in said, said)
    run("penstock", "set", "remove", "banned", THEIRS, as_user="operator")
    expect(answers(), "what is banned no more does not come through")


def answers() -> bool:
    """Whether a datagram from v1 comes through at all, at once."""
    with bound(MARKER) as marker:
        with netns.inside("peer"):
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender:
            sender.sendto(b"", (OURS, MARKER))
        marker.settimeout(1)
        try:
            return marker.recv(9) == b""
        except TimeoutError:
            return False


def a_feed_is_fetched_by_one_user_and_filled_in_by_another() -> None:
    place = Path("/tmp/served")
    place.mkdir()
    (place / "list.txt").write_text("198.51.100.7\n198.51.100.64/26\n")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(place))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 8000), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        url = "http://127.0.0.1:8000/list.txt"
        run("penstock", "feed", "add", "listed", url, "--every", "10m")
        try:
            soon(lambda: "198.51.100.64/26" in run("penstock", "set", "list", "listed"))
        except WrongError:
            said = run("penstock", "feed", "list")
            raise WrongError(f"{said}\n{journal('penstock-feeds')[-900:]}\n{journal()[-900:]}") from None
        finally:
            served.shutdown()
    expect("198.51.100.7" in run("penstock", "why", "198.51.100.7", as_user="stranger"), "why")


def what_root_puts_there_the_daemon_goes_on_with() -> None:
    other = Path("/tmp/other.policy")
    other.write_text("filter other at xdp { drop if udp dst port 77 }\n")
    run("ip", "link", "add", "w0", "type", "veth", "peer", "name", "w1")
    for interface in ("v0", "w0"):
        run("penstock", "apply", str(other), "-i", interface)
    soon(lambda: any("left" in one for one in kept()), kept)
    run("systemctl", "reload", "penstock")
    in_place("v0 xdp", "v0 tc ingress")
    expect((arrives(55), arrives(77)) == (False, True), "the file's policy is not in place")
    rewrite(POLICY.with_name("w0.policy"), "filter late at xdp { drop if udp dst port 53 }\n")
    run("systemctl", "reload", "penstock")
    in_place("v0 xdp", "v0 tc ingress", "w0 xdp")
    POLICY.with_name("w0.policy").unlink()
    in_place("v0 xdp", "v0 tc ingress")
    run("ip", "link", "delete", "w0")


def stopped_it_filters_on_and_root_works_without_it() -> None:
    before = filters()
    run("systemctl", "stop", "penstock")
    expect(shown("penstock", "Result") == "success", journal()[-600:])
    expect((filters(), arrives(55)) == (before, False), "what was in place went")
    run("penstock", "set", "add", "banned", THEIRS)
    expect(not answers(), "root's entry does nothing")
    # As if penstock had been root's before there were units.
    run("sh", "-c", "chown -R root:root /sys/fs/bpf/penstock* /var/lib/penstock")
    run("systemctl", "start", "penstock")
    in_place("v0 xdp", "v0 tc ingress")
    expect(filters() == before, f"{filters()} in place of {before}")
    run("penstock", "set", "remove", "banned", THEIRS, as_user="operator")
    expect(answers(), "what root has added stays for ever")


def pins_that_somebody_removes_come_back() -> None:
    run("sh", "-c", "rm -rf /sys/fs/bpf/penstock/*")
    soon(lambda: not arrives(55), journal)
    in_place("v0 xdp", "v0 tc ingress")


def without_its_directories_it_says_what_mends_it() -> None:
    run("sh", "-c", "rm -rf /sys/fs/bpf/penstock /sys/fs/bpf/penstock-sets")
    soon(lambda: any("!" in one for one in kept()), journal)
    expect("`systemctl restart penstock` makes it anew" in "".join(kept()), kept())
    run("systemctl", "restart", "penstock")
    in_place("v0 xdp", "v0 tc ingress")
    expect(not arrives(55), "nothing filters")


CHECKS = (
    filters_are_in_place_before_the_network_is_up,
    the_daemon_has_two_capabilities_and_the_fetcher_none,
    a_reload_puts_a_changed_policy_in_place,
    killed_it_filters_on_and_the_next_one_takes_over,
    the_watchdog_ends_one_that_hangs,
    the_compiler_has_neither_capabilities_nor_a_network,
    an_interface_that_comes_gets_its_policy,
    members_of_the_group_change_sets_and_others_ask,
    a_feed_is_fetched_by_one_user_and_filled_in_by_another,
    what_root_puts_there_the_daemon_goes_on_with,
    stopped_it_filters_on_and_root_works_without_it,
    pins_that_somebody_removes_come_back,
    without_its_directories_it_says_what_mends_it,
)


#: What a test run has time for.
QUICK = (
    filters_are_in_place_before_the_network_is_up,
    the_daemon_has_two_capabilities_and_the_fetcher_none,
    killed_it_filters_on_and_the_next_one_takes_over,
)


def main(report: Path, *, is_quick: bool) -> None:
    """Try each, whatever became of the others."""
    told = []
    for check in QUICK if is_quick else CHECKS:
        wrong, began = "", time.monotonic()
        try:
            check()
        except WrongError as error:
            wrong = str(error)
        except Exception:  # noqa: BLE001 - the report is all that comes out of the guest
            wrong = traceback.format_exc()
        told.append([check.__name__.replace("_", " "), wrong, round(time.monotonic() - began, 1)])
        (report / "report.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), is_quick="--quick" in sys.argv)
