"""Loading objects: what comes out, and what a refusal says."""

from __future__ import annotations

import errno
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tests.kernel.conftest import DROP, PASS, CompileC

from penstock.errors import InternalError, KernelError, NotSupportedError, PrivilegeError, VerifierError
from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.kernel.elf import guarded, variables
from penstock.kernel.lineinfo import line_of
from penstock.kernel.maps import Map, MapType
from penstock.kernel.verifier import read_log, read_statistics

pytestmark = pytest.mark.privileged

FRAME = bytes(range(64))

VARIABLES = """
volatile const __u32 ps_code = XDP_PASS;
volatile const __u8 ps_key[4];
__u64 ps_seen;
__u32 ps_step = 1;
SEC("xdp.frags") int ps_count(struct xdp_md *ctx) {
    __sync_fetch_and_add(&ps_seen, ps_step);
    return ps_key[2] == 7 ? XDP_TX : ps_code;
}
"""

UNGUARDED = """SEC("xdp.frags") int ps_bad(struct xdp_md *ctx) {
    unsigned char *data = (void *)(long)ctx->data;

    return data[23] == 17 ? XDP_DROP : XDP_PASS;
}"""

# Two branches a round, neither of which ever rejoins: the verifier must follow a million instructions.
ENDLESS = """SEC("xdp") int ps_endless(struct xdp_md *ctx) {
    __u32 n = 0;
    for (int i = 0; i < 2000000; i++)
        n += bpf_get_prandom_u32() & 1;
    return n;
}"""

# Long before it fails its log is longer than the first buffer.
TALKATIVE = """SEC("xdp") int ps_talk(struct xdp_md *ctx) {
    __u32 n = 0;
    for (int i = 0; i < 8000; i++)
        n += bpf_get_prandom_u32() & 1;
    return *(int *)(long)ctx->data + n;
}"""


def test_programs_have_identity_and_sizes(compile_c: CompileC) -> None:
    with load_object(compile_c(PASS + DROP), "edge") as loaded:
        assert set(loaded.programs) == {"ps_pass", "ps_drop"}
        first, second = loaded.programs["ps_pass"], loaded.programs["ps_drop"]
        assert first.id != second.id
        assert first.tag != second.tag
        assert len(first.tag) == 16
        assert first.info.name == "ps_pass"
        assert first.info.xlated_size == 16
        assert first.info.verified_insns == 2
        assert first.info.jited_size > 0


def test_equal_programs_have_equal_tags(compile_c: CompileC) -> None:
    elf = compile_c(PASS)
    with load_object(elf, "one") as one, load_object(elf, "two") as two:
        assert one.programs["ps_pass"].tag == two.programs["ps_pass"].tag


def test_only_the_wanted_programs_are_loaded(compile_c: CompileC) -> None:
    with load_object(compile_c(PASS + UNGUARDED), "edge", only={"ps_pass"}) as loaded:
        assert set(loaded.programs) == {"ps_pass"}


def test_variables_are_set_before_the_load_and_seen_after_it(compile_c: CompileC) -> None:
    values: dict[str, bytes | int] = {"ps_code": 1, "ps_step": 5}
    with load_object(compile_c(VARIABLES), "edge", rodata=values) as loaded:
        program, seen = loaded.programs["ps_count"], loaded.variable("ps_seen")
        assert program.test_run(FRAME).retval == 1
        assert int.from_bytes(seen, sys.byteorder) == 5
        loaded.variable("ps_step")[:] = (2).to_bytes(4, sys.byteorder)
        assert program.test_run(FRAME, repeat=10).retval == 1
        assert int.from_bytes(seen, sys.byteorder) == 25


def test_an_array_variable_takes_bytes(compile_c: CompileC) -> None:
    with load_object(compile_c(VARIABLES), "edge", rodata={"ps_key": b"\0\0\7"}) as loaded:
        assert loaded.programs["ps_count"].test_run(FRAME).retval == 3
        assert bytes(loaded.variable("ps_key")) == b"\0\0\7\0"


def test_constants_cannot_be_written_after_the_load(compile_c: CompileC) -> None:
    with load_object(compile_c(VARIABLES), "edge") as loaded, pytest.raises(TypeError):
        loaded.variable("ps_code")[:] = bytes(4)


