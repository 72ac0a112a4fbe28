/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * dns_ipv4.bpf.c - the least that one could call `drop if udp dst port 53`.
 *
 * IPv4 alone, untagged; options honoured, later fragments left alone; counters
 * of packets and bytes; no jumbo frames.
 */
#include <penstock/uapi.bpf.h>

struct counter {
	__u64 packets, bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

enum { XDP_DROP = 1, XDP_PASS = 2 };

SEC("xdp")
int dns(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end, *ip = data + 14, *udp;
	struct counter *c;
	__u32 dns = 0;

	if (ip + 20 <= end && *(__be16 *)(data + 12) == ps_htons(0x0800) && *(__u8 *)(ip + 9) == 17 &&
	    (*(__u8 *)ip & 15) >= 5 && !(*(__be16 *)(ip + 6) & ps_htons(0x1fff))) {
		udp = ip + (*(__u8 *)ip & 15) * 4;
		dns = udp + 8 <= end && *(__be16 *)(udp + 2) == ps_htons(53);
	}
	c = bpf_map_lookup_elem(&counters, &dns);
	if (c) {
		c->packets++;
		c->bytes += end - data;
	}
	return dns ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
