/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * cidr_drop.bpf.c - drop what comes from listed networks; the longest prefix that fits decides.
 *
 * A value of 1 drops and 0 passes, so that an exception can lie within a network.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct prefix {
	__u32 length;	/* bits of the address that count; a trie wants it first */
	__be32 address;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);	/* tries are never made in advance */
	__type(key, struct prefix);
	__type(value, __u32);
} networks SEC(".maps");

SEC("xdp")
int cidr_drop(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct prefix source = { .length = 32 };
	__u32 *drop;

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	source.address = ip->saddr;
	drop = bpf_map_lookup_elem(&networks, &source);
	return drop && *drop ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
