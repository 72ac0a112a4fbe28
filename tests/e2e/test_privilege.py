"""Check 41: an own user with exactly CAP_BPF and CAP_NET_ADMIN, and what asks for more."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.least import run_least

pytestmark = [pytest.mark.privileged, pytest.mark.check(41)]

POLICY = """
set threats : host size 1024 timeout 1h
set nets : net size 1024
set blocks : net size 100k
filter edge at xdp {
    default pass
    telnet: drop if tcp dst port 23
    drop if src in @threats
    drop if src in @nets
    drop if src in @blocks
    pings: drop if icmp and over 10/s per src
}
filter inward at tc ingress { drop if udp dst port 53 }
filter outward at tc egress { drop if udp dst port 123 }
"""

LARGE = (
    "filter large at HOOK {\n"
    + "\n".join(f"    drop if src net 10.{n}.0.0/16 and tcp dst port {n + 1}" for n in range(200))
    + "\n}\n"
)

SMALL = (
    "filter small at HOOK { drop if vlan 5\n drop if udp dst port 53 and ttl > 5\n drop if udp[8:2] = 1 }\n"
)

FLAT = """
set nets : net as flat
filter flat at HOOK { drop if src in @nets or dst in @nets\n drop if src in @nets and tcp dst port 9 }
"""

BEGIN = """
import io, json, os, pathlib, sys
from contextlib import redirect_stderr, redirect_stdout
from penstock.cli.start import main

told = []

def run(*argv, **environment):
    out, err, before = io.StringIO(), io.StringIO(), dict(os.environ)
    os.environ.update(environment)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main(argv)
    except SystemExit as ended:
        told.append((" ".join(argv), ended.code, out.getvalue(), err.getvalue()))
    os.environ.clear()
    os.environ.update(before)

def write(name, text):
    pathlib.Path(name).write_text(text)

status = pathlib.Path("/proc/self/status").read_text()
told.append(("capabilities", os.getuid(), status[status.index("CapInh"):status.index("CapAmb")], ""))
"""

LIFE = """
policy = sys.argv[1]
write("edge.policy", policy)
write("one.policy", policy[:policy.index("filter inward")])
write("locked.policy", "filter locked at xdp { drop if tcp dst port 22 }")
write("nets.txt", "198.51.100.0/24")
run("build", "one.policy", "-o", "edge.pso")
run("apply", "locked.policy", "-i", "v0", SSH_CONNECTION="10.9.0.1 50022 10.9.0.2 22")
run("apply", "edge.policy", "-i", "v0")
run("set", "add", "threats", "192.0.2.1", "192.0.2.2")
run("set", "replace", "nets", "nets.txt")
run("set", "replace", "blocks", "nets.txt")
run("set", "add", "blocks", "192.0.2.64/26")
run("set", "info", "blocks")
run("set", "remove", "threats", "192.0.2.2")
run("set", "list", "threats")
run("set", "list")
write("edge.policy", policy.replace("53", "54"))
run("apply", "edge.policy", "-i", "v0")
run("apply", "edge.pso", "-i", "v0", "--confirm", "60s", PATH="/nowhere", PENSTOCK_CLANG="/nowhere/clang")
run("confirm", "--undo", "-i", "v0")
run("status", "--json")
run("rollback", "-i", "v0")
run("program", "list")
run("detach", "-i", "v0")
run("set", "delete", "threats")
write("refuse.policy", "filter refuse at xdp { reject if tcp dst port 23 }")
run("apply", "refuse.policy", "-i", "v0")
run("program", "load", "/mnt/repo/examples/programs/ring_logger.bpf.c")
run("program", "load", "/mnt/repo/examples/programs/blocklist.bpf.c")
run("map", "list")
run("doctor", "-i", "v0")
print(json.dumps(told))
"""

VERDICTS = """
from penstock.compiler.ir.evaluate import evaluate
from penstock.compiler.ir.ops import counter_names
from penstock.kernel.netlink import interface
from penstock.model.hook import TRAITS, Hook
from penstock.model.packet import read_packet
from penstock.model.spec import PROGRAM
from penstock.pipeline.attach import load
from penstock.pipeline.policy import load_policy

PACKETS = [
    'Ether/IPv4(src="10.7.0.1")/TCP(dport=8)', 'Ether/IPv4(src="10.7.0.1")/TCP(dport=9)', 'Ether/ARP',
    'Ether/Dot1Q(vlan=5)/IPv4(src="10.199.1.1")/TCP(dport=200)', 'Ether/IPv6(src="2001:db8::1")/UDP(dport=53)',
    'Ether/IPv4(src="10.0.0.9",ttl=3)/UDP(dport=53)',
]
for text in sys.argv[1:]:
    policy = load_policy(text)
    frames = [read_packet(one) for one in PACKETS]
    with load(policy, interface("v0")) as loaded:
        answers = [loaded.programs[PROGRAM].test_run(frame).retval for frame in frames]
        told.append(("insns", loaded.programs[PROGRAM].info.verified_insns, policy.identity.hook, ""))
    codes = TRAITS[Hook(policy.identity.hook)].codes
    wanted = [codes[evaluate(policy.rule_set, frame).verdict] & 0xffffffff for frame in frames]
    told.append((text[:60], answers, wanted, ""))
