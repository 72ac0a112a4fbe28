"""Programs written by hand: built, loaded, run, shown and taken away by the command."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import CLIENT, Cli, Wire, write

from penstock.compiler.clang import find_clang
from penstock.errors import KernelError, PolicyError
from penstock.kernel.bpf_object import load_object
from penstock.kernel.maps import Map
from penstock.kernel.netlink import interface
from penstock.model.hook import Hook
from penstock.model.packet import read_packet
from penstock.observe.pcap import frames_of, write_pcap
from penstock.pipeline import program_slot
from penstock.pipeline.program_object import choose, open_program
from penstock.pipeline.program_value import parse_value
from penstock.pipeline.programs import load_program

# As users type it in: it lacks <linux/in.h>.
DROP_DNS = """\
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_helpers.h>
SEC("xdp")
int drop_dns(struct xdp_md *ctx) {
void *data = (void *)(long)ctx->data;
void *data_end = (void *)(long)ctx->data_end;
struct ethhdr *eth = data;
if ((void *)(eth + 1) > data_end) return XDP_PASS;
if (eth->h_proto != __constant_htons(ETH_P_IP)) return XDP_PASS;
struct iphdr *ip = (void *)(eth + 1);
if ((void *)(ip + 1) > data_end) return XDP_PASS;
if (ip->protocol != IPPROTO_UDP) return XDP_PASS;
struct udphdr *udp = (void *)(ip + 1);
if ((void *)(udp + 1) > data_end) return XDP_PASS;
if (udp->dest == __constant_htons(53)) return XDP_DROP;
return XDP_PASS;
}
char _license[] SEC("license") = "GPL";
"""
HEAD = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
"""
SEVERAL = (
    HEAD
    + """
const volatile __u32 answer = XDP_PASS;
__s16 shift = -1;
char label[8];
SEC("xdp") int one(struct xdp_md *ctx) { return answer + shift + 1 + label[0]; }
SEC("xdp") int other(struct xdp_md *ctx) { return XDP_DROP; }
SEC("tc") int third(struct __sk_buff *skb) { skb->mark = 7; return -1; }
SEC("socket") int fourth(struct __sk_buff *skb) { return skb->len > 40 ? 20 : 0; }
"""
)
TAIL_CALLS = (
    HEAD
    + """
SEC("xdp") int last(struct xdp_md *ctx) { return XDP_DROP; }
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, 4);
	__array(values, int(void *));
} next SEC(".maps") = { .values = { [1] = (void *)&last } };
SEC("xdp") int first(struct xdp_md *ctx) {
	bpf_tail_call(ctx, &next, 1);
	return XDP_PASS;
}
"""
)
REWRITES = (
    HEAD
    + """
SEC("xdp") int rewrites(struct xdp_md *ctx) {
	__u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	if (data + 14 > end)
		return XDP_ABORTED;
	data[1] = 0xee;
	return bpf_xdp_adjust_tail(ctx, -4) ? 9 : XDP_TX;
}
"""
)
DNS = 'IPv4/UDP(dport=53)/Raw("hello")'


@pytest.fixture
def drop_dns(tmp_path: Path) -> str:
    return str(write(tmp_path / "drop_dns.c", DROP_DNS))


@pytest.fixture
def several(tmp_path: Path) -> str:
    return str(write(tmp_path / "several.c", SEVERAL))


@pytest.fixture
def programs(host: Cli, root: Path) -> Iterator[Cli]:
    """The command line; what it has loaded is taken away at the end."""
    yield host
    for kept in root.with_name(f"{root.name}-programs").glob("*"):
        host("program", "detach", kept.name)


@pytest.mark.parametrize(
    "clang", [name for name in ("clang-14", "clang-19") if shutil.which(name)] or ["clang"]
)
def test_a_program_that_lacks_a_header_builds_and_hears_of_it(drop_dns: str, clang: str) -> None:
    done = Cli({"PENSTOCK_CLANG": clang})("program", "build", drop_dns, "--json")
    assert done.code == 0, done.err
    assert "error: use of undeclared identifier 'IPPROTO_UDP'" in done.err
    assert "lacks `#include <linux/in.h>` for IPPROTO_UDP" in done.err
    assert done.record["programs"] == [{"name": "drop_dns", "section": "xdp"}]
    assert Path(done.record["object"]).read_bytes().startswith(b"\x7fELF")


