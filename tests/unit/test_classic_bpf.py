"""Classic programs as such: their text, their jumps, and what is refused with which words."""

from __future__ import annotations

import ctypes
import subprocess

import pytest

from penstock.compiler.classic.assemble import JEQ, LD, RET, Assembler
from penstock.compiler.classic.generate import compile_classic
from penstock.compiler.classic.limits import cannot_say
from penstock.compiler.classic.listing import as_c, bytecode, decimal, listing
from penstock.compiler.classic.start import Start
from penstock.compiler.libpcap import program_of
from penstock.errors import LimitError, PolicyError
from penstock.model.classic import Instruction
from penstock.pipeline.expression import is_policy, matcher
from penstock.pipeline.policy import rule_set_of

TEXT = "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn or ip6 host 2001:db8::1 or vlan 5 and ip[8] * ip[0] > 3"


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint32),
    )


def test_listing_is_what_libpcap_prints() -> None:
    library = ctypes.CDLL("libpcap.so.0.8")
    library.bpf_image.restype = ctypes.c_char_p
    program = compile_classic(matcher(TEXT)).instructions
    printed = listing(program).splitlines()
    for at, one in enumerate(program):
        native = _Instruction(one.code, one.jt, one.jf, one.k)
        theirs = library.bpf_image(ctypes.byref(native), at).decode().rstrip()
        assert printed[at] == theirs.replace("#-1", f"#{0xFFFFFFFF}")  # their %d


def test_all_forms_say_the_same() -> None:
    program = compile_classic(matcher("udp port 53")).instructions
    numbers = decimal(program).split("\n")
    assert int(numbers[0]) == len(program) == as_c(program).count("{")
    assert bytecode(program) == ",".join(numbers[:-1]) + "\n"
    first = program[0]
    assert numbers[1] == f"{first.code} {first.jt} {first.jf} {first.k}"
    assert as_c(program).startswith(f"{{ 0x{first.code:x}, 0, 0, 0x{first.k:08x} }},\n")


@pytest.mark.parametrize("distance", [250, 254, 255, 256, 257, 300, 600])
def test_jumps_of_any_distance(distance: int) -> None:
    """Both targets of a comparison lie behind so many instructions, in either order."""
    for value, kept in ((7, 1), (8, 2)):
        code = Assembler()
        yes, no = code.label(), code.label()
        code.emit(LD, value)
        code.jump(JEQ, 7, yes, no)
        here = code.label()
        code.place(no)
        for _ in range(distance):
            code.emit(LD, 0)
        code.emit(RET, 2)
        code.place(here)
        code.place(yes)
        code.emit(RET, 1)
        program = code.finish()
        assert _answer(program) == kept
        program_of(program)


def test_a_jump_over_jumps_that_grow() -> None:
    """Every jump is near until those behind it have become long."""
    code = Assembler()
    end = code.label()
    code.emit(LD, 5)
    for value in range(400):
        code.when(JEQ, 1000 + value, end)
    code.emit(RET, 3)
    code.place(end)
    code.emit(RET, 4)
    assert _answer(code.finish()) == 3


def _answer(program: tuple[Instruction, ...]) -> int:
    """What a program of constants, comparisons and jumps returns."""
    at, a = 0, 0
    while True:
        one = program[at]
        at += 1
        match one.code & 7:
            case 0:
                a = one.k
            case 5:
                at += one.k if one.code == 5 else one.jt if a == one.k else one.jf
            case _:
                return one.k


@pytest.mark.parametrize(
    ("rule", "start", "code", "words"),
    [
        ("count if tcp", Start.PACKET, "PS401", "nothing is counted"),
        ("audit if tcp", Start.PACKET, "PS401", "`audit` would say nothing"),
        ("bounce if tcp", Start.PACKET, "PS401", "`bounce` is neither"),
        ("drop if ether[ip[0]] = 1", Start.PACKET, "PS403", "computed offset"),
        ("drop if ether[14] = 1", Start.COOKED, "PS403", "keeps only the two addresses"),
        ("drop if ether src host 02:00:00:00:00:01", Start.BARE, "PS403", "no link header on this interface"),
        ("drop if ether[0] = 2", Start.BARE, "PS403", "no link header on this interface"),
        ("drop if vlan 5", Start.BARE, "PS403", "VLAN tags are gone"),
        ("drop if vlan 5", Start.TRANSPORT, "PS403", "VLAN tags are gone"),
        ("drop if greater 100", Start.TRANSPORT, "PS403", "length is not known"),
        ('drop if pcap "tcp"', Start.PACKET, "PS404", "libpcap's program"),
    ],
)
def test_what_cannot_be_said_names_the_rule_and_line(rule: str, start: Start, code: str, words: str) -> None:
    rules = rule_set_of(f"filter f at xdp {{\n    pass if arp\n    odd: {rule}\n}}")
    (found,) = cannot_say(rules, start)
    assert (found.code, found.line) == (code, 3)
    assert "cannot say rule odd" in found.message
    assert words in found.message
    with pytest.raises(PolicyError):
        compile_classic(rules, start)


def test_too_many_rules_name_the_one_that_crosses_the_limit() -> None:
    lines = "\n".join(
        f"    r{n}: drop if src host 10.{n // 256}.{n % 256}.1 and dst port {n + 1}" for n in range(1000)
    )
    with pytest.raises(LimitError, match=r"4096 instructions.*rule r\d+ \(line \d+\) crosses the limit"):
        compile_classic(rule_set_of(f"filter f at xdp {{\n{lines}\n}}"))


def test_too_many_encapsulations_need_more_memory_than_there_is() -> None:
    text = "geneve and geneve and geneve and geneve and tcp port 53"
    with pytest.raises(LimitError, match="16 words of memory"):
        compile_classic(matcher(text))


def test_same_rules_same_program() -> None:
    assert compile_classic(matcher(TEXT)) == compile_classic(matcher(TEXT))


def test_what_is_a_policy() -> None:
    assert is_policy("# edge\nfilter a at socket { drop }")
    assert is_policy("let web = 80\nfilter a at socket { drop if port $web }")
    assert not is_policy("udp port 53 or tcp port 53")
    assert not is_policy("")


@pytest.mark.privileged
def test_iptables_takes_the_bytecode() -> None:
    made = subprocess.run(["unshare", "--net", "true"], capture_output=True)
    assert made.returncode == 0
    text = bytecode(compile_classic(matcher("ip and ttl < 3"), Start.NETWORK).instructions).strip()
    rule = f"iptables -A INPUT -m bpf --bytecode '{text}' -j DROP && iptables -S INPUT"
    done = subprocess.run(["unshare", "--net", "sh", "-c", rule], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "-m bpf" in done.stdout
