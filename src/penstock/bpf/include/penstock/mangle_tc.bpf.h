/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * mangle_tc.bpf.h - carry out what rules asked for, at TC.
 */
#ifndef PENSTOCK_MANGLE_TC_BPF_H
#define PENSTOCK_MANGLE_TC_BPF_H

#include <penstock/mangle.bpf.h>
#include <penstock/verdict.bpf.h>

static long (*const bpf_l3_csum_replace)(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to,
					 __u64 flags) = (void *)10;
static long (*const bpf_clone_redirect)(struct __sk_buff *skb, __u32 ifindex, __u64 flags) = (void *)13;

/*
 * ps_set_dscp - the DSCP of an IP packet behind the link header's own tags; ECN stays (RFC 3168).
 *
 * What the sum of the packet is known to be stays right: in IPv4 the header's
 * checksum makes up for the change, in IPv6 nothing does, so the kernel is told.
 */
static __always_inline void ps_set_dscp(struct ps_ctx *ctx, __u32 dscp)
{
	__u32 at = ps_is_bare ? 0 : PS_LINK_SIZE;
	__be16 type = ps_bare_type(ctx);
	__u8 b[2];

	if (!ps_is_bare && bpf_skb_load_bytes(ctx, 12, &type, 2))
		return;
#pragma unroll
	for (int k = 0; k < 2; k++) {
		if (type == ps_htons(0x8100) || type == ps_htons(0x88a8)) {
			if (bpf_skb_load_bytes(ctx, at + 2, &type, 2))
				return;
			at += 4;
		}
	}
	if (bpf_skb_load_bytes(ctx, at, b, 2))
		return;
	if (type == ps_htons(0x0800) && b[0] >> 4 == 4) {
		__u8 changed[2] = { b[0], dscp << 2 | (b[1] & 3) };

		if (!bpf_l3_csum_replace(ctx, at + 10, *(__be16 *)b, *(__be16 *)changed, 2))
			bpf_skb_store_bytes(ctx, at + 1, changed + 1, 1, 0);
	} else if (type == ps_htons(0x86dd) && b[0] >> 4 == 6) {
		__u8 changed[2] = { 0x60 | dscp >> 2, (dscp & 3) << 6 | (b[1] & 0x3f) };

		bpf_skb_store_bytes(ctx, at, changed, 2, BPF_F_RECOMPUTE_CSUM);
	}
}

/* ps_mirror - copies of the packet, to the devices of these bits. */
static __always_inline void ps_mirror(struct ps_ctx *ctx, __u32 mirrors)
{
#ifdef PS_DEVICES
#pragma unroll
	for (int k = 0; k < PS_DEVICES; k++) {
		__u32 device = ps_devices[k];

		/* On its way out to this very device a copy would come here again. */
		if (!(mirrors >> k & 1) || (PS_EGRESS && device == ctx->ifindex))
			continue;
		bpf_clone_redirect(ctx, device, 0);
	}
#endif
}

/*
 * ps_carry_out - do what was asked for, `code` being the verdict's.  Gives 0.
 *
 * From a copy: a packet's copy may pass through this program, on its way out to
 * another device, before the first comes back.
 */
__noinline int ps_carry_out(struct ps_ctx *ctx, __u32 code)
{
	struct ps_wishes *found = ps_wishes_area(), wishes;

	if (!found)
		return 0;
	wishes = *found;
	if (wishes.mirrors)
		ps_mirror(ctx, wishes.mirrors);
	if (code == PS_DROP || code == PS_REJECT)
		return 0;
	if (wishes.mask)
		ctx->mark = (ctx->mark & ~wishes.mask) | wishes.mark;
	if (wishes.dscp)
		ps_set_dscp(ctx, wishes.dscp - 1);
	return 0;
}

#endif