@pytest.mark.parametrize("values", [{"ps_nothing": 1}, {"ps_code": bytes(5)}])
def test_a_wrong_variable_is_our_bug(compile_c: CompileC, values: dict[str, bytes | int]) -> None:
    with pytest.raises(InternalError):
        load_object(compile_c(VARIABLES), "edge", rodata=values)


def test_section_maps_are_named_after_the_object(compile_c: CompileC) -> None:
    with load_object(compile_c(VARIABLES), "edge") as loaded:
        assert set(loaded.maps) == {".rodata", ".data", ".bss"}
        assert loaded.maps[".bss"].info.name == "edge.bss"


def test_a_refusal_names_the_policy_line_and_the_reason(compile_c: CompileC) -> None:
    with pytest.raises(VerifierError) as caught:
        load_object(compile_c(UNGUARDED), "edge")
    error = caught.value
    assert error.place == "edge.policy:4"
    assert error.summary.startswith("invalid access to packet, off=23 size=1")
    assert error.subject == "ps_bad"
    assert error.errno == errno.EACCES
    assert "processed" in error.log
    assert "edge.policy:4" in error.message
    assert error.exit_code == 3


def test_figures_are_told_when_asked_for(compile_c: CompileC) -> None:
    with load_object(compile_c(VARIABLES), "edge", statistics=True) as loaded:
        effort = read_statistics(loaded.logs["ps_count"])
        assert effort is not None
        assert effort.instructions == loaded.programs["ps_count"].info.verified_insns
        assert effort.peak_states <= effort.total_states
    with load_object(compile_c(VARIABLES), "edge") as loaded:
        assert loaded.logs == {}


def test_a_refusal_names_its_place_even_where_figures_were_asked_for(compile_c: CompileC) -> None:
    with pytest.raises(VerifierError) as caught:
        load_object(compile_c(UNGUARDED), "edge", statistics=True)
    assert caught.value.place == "edge.policy:4"


def test_a_program_of_a_kind_that_libbpf_does_not_know(compile_c: CompileC) -> None:
    """BPF_PROG_TYPE_NETFILTER and BPF_NETFILTER: libbpf has a section for them since 1.2."""
    netfilter = 32
    text = """SEC("netfilter") int ps_last(void *ctx) { return 1; }"""
    with load_object(compile_c(text), "edge", kinds={"ps_last": (netfilter, 45)}) as loaded:
        assert loaded.programs["ps_last"].info.type == netfilter


def test_the_refused_program_is_the_one_that_is_named(compile_c: CompileC) -> None:
    with pytest.raises(VerifierError) as caught:
        load_object(compile_c(PASS + "\n" + UNGUARDED + "\n" + DROP), "edge")
    assert caught.value.subject == "ps_bad"
    assert caught.value.place == "edge.policy:5"


def test_a_long_log_is_kept_whole(compile_c: CompileC) -> None:
    with pytest.raises(VerifierError) as caught:
        load_object(compile_c(TALKATIVE), "edge")
    assert len(caught.value.log) > 1 << 20
    assert caught.value.log.startswith(("0: ", "; ", "func#0", ";"))
    assert caught.value.place == "edge.policy:5"
    assert caught.value.errno == errno.EACCES


def test_a_program_beyond_the_budget_is_told_apart(compile_c: CompileC) -> None:
    with pytest.raises(VerifierError) as caught:
        load_object(compile_c(ENDLESS), "edge")
    assert caught.value.errno == errno.E2BIG
    assert caught.value.summary.startswith("BPF program is too large. Processed 1000001 insn")


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "no sections"])
def test_what_is_no_object_is_refused_in_one_sentence(compile_c: CompileC, damage: str) -> None:
    elf = compile_c(PASS)
    bad = {"empty": b"", "text": b"drop if udp\n" * 9, "cut": elf[:200], "no sections": elf[:64]}[damage]
    with pytest.raises(KernelError) as caught:
        load_object(bad, "edge")
    assert "no BPF object" in caught.value.message


