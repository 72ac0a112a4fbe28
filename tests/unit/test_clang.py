"""Finding clang, running it, and what it leaves behind; object files that describe themselves."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from msgspec import structs
from tests.warm import forget_objects

from penstock.compiler.clang import BPF_FOLDER, Clang, compile_c, find_clang
from penstock.compiler.codegen.emit import emit
from penstock.compiler.driver import compile_rule_set
from penstock.compiler.ir.lower import lower_filter
from penstock.compiler.ir.ops import RuleSet
from penstock.compiler.lang.parser import parse_policy
from penstock.compiler.lang.source import Source
from penstock.compiler.objectfile import add_section, section, sections
from penstock.errors import PenstockError, ToolchainError
from penstock.pipeline.built import join
from penstock.pipeline.policy import load_built, load_policy

DNS = "filter dns at xdp {\n    dns: drop if udp dst port 53\n}\n"


def rule_set(name: str = "dns.policy") -> RuleSet:
    policy = parse_policy(Source(name, DNS))
    return lower_filter(policy, policy.filters[0])


def fake_clang(folder: Path, name: str, says: str) -> Path:
    file = folder / name
    file.write_text(f"#!/bin/sh\necho {says}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


def test_the_newest_clang_in_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("clang-9", "clang-15", "clang-17", "clang-format-99", "clang++-20"):
        fake_clang(tmp_path, name, "0")
    fake_clang(tmp_path, "clang", "16.0.6")
    monkeypatch.delenv("PENSTOCK_CLANG", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_clang() == Clang(str(tmp_path / "clang-17"), 17)


def test_no_clang_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_CLANG", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match="no clang") as caught:
        find_clang()
    assert "apt install clang" in str(caught.value.hint)


def test_an_old_clang_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_clang(tmp_path, "clang-9", "0")
    monkeypatch.delenv("PENSTOCK_CLANG", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match="clang 9, which is too old"):
        find_clang()


@pytest.mark.parametrize(("name", "says"), [("nowhere/clang", ""), ("old-clang", "11.0.1")])
def test_the_clang_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    if says:
        fake_clang(tmp_path, name, says)
    monkeypatch.setenv("PENSTOCK_CLANG", str(tmp_path / name))
    with pytest.raises(ToolchainError, match="PENSTOCK_CLANG names"):
        find_clang()


def test_a_failure_keeps_what_is_needed_to_repeat_it() -> None:
    with pytest.raises(ToolchainError, match="does_not_exist") as caught:
        compile_c("int x = does_not_exist;\n")
    error = caught.value
    assert error.argv[0] == find_clang().path
    assert "does_not_exist" in error.stderr
    kept = Path(str(error.source_path))
    assert kept.read_text() == "int x = does_not_exist;\n"
    kept.unlink()


def test_no_file_of_this_machine_can_be_included() -> None:
    with pytest.raises(ToolchainError) as caught:
        compile_c("#include <stdio.h>\n")
    Path(str(caught.value.source_path)).unlink()


def test_the_same_bytes_each_time_and_no_path_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with forget_objects():
        first = compile_rule_set(rule_set("/somewhere/dns.policy"))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        again = compile_rule_set(rule_set("/somewhere/dns.policy"))
    assert first.elf == again.elf
    assert str(BPF_FOLDER).encode() not in first.elf


def test_the_policy_is_quoted_in_the_debug_information() -> None:
    if find_clang().version < 17:
        pytest.skip("clang 14 to 16 name one file for a whole function, here the hook's")
    source = emit(rule_set())
    assert b"drop if udp dst port 53" in dict(sections(compile_c(source.text, source.files)))[".BTF"]


@pytest.mark.parametrize("name", ["../dns.policy", "/dns.policy", "object.o", "..", "a\0b"])
def test_a_file_is_never_written_elsewhere(name: str) -> None:
    assert compile_c("int x;\n", [(name, "text")]).startswith(b"\x7fELF")


def test_a_built_policy_describes_itself() -> None:
    policy = load_policy(DNS, name="dns.policy")
    assert load_built(policy.to_bytes(), "dns.pso").identity == policy.identity
    assert policy.rule_keys[0].text == "dns: drop if udp dst port 53"


def test_a_section_is_added_and_nothing_else_changed() -> None:
    elf = compile_c("int x = 7;\n")
    grown = add_section(elf, ".note.test", b"hello")
    assert section(grown, ".note.test") == b"hello"
    assert dict(sections(elf)).items() <= dict(sections(grown)).items()
    assert section(add_section(grown, ".more", b""), ".note.test") == b"hello"


@pytest.mark.parametrize("cut", [0, 4, 40, 63, 500, 5000])
def test_a_cut_object_is_refused(cut: int) -> None:
    with pytest.raises(PenstockError, match=r"dns\.pso is not a whole object file"):
        load_built(load_policy(DNS).to_bytes()[:cut], "dns.pso")


def test_a_changed_byte_is_noticed_wherever_it_is() -> None:
    whole = load_policy(DNS).to_bytes()
    for at in range(0, len(whole), 97):
        changed = bytearray(whole)
        changed[at] ^= 1
        with pytest.raises(PenstockError):
            load_built(bytes(changed), "dns.pso")


@pytest.mark.parametrize("field", [range(40, 48), range(58, 64)], ids=["offset of the table", "its size"])
def test_a_section_table_that_is_nowhere_is_refused(field: range) -> None:
    whole = bytearray(load_policy(DNS).to_bytes())
    for at in field:
        whole[at] = 0xFF
    with pytest.raises(PenstockError, match="not a whole object file"):
        load_built(bytes(whole), "dns.pso")


def test_an_object_of_a_newer_format_is_refused() -> None:
    identity = structs.replace(load_policy(DNS).identity, schema="penstock.identity/99", version="9.9")
    newer = join(compile_c("int x;\n"), identity)
    with pytest.raises(PenstockError, match="another version of penstock"):
        load_built(newer, "dns.pso")


def test_a_foreign_object_is_refused() -> None:
    with pytest.raises(PenstockError, match="not one of `penstock build`"):
        load_built(compile_c("int x;\n"), "dns.pso")
