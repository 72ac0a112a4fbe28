"""The usual mistakes, each in a program that the kernel here refuses: the line that is blamed, and why."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.compiler.clang import Clang
from penstock.compiler.handwritten import build_program
from penstock.errors import VerifierError
from penstock.kernel.advice import explain
from penstock.kernel.advice_table import TABLE
from penstock.kernel.bpf_object import load_object
from penstock.kernel.verifier import read_log

pytestmark = pytest.mark.privileged

CASES = sorted((Path(__file__).parents[1] / "cases/refused").glob("*.c"))
#: What the kernel lets pass with CAP_PERFMON.
UNPRIVILEGED = "stack-uninitialised"
#: The verifier's log of it takes seconds to write: once is enough.
SLOW = "loop-too-long"
CLANGS = [Clang(path, version) for version in (14, 19) if (path := shutil.which(f"clang-{version}"))]


def mistake_in(case: Path) -> str:
    """What the case's second line says."""
    found = re.search(r"/\* mistake: (.*) \*/", case.read_text())
    assert found is not None
    return found[1]


def refused_line(case: Path) -> int | None:
    """The line that has the comment."""
    lines = case.read_text().splitlines()
    return next((number for number, line in enumerate(lines, 1) if "/* refused" in line), None)


@contextmanager
def refusal(case: Path, clang: Clang | None) -> Iterator[VerifierError]:
    with (
        pytest.raises(VerifierError) as caught,
        load_object(build_program(str(case), clang=clang).elf, "case"),
    ):
        pass
    yield caught.value


BUILT = [
    pytest.param(case, clang, id=f"{case.stem}-{clang.version if clang else 'any'}")
    for case in CASES
    for clang in ((CLANGS or [None])[-1:] if case.stem == SLOW else CLANGS or [None])
    if case.stem != UNPRIVILEGED
]


@pytest.mark.parametrize(("case", "clang"), BUILT)
def test_the_mistake_is_named_with_its_line(case: Path, clang: Clang | None) -> None:
    with refusal(case, clang) as error:
        advice = explain(read_log(error.log), error.log, error.subject)
        assert advice is not None, error.summary
        assert advice.mistake == mistake_in(case)
        assert (error.objection, error.reason, error.hint) == (advice.objection, advice.reason, advice.change)
        assert not re.search(r"[{}]\w", advice.objection)
        number = refused_line(case)
        # What the verifier finds before it follows instructions has no line in the log.
        if number is not None and error.place is not None:
            assert error.place == f"{case.name}:{number}"
        if error.place is not None and error.source:
            assert error.source in case.read_text()


def test_what_privilege_lets_pass_is_explained_to_those_without() -> None:
    case = next(case for case in CASES if case.stem == UNPRIVILEGED)
    less = "-perfmon,-sys_admin"
    dropped = ["setpriv", "--bounding-set", less, "--inh-caps", less]
    argv = [sys.executable, "-m", "penstock", "program", "run", str(case), "--packet", "00" * 20]
    done = subprocess.run([*dropped, *argv], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 3, done.stderr
    assert f"{case.name}:{refused_line(case)}:" in done.stderr
    assert "bytes of the stack are read that nothing was ever written to" in done.stderr
    assert "the verifier's log is shown with --log" in done.stderr


def test_the_usual_mistakes_have_a_case_each() -> None:
    shown = {mistake_in(case) for case in CASES}
    assert len(shown) >= 20
    assert {known.mistake for known in TABLE} - shown == {
        "helper access to the packet",
        "lock held",
        "address leaked",
    }


def test_a_mistake_in_generated_code_is_penstocks() -> None:
    case = next(case for case in CASES if case.stem == "packet-unchecked")
    with refusal(case, None) as error:
        advice = explain(read_log(error.log), error.log, "ps_filter")
        assert advice is not None
        assert "please report it" in advice.change