def test_every_truncation_of_an_object_is_a_kernel_error(compile_c: CompileC) -> None:
    elf = compile_c(VARIABLES)
    for length in range(0, len(elf) - 64, 97):
        with pytest.raises(KernelError):
            load_object(elf[:length], "edge")


def test_nothing_is_left_open_after_a_refusal(compile_c: CompileC) -> None:
    def open_descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    elf = compile_c(VARIABLES + UNGUARDED)
    before = open_descriptors()
    for _ in range(3):
        with pytest.raises(VerifierError):
            load_object(elf, "edge")
    assert open_descriptors() == before


COUNTER = """
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 2);
    __type(key, __u32);
    __type(value, __u64);
} ps_kept SEC(".maps");
SEC("xdp") int ps_keep(struct xdp_md *ctx) {
    __u32 key = 1;
    __u64 *value = bpf_map_lookup_elem(&ps_kept, &key);
    if (value)
        *value += 1;
    return XDP_PASS;
}
"""


def test_a_map_can_be_carried_into_the_next_object(compile_c: CompileC) -> None:
    elf, key = compile_c(COUNTER), (1).to_bytes(4, sys.byteorder)
    with load_object(elf, "old") as old:
        old.programs["ps_keep"].test_run(FRAME)
        with load_object(elf, "new", reuse={"ps_kept": old.maps["ps_kept"]}) as new:
            new.programs["ps_keep"].test_run(FRAME)
            assert new.maps["ps_kept"].info.id == old.maps["ps_kept"].info.id
            assert new.maps["ps_kept"].lookup(key) == (2).to_bytes(8, sys.byteorder)


def test_a_map_of_another_shape_is_not_carried_over(compile_c: CompileC) -> None:
    with (
        Map.create(MapType.ARRAY, "other", key_size=4, value_size=8, max_entries=3) as other,
        pytest.raises(KernelError, match="another shape"),
    ):
        load_object(compile_c(COUNTER), "new", reuse={"ps_kept": other})


def test_a_map_that_the_object_does_not_have_is_named(compile_c: CompileC) -> None:
    with (
        Map.create(MapType.ARRAY, "other", key_size=4, value_size=8, max_entries=2) as other,
        pytest.raises(KernelError, match=r"ps_gone: .*another version"),
    ):
        load_object(compile_c(COUNTER), "new", reuse={"ps_gone": other})


RELOCATED = """
struct task_struct { int pid; } __attribute__((preserve_access_index));
SEC("raw_tp/sched_switch") int ps_pid(void **args) {
    int pid;
    bpf_probe_read_kernel(&pid, sizeof(pid), &((struct task_struct *)args[1])->pid);
    return pid;
}
"""

LOAD = """
import sys
from penstock.errors import PenstockError
from penstock.kernel.bpf_object import load_object
try:
    load_object(open(sys.argv[1], "rb").read(), "edge")
except PenstockError as error:
    print(type(error).__name__, error.message, getattr(error, "capability", ""), sep="\\n")
else:
    print("loaded")
"""