def test_what_clang_says_is_passed_on(cli: Cli, tmp_path: Path) -> None:
    warned = cli("program", "build", str(write(tmp_path / "w.c", HEAD + "static int unused;\n")))
    assert warned.code == 0
    assert "warning: unused variable 'unused'" in warned.err
    refused = cli(
        "program", "build", str(write(tmp_path / "e.c", HEAD + "int f(void) { return nothing; }\n"))
    )
    assert refused.code == 2
    assert "e.c:4:22: error: use of undeclared identifier 'nothing'" in refused.err
    assert "does not compile: 1 error, the first: use of undeclared identifier 'nothing'" in refused.err
    absent = cli("program", "build", str(write(tmp_path / "v.c", '#include "vmlinux.h"\n')))
    assert absent.code == 2
    assert "--vmlinux" in absent.err


def test_a_file_that_is_not_there_is_a_sentence(cli: Cli, tmp_path: Path) -> None:
    done = cli("program", "build", str(tmp_path / "nothing.c"))
    assert done.code == 1
    assert "nothing.c cannot be read: No such file or directory" in done.err


@pytest.mark.parametrize("text", ["", "no C at all", "int main(void) { return 0; }", "\0\1\2"])
def test_what_has_no_program_is_a_sentence(cli: Cli, tmp_path: Path, text: str) -> None:
    done = cli("program", "run", str(write(tmp_path / "odd.txt", text)), "--packet", DNS)
    assert done.code in (1, 2), done.err
    assert "error: " in done.err
    assert "bug in penstock" not in done.err


@pytest.mark.privileged
@pytest.mark.parametrize("built", [False, True], ids=["from C", "from an object"])
def test_it_drops_what_it_should(programs: Cli, wire: Wire, drop_dns: str, built: bool) -> None:
    if built:
        programs("program", "build", drop_dns)
        drop_dns = drop_dns.replace(".c", ".o")
    done = programs("program", "load", drop_dns, "--hook", "xdp", "-i", "v1", "--json")
    assert done.code == 0, done.err
    assert (done.record["mode"], done.record["hook"]) == ("native", "xdp")
    assert (wire.arrived(53), wire.arrived(54)) == (0, 5)
    again = programs("program", "load", drop_dns, "-i", "v1")
    assert again.code == 3
    assert "another XDP program is there" in again.err
    gone = programs("program", "detach", "-i", "v1")
    assert gone.code == 0, gone.err
    assert wire.arrived(53) == 5


@pytest.mark.privileged
def test_a_replacement_is_one_step_and_policies_are_left_alone(
    programs: Cli, wire: Wire, drop_dns: str, several: str, policy: Path
) -> None:
    first = programs("program", "load", drop_dns, "-i", "v1", "--json").record["program_id"]
    second = programs("program", "load", several, "--section", "one", "-i", "v1", "--replace", "--json")
    assert second.code == 0, second.err
    assert second.record["notices"] == [f"took the place of program {first} (drop_dns) in one step"]
    assert wire.arrived(53) == 5
    assert programs("program", "show", str(first)).code == 3
    other = programs("program", "load", drop_dns, "-i", "v1", "--replace", "--mode", "generic")
    assert "a replacement keeps the mode" in other.err
    assert programs("program", "detach", "-i", "v1").code == 0
    assert programs("apply", str(policy), "-i", "v1").code == 0
    for words in ((), ("--replace",)):
        refused = programs("program", "load", drop_dns, "-i", "v1", *words)
        assert refused.code == 1
        assert "a policy of penstock's runs on v1" in refused.err
    (running,) = programs("status", "--json").record["filters"]
    detached = programs("program", "detach", str(running["program_id"]))
    assert "it belongs to policy " in detached.err, detached.err


@pytest.mark.privileged
def test_what_is_left_of_an_interface_is_told_and_taken_away(
    programs: Cli, wire: Wire, drop_dns: str
) -> None:
    number = str(programs("program", "load", drop_dns, "-i", "v1", "--json").record["program_id"])
    wire.client.ip("link", "del", "v0")
    assert programs("program", "show", number, "--json").record["attached"] == [
        "nowhere: its interface is gone"
    ]
    assert programs("program", "detach", number).code == 0
    assert programs("program", "show", number).code == 3


