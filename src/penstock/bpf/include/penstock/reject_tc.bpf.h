/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * reject_tc.bpf.h - put a refusal in a packet's place at TC, to be sent out where it came in.
 *
 * The refusal is made beside the packet.  Then the packet loses its headers, as
 * far as into that of the transport: so the kernel forgets that a device should
 * still compute a checksum there (CHECKSUM_PARTIAL), which would spoil ours.
 */
#ifndef PENSTOCK_REJECT_TC_BPF_H
#define PENSTOCK_REJECT_TC_BPF_H

#include <penstock/reject.bpf.h>

#define PS_LOOKED_AT 1320	/* tags, headers and the longest quote */
#define PS_QUOTED 2048	/* room for the longest quote, a power of two */

enum { BPF_ADJ_ROOM_MAC = 1 };

static long (*const bpf_skb_vlan_push)(struct __sk_buff *skb, __be16 proto, __u16 tci) = (void *)18;
static long (*const bpf_skb_vlan_pop)(struct __sk_buff *skb) = (void *)19;
static long (*const bpf_skb_change_tail)(struct __sk_buff *skb, __u32 len, __u64 flags) = (void *)38;
static long (*const bpf_skb_pull_data)(struct __sk_buff *skb, __u32 len) = (void *)39;
static long (*const bpf_skb_adjust_room)(struct __sk_buff *skb, int diff, __u32 mode, __u64 flags) = (void *)50;

/* What a refusal takes from the packet: its addresses, its outermost tag, and what it quotes. */
struct ps_kept {
	__u8 mac[12];
	__be16 tpid, tci;
	__u8 quote[PS_QUOTED];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ps_kept);
} ps_kept SEC(".maps");

/*
 * ps_at_most - a number from 1 to `most`, a power of two, as which it is masked.
 *
 * Comparisons would do for a person; Linux before 6.2 does not connect them with
 * the register that clang then passes on.
 */
static __always_inline __u32 ps_at_most(__u32 number, const __u32 most)
{
	number--;
	asm volatile("" : "+r"(number));
	return (number & (most - 1)) + 1;
}

/* ps_keep_link - the addresses the other way round, and a tag that has to be taken off for a while. */
static __always_inline bool ps_keep_link(struct ps_ctx *ctx, struct ps_kept *kept, __u32 net)
{
	kept->tpid = 0;
	if (ps_is_bare)
		return true;
	if (bpf_skb_load_bytes(ctx, 6, kept->mac, 6) || bpf_skb_load_bytes(ctx, 0, kept->mac + 6, 6))
		return false;
	if (net == 14)
		return true;
	if (ctx->vlan_present) {
		kept->tpid = ctx->vlan_proto;
		kept->tci = ctx->vlan_tci;
		return net == 18;
	}
	if (bpf_skb_load_bytes(ctx, 12, &kept->tpid, 4))
		return false;
	kept->tci = ps_ntohs(kept->tci);
	return true;
}

/* ps_reshape - a packet of `size` bytes, of which only the Ethernet type is the old one's, `trans` bytes cut out. */
static __always_inline bool ps_reshape(struct ps_ctx *ctx, __u32 size, __u32 trans)
{
	__u32 cut = trans + 4;

	if (cut > 0xfff || bpf_skb_change_tail(ctx, size + cut, 0))
		return false;
	return !bpf_skb_adjust_room(ctx, -(int)cut, BPF_ADJ_ROOM_MAC, 0);
}

static __always_inline bool ps_refuse(struct ps_ctx *ctx)
{
	struct ps_refusing *all = ps_refusing_area();
	__u32 link = ps_is_bare ? 0 : PS_LINK_SIZE, zero = 0, net, quote, size, trans;
	__u64 linear;
	struct ps_kept *kept = bpf_map_lookup_elem(&ps_kept, &zero);

	if (!all || !kept || bpf_skb_pull_data(ctx, ctx->len < PS_LOOKED_AT ? ctx->len : PS_LOOKED_AT))
		return false;
	if (!ps_may_answer(ctx, ctx->len) || !ps_is_allowed())
		return false;
	net = ps_unknown(all->refused.net);
	trans = ps_unknown(all->refused.trans) - (net - link);
	linear = ps_data_end(ctx) - ps_data(ctx);
	/* Or clang subtracts in 32 bits, which is nothing that may be done with a pointer. */
	asm volatile("" : "+r"(linear));
	quote = ps_quote(&all->refused, linear - net);
	if (!ps_answer(ctx, quote) || !ps_keep_link(ctx, kept, net))
		return false;
	size = ps_unknown(all->headers.size);
	if (quote && bpf_skb_load_bytes(ctx, net, kept->quote, ps_at_most(quote, PS_QUOTED)))
		return false;
	if ((kept->tpid && bpf_skb_vlan_pop(ctx)) || !ps_reshape(ctx, link + size + quote, trans))
		return false;
	if ((link && bpf_skb_store_bytes(ctx, 0, kept->mac, 12, BPF_F_RECOMPUTE_CSUM)) ||
	    bpf_skb_store_bytes(ctx, link, all->headers.word, ps_at_most(size, sizeof(all->headers.word)), BPF_F_RECOMPUTE_CSUM))
		return false;
	if (quote && bpf_skb_store_bytes(ctx, link + size, kept->quote, ps_at_most(quote, PS_QUOTED), BPF_F_RECOMPUTE_CSUM))
		return false;
	return !kept->tpid || !bpf_skb_vlan_push(ctx, kept->tpid, kept->tci);
}

#endif
