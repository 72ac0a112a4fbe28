/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * linear.bpf.c - the rules in an array, tried one after the other.
 *
 * What a loop over a table of rules costs when it is written with care: the
 * packet is parsed once, a rule is 40 bytes and given up at its first test that
 * fails, and sixteen rules are tried for each call that bpf_loop() makes.  The
 * including text defines RULES, a multiple of sixteen.  IPv4 alone.
 */
#include "five_tuple.bpf.h"

#define AT_ONCE 16

struct rule {
	__u32 src, src_mask, dst, dst_mask;
	__u32 sport, sport_span, dport, dport_span;
	__u32 proto_and_mask, code;
};

struct rule rules[RULES];

struct search {
	struct five_tuple packet;
	__u32 found;
};

static long (*const bpf_loop)(__u32 count, void *callback, void *context, __u64 flags) = (void *)181;

static __always_inline bool holds(const struct rule *r, const struct five_tuple *p)
{
	return !((p->src ^ r->src) & r->src_mask) && !((p->dst ^ r->dst) & r->dst_mask) &&
	       !((p->proto ^ r->proto_and_mask) & r->proto_and_mask >> 8) &&
	       p->dport - r->dport <= r->dport_span && p->sport - r->sport <= r->sport_span;
}

static long some(__u32 block, void *context)
{
	struct search *s = context;

	for (int k = 0; k < AT_ONCE; k++) {
		__u32 at = block * AT_ONCE + k;

		asm volatile("" : "+r"(at));
		if (at >= RULES)
			return 1;
		if (holds(&rules[at], &s->packet)) {
			s->found = at;
			return 1;
		}
	}
	return 0;
}

SEC("xdp.frags") int linear(struct xdp_md *ctx)
{
	struct search s = { .found = RULES };

	if (!five_tuple(ctx, &s.packet))
		return XDP_PASS;
	bpf_loop(RULES / AT_ONCE, some, &s, 0);
	if (s.found >= RULES)
		return decided(ctx, 0, XDP_PASS);
	return decided(ctx, 1 + s.found, rules[s.found].code);
}

char _license[] SEC("license") = "Dual BSD/GPL";
