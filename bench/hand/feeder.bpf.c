/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * feeder.bpf.c - gives the next program another packet at each run.
 *
 * BPF_PROG_TEST_RUN runs a program on one frame again and again, and leaves in
 * it what the program wrote.  So this one writes the headers of the next frame
 * of an array over it and goes on to the program in question by a tail call;
 * that program is measured as it was loaded.  `empty` in its place is what all
 * of this costs.
 *
 * Words begin where header fields do, and no field lies across two of them: a
 * load that needs two stores still in flight would wait, which no packet from
 * a network card does.
 *
 * With APART so many instructions that do nothing come before each packet.  A driver
 * has hundreds between two; without any a processor that waits for one packet's memory
 * has begun the next one's search, if both programs together are short enough.
 */
#include <penstock/uapi.bpf.h>

enum { FRAMES = 1 << 16, WORDS = 7, FIRST = 6, LEAST = FIRST + 8 * WORDS };
enum { XDP_ABORTED, XDP_PASS = 2 };
enum { PROG_ARRAY = 3 };

static long (*const bpf_tail_call)(void *ctx, void *map, __u32 index) = (void *)12;

/* A frame's bytes 6 to 61: an Ethernet address, the type, the IP header, ports and a little more. */
struct frame {
	__u64 words[WORDS], pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, FRAMES);
	__type(key, __u32);
	__type(value, struct frame);
} frames SEC(".maps");

struct {
	__uint(type, PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} next SEC(".maps");

__u32 cursor, mask = FRAMES - 1;

SEC("xdp.frags") int feeder(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 at = cursor++ & mask;
	const struct frame *from = bpf_map_lookup_elem(&frames, &at);

	if (!from || data + LEAST > end)
		return XDP_ABORTED;
#ifdef APART
	asm volatile(".rept %0\n\tr4 = 1\n\t.endr" : : "i"(APART) : "r4");
#endif
#pragma unroll
	for (int k = 0; k < WORDS; k++)
		*(__u64 *)(data + FIRST + 8 * k) = from->words[k];
	bpf_tail_call(ctx, &next, 0);
	return XDP_ABORTED;
}

SEC("xdp.frags") int empty(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