@pytest.mark.privileged
def test_a_failure_behind_the_attachment_takes_it_back(
    wire: Wire, drop_dns: str, bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise KernelError("pin in", "bpffs", errno.ENOSPC)

    monkeypatch.setenv("PENSTOCK_BPFFS", str(bpffs / "penstock"))
    monkeypatch.setattr(program_slot, "keep", full)
    found = open_program(drop_dns)
    with wire.server.inside():
        with pytest.raises(KernelError, match="No space left"):
            load_program(found, choose(found), Hook.XDP, interface="v1")
        assert interface("v1").xdp == ()


@pytest.mark.privileged
def test_one_of_several_is_chosen(cli: Cli, several: str) -> None:
    done = cli("program", "run", several, "--packet", DNS)
    assert done.code == 1
    assert "several programs: which?" in done.err
    assert "one (section xdp), other (section xdp), third (section tc), fourth (section socket)" in done.err
    wrong = cli("program", "load", several, "--section", "third", "--hook", "xdp")
    assert "third in section tc is a TC classifier program: it cannot run at xdp" in wrong.err
    for name, said in (("other", "XDP_DROP"), ("third", "TC_ACT_UNSPEC"), ("socket", "drop")):
        assert cli("program", "run", several, "--section", name, "--packet", DNS).out.startswith(said)


@pytest.mark.privileged
def test_variables_are_set_by_name(cli: Cli, several: str) -> None:
    base = ("program", "run", several, "--section", "one", "--packet", DNS)
    assert cli(*base).out.startswith("XDP_PASS")
    assert cli(*base, "--set", "answer=1").out.startswith("XDP_DROP")
    assert cli(*base, "--set", "answer=0x1", "--set", "shift=1").out.startswith("XDP_TX")
    absent = cli(*base, "--set", "nothing=1")
    assert absent.code == 1
    assert "has no variable nothing" in absent.err
    assert "answer, label, shift" in absent.err
    large = cli(*base, "--set", "shift=70000")
    assert large.code == 1
    assert "70000 does not fit: from -32768 to 32767" in large.err


TYPED = (
    HEAD
    + """
enum colour { RED, GREEN, BLUE = 7 };
struct pair { __u16 port; __u8 flags; };
const volatile enum colour colour = RED;
const volatile __be32 home;
const volatile __be16 nport;
const volatile char ifname[16] = "lo";
const volatile __u16 ports[4] = {1, 2, 3, 4};
const volatile _Bool strict;
const volatile struct pair pair = {1, 2};
const volatile __u8 mac[6];
SEC("xdp") int typed(struct xdp_md *ctx) {
	return colour + home + nport + ifname[0] + ports[1] + strict + pair.port + pair.flags + mac[1];
}
"""
)
VALUES = {
    "colour=BLUE": b"\7\0\0\0",
    "home=192.0.2.1": b"\xc0\0\2\1",
    "nport=53": b"\0\x35",
    "ifname=eth0": b"eth0" + bytes(12),
    "ports=[5, 6, 7, 8]": struct.pack("=HHHH", 5, 6, 7, 8),
    "strict=true": b"\1",
    "pair={port: 80}": struct.pack("=HBx", 80, 2),
    "mac=02:00:00:00:00:01": b"\2\0\0\0\0\1",
}


def test_values_have_the_types_of_their_variables(tmp_path: Path) -> None:
    found = open_program(str(write(tmp_path / "typed.c", TYPED)))
    variables = found.contents.variables
    for setting, wanted in VALUES.items():
        name, _, text = setting.partition("=")
        assert parse_value(found.elf, name, variables[name], text) == wanted, setting
    for setting in ("colour=PINK", "ports=5", "ifname=" + "x" * 20, "home=x y", "home="):
        name, _, text = setting.partition("=")
        with pytest.raises(PolicyError):
            parse_value(found.elf, name, variables[name], text)


@pytest.mark.privileged
def test_a_run_tells_answer_time_and_what_changed(cli: Cli, tmp_path: Path) -> None:
    file = str(write(tmp_path / "rewrites.c", REWRITES))
    done = cli("program", "run", file, "--packet", DNS, "--repeat", "1", "--json").record
    frame = read_packet(DNS)
    assert (done["value"], done["name"]) == (3, "XDP_TX")
    assert done["changes"][0] == {"offset": 1, "before": "00", "after": "ee"}
    assert done["changes"][1] == {"offset": len(frame) - 4, "before": frame[-4:].hex(), "after": ""}
    text = cli("program", "run", file, "--packet", frame.hex()).out
    assert "the packet is 4 bytes shorter" in text
    assert "bytes from 1: 00 -> ee" in text


@pytest.mark.privileged
def test_a_capture_is_run_as_a_whole(cli: Cli, drop_dns: str, tmp_path: Path) -> None:
    capture = tmp_path / "a.pcap"
    write_pcap(capture, frames_of([read_packet(f"IPv4/UDP(dport={port})") for port in (53, 53, 54)]))
    done = cli("program", "run", drop_dns, "--pcap", str(capture), "--json").record
    assert [(one["name"], one["packets"]) for one in done["answers"]] == [("XDP_DROP", 2), ("XDP_PASS", 1)]


@pytest.mark.privileged
def test_a_loaded_program_is_shown(programs: Cli, drop_dns: str) -> None:
    number = str(programs("program", "load", drop_dns, "-i", "v1", "--json").record["program_id"])
    shown = programs("program", "show", number, "--json").record
    assert shown["attached"] == ["v1 xdp native"]
    assert shown["loaded_from"] == drop_dns
    assert shown["xlated_bytes"] % 8 == 0
    assert shown["jited_bytes"] > 0
    assert shown["btf_id"] > 0
    lines = {one["line"]: one["text"] for one in shown["source"]}
    assert lines[18] == "if (udp->dest == __constant_htons(53)) return XDP_DROP;"
    text = programs("program", "show", number).out
    assert "kernel.bpf_stats_enabled=1" in text
    assert "    18  if (udp->dest" in text
    assert programs("program", "run", number, "--packet", DNS).out.startswith("XDP_DROP")
    listed = [
        one for one in programs("program", "list", "--json").record["programs"] if one["id"] == int(number)
    ]
    assert listed[0]["name"] == "drop_dns"


@pytest.mark.privileged
def test_tail_calls_go_on_when_the_command_has_ended(programs: Cli, tmp_path: Path) -> None:
    file = str(write(tmp_path / "tail.c", TAIL_CALLS))
    done = programs("program", "load", file, "--section", "first", "-i", "v1", "--json")
    assert done.code == 0, done.err
    # A map of programs forgets them when no process has it open any more, unless it is pinned.
    ran = programs("program", "run", str(done.record["program_id"]), "--packet", DNS)
    assert ran.out.startswith("XDP_DROP")
    mine = [
        one for one in programs("program", "list", "--json").record["programs"] if one["loaded_from"] == file
    ]
    assert sorted(one["name"] for one in mine) == ["first", "last"]


@pytest.mark.privileged
def test_maps_are_pinned_for_others(programs: Cli, tmp_path: Path, bpffs: Path) -> None:
    text = HEAD + (
        "struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);"
        ' __type(value, __u64); } seen SEC(".maps");\n'
        'SEC("xdp") int counts(struct xdp_md *ctx) { __u32 k = 0; __u64 *v = bpf_map_lookup_elem(&seen, &k);'
        " if (v) __sync_fetch_and_add(v, 1); return XDP_PASS; }\n"
    )
    file, place = str(write(tmp_path / "counts.c", text)), bpffs / "for-others"
    done = programs("program", "load", file, "--pin", str(place), "--json")
    assert done.record["pins"] == [str(place / "counts"), str(place / "seen")]
    programs("program", "run", str(place / "counts"), "--packet", DNS)
    with Map.open(place / "seen") as seen:
        assert seen.lookup(bytes(4)) == struct.pack("=Q", 1)
    refused = programs("program", "load", file, "--pin", str(place))
    assert refused.code == 3
    assert f"pin {place / 'counts'}: File exists" in refused.err
    assert "`rm` takes a name away" in refused.err
    assert sorted(path.name for path in place.iterdir()) == ["counts", "seen"]


@pytest.mark.privileged
def test_a_program_of_somebody_elses_is_left_alone(programs: Cli, drop_dns: str) -> None:
    with load_object(open_program(drop_dns).elf, "theirs") as loaded:
        done = programs("program", "detach", str(loaded.programs["drop_dns"].id))
    assert done.code == 3
    assert "penstock did not load it" in done.err


@pytest.mark.privileged
def test_who_may_not_list_programs_hears_of_the_capability_for_it(cli: Cli) -> None:
    bare = Cli(cli.environment, ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"))
    done = bare("program", "list")
    assert done.code == 4
    assert "this needs CAP_SYS_ADMIN" in done.err


@pytest.mark.privileged
@pytest.mark.parametrize(
    "words", [("program", "detach"), ("program", "show"), ("map", "dump"), ("btf", "dump")]
)
def test_an_id_that_nothing_has_is_a_sentence(programs: Cli, words: tuple[str, ...]) -> None:
    done = programs(*words, "999999999")
    assert done.code == 3
    assert "id 999999999: there is none" in done.err


@pytest.mark.privileged
def test_who_does_not_say_where_hears_where_it_can_run(programs: Cli, tmp_path: Path) -> None:
    source = write(tmp_path / "tc.c", HEAD + 'SEC("tc") int at_tc(struct __sk_buff *skb) { return -1; }')
    done = programs("program", "load", str(source), "-i", "v1")
    assert done.code == 1
    assert "hint: --hook tc-ingress or --hook tc-egress" in done.err
    for word in ("tc-ingress", "tc ingress", "TC-Ingress"):
        assert programs("program", "load", str(source), "-i", "v1", "--hook", word).code == 0
    assert programs("program", "detach", "-i", "v1", "--hook", "tc ingress").code == 0


@pytest.mark.privileged
def test_an_object_without_btf_loads_with_a_warning(cli: Cli, drop_dns: str, tmp_path: Path) -> None:
    bare = str(tmp_path / "bare.o")
    argv = ["-O2", "-target", "bpf", "-idirafter", f"/usr/include/{platform.machine()}-linux-gnu"]
    argv += ["-include", "linux/in.h", "-c", drop_dns, "-o", bare]
    subprocess.run([find_clang().path, *argv], check=True)
    ran = cli("program", "run", bare, "--packet", DNS)
    assert ran.code == 0, ran.err
    assert ran.out.startswith("XDP_DROP")
    assert "has no BTF" in ran.err


DROPS_AT_TC = (
    HEAD
    + """
const volatile __u32 port = 53;
SEC("tc") int by_port(struct __sk_buff *skb) {
	__be16 dport = 0;
	__u8 proto = 0;
	bpf_skb_load_bytes(skb, 14 + 9, &proto, 1);
	bpf_skb_load_bytes(skb, 14 + 20 + 2, &dport, 2);
	return proto == 17 && dport == __builtin_bswap16(port) ? 2 : -1;
}
"""
)


@pytest.mark.privileged
@pytest.mark.parametrize("mode", ["tcx", "clsact"])
def test_programs_at_tc_run_one_after_the_other(programs: Cli, wire: Wire, tmp_path: Path, mode: str) -> None:
    file = str(write(tmp_path / "by_port.c", DROPS_AT_TC))
    load = ("program", "load", file, "--hook", "tc-ingress", "-i", "v1", "--mode", mode, "--json")
    first = programs(*load)
    assert first.code == 0, first.err
    assert (first.record["hook"], first.record["mode"]) == ("tc ingress", mode)
    second = programs(*load, "--set", "port=54", "--order", "first")
    assert second.code == 0, second.err
    assert (wire.arrived(53), wire.arrived(54), wire.arrived(55)) == (0, 0, 5)
    assert programs("program", "detach", str(first.record["program_id"])).code == 0
    assert (wire.arrived(53), wire.arrived(54)) == (5, 0)
    assert programs("program", "detach", "-i", "v1", "--hook", "tc-ingress").code == 0
    assert wire.arrived(54) == 5
    assert "clsact" not in wire.server.run("tc", "qdisc", "show", "dev", "v1").stdout


@pytest.mark.privileged
@pytest.mark.parametrize("order", [("policy", "program"), ("program", "policy")])
@pytest.mark.parametrize("hook", ["tc ingress", "tc egress"])
def test_a_policy_and_a_program_leave_no_qdisc_of_theirs(
    programs: Cli, wire: Wire, tmp_path: Path, order: tuple[str, str], hook: str
) -> None:
    file = str(write(tmp_path / "by_port.c", DROPS_AT_TC))
    text = write(tmp_path / "p.policy", "filter p at tc ingress { drop if udp dst port 54 }")
    commands = {
        "policy": ("apply", str(text), "-i", "v1", "--mode", "clsact"),
        "program": ("program", "load", file, "--hook", hook, "-i", "v1", "--mode", "clsact"),
    }
    for one in order:
        done = programs(*commands[one])
        assert done.code == 0, done.err
    for one in order:
        done = programs(*(("detach",) if one == "policy" else ("program", "detach")), "-i", "v1")
        assert done.code == 0, done.err
    assert "clsact" not in wire.server.run("tc", "qdisc", "show", "dev", "v1").stdout


@pytest.mark.privileged
def test_what_leaves_is_filtered_too(programs: Cli, wire: Wire, tmp_path: Path) -> None:
    file = str(write(tmp_path / "by_port.c", DROPS_AT_TC))
    unsaid = programs("program", "load", file, "-i", "v1")
    assert unsaid.code == 1
    assert "--hook" in unsaid.err
    done = programs("program", "load", file, "--hook", "tc-egress", "-i", "v1", "--json")
    assert done.code == 0, done.err
    with wire.client.inside():
        refused, taken = (_bound(port) for port in (53, 54))
    with wire.server.inside():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with refused, taken, sender:
        for port in (53, 54):
            sender.sendto(b"x", (CLIENT, port))
        taken.settimeout(10)
        assert taken.recv(9) == b"x"
        refused.setblocking(False)
        with pytest.raises(BlockingIOError):
            refused.recv(9)
    shown = programs("program", "show", str(done.record["program_id"]), "--json").record
    assert shown["attached"] == ["v1 tc egress tcx"]
    listed = Cli(programs.environment)("program", "show", str(done.record["program_id"]), "--json").record
    assert listed["attached"][0].startswith("v1 tc egress tcx in netns ")


def _bound(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((CLIENT, port))
    return made


@pytest.mark.privileged
def test_the_kernels_types_are_there_on_request(cli: Cli, tmp_path: Path) -> None:
    text = """\
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
SEC("tc") int by_type(struct __sk_buff *ctx) {
	struct iphdr ip;

	if (bpf_skb_load_bytes(ctx, 14, &ip, sizeof(ip)) < 0 || !bpf_core_field_exists(struct sk_buff, mark))
		return -1;
	return ip.protocol == IPPROTO_UDP ? 2 : -1;
}
char _license[] SEC("license") = "GPL";
"""
    file = str(write(tmp_path / "by_type.c", text))
    done = cli("program", "build", file, "--vmlinux")
    assert done.code == 0, done.err
    built = file.replace(".c", ".o")
    assert cli("program", "run", built, "--packet", "IPv4/UDP").out.startswith("TC_ACT_SHOT")
    assert cli("program", "run", built, "--packet", "IPv4/TCP").out.startswith("TC_ACT_UNSPEC")


@pytest.mark.privileged
def test_headers_of_the_c_library_are_found(cli: Cli, tmp_path: Path) -> None:
    headers = (
        "netinet/in.h",
        "sys/socket.h",
        "stdint.h",
        "stdbool.h",
        "linux/if_packet.h",
        "linux/tcp.h",
        "asm/types.h",
    )
    text = HEAD + "".join(f"#include <{one}>\n" for one in headers)
    done = cli("program", "build", str(write(tmp_path / "headers.c", text)))
    assert done.code == 0, done.err
    assert done.err == ""


@pytest.mark.privileged
def test_a_run_leaves_nothing_behind(cli: Cli, tmp_path: Path) -> None:
    name = f"ps_own_{os.getpid()}"
    text = HEAD + (
        "struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);"
        f' __type(value, __u64); __uint(pinning, LIBBPF_PIN_BY_NAME); }} {name} SEC(".maps");\n'
        'SEC("xdp") int looks(struct xdp_md *ctx) { __u32 k = 0;'
        f" return bpf_map_lookup_elem(&{name}, &k) ? 2 : 1; }}\n"
    )
    done = cli("program", "run", str(write(tmp_path / "pins.c", text)), "--packet", DNS)
    assert done.out.startswith("XDP_PASS"), done.err
    assert not Path("/sys/fs/bpf", name).exists()
