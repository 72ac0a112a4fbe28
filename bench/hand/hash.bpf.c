/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * hash.bpf.c - exact five-tuples in a BPF hash: one lookup, however many there are.
 *
 * Only for rules that test all of addresses, ports and protocol for equality.
 */
#include "five_tuple.bpf.h"

struct {
	__uint(type, 1 /* BPF_MAP_TYPE_HASH */);
	__uint(max_entries, RULES);
	__type(key, struct five_tuple);
	__type(value, __u32);
} tuples SEC(".maps");

SEC("xdp.frags") int hash(struct xdp_md *ctx)
{
	struct five_tuple packet;
	__u32 *found;

	if (!five_tuple(ctx, &packet))
		return XDP_PASS;
	found = bpf_map_lookup_elem(&tuples, &packet);
	return found ? decided(ctx, *found >> 2, *found & 3) : decided(ctx, 0, XDP_PASS);
}

char _license[] SEC("license") = "Dual BSD/GPL";
