/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * set.bpf.c - drops the IPv4 sources that a BPF hash holds, and counts both kinds of packets.
 *
 * What one writes first; ENTRIES, and FLAGS of the map, are given.
 */
#include <penstock/uapi.bpf.h>

enum { XDP_DROP = 1, XDP_PASS = 2 };

struct {
	__uint(type, 1 /* BPF_MAP_TYPE_HASH */);
	__uint(max_entries, ENTRIES);
	__uint(map_flags, FLAGS);
	__type(key, __u32);
	__type(value, __u64);
} sources SEC(".maps");

struct counter {
	__u64 packets, bytes;
};

struct {
	__uint(type, 6 /* BPF_MAP_TYPE_PERCPU_ARRAY */);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

static __always_inline int counted(struct xdp_md *ctx, __u32 which, int verdict)
{
	struct counter *counter = bpf_map_lookup_elem(&counters, &which);

	if (counter) {
		counter->packets++;
		counter->bytes += (__u64)(ctx->data_end - ctx->data);
	}
	return verdict;
}

SEC("xdp.frags") int set(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 key;

	if (data + 34 > end || *(__u16 *)(data + 12) != 0x0008)
		return counted(ctx, 0, XDP_PASS);
	key = *(__u32 *)(data + 26);
	return bpf_map_lookup_elem(&sources, &key) ? counted(ctx, 1, XDP_DROP) : counted(ctx, 0, XDP_PASS);
}

char _license[] SEC("license") = "Dual BSD/GPL";
