/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * blocklist.bpf.c - drop what comes from listed IPv4 addresses, and count it per address.
 *
 *     penstock program load blocklist.bpf.c -i eth0
 *     penstock map update blocked 192.0.2.7 0
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __be32);	/* the address, as in the packet */
	__type(value, __u64);	/* packets that were dropped */
} blocked SEC(".maps");

SEC("xdp")
int blocklist(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	__u64 *dropped;

	/* One check for both headers: the verifier remembers how far it reaches. */
	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	dropped = bpf_map_lookup_elem(&blocked, &ip->saddr);
	if (!dropped)
		return XDP_PASS;
	/* Other processors may be counting the same address. */
	__sync_fetch_and_add(dropped, 1);
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
