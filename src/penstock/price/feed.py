"""Let programs meet many different packets in turn.

BPF_PROG_TEST_RUN runs a program on one frame again and again.  Here it runs a
feeder, which writes the next packet's headers over that frame and goes on by a
tail call to the program in question, as that was loaded.  What the feeder costs
is measured alike, with an empty program behind it.

    with Feed(frames) as feed:
        feed.measure({"empty": nothing, "policy": dns}, rounds=9)["policy"]   ->  41.7

65,536 packets in turn are what a warm figure hides: look-ups miss the caches,
branches are predicted wrongly.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from statistics import median
from time import thread_time_ns

from penstock.compiler.clang import compile_c
from penstock.kernel.bpf_object import load_object
from penstock.kernel.program import Program
from penstock.model.closing import Closing
from penstock.price.stopwatch import kept_busy, measure

#: A feed has this many packets; fewer frames are repeated.
FRAMES = 1 << 16
#: Where headers begin to differ: words from here on begin where fields of IPv4 and IPv6 do.  A load that
#: needed two stores that are still under way would wait, as it never does for a frame from a card.
FIRST = 6
#: Frames with no more than the headers of IPv6 and TCP differ in 64 bytes at most, others in 120.
_PLAIN, _FEW_WORDS, _MANY_WORDS = 74, 8, 15
_TURN_NS = 20e6
_FEWEST = 256

_SOURCE = """\
#include <penstock/uapi.bpf.h>

#define FRAMES %(frames)d
#define WORDS %(words)d
#define FIRST %(first)d

static long (*const bpf_tail_call)(void *ctx, void *map, __u32 index) = (void *)12;

struct ps_frame {
	__u64 words[WORDS];
};

struct {
	__uint(type, 3); /* BPF_MAP_TYPE_PROG_ARRAY */
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} ps_program SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, FRAMES);
	__type(key, __u32);
	__type(value, struct ps_frame);
} ps_frames SEC(".maps");

__u32 ps_cursor;

SEC("xdp.frags") int ps_feed(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 at = ps_cursor++ & (FRAMES - 1);
	const struct ps_frame *frame = bpf_map_lookup_elem(&ps_frames, &at);

	if (!frame || (void *)(data + FIRST + 8 * WORDS) > end)
		return 0;
#pragma clang loop unroll(full)
	for (int word = 0; word < WORDS; word++)
		*(__u64 *)(data + FIRST + 8 * word) = frame->words[word];
	bpf_tail_call(ctx, &ps_program, 0);
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
"""


def times(programs: Mapping[str, Program], frames: Sequence[bytes], rounds: int) -> dict[str, float]:
    """Nanoseconds a packet by program: of one frame warm, of several in turn.

    Raises:
        KernelError: as `stopwatch.measure`.
    """
    if len(frames) == 1:
        costs = measure(programs, {"one": frames[0]}, rounds=rounds)
        return {name: cost["one"] for name, cost in costs.items()}
    with Feed(frames, words=_FEW_WORDS if max(map(len, frames)) <= _PLAIN else _MANY_WORDS) as feed:
        return feed.measure(programs, rounds)


class Feed(Closing):
    """Frames that programs can be fed with; all as long as the longest, zeros behind `8 * words` bytes of headers."""

    def __init__(self, frames: Sequence[bytes], words: int = 8) -> None:
        size, reach = max(*map(len, frames), FIRST + 8 * words), FIRST + 8 * words
        self._frame = frames[0][:reach].ljust(size, b"\0")
        heads = [frame[FIRST:reach].ljust(8 * words, b"\0") for frame in frames]
        whole, rest = divmod(FRAMES, len(heads))
        records = b"".join(heads) * whole + b"".join(heads[:rest])
        self._elf = compile_c(_SOURCE % {"frames": FRAMES, "words": words, "first": FIRST})
        self._held = ExitStack()
        self._records = self._held.enter_context(load_object(self._elf, "feed")).maps["ps_frames"]
        self._records.view().reshape(-1)[:] = memoryview(records).cast("B")

    def measure(self, programs: Mapping[str, Program], rounds: int) -> dict[str, float]:
        """Nanoseconds of thread time a packet, medians of rounds; dear programs meet fewer packets a turn."""
        with ExitStack() as held:
            feeders = {name: self._feeder(program, held) for name, program in programs.items()}
            repeats = {name: self._repeat(feeder) for name, feeder in feeders.items()}
            samples: dict[str, list[float]] = {name: [] for name in programs}
            for _ in range(rounds):
                for name, feeder in feeders.items():
                    samples[name].append(self._once(feeder, repeats[name]))
        return {name: median(found) for name, found in samples.items()}

    def _feeder(self, program: Program, held: ExitStack) -> Program:
        loaded = held.enter_context(load_object(self._elf, "feed", reuse={"ps_frames": self._records}))
        loaded.maps["ps_program"].update(bytes(4), struct.pack("=I", program.fd))
        feeder = loaded.programs["ps_feed"]
        held.enter_context(kept_busy(feeder))
        return feeder

    def _repeat(self, feeder: Program) -> int:
        self._once(feeder, _FEWEST)
        return int(min(FRAMES, max(_FEWEST, _TURN_NS / self._once(feeder, _FEWEST))))

    def _once(self, feeder: Program, repeat: int) -> float:
        start = thread_time_ns()
        feeder.test_run(self._frame, repeat=repeat)
        return (thread_time_ns() - start) / repeat

    def close(self) -> None:
        """Give the frames back."""
        self._held.close()