def _load_elsewhere(elf: bytes, tmp_path: Path, *prefix: str) -> list[str]:
    """What a process started by `prefix` gets when it loads the object."""
    path = tmp_path / "object.o"
    path.write_bytes(elf)
    argv = [*prefix, sys.executable, "-c", LOAD, str(path)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_without_kernel_btf_the_error_says_so(compile_c: CompileC, tmp_path: Path) -> None:
    hidden = 'mount -t tmpfs none /sys/kernel/btf && exec "$@"'
    said = _load_elsewhere(compile_c(RELOCATED), tmp_path, "unshare", "-m", "sh", "-c", hidden, "sh")
    assert said[0] == NotSupportedError.__name__, said
    assert "/sys/kernel/btf/vmlinux" in said[1]


@pytest.mark.parametrize(
    ("dropped", "expected"),
    [
        ("-bpf,-sys_admin", "CAP_BPF"),
        ("-net_admin,-sys_admin", "CAP_NET_ADMIN"),
        ("-bpf,-sys_admin,-net_admin", "CAP_BPF + CAP_NET_ADMIN"),
    ],
)
def test_a_missing_capability_is_named(
    compile_c: CompileC, tmp_path: Path, dropped: str, expected: str
) -> None:
    said = _load_elsewhere(
        compile_c(VARIABLES), tmp_path, "setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}"
    )
    assert said[0] == PrivilegeError.__name__, said
    assert said[2] == expected


def test_the_two_capabilities_are_enough(compile_c: CompileC, tmp_path: Path) -> None:
    only = "--bounding-set=-all,+bpf,+net_admin"
    assert _load_elsewhere(compile_c(VARIABLES), tmp_path, "setpriv", only) == ["loaded"]


MARKED = """
#define PS_UNGUARDED 0x70735f30
SEC("xdp") int ps_marked(struct xdp_md *ctx) {
    long mark;
    asm volatile("%0 = %1" : "=r"(mark) : "i"(PS_UNGUARDED));
    return mark != PS_UNGUARDED ? XDP_DROP : XDP_PASS;
}
"""


def test_a_program_is_told_in_an_instruction_that_its_verifier_guards(compile_c: CompileC) -> None:
    elf = compile_c(MARKED)
    for bytes_of, answer in ((elf, 2), (guarded(elf), 1)):
        with load_object(bytes_of, "marked") as loaded:
            assert loaded.programs["ps_marked"].test_run(FRAME).retval == answer
    assert guarded(guarded(elf)) == guarded(elf)


def test_a_missing_libbpf_says_how_to_get_it(compile_c: CompileC, tmp_path: Path) -> None:
    said = _load_elsewhere(compile_c(PASS), tmp_path, "env", "PENSTOCK_LIBBPF=/nowhere/libbpf.so.1")
    assert said[0] == "ToolchainError"
    assert "/nowhere/libbpf.so.1" in said[1]


def test_closing_twice_is_harmless_and_using_a_closed_program_is_not(passing: BpfObject) -> None:
    program = passing.programs["ps_pass"]
    passing.close()
    passing.close()
    with pytest.raises(ValueError, match="closed"):
        program.test_run(FRAME)


SEVERAL = """SEC("xdp") int ps_first(struct xdp_md *ctx) {
    return ctx->rx_queue_index;
}
static __attribute__((noinline)) int deep(struct xdp_md *ctx) {
    return *(char *)(long)ctx->data;
}
SEC("xdp") int ps_second(struct xdp_md *ctx) {
    if (ctx->rx_queue_index == 7)
        return XDP_TX;
    return ((char *)(long)ctx->data)[3] + deep(ctx);
}"""


@pytest.mark.parametrize("text", [UNGUARDED, SEVERAL, PASS + "\n\n" + UNGUARDED])
def test_the_object_itself_tells_the_place_that_older_kernels_do_not(compile_c: CompileC, text: str) -> None:
    elf = compile_c(text)
    with pytest.raises(VerifierError) as caught:
        load_object(elf, "edge")
    instruction = read_log(caught.value.log).instruction
    assert instruction is not None
    assert caught.value.place is not None
    found = line_of(elf, caught.value.subject, instruction)
    assert found is not None
    assert (found.place, found.text) == (caught.value.place, caught.value.source or "")


def test_a_place_is_told_or_not_but_never_invented(compile_c: CompileC) -> None:
    elf = compile_c(SEVERAL)
    found = line_of(elf, "ps_second", 0)
    assert found is not None
    assert found.place == "edge.policy:7"
    assert line_of(elf, "ps_second", 1000) is None
    assert line_of(elf, "ps_third", 0) is None
    assert line_of(elf[:300], "ps_second", 0) is None
    assert line_of(b"", "ps_second", 0) is None


def test_a_damaged_object_is_read_or_refused(compile_c: CompileC) -> None:
    dice, whole = random.Random(2), compile_c(VARIABLES)
    refused = 0
    for _ in range(1000):
        damaged = bytearray(whole)
        for _ in range(dice.choice((1, 2, 16))):
            end = 64 if dice.random() < 0.5 else len(whole)
            damaged[dice.randrange(end)] = dice.choice((0, 1, 255, dice.randrange(256)))
        try:
            variables(bytes(damaged))
        except ValueError:
            refused += 1
        line_of(bytes(damaged), "ps_count", 3)
    assert 0 < refused < 1000
