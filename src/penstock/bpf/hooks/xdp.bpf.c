/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * xdp.bpf.c - the program that a generated file ends with.
 *
 * The generated part says how packets are decided:
 *
 *     ps_decide(ctx, s)          rules over views in registers, inlined here
 *     ps_decide_scratch(ctx)     the same rules over the views in ps_scratch
 *     ps_on(conditions)          the decision on odd packets, 0 to go on
 *     ps_enter(ctx)              fill the views of encapsulated scopes
 *
 * A usual packet is decided from registers where the policy is small
 * (PS_INLINE), else from views in memory; an odd one always from memory.
 */

static __always_inline void ps_count_conditions(__u32 conditions, __u32 bytes)
{
	struct ps_probe *probe = ps_probe_area();

	if (probe)
		probe->conditions = conditions;
	for (int k = 0; k < PS_CONDITIONS; k++) {
		if (conditions & 1U << k)
			ps_count(1 + k, bytes);
	}
}

_Static_assert(PS_DROP == 1 && PS_PASS == 2 && PS_BOUNCE == 3, "the verdicts' codes are those of enum xdp_action");

/* ps_act - give the action code; a frame to be sent back has its MAC addresses swapped first. */
static __always_inline int ps_act(struct xdp_md *ctx, int code)
{
	__u16 *mac = ps_data(ctx);

	if (!PS_BOUNCES || code != PS_BOUNCE)
		return code;
	if ((void *)(mac + 6) > ps_data_end(ctx))
		return code;
	for (int k = 0; k < 3; k++) {
		__u16 destination = mac[k];

		mac[k] = mac[k + 3];
		mac[k + 3] = destination;
	}
	return code;
}

/* ps_judged - count odd-packet conditions; the decision they come to, 0 to go on with the rules. */
static __always_inline __u32 ps_judged(__u32 conditions, __u32 bytes)
{
	__u32 decision = ps_on(conditions);

	ps_count_conditions(conditions, bytes);
	if (decision)
		ps_record_decision(ps_slot_of(decision));
	return decision;
}

/*
 * ps_exact - decide a packet that the fast path gave up on; gives the hook's action code.
 *
 * A function of its own: inlined, clang would lay it between the usual packet's
 * few instructions.
 */
__noinline int ps_exact(struct xdp_md *ctx)
{
	struct ps_scratch *scratch = ps_scratch_area();
	struct ps_cursor cur;
	__u32 conditions;

	if (!scratch)
		return PS_DEFAULT;
	scratch->len = ps_length(ctx, ps_data_end(ctx) - ps_data(ctx));
	ps_unlimited(scratch);
	ps_open(ctx, scratch);
	cur = (struct ps_cursor){ ctx, scratch };
	ps_clear(&scratch->s[0]);
	ps_frame(&cur, &scratch->s[0], scratch->len);
	conditions = ps_unknown(scratch->conditions);
	if (conditions) {
		__u32 decision = ps_judged(conditions, scratch->len);

		if (decision)
			return ps_act(ctx, ps_code_of(decision));
	}
	ps_enter(ctx);
	return ps_act(ctx, ps_finish(ps_decide_scratch(ctx), scratch->len));
}

/* ps_usual - decide a packet that the fast path has parsed; gives the hook's action code. */
static __always_inline int ps_usual(struct xdp_md *ctx, struct ps_view *s, __u64 len)
{
	return ps_act(ctx, ps_finish(ps_decide(ctx, s, len), len));
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
int ps_filter(struct xdp_md *ctx)
{
	struct ps_view local[PS_SCOPES], *s = local;
	struct ps_bounds bounds = { ps_data(ctx), ps_data_end(ctx) };
	__u64 linear = bounds.end - bounds.data, len = PS_PROBE ? ps_length(ctx, linear) : linear;
	struct ps_fast_net net;

	if (unlikely(ps_has_tail(ctx, linear)))
		goto odd;
	if (!PS_INLINE) {
		struct ps_scratch *scratch = ps_scratch_area();

		if (!scratch)
			return PS_DEFAULT;
		scratch->len = len;
		ps_unlimited(scratch);
		s = scratch->s;
	}
	/* Unrolled, or the views have to be an array on the stack. */
#pragma unroll
	for (int k = 0; k < PS_SCOPES; k++)
		ps_clear(&s[k]);
	net = ps_fast_link(bounds, s);
behind_tags:
	if (!net.at)
		goto odd;
	if (PS_LEVEL < PS_NETWORK && (net.at != 14 || !ps_is_raw_tag(net.type)))
		PS_USUAL();
	if (net.type == ps_htons(0x0800)) {
		if (ps_fast_ipv4(bounds, s, net.at))
			PS_USUAL();
	} else if (net.type == ps_htons(0x86dd)) {
		if (ps_fast_ipv6(bounds, s, net.at))
			PS_USUAL();
	} else if (net.at == 14 && ps_is_raw_tag(net.type)) {
		net = ps_fast_tags(bounds, s);
		goto behind_tags;
	}
	if (ps_fast_other(bounds, s, net)) {
		if (PS_DEPTH >= PS_NETWORK && s->frag == 2) {
			__u32 decision = ps_judged(PS_FRAGMENT, len);

			if (decision)
				return ps_act(ctx, ps_code_of(decision));
		}
		PS_USUAL();
	}
odd:
	return ps_exact(ctx);
usual:
	return ps_usual(ctx, s, len);
}

char ps_license[] SEC("license") = "Dual BSD/GPL";
