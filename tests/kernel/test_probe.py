"""What the probe says of this kernel: bpftool's answers, the kernel's own words, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from penstock.kernel.libc import unshare
from penstock.kernel.netlink import interfaces
from penstock.kernel.probe import attempt, kinds
from penstock.kernel.probe.attempt import EXIT, ProgramTry, call
from penstock.kernel.probe.behaviours import BEHAVIOURS, WATCHED_HELPERS, Need
from penstock.kernel.probe.survey import Survey, survey_kernel
from penstock.kernel.probe.tables import ATTACH_TYPES, HELPERS, MAP_TYPES, PROGRAM_TYPES, release
from penstock.kernel.probe.tries import tries
from penstock.pipeline.needs import Outcome, needs_of
from penstock.pipeline.policy import load_policy

TOP = Path(__file__).parents[2]
EXAMPLES = sorted((TOP / "examples").glob("*.policy"))

# Where bpftool and penstock differ, and why.  A difference that is of none of these kinds is an error.
TIED = "bpftool takes a load that is refused for want of permission for a missing type; penstock says `?`"
NEW_WORDS = (
    "Linux 6.10 refuses a helper in other words (`program of this type cannot use helper`), which "
    "libbpf before 1.5 takes for leave to call it"
)
UNKNOWN_TO_IT = "this bpftool is older than the name: it is in none of its lists"


@cache
def survey() -> Survey:
    return survey_kernel(full=True)


@cache
def bpftool() -> dict[str, Any]:
    tool = shutil.which("bpftool", path=f"{os.environ['PATH']}:/usr/sbin")
    if tool is None:
        pytest.skip("bpftool is not installed")
    done = subprocess.run([tool, "--json", "feature", "probe", "kernel", "full"], capture_output=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def bpftool_helpers() -> dict[str, set[str]]:
    return {
        kind.removesuffix("_available_helpers"): {name.removeprefix("bpf_") for name in names}
        for kind, names in bpftool()["helpers"].items()
    }


@pytest.mark.privileged
def test_program_and_map_types_are_bpftools() -> None:
    for ours, theirs, words in (
        (survey().programs, bpftool()["program_types"], "have_{}_prog_type"),
        (survey().maps, bpftool()["map_types"], "have_{}_map_type"),
    ):
        for name, found in ours.items():
            said = theirs.get(words.format(name))
            if said is not None and said != found.has:
                assert (said, found.has) == (False, None), (name, TIED)
                assert "EPERM" in found.why or "missing" in found.why


@pytest.mark.privileged
def test_helpers_are_bpftools() -> None:
    theirs = bpftool_helpers()
    known = set().union(*theirs.values())
    for program, found in survey().helpers.items():
        if found is None or not theirs.get(program):
            continue
        assert {name for name in found - theirs[program] if name in known} == set(), UNKNOWN_TO_IT
        for name in theirs[program] - found:
            log = attempt.load(kinds.program_try(program), call(HELPERS[name].number) + EXIT).log
            assert kinds.NOT_FOR_THIS[-1] in log, (program, name, NEW_WORDS)


@pytest.mark.privileged
def test_what_bpftool_calls_miscellaneous() -> None:
    theirs = {
        "large_programs": "have_large_insn_limit",
        "bounded_loops": "have_bounded_loops",
        "isa_v2": "have_v2_isa_extension",
        "isa_v3": "have_v3_isa_extension",
    }
    for name, word in theirs.items():
        assert survey().behaviours[name].has is bpftool()["misc"][word], name


def test_every_behaviour_has_a_try_and_a_helper_is_one() -> None:
    assert list(tries()) == [one.name for one in BEHAVIOURS]
    for one in WATCHED_HELPERS:
        assert one.since == HELPERS[one.name].since


def test_the_tables_are_in_order_of_release() -> None:
    for table in (PROGRAM_TYPES, MAP_TYPES, ATTACH_TYPES, HELPERS):
        releases = [release(known.since) for known in table.values()]
        assert releases == sorted(releases)
        numbers = [known.number for known in table.values()]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@pytest.mark.privileged
def test_the_tables_are_the_headers() -> None:
    """As far as this machine's <linux/bpf.h> goes."""
    header = Path("/usr/include/linux/bpf.h").read_text()
    for enumeration, prefix, table in (
        ("bpf_prog_type", "BPF_PROG_TYPE_", PROGRAM_TYPES),
        ("bpf_map_type", "BPF_MAP_TYPE_", MAP_TYPES),
        ("bpf_attach_type", "BPF_", ATTACH_TYPES),
    ):
        for name, number in _enumerated(header, enumeration, prefix):
            assert name not in table or table[name].number == number, (enumeration, name)


