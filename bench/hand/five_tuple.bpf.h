/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * five_tuple.bpf.h - what the programs written by hand have in common.
 *
 * IPv4 without options, and ports where there are some; NO_PORT else.  Counters
 * as penstock's: packets and bytes of each rule, on each CPU.  The including
 * text defines RULES.
 */
#include <penstock/uapi.bpf.h>

enum { XDP_DROP = 1, XDP_PASS = 2 };
#define NO_PORT 65536U

struct five_tuple {
	__u32 src, dst, sport, dport, proto;
};

struct counter {
	__u64 packets, bytes;
};

/* Slot 0 counts what no rule decides, 1 + n what rule n does. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, RULES + 1);
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

static __always_inline int decided(struct xdp_md *ctx, __u32 slot, __u32 code)
{
	struct counter *c = bpf_map_lookup_elem(&counters, &slot);

	if (c) {
		c->packets++;
		c->bytes += ctx->data_end - ctx->data;
	}
	return code == XDP_DROP ? XDP_DROP : XDP_PASS;
}

/* five_tuple - the packet's addresses, ports and protocol; false if it is not IPv4 as expected. */
static __always_inline bool five_tuple(struct xdp_md *ctx, struct five_tuple *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	void *ip = data + 14;

	if (data + 14 + 20 + 4 > end || *(__be16 *)(data + 12) != ps_htons(0x0800) || *(__u8 *)ip != 0x45)
		return false;
	p->src = ps_ntohl(*(__be32 *)(ip + 12));
	p->dst = ps_ntohl(*(__be32 *)(ip + 16));
	p->proto = *(__u8 *)(ip + 9);
	p->sport = p->dport = NO_PORT;
	if (p->proto == 6 || p->proto == 17 || p->proto == 132) {
		p->sport = ps_ntohs(*(__be16 *)(ip + 20));
		p->dport = ps_ntohs(*(__be16 *)(ip + 22));
	}
	return true;
}
