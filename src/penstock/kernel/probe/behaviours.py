"""What a kernel does beyond the types and helpers it lists, each with the kernel that first did it.

`without` is what penstock does on a kernel that lacks it, and the text of docs/kernels.md and of
`penstock probe --for`: it must be true of the code.  `Need.ALWAYS` marks what penstock cannot do without.
`tries.py` has a try for each name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Need(Enum):
    """How much penstock makes of a behaviour."""

    ALWAYS = "needed"
    SOMETIMES = "used"
    NEVER = "not used"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """A name for JSON, a title, the first kernel, and what becomes of penstock without it."""

    name: str
    title: str
    since: str
    need: Need
    without: str
    group: str = ""


def _group(group: str, *rows: tuple[str, str, str, Need, str]) -> tuple[Behaviour, ...]:
    return tuple(Behaviour(*row, group=group) for row in rows)


_ALWAYS, _SOMETIMES, _NEVER = Need.ALWAYS, Need.SOMETIMES, Need.NEVER
_NONE = "nothing of penstock's own asks for it; your programs may"

BEHAVIOURS: tuple[Behaviour, ...] = (
    *_group(
        "XDP",
        (
            "generic_xdp",
            "XDP on any interface, in the stack",
            "4.12",
            _SOMETIMES,
            "an interface whose driver has no XDP takes no policy at XDP",
        ),
        (
            "native_xdp_veth",
            "XDP in the driver, tried on a veth pair",
            "4.19",
            _SOMETIMES,
            "generic mode, which is several times slower; `apply` says so",
        ),
        (
            "xdp_frags",
            "XDP programs that take frames of several buffers",
            "5.18",
            _SOMETIMES,
            "programs are loaded without the flag: native mode refuses an interface with jumbo frames",
        ),
        (
            "live_frames",
            "test runs that send real frames",
            "5.18",
            _SOMETIMES,
            "`bench --peers` is refused; nothing else asks for it",
        ),
        ("devmap_programs", "programs behind a redirect to a device", "5.8", _NEVER, _NONE),
        ("cpumap_programs", "programs behind a redirect to a processor", "5.9", _NEVER, _NONE),
        (
            "cast_to_kern_ctx",
            "the kernel's own view of a packet (bpf_cast_to_kern_ctx)",
            "6.2",
            _SOMETIMES,
            "a helper is asked for every packet whether it has several buffers; a socket's is found by its bytes",
        ),
    ),
    *_group(
        "attaching",
        (
            "xdp_link",
            "links for XDP: replaced in one step, held by a pin",
            "5.9",
            _ALWAYS,
            "nothing is attached at XDP: without a link no replacement is one step",
        ),
        (
            "link_update",
            "a link's program replaced in one step",
            "5.7",
            _ALWAYS,
            "nothing is attached: a replacement would leave a gap",
        ),
        (
            "tcx",
            "links for TC, several programs in a row",
            "6.6",
            _SOMETIMES,
            "at TC clsact and cls_bpf in direct action take its place",
        ),
        (
            "clsact",
            "the clsact queueing discipline",
            "4.5",
            _SOMETIMES,
            "before tcx there is no policy at TC",
        ),
        (
            "netfilter_link",
            "programs at netfilter hooks",
            "6.4",
            _SOMETIMES,
            "`bench --peers` is refused; nothing else asks for it",
        ),
        ("netkit", "netkit devices", "6.7", _NEVER, _NONE),
        (
            "bpffs_exchange",
            "two directories of pins exchanged in one step",
            "5.16",
            _SOMETIMES,
            "two renames: a reader may for a moment find no pins; packets are filtered all the same",
        ),
    ),
    *_group(
        "maps",
        (
            "map_mmap",
            "arrays mapped into memory",
            "5.5",
            _ALWAYS,
            "no policy with tables, no rules added while it runs",
        ),
        (
            "inner_map",
            "arrays of any size in one map of maps",
            "5.10",
            _SOMETIMES,
            "no flat set: write `as trie` behind a large set of networks",
        ),
        ("map_freeze", "maps that nobody can write any more", "5.2", _SOMETIMES, "constants stay writable"),
        ("global_data", "programs with global variables", "5.2", _ALWAYS, "no policy is loaded"),
        (
            "memcg_accounting",
            "memory counted by control group, not by RLIMIT_MEMLOCK",
            "5.11",
            _SOMETIMES,
            "libbpf raises RLIMIT_MEMLOCK before it loads",
        ),
        *(
            (
                f"batch_{kind}",
                f"batch operations on {kind} maps",
                since,
                _SOMETIMES,
                "entries are read and written one at a time",
            )
            for kind, since in (
                ("hash", "5.6"),
                ("lru_hash", "5.6"),
                ("percpu_hash", "5.6"),
                ("lru_percpu_hash", "5.6"),
                ("array", "5.6"),
                ("percpu_array", "5.13"),
                ("lpm_trie", "5.13"),
                ("hash_of_maps", "5.19"),
                ("array_of_maps", "5.19"),
            )
        ),
    ),
    *_group(
        "programs",
        ("btf_load", "types of programs and maps (BTF)", "4.18", _ALWAYS, "no policy is loaded"),
        (
            "kernel_btf",
            "the kernel's own types (CONFIG_DEBUG_INFO_BTF)",
            "5.4",
            _ALWAYS,
            "no policy is loaded: what the kernel can do is decided where it is loaded, by its types",
        ),
        ("function_calls", "calls within a program", "4.16", _ALWAYS, "no policy of many rules is loaded"),
        (
            "global_functions",
            "functions that are verified by themselves",
            "5.6",
            _SOMETIMES,
            "libbpf makes them static: a policy of many rules costs the verifier more, or is refused",
        ),
        ("bounded_loops", "loops that the verifier follows", "5.3", _ALWAYS, "no policy is loaded"),
        (
            "large_programs",
            "more than 4096 instructions",
            "5.2",
            _ALWAYS,
            "policies of few rules alone are loaded",
        ),
        ("isa_v2", "comparisons by less-than", "4.14", _ALWAYS, "no policy is loaded"),
        ("isa_v3", "32-bit comparisons", "5.1", _ALWAYS, "no policy is loaded"),
        ("isa_v4", "sign-extending moves", "6.6", _NEVER, _NONE),
        (
            "atomics",
            "atomic operations that fetch",
            "5.12",
            _SOMETIMES,
            "rates (`over`) take the kernel's lock, which costs more; at sockets, which have none, they are refused",
        ),
        ("open_coded_iterators", "loops by iterators (bpf_iter_num_new)", "6.4", _NEVER, _NONE),
        (
            "test_run",
            "programs run on a packet that is given (BPF_PROG_TEST_RUN)",
            "4.12",
            _SOMETIMES,
            "`--engine kernel` and `bench` are refused",
        ),
        (
            "test_run_context",
            "test runs with a length on the wire (ctx_in for XDP)",
            "5.15",
            _SOMETIMES,
            "`--engine kernel` and `bench` cannot say which interface a packet came by",
        ),
        ("run_time_statistics", "run time and count of programs", "5.1", _NEVER, _NONE),
        ("tokens", "rights delegated by a BPF file system", "6.9", _NEVER, _NONE),
    ),
)

#: Helpers that matter to penstock or to those who write programs for it: the types it runs programs of, and which
#: release first had it there where that is later than the helper itself.
WATCHED_HELPERS: tuple[Behaviour, ...] = _group(
    "helpers at XDP",
    (
        "xdp_load_bytes",
        "bytes of any buffer",
        "5.18",
        _SOMETIMES,
        "there are no frames of several buffers either",
    ),
    ("xdp_get_buff_len", "a frame's whole length", "5.18", _SOMETIMES, "the first buffer is the whole frame"),
    (
        "ktime_get_boot_ns",
        "the boot clock",
        "5.8",
        _SOMETIMES,
        "no emergency rule (`drop`, `try`): it could not lapse by itself",
    ),
    ("redirect_map", "a frame sent out of another interface", "4.14", _SOMETIMES, "no rule with `redirect`"),
    ("ringbuf_reserve", "events by ring buffer", "5.8", _NEVER, _NONE),
    ("loop", "loops by callback", "5.17", _NEVER, _NONE),
    ("timer_init", "timers", "5.15", _NEVER, _NONE),
    ("fib_lookup", "the routing table", "4.18", _NEVER, _NONE),
    ("dynptr_from_mem", "dynamic pointers", "5.19", _NEVER, _NONE),
)