def _enumerated(header: str, name: str, prefix: str) -> Iterator[tuple[str, int]]:
    body = header.partition(f"enum {name} {{")[2].partition("}")[0]
    words = [line.strip().rstrip(",") for line in body.splitlines() if line.strip().startswith(prefix)]
    plain = [word for word in words if "=" not in word]
    assert len(plain) > 30, name
    yield from ((word.removeprefix(prefix).lower(), number) for number, word in enumerate(plain))


@pytest.mark.privileged
def test_what_is_needed_is_here() -> None:
    """The tests of penstock run on this kernel, so everything that penstock always needs is there."""
    for one in BEHAVIOURS:
        if one.need is Need.ALWAYS:
            assert survey().behaviours[one.name].has is True, one.name


@pytest.mark.privileged
def test_nothing_is_left_behind() -> None:
    found: list[object] = []

    def in_a_namespace() -> None:
        unshare()
        before = interfaces(), len(list(Path("/proc/self/fd").iterdir()))
        survey_kernel()
        found.extend((before, (interfaces(), len(list(Path("/proc/self/fd").iterdir())))))

    survey()  # what is imported late is imported now
    thread = threading.Thread(target=in_a_namespace)
    thread.start()
    thread.join()
    assert found[0] == found[1]


@pytest.mark.privileged
def test_without_privilege_nothing_is_guessed() -> None:
    """A process without rights is told that it cannot be told, and which right is missing."""
    bare = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--clear-groups", "--regid=0", "--")
    argv = [*bare, sys.executable, "-m", "penstock", "probe", "--json"]
    found = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    told = {one["name"]: one for one in (*found["behaviours"], *found["program_types"], *found["map_types"])}
    for name, missing in (("xdp", "CAP_BPF"), ("lpm_trie", "CAP_BPF"), ("native_xdp_veth", "CAP_SYS_ADMIN")):
        assert told[name]["available"] is None
        assert missing in told[name]["why"]
    assert told["kernel_btf"]["available"] is True
    assert {one["helpers"] is None for one in found["helpers"]} == {True}
    text = subprocess.run([*argv[:-1], "behaviours"], capture_output=True, check=True, text=True).stdout
    unknown, lines = sum(one["available"] is None for one in found["behaviours"]), text.splitlines()
    assert text.count("(CAP_") < 8
    below = [int(line.split()[0]) for line in lines if " times `?`: CAP_" in line]
    assert below
    assert sum(below) + text.count("(CAP_") == unknown


@pytest.mark.privileged
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_what_the_examples_need(path: Path) -> None:
    """Everything the kernel refuses a program for is named; here nothing is refused."""
    policy = load_policy(path.read_text(), name=path.name)
    needs = needs_of(policy)
    assert {need.outcome for need in needs} == {Outcome.MET}
    named = {need.name for need in needs}
    of_hook = {"xdp", "xdp_link"} if policy.identity.hook == "xdp" else {"sched_cls", "tcx"}
    assert of_hook | {"percpu_array", "map_lookup_elem", "kernel_btf"} <= named
    # What the C asks the kernel's types about first can never be what a kernel refuses the program for.
    optional = {need.name for need in needs if not need.required}
    assert {"xdp_frags", "xdp_load_bytes", "xdp_get_buff_len"} & named <= optional


def test_a_flat_set_asks_for_arrays_of_any_size_in_a_map_of_maps() -> None:
    text = "set nets : net as {structure}\nfilter edge at xdp {{ drop if src in @nets }}"
    named = {}
    for structure in ("flat", "trie"):
        needs = needs_of(load_policy(text.format(structure=structure), name="edge.policy"))
        named[structure] = {need.name: need.required for need in needs}
    assert {"inner_map": True, "map_mmap": True, "array_of_maps": True}.items() <= named["flat"].items()
    assert not {"inner_map", "array_of_maps"} & named["trie"].keys()


def test_a_load_that_is_refused_says_why() -> None:
    answer = attempt.load(ProgramTry(PROGRAM_TYPES["xdp"].number), EXIT)
    assert not answer.done
    assert "R0 !read_ok" in answer.log or answer.code in (1, 13)
