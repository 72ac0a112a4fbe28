/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * addresses.bpf.c - gives the next program a packet from another address at each run.
 *
 * As feeder.bpf.c, but of the frame only the source changes, so that a million
 * packets are 4 or 16 MiB that are read one after the other.
 */
#include <penstock/uapi.bpf.h>

enum { ADDRESSES = 1 << 20, SOURCE_V4 = 26, SOURCE_V6 = 22 };
enum { XDP_ABORTED, XDP_PASS = 2 };
enum { PROG_ARRAY = 3 };

static long (*const bpf_tail_call)(void *ctx, void *map, __u32 index) = (void *)12;

struct address {
	__u64 hi, lo;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, ADDRESSES);
	__type(key, __u32);
	__type(value, struct address);
} addresses SEC(".maps");

struct {
	__uint(type, PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} next SEC(".maps");

__u32 cursor, mask = ADDRESSES - 1;

/* Whole words as a parser reads them: a load that needs two stores still in flight would wait. */
SEC("xdp.frags") int feeder(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 at = cursor++ & mask;
	const struct address *from = bpf_map_lookup_elem(&addresses, &at);

	if (!from || data + SOURCE_V4 + 4 > end)
		return XDP_ABORTED;
	*(__u32 *)(data + SOURCE_V4) = from->hi;
	bpf_tail_call(ctx, &next, 0);
	return XDP_ABORTED;
}

SEC("xdp.frags") int feeder6(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 at = cursor++ & mask;
	const struct address *from = bpf_map_lookup_elem(&addresses, &at);

	if (!from || data + SOURCE_V6 + 16 > end)
		return XDP_ABORTED;
	*(__u64 *)(data + SOURCE_V6) = from->hi;
	*(__u64 *)(data + SOURCE_V6 + 8) = from->lo;
	bpf_tail_call(ctx, &next, 0);
	return XDP_ABORTED;
}

SEC("xdp.frags") int empty(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
