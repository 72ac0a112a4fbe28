"""Bad input through the real command line: a sentence and an exit code, never a traceback.  Needs no privilege."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from shutil import which

import pytest
from tests.e2e.conftest import Cli, write

from penstock.model.packet import build_packet, parse_packet
from penstock.observe.pcap import frames_of, write_pcap

GOOD = "filter guard at xdp {\n    default pass\n\n    dns: drop if udp dst port 53\n}\n"


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Three packets: DNS, NTP, DNS over IPv6."""
    texts = ("IPv4/UDP(dport=53)", "IPv4/UDP(dport=123)", "IPv6/UDP(dport=53)")
    path = tmp_path / "three.pcap"
    write_pcap(path, frames_of([build_packet(parse_packet(text)) for text in texts]))
    return path


def test_a_policy_that_is_fine(cli: Cli, tmp_path: Path) -> None:
    done = cli("--quiet", "check", str(write(tmp_path / "good.policy", GOOD)))
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("fine\n")


def test_standard_input(cli: Cli) -> None:
    assert cli("check", "-", stdin=GOOD).code == 0


def test_a_directory(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "inside.policy", GOOD)
    done = cli("check", str(tmp_path))
    assert done.code == 1
    assert "is a directory" in done.err
    assert "inside.policy" in done.err


def test_an_empty_file(cli: Cli, tmp_path: Path) -> None:
    done = cli("check", str(write(tmp_path / "empty.policy", " \n")))
    assert done.code == 1
    assert "is empty" in done.err


def test_a_missing_file_gets_the_nearest_name(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "guard.policy", GOOD)
    done = cli("check", str(tmp_path / "gaurd.policy"))
    assert done.code == 1
    assert "guard.policy" in done.err


