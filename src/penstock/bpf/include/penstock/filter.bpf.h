/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * filter.bpf.h - the program, the same at every hook.
 *
 * The generated part says how packets are decided:
 *
 *     ps_decide(ctx, s)          rules over views in registers, inlined here
 *     ps_decide_scratch(ctx)     the same rules over the views in ps_scratch
 *     ps_on(conditions)          the decision on odd packets, 0 to go on
 *     ps_enter(ctx)              fill the views of encapsulated scopes
 *
 * and the hook's frame, which includes this, what it answers:
 *
 *     ps_act(ctx, decision)
 *
 * A usual packet is decided from registers where the policy is small
 * (PS_INLINE), else from views in memory; an odd one always from memory.
 */
#ifndef PENSTOCK_FILTER_BPF_H
#define PENSTOCK_FILTER_BPF_H

static __always_inline void ps_count_conditions(__u32 conditions, struct ps_weight weight)
{
	struct ps_probe *probe = ps_probe_area();

	if (probe)
		probe->conditions = conditions;
	for (int k = 0; k < PS_CONDITIONS; k++) {
		if (conditions & 1U << k)
			ps_count(1 + k, weight);
	}
}

/* ps_judged - count odd-packet conditions; the decision they come to, 0 to go on with the rules. */
static __always_inline __u32 ps_judged(__u32 conditions, struct ps_weight weight)
{
	__u32 decision = ps_on(conditions);

	ps_count_conditions(conditions, weight);
	if (decision)
		ps_record_decision(decision);
	return decision;
}

/* ps_parsed - the exact parser's work: the frame's own view; gives its conditions. */
static __always_inline __u32 ps_parsed(struct ps_ctx *ctx, struct ps_scratch *scratch)
{
	struct ps_cursor cur = { ctx, scratch };

	if (!PS_OPENED)
		ps_open(ctx, scratch);
	ps_weigh(&cur);
	ps_clear(&scratch->s[0]);
	ps_frame(&cur, &scratch->s[0], scratch->extent);
	return ps_unknown(scratch->conditions);
}

/*
 * ps_exact - decide a packet that the fast path gave up on; gives the hook's action code.
 *
 * A function of its own: inlined, clang would lay it between the usual packet's
 * few instructions.
 */
__noinline int ps_exact(struct ps_ctx *ctx)
{
	struct ps_scratch *scratch = ps_scratch_area();
	struct ps_weight weight;
	__u32 conditions;

	if (!scratch)
		return ps_act(ctx, PS_DECISION(0, PS_DEFAULT));
	scratch->extent = scratch->len = ps_length(ps_extent(ctx));
	ps_unlimited(scratch);
	if (ps_fast_beside(ctx, &scratch->s[0]))
		conditions = PS_DEPTH >= PS_NETWORK && ps_unknown(scratch->s[0].frag) == 2 ? PS_FRAGMENT : 0;
	else
		conditions = ps_parsed(ctx, scratch);
	weight = ps_weight_of(ctx, scratch->len);
	if (conditions) {
		__u32 decision = ps_judged(conditions, weight);

		if (decision)
			return ps_act(ctx, decision);
	}
	ps_enter(ctx);
	return ps_act(ctx, ps_finish(ps_decide_scratch(ctx), weight));
}

/* ps_usual - decide a packet that the fast path has parsed; gives the hook's action code. */
static __always_inline int ps_usual(struct ps_ctx *ctx, struct ps_view *s, __u64 len)
{
	__u32 decision = ps_decide(ctx, s, len);

	/* In registers most ways through the rules end here, with nothing left to compute. */
	if (PS_INLINE && decision == PS_DECISION(0, PS_DEFAULT))
		return ps_act(ctx, ps_finish(PS_DECISION(0, PS_DEFAULT), PS_ONE(len)));
	return ps_act(ctx, ps_finish(decision, PS_ONE(len)));
}

/*
 * From registers, one copy of the rules for each family, where what asks for
 * the other's fields folds away; from memory, one for all.
 */
#define PS_USUAL() \
	do { \
		if (!PS_INLINE) \
			goto usual; \
		return ps_usual(ctx, s, len); \
	} while (0)

SEC(PS_SECTION)
int ps_filter(struct ps_ctx *ctx)
{
	struct ps_view local[PS_SCOPES], *s = local;
	struct ps_bounds bounds;
	struct ps_fast_net net;
	__u64 len;

#ifdef PS_MANGLES
	ps_want_nothing();
#endif
	if (!PS_OPENED && unlikely(ps_is_guarded())) {
		/* A call of its own, or the verifier would have to keep the branch to one that others use. */
		ps_apart(0);
		return ps_exact(ctx);
	}
	if (unlikely(!ps_begin(ctx, &bounds)))
		goto odd;
	len = ps_length(ps_bounds_length(bounds));
	if (!PS_INLINE) {
		struct ps_scratch *scratch = ps_scratch_area();

		if (!scratch)
			return ps_act(ctx, PS_DECISION(0, PS_DEFAULT));
		scratch->len = len;
		ps_unlimited(scratch);
		s = scratch->s;
	}
	/* Unrolled, or the views have to be an array on the stack. */
#pragma unroll
	for (int k = 0; k < PS_SCOPES; k++)
		ps_clear(&s[k]);
	net = ps_fast_link(bounds, s);
	if (!net.at)
		goto odd;
	/* First what most packets are, all of whose positions are known here; its own copy of the rules is short. */
	if (PS_INLINE && PS_LEVEL >= PS_NETWORK) {
		if (likely(net.type == ps_htons(0x0800)) && likely(ps_fast_ipv4(bounds, s, 14)))
			return ps_usual(ctx, s, len);
		/* Or clang would have it ready before. */
		asm volatile("" : "+r"(net.at));
	}
	/* No way back from behind the tags: clang 14 makes it a fall into a loop, which Linux 6.1 refuses. */
	if (net.type != ps_htons(0x0800) && net.type != ps_htons(0x86dd) && ps_is_raw_tag(net.type)) {
		net = ps_fast_tags(bounds, s);
		if (!net.at)
			goto odd;
	}
	if (PS_LEVEL < PS_NETWORK && (net.at != 14 || !ps_is_raw_tag(net.type)))
		PS_USUAL();
	if (net.type == ps_htons(0x0800)) {
		if (ps_fast_ipv4(bounds, s, net.at))
			PS_USUAL();
	} else if (net.type == ps_htons(0x86dd)) {
		if (ps_fast_ipv6(bounds, s, net.at))
			PS_USUAL();
	}
	if (ps_fast_other(bounds, s, net)) {
		if (PS_DEPTH >= PS_NETWORK && s->frag == 2) {
			__u32 decision = ps_judged(PS_FRAGMENT, PS_ONE(len));

			if (decision)
				return ps_act(ctx, decision);
		}
		PS_USUAL();
	}
odd:
	return ps_exact(ctx);
usual:
	return ps_usual(ctx, s, len);
}

char ps_license[] SEC("license") = "Dual BSD/GPL";

#endif