print(json.dumps(told))
"""


DAEMON = """
import signal, socket, subprocess
os.environ["PENSTOCK_CONFIG_DIR"] = "/mnt/state/etc"
os.environ["NOTIFY_SOCKET"] = "/mnt/run/notify"
os.mkdir("etc")
write("etc/v0.policy", sys.argv[1])
notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notified.bind("/mnt/run/notify")
notified.settimeout(30)
daemon = subprocess.Popen([sys.executable, "-m", "penstock", "daemon", "--no-fetch"], stderr=subprocess.PIPE, text=True)
while b"READY=1" not in notified.recv(4096):
    pass
run("daemon", "status")
run("set", "add", "threats", "192.0.2.7")
run("set", "list", "threats")
write("etc/v0.policy", sys.argv[1].replace("telnet", "telnets"))
run("daemon", "reload", "--json")
daemon.send_signal(signal.SIGTERM)
told.append(("daemon", daemon.wait(20), "", daemon.stderr.read()))
run("status", "--json")
print(json.dumps(told))
"""


ROOT = """
write("first.policy", sys.argv[1])
write("nets.txt", "198.51.100.0/24")
run("apply", "first.policy", "-i", "v0")
run("set", "add", "threats", "192.0.2.8")
run("set", "replace", "blocks", "nets.txt")
failed = [one for one in told[1:] if one[1]]
sys.exit(f"{failed}" if failed else 0)
"""


def as_least(script: str, *arguments: str, as_root: str = "") -> dict[str, tuple[Any, Any, str]]:
    """What commands told: name or command line -> code, output, errors; the last of the same."""
    told = json.loads(run_least(BEGIN + script, *arguments, as_root=as_root and BEGIN + as_root))
    return {name: (code, out, err) for name, code, out, err in told}


def test_check_41_the_whole_life_of_a_policy_with_two_capabilities() -> None:
    told = as_least(LIFE, POLICY)
    user, capabilities, _ = told["capabilities"]
    exactly = f"{1 << 12 | 1 << 39:016x}"
    assert (user, set(capabilities.split()[1::2])) == (65534, {exactly})
    refused = {
        "apply locked.policy -i v0": 1,
        "apply refuse.policy -i v0": 4,
        "program load /mnt/repo/examples/programs/ring_logger.bpf.c": 4,
        "map list": 4,
        "doctor -i v0": 0,
    }
    failed = {name: one for name, one in told.items() if name != "capabilities" and one[0]}
    assert {name: one[0] for name, one in failed.items()} == {k: v for k, v in refused.items() if v}, failed
    assert "would cut off the SSH connection from 10.9.0.1" in told["apply locked.policy -i v0"][2]
    assert "edge: in the place of edge on v0 at xdp" in told["apply edge.policy -i v0"][1]
    assert told["set list threats"][1].split()[0] == "192.0.2.1"
    assert "2 entries, looked up flat; " in told["set info blocks"][1]
    assert "edge on v0" in told["set list"][1]
    assert "taken back on v0 at xdp" in told["confirm --undo -i v0"][1]
    filters = json.loads(told["status --json"][1])["filters"]
    assert [(one["hook"], one["mode"]) for one in filters] == [
        ("xdp", "native"),
        ("tc ingress", "tcx"),
        ("tc egress", "tcx"),
    ]
    assert "outward" in told["rollback -i v0"][1]
    assert "policy edge" in told["program list"][1]
    assert "CAP_SYS_ADMIN" in told["program list"][2]
    assert "this needs CAP_PERFMON" in told["apply refuse.policy -i v0"][2]
    assert "this needs CAP_PERFMON" in told["program load /mnt/repo/examples/programs/ring_logger.bpf.c"][2]
    assert told["program load /mnt/repo/examples/programs/blocklist.bpf.c"][0] == 0
    assert "this needs CAP_SYS_ADMIN" in told["map list"][2]
    assert "CAP_PERFMON is missing" in told["doctor -i v0"][1]


def test_check_41_small_and_large_policies_decide_alike_without_perfmon() -> None:
    """At each hook, the form that is nested and the one with tables; the reference says what is right."""
    texts = [LARGE.replace("HOOK", hook) for hook in ("xdp", "tc ingress")]
    texts += [text.replace("HOOK", hook) for text in (SMALL, FLAT) for hook in ("xdp", "tc egress", "socket")]
    told = as_least(VERDICTS, *texts)
    decided = {name: one for name, one in told.items() if "filter" in name}
    assert len(decided) == len(texts)
    assert {name: answers for name, (answers, _, _) in decided.items()} == {
        name: wanted for name, (_, wanted, _) in decided.items()
    }


def test_check_41_the_daemon_with_two_capabilities() -> None:
    told = as_least(DAEMON, POLICY)
    assert {name: one for name, one in told.items() if name != "capabilities" and one[0]} == {}
    assert "v0 at xdp: edge of v0.policy, in place" in told["daemon status"][1]
    assert told["set list threats"][1].split()[0] == "192.0.2.7"
    counted = json.loads(told["status --json"][1])["filters"][0]["counters"]
    assert "telnets" in {one["name"] for one in counted}


def test_check_41_the_daemon_goes_on_with_what_root_has_put_in_place() -> None:
    told = as_least(DAEMON, POLICY, as_root=ROOT)
    assert {name: one for name, one in told.items() if name != "capabilities" and one[0]} == {}
    assert "v0 at xdp: edge of v0.policy, in place" in told["daemon status"][1]
    assert {line.split()[0] for line in told["set list threats"][1].splitlines()} >= {
        "192.0.2.7",
        "192.0.2.8",
    }
    assert "edge runs already" in told["daemon"][2]