def test_what_is_no_text(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "latin.policy"
    path.write_bytes(b"filter f at xdp {\n# caf\xe9\n}\n")
    done = cli("check", str(path))
    assert done.code == 1
    assert "line 2" in done.err


def test_an_object_file_where_a_policy_is_wanted(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path / "g.policy", GOOD)
    assert cli("build", str(path)).code == 0
    done = cli("check", str(tmp_path / "g.pso"))
    assert done.code == 1
    assert "the policy that it was built from" in done.err


@pytest.mark.check(4)
@pytest.mark.parametrize(
    ("mebibytes", "said"), [(10, "no filter"), (20, "at most 16 MiB"), (40, "larger than 32 MiB")]
)
def test_a_policy_of_many_mebibytes(cli: Cli, tmp_path: Path, mebibytes: int, said: str) -> None:
    line = "# penstock\n"
    path = write(tmp_path / "large.policy", line * ((mebibytes << 20) // len(line)))
    done = cli("check", str(path))
    assert done.code == 1
    assert said in done.err


@pytest.mark.check(15)
def test_a_rule_that_no_program_has_room_for(cli: Cli, tmp_path: Path) -> None:
    """A fifth more than the verifier would follow is refused by `check`, a fifth less is not."""
    for count, code in ((272, 0), (410, 1)):
        terms = " or ".join(f"ip[8:2] == {number}" for number in range(1, count + 1))
        path = write(tmp_path / "long.policy", f"filter long at xdp {{\n one: count if {terms}\n}}\n")
        done = cli("check", str(path))
        assert (done.code, "a rule can make 2048" in done.err) == (code, bool(code)), done.err


def test_a_device_without_end(cli: Cli) -> None:
    done = cli("check", "/dev/zero")
    assert done.code == 1


def test_every_file_is_checked_although_one_is_missing(cli: Cli, tmp_path: Path) -> None:
    good = write(tmp_path / "good.policy", GOOD)
    done = cli("check", "--json", str(tmp_path / "missing"), str(good))
    first, second = (json.loads(line) for line in done.out.splitlines())
    assert done.code == 1
    assert "error" in first
    assert (second["schema"], second["file"]) == ("penstock.check/1", str(good))
    assert (second["errors"], second["warnings"]) == (0, 0)


@pytest.mark.check(8)
def test_a_shadowed_rule_is_a_warning_and_with_strict_a_fault(cli: Cli, tmp_path: Path) -> None:
    text = GOOD.replace("}\n", "    again: drop if udp dst port 53\n}\n")
    path = str(write(tmp_path / "shadowed.policy", text))
    done = cli("check", path)
    assert done.code == 0
    assert "dns" in done.err
    assert cli("check", "--strict", path).code == 1


def test_control_characters_do_not_reach_the_terminal(cli: Cli, tmp_path: Path) -> None:
    done = cli("check", str(write(tmp_path / "evil.policy", "filter f at xdp { drop if \x1b]0;gotcha\x07 }")))
    assert done.code == 1
    assert "\x1b" not in done.out + done.err


def test_explain_names_the_rule_and_what_did_not_hold_before_it(cli: Cli, tmp_path: Path) -> None:
    path = str(write(tmp_path / "g.policy", GOOD))
    done = cli("explain", path, "IPv4/UDP(dport=123)", "--json")
    assert done.record["verdict"] == "pass"
    assert done.record["decided_by"] == "default"
    assert "123" in done.record["rules_before"][0]["reason"]
    assert "drop by dns" in cli("explain", path, "IPv4/UDP(dport=53)").out


def test_explain_takes_a_packet_in_three_ways(cli: Cli, tmp_path: Path, capture: Path) -> None:
    path = str(write(tmp_path / "g.policy", GOOD))
    frame = build_packet(parse_packet("IPv6/UDP(dport=53)"))
    assert "drop by dns" in cli("explain", path, "--hex", frame.hex(":")).out
    assert "drop by dns" in cli("explain", path, "--pcap", str(capture), "--packet", "3").out
    assert cli("explain", path, "--pcap", str(capture), "--packet", "4").code == 1
    assert cli("explain", path, "--hex", "abc").code == 1
    assert cli("explain", path, "Ipv4/UPD").code == 1
    assert cli("explain", path).code == 1


def test_a_failing_test_block(cli: Cli, tmp_path: Path) -> None:
    text = GOOD + 'test "wrong" { packet IPv4/UDP(dport=53) -> pass }\n'
    done = cli("test", str(write(tmp_path / "g.policy", text)))
    assert done.code == 1
    assert "drop by dns" in done.out
    assert "0 of 1" in done.out


def test_a_test_block_over_a_capture(cli: Cli, tmp_path: Path, capture: Path) -> None:
    text = (
        GOOD
        + f'test "yesterday" {{ pcap "{capture.name}" -> drop >= 60%\n pcap "{capture.name}" -> drop >= 70% }}\n'
    )
    done = cli("test", str(write(tmp_path / "g.policy", text)), "--json")
    passed = [json.loads(line)["passed"] for line in done.out.splitlines()[:-1]]
    assert (done.code, passed) == (1, [True, False])


def test_a_capture_that_is_missing_fails_its_step_only(cli: Cli, tmp_path: Path) -> None:
    text = GOOD + 'test "t" {\n    pcap "no.pcap" -> drop\n    packet IPv4/UDP(dport=53) -> drop by dns\n}\n'
    done = cli("test", str(write(tmp_path / "g.policy", text)))
    assert done.code == 1
    assert "no.pcap: No such file or directory" in done.out
    assert "1 of 2 steps passed" in done.out


def test_a_fault_of_syntax_brings_no_other_about(cli: Cli, tmp_path: Path) -> None:
    for text in (GOOD + "\0", GOOD + "# \u202e\n", GOOD.replace("drop if", "dorp if")):
        done = cli("check", str(write(tmp_path / "g.policy", text)), "--json")
        assert len(done.record["diagnostics"]) == 1, text


def test_constants_in_a_circle_are_told_once(cli: Cli, tmp_path: Path) -> None:
    text = "let a = $b\nlet b = $a\n" + GOOD.replace("udp dst port 53", "host $a")
    found = cli("check", str(write(tmp_path / "g.policy", text)), "--json").record["diagnostics"]
    assert [one["code"] for one in found if one["severity"] == "error"] == ["PS111"]


def test_a_chain_of_thousands_is_checked_in_no_time(cli: Cli, tmp_path: Path) -> None:
    chain = " or ".join(f"host 10.{number % 250}.{number // 250}.1" for number in range(10_000))
    began = time.monotonic()
    done = cli("check", str(write(tmp_path / "g.policy", GOOD.replace("udp dst port 53", chain))))
    assert done.code == 0
    # It takes 1.3 s, and took 30 s while looking for encapsulations was quadratic.
    assert time.monotonic() - began < 15


def test_a_policy_over_a_capture(cli: Cli, tmp_path: Path, capture: Path) -> None:
    path = str(write(tmp_path / "g.policy", GOOD))
    done = cli("test", path, "--pcap", str(capture), "--json")
    assert done.record["verdicts"] == {"pass": 1, "drop": 2, "bounce": 0, "redirect": 0, "reject": 0}


def test_match_prints_the_number(cli: Cli, capture: Path) -> None:
    for engine in ("reference", "libpcap"):
        done = cli("match", "udp port 53", str(capture), "--engine", engine)
        assert (done.code, done.out, done.err) == (0, "2\n", "")


def test_match_with_a_list_of_expressions(cli: Cli, capture: Path, tmp_path: Path) -> None:
    listing = write(tmp_path / "list", "udp port 53\nudp prot 53\nip\n\n")
    done = cli("match", "--expressions", str(listing), str(capture), "--json")
    fault, *lines = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 1
    assert fault["expression"] == "udp prot 53"
    assert sorted(fault["error"]) == ["code", "message"]
    file = str(capture)
    assert lines == [
        {"file": file, "expression": "udp port 53", "packets": 3, "matched": 2},
        {"file": file, "expression": "ip", "packets": 3, "matched": 2},
    ]


@pytest.mark.privileged
def test_match_in_the_kernel(cli: Cli, capture: Path, tmp_path: Path) -> None:
    listing = write(tmp_path / "list", "udp port 53\nip\nudp port 123\nlen > 1000\n")
    done = cli("match", "--engine", "kernel", "--expressions", str(listing), str(capture), "--json")
    assert [json.loads(line)["matched"] for line in done.out.splitlines()] == [2, 2, 1, 0]


def test_a_list_with_comments_and_dos_line_ends(cli: Cli, capture: Path, tmp_path: Path) -> None:
    listing = tmp_path / "list"
    listing.write_bytes(b"\xef\xbb\xbf# what we want\r\n\r\nudp port 53\r\n  ip6  \r\n#ip\r\n")
    done = cli("match", "--expressions", str(listing), str(capture))
    assert done.out.splitlines() == [f"{capture}\tudp port 53\t2", f"{capture}\tip6\t1"]


def test_a_list_without_an_expression(cli: Cli, capture: Path, tmp_path: Path) -> None:
    done = cli("match", "--expressions", str(write(tmp_path / "list", "# none\n\n")), str(capture))
    assert (done.code, done.out) == (1, "")
    assert "there is no expression" in done.err


@pytest.mark.parametrize("engine", ["reference", "libpcap"])
def test_ip_broadcast_has_the_netmask_that_tcpdump_gives_files(cli: Cli, tmp_path: Path, engine: str) -> None:
    path = tmp_path / "casts.pcap"
    texts = [f'IPv4(dst="{dst}")/UDP' for dst in ("255.255.255.255", "0.0.0.0", "10.255.255.255")]
    write_pcap(path, frames_of([build_packet(parse_packet(text)) for text in texts]))
    assert cli("match", "ip broadcast", str(path), "--engine", engine).out == "2\n"
    if which("tcpdump"):
        counted = ["tcpdump", "-r", str(path), "--count", "ip broadcast"]
        assert "2 packets" in subprocess.run(counted, capture_output=True, text=True).stdout


@pytest.mark.privileged
def test_one_expression_too_large_for_the_kernel_leaves_the_others(
    cli: Cli, capture: Path, tmp_path: Path
) -> None:
    large = " or ".join(f"(port {number} and len > {number})" for number in range(1, 3000))
    texts = ["udp", *(f"len > {size}" for size in range(40)), large, "ip6"]
    listing = write(tmp_path / "list", "\n".join(texts))
    done = cli("match", "--engine", "kernel", "--expressions", str(listing), str(capture), "--json")
    fault, *lines = [json.loads(line) for line in done.out.splitlines()]
    assert (done.code, fault["expression"], fault["error"]["code"]) == (1, large, "LimitError")
    assert [line["matched"] for line in lines] == [3] * 41 + [1]


@pytest.mark.privileged
def test_the_kernel_counts_each_file_and_what_is_too_short_for_a_test_run(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "short.pcap"
    write_pcap(path, frames_of([bytes(13), bytes(12) + b"\x08\x00" + bytes(6), b"", bytes(9000)]))
    done = cli("match", "less 20", str(path), str(path), "--engine", "kernel")
    assert [line.rpartition("\t")[2] for line in done.out.splitlines()] == ["3", "3"]


def test_a_capture_that_is_cut_gives_what_was_read_and_a_warning(cli: Cli, capture: Path) -> None:
    capture.write_bytes(capture.read_bytes()[:-10])
    done = cli("match", "udp", str(capture))
    assert (done.code, done.out) == (0, "2\n")
    assert "is cut" in done.err


def test_a_capture_that_is_none(cli: Cli, tmp_path: Path, capture: Path) -> None:
    done = cli("match", "udp", str(write(tmp_path / "no.pcap", "hello, world")), str(capture))
    assert done.code == 1
    assert "not a pcap or pcapng file" in done.err
    assert done.out == f"{capture}\tudp\t3\n"


def test_no_clang(tmp_path: Path) -> None:
    path = write(tmp_path / "g.policy", GOOD)
    done = Cli({"PENSTOCK_CLANG": "/nonexistent/clang"})("build", str(path), "-o", str(tmp_path / "out"))
    assert done.code == 2
    assert "hint:" in done.err
    assert not (tmp_path / "out").exists()


def test_build_gives_the_same_bytes_every_time(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path / "g.policy", GOOD)
    for name in ("one", "two"):
        assert cli("build", str(path), "-o", str(tmp_path / name)).code == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("stage", ["ast", "ir", "c"])
def test_every_stage_can_be_printed(cli: Cli, tmp_path: Path, stage: str) -> None:
    done = cli("build", str(write(tmp_path / "g.policy", GOOD)), "--emit", stage)
    assert done.code == 0, done.err
    assert "53" in done.out or "0x35" in done.out


def test_the_file_that_is_written_says_the_stage(cli: Cli, tmp_path: Path) -> None:
    path = str(write(tmp_path / "g.policy", GOOD))
    for name, begin in (("g.dot", b"digraph"), ("g.c", b"/* Generated"), ("g.pso", b"\x7fELF")):
        assert cli("build", path, "-o", str(tmp_path / name)).code == 0
        assert (tmp_path / name).read_bytes().startswith(begin)
    assert cli("build", path, "--emit", "object", "-o", str(tmp_path / "g.c")).code == 0
    assert (tmp_path / "g.c").read_bytes().startswith(b"\x7fELF")


def test_format_check_and_in_place(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path / "g.policy", "filter   guard at xdp {\ndns:drop if udp dst port 53 }")
    untidy = cli("format", "--check", str(path))
    assert untidy.code == 1
    assert untidy.out.startswith("---")
    assert cli("format", "--in-place", str(path)).code == 0
    assert cli("format", "--check", str(path)).code == 0
    assert cli("format", str(path)).out == path.read_text()


@pytest.mark.parametrize(
    "arguments", [(), ("chekc",), ("apply",), ("check",), ("match", "udp"), ("status", "--nope")]
)
def test_usage(cli: Cli, arguments: tuple[str, ...]) -> None:
    done = cli(*arguments)
    assert done.code in ((0, 1) if not arguments else (1,))
    assert done.out + done.err


def test_a_mistyped_command_gets_the_nearest_name(cli: Cli) -> None:
    assert "did you mean `penstock check`?" in cli("chekc").err
    assert "did you mean" not in cli("frobnicate").err


@pytest.mark.parametrize(
    ("word", "meant"),
    [("attach", "apply"), ("load", "program load"), ("list", "status"), ("prog", "program")],
)
def test_words_of_other_tools_lead_to_the_command(cli: Cli, word: str, meant: str) -> None:
    assert f"did you mean `penstock {meant}`?" in cli(word).err


@pytest.mark.parametrize("group", ["program", "map", "btf", "rule"])
def test_a_group_alone_shows_its_commands_in_whole_sentences(cli: Cli, group: str) -> None:
    done = cli(group)
    assert (done.code, done.err) == (0, "")
    assert "Commands:" in done.out
    assert "..." not in done.out.split("Commands:")[1]


def test_c_and_policies_are_not_taken_for_each_other(cli: Cli, tmp_path: Path) -> None:
    source = write(tmp_path / "x.c", "int answer;")
    policy = write(tmp_path / "x.policy", "filter a at xdp { drop }")
    assert "`penstock program load`" in cli("apply", str(source), "-i", "lo").err
    assert "`penstock apply`" in cli("program", "load", str(policy)).err


def test_a_socket_filter_is_on_no_interface_in_a_dry_run_either(cli: Cli, tmp_path: Path) -> None:
    policy = write(tmp_path / "s.policy", "filter a at socket { drop }")
    done = cli("apply", str(policy), "-i", "lo", "--dry-run")
    assert done.code == 1
    assert "attach_socket" in done.err


def test_a_program_that_iptables_will_not_take_is_warned_of(cli: Cli) -> None:
    words = ("build", "--start", "network", "--as", "bytecode", "--classic")
    assert cli(*words, "ip and ttl < 3").err == ""
    done = cli(*words, "udp port 53")
    assert done.code == 0
    assert f"at most 64 instructions, this program has {done.out.split(',')[0]}" in done.err


def test_a_reader_that_has_gone(tmp_path: Path) -> None:
    path = write(tmp_path / "g.policy", GOOD)
    script = f"{sys.executable} -m penstock build {path} --emit c | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", "141")


@pytest.mark.parametrize("arguments", [("--emit", "c"), ("-o", "-")])
def test_a_full_disk(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    path = write(tmp_path / "g.policy", GOOD)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "penstock", "build", str(path), *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("group", ["set", "feed", "daemon", "rule", "program", "map", "btf"])
def test_the_help_of_a_group_has_whole_sentences(cli: Cli, group: str) -> None:
    listed = cli(group, "--help").out.partition("Commands:\n")[2].rstrip()
    assert listed.endswith(".")
    assert "..." not in listed
    ends = re.split(r"\n  (?=\S)", listed)
    assert [one for one in ends if not one.endswith(".")] == []


def test_help_on_a_full_disk() -> None:
    with Path("/dev/full").open("w") as full:
        argv = [sys.executable, "-m", "penstock", "--help"]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "error: write to standard output: No space left on device\n")


@pytest.mark.parametrize(
    ("closed", "code", "said"),
    [
        (">&-", 1, "error: write to standard output: Bad file descriptor\n"),
        ("2>&-", 0, ""),
        (">&- 2>&-", 1, ""),
        ("<&-", 0, ""),
    ],
)
def test_a_closed_stream(tmp_path: Path, closed: str, code: int, said: str) -> None:
    path = write(tmp_path / "g.policy", GOOD)
    script = f"{sys.executable} -m penstock build {path} --emit ir {closed}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, said)


def test_standard_input_that_is_closed() -> None:
    argv = [sys.executable, "-m", "penstock", "check", "-"]
    done = subprocess.run(["bash", "-c", f"{' '.join(argv)} <&-"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: <stdin> cannot be read: Bad file descriptor\n"


def test_no_colour_where_there_is_no_terminal(cli: Cli, tmp_path: Path) -> None:
    assert "\x1b" not in cli("check", str(tmp_path)).err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(cli: Cli, shell: str) -> None:
    assert "_PENSTOCK_COMPLETE" in cli("completion", shell).out


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("penstock un", "plain,undrop"),
        ("penstock apply --mo", "plain,--mode"),
        ("penstock apply --mode n", "plain,native"),
        ("penstock apply -i l", "plain,lo"),
        ("penstock check e", "file,e"),
        ("penstock test --pcap e", "file,e"),
        ("penstock program run e", "file,e"),
        ("penstock map dump e", "file,e"),
        ("penstock btf dump e", "file,e"),
        ("penstock check --hook tc-i", "plain,tc-ingress"),
        ("penstock detach --hook tc-e", "plain,tc-egress"),
    ],
)
def test_what_is_completed(words: str, wanted: str) -> None:
    asked = {"_PENSTOCK_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    assert wanted in Cli(environment=asked)().out.splitlines()


def test_help_is_quick_because_it_imports_nothing() -> None:
    script = "import sys; from penstock.cli.main import commands; print(' '.join(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"numpy", "rich", "msgspec", "penstock.pipeline", "penstock.kernel.libbpf"} & set(loaded)


def test_a_bug_is_reported_as_one(tmp_path: Path) -> None:
    script = (
        "import penstock.cli.version as v; v.output.answer = lambda text: 1 / 0\n"
        "from penstock.cli.main import main; main(['version'])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PENSTOCK_DEBUG"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 70
    assert "this is a bug in penstock: ZeroDivisionError" in done.stderr
    assert "Traceback" not in done.stderr
