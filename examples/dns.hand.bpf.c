/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * dns.hand.bpf.c - dns.policy as one would write it by hand.
 *
 * Does what the policy does for the usual packet and no more: at most two VLAN
 * tags stepped over, IPv4 with options, IPv6 without extension headers, later
 * fragments left alone; the rule and the default have counters of packets and
 * bytes; jumbo frames are taken (xdp.frags), so the length needs the helper.
 * It does not look for malformed packets and does not count them.
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

static __always_inline int finish(struct xdp_md *ctx, __u32 slot, int code)
{
	struct counter *c = bpf_map_lookup_elem(&counters, &slot);

	if (c) {
		c->packets++;
		c->bytes += bpf_xdp_get_buff_len(ctx);
	}
	return code;
}

static __always_inline bool is_dns(void *data, void *end)
{
	__be16 type;
	void *ip = data + 14, *udp;

	if (ip > end)
		return false;
	type = *(__be16 *)(data + 12);
	for (int tags = 0; tags < 2; tags++) {
		if (type != ps_htons(0x8100) && type != ps_htons(0x88a8) && type != ps_htons(0x9100))
			break;
		if (ip + 4 > end)
			return false;
		type = *(__be16 *)(ip + 2);
		ip += 4;
	}
	if (type == ps_htons(0x0800)) {
		if (ip + 20 > end || *(__u8 *)(ip + 9) != 17)
			return false;
		if ((*(__u8 *)ip & 15) < 5 || *(__be16 *)(ip + 6) & ps_htons(0x1fff))
			return false;
		udp = ip + (*(__u8 *)ip & 15) * 4;
	} else if (type == ps_htons(0x86dd)) {
		if (ip + 40 > end || *(__u8 *)(ip + 6) != 17)
			return false;
		udp = ip + 40;
	} else {
		return false;
	}
	return udp + 8 <= end && *(__be16 *)(udp + 2) == ps_htons(53);
}

SEC("xdp.frags")
int dns(struct xdp_md *ctx)
{
	if (is_dns((void *)(long)ctx->data, (void *)(long)ctx->data_end))
		return finish(ctx, 1, XDP_DROP);
	return finish(ctx, 0, XDP_PASS);
}

char _license[] SEC("license") = "Dual BSD/GPL";
