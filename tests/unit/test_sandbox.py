"""Check 42: no word of a policy reaches the compiler as more than numbers and quoted names; what clang may do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tests.warm import forget_objects

from penstock.compiler.clang import BPF_FOLDER, arguments, compile_c, find_clang
from penstock.compiler.codegen.emit import emit
from penstock.compiler.confinement import CPU_LIMIT_S, FILE_LIMIT, MEMORY_LIMIT
from penstock.compiler.ir.lower import lower_filter
from penstock.compiler.lang.parser import parse_policy
from penstock.compiler.lang.source import Source
from penstock.errors import PolicyError, ToolchainError

pytestmark = pytest.mark.check(42)

HOSTILE = [
    '"\n#include "/etc/shadow"\n//',
    "*/\n#include </etc/shadow>\n/*",
    '??/\n#include "/etc/shadow"',
    "\\\n#pragma GCC poison int\\",
    '"); asm(".incbin \\"/etc/shadow\\"'[:40],
    '_Pragma("once") __asm__("")',
    '%:include "/etc/shadow"',
    "a\r#include </etc/shadow>",
    "a\u2028#include </etc/shadow>\u0085#error",
    "#embed </etc/shadow>",
    '__has_include("/etc/shadow")',
]
TEXT = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=40))

#: Every line that the preprocessor looks at, in what is generated for these policies.
_DIRECTIVE = re.compile(
    r"#(define PS_\w+ .*|include <(penstock|hooks)/\w+\.bpf\.[ch]>|line \d+ \"generated\"|line 1 \"<name>\""
    r"|pragma (unroll|clang loop unroll\(\w+\)))"
)
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')


_LINE_END = re.compile(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]")


def policy(text: str, words: tuple[str, ...] = ("ifname", "pcap")) -> str:
    """One that has `text` wherever text goes: comments, strings, expressions."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    lines = [
        f"# {_LINE_END.sub(' ', text)}",
        "filter edge at tc ingress {",
        f"    drop if udp dst port 53   # {_LINE_END.sub(' ', text)}",
        *(f'    drop if {word} "{quoted}"' for word in words),
        "}",
    ]
    return "\n".join(lines) + "\n"


def generated(text: str, name: str) -> str | None:
    """The C of a policy; None if it is none."""
    try:
        found = parse_policy(Source(name, text))
        return emit(lower_filter(found, found.filters[0])).text
    except PolicyError:
        return None


def skeleton(c: str) -> str:
    """What the compiler sees of it: comments gone, the policy's name in #line directives replaced."""
    lines = [
        '#line 1 "<name>"' if re.fullmatch(r'#line \d+ "(?:[^"\\\n]|\\[0-7]{3})*"', line) else line
        for line in _COMMENT.sub(" ", c).split("\n")
    ]
    return "\n".join(lines)


@settings(max_examples=80)
@given(TEXT)
@example("")
def test_check_42_names_of_files_are_text_and_nothing_else(name: str) -> None:
    """The same policy under another name is the same program, to the byte."""
    text = "filter edge at xdp {\n    ssh: drop if tcp dst port 22\n}\n"
    plain, odd = generated(text, "edge.policy"), generated(text, name)
    assert plain is not None
    assert odd is not None
    assert skeleton(odd) == skeleton(plain)


@settings(max_examples=80)
@given(TEXT)
def test_check_42_no_text_of_a_policy_is_seen_by_the_preprocessor(text: str) -> None:
    """Where a string is no expression, or no name of an interface, the policy goes without it."""
    texts = [policy(text, words) for words in (("ifname", "pcap"), ("ifname",), ("pcap",), ())]
    found = [c for one in texts if (c := generated(one, "edge.policy")) is not None]
    assume(found)  # a control character is an error by itself
    for c in found:
        bare = skeleton(c)
        seen = [line for line in bare.split("\n") if re.match(r"\s*(#|%:|\?\?=)", line)]
        assert [line for line in seen if not _DIRECTIVE.fullmatch(line)] == []
        # A line is spliced in macros of penstock's own alone.
        spliced = [line for line in bare.split("\n") if line.endswith("\\")]
        assert [line for line in spliced if "shadow" in line or "error" in line] == []
        assert not re.search(r"_Pragma|__has_include|incbin|embed|shadow", _STRING.sub('""', bare))


def test_check_42_clang_reads_penstocks_headers_alone() -> None:
    """By clang's own account of what it has read."""
    c = generated(policy("udp"), HOSTILE[0])
    assert c is not None
    argv = [*arguments(find_clang())[:-2], "-M", "-MT", "it"]
    argv.remove("-c")
    told = subprocess.run(argv, input=c, capture_output=True, text=True, check=True).stdout
    files = [Path(word) for word in told.replace("\\\n", " ").split()[1:]]
    assert len(files) > 5
    assert [
        file for file in files if not file.resolve().is_relative_to(BPF_FOLDER) and str(file) != "-"
    ] == []


REPORTING = """#!/bin/sh
[ "$1" = -dumpversion ] && { echo 19.1.0; exit 0; }
{ cat /proc/self/status /proc/self/limits /proc/net/dev; echo "in $PWD: $(ls -A)"; env; } >&2
exit 3
"""


def test_check_42_the_compiler_has_nothing_but_its_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without privilege, too; the network is left where the kernel lets this user make a namespace."""
    clang = tmp_path / "clang"
    clang.write_text(REPORTING)
    clang.chmod(0o755)
    monkeypatch.setenv("PENSTOCK_CLANG", str(clang))
    monkeypatch.setenv("SECRET", "of the caller")
    with forget_objects(), pytest.raises(ToolchainError) as caught:
        compile_c("int x;\n", [("edge.policy", "its text")])
    Path(str(caught.value.source_path)).unlink()
    said = caught.value.stderr
    held = dict(re.findall(r"^(Cap\w+|NoNewPrivs):\s*(\w+)$", said, re.MULTILINE))
    nothing = "0" * 16
    assert (held["CapEff"], held["CapPrm"], held["CapInh"], held["CapAmb"]) == (nothing,) * 4
    assert held["NoNewPrivs"] == "1"
    limits = dict(re.findall(r"^(Max [\w ]+?)  +(\d+) ", said, re.MULTILINE))
    assert limits["Max cpu time"] == str(CPU_LIMIT_S)
    assert limits["Max address space"] == str(MEMORY_LIMIT)
    assert limits["Max file size"] == str(FILE_LIMIT)
    assert re.findall(r"^in (\S+): (.*)$", said, re.MULTILINE)[0][1] == "edge.policy"
    assert "SECRET" not in said
    own = subprocess.run(["unshare", "--user", "--net", "true"], capture_output=True).returncode
    if own == 0:
        assert re.findall(
            r"^ *(\w+):", said[said.index("Inter-|") :].partition("\nin ")[0], re.MULTILINE
        ) == ["lo"]
