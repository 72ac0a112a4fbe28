/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * reject_xdp.bpf.h - put a refusal in a frame's place at XDP, to be sent back by XDP_TX.
 *
 * A reset is written over the headers.  For an ICMP error the frame grows at its
 * head, so that the quoted packet stays where it is; whatever is too long, the
 * fragments of a large frame too, is cut off.
 */
#ifndef PENSTOCK_REJECT_XDP_BPF_H
#define PENSTOCK_REJECT_XDP_BPF_H

#include <penstock/reject.bpf.h>

#define PS_MOST_LINK 22	/* with two tags */

static long (*const bpf_xdp_adjust_head)(struct xdp_md *ctx, int delta) = (void *)44;
static long (*const bpf_xdp_adjust_tail)(struct xdp_md *ctx, int delta) = (void *)65;

/*
 * ps_return_link - the link header of `net` bytes, `from` bytes behind the frame's start, goes to its start.
 *
 * The other way round, and with its tags.  Both places are the same, or do not overlap.
 */
static __always_inline bool ps_return_link(struct ps_ctx *ctx, __u32 from, __u32 net)
{
	void *data = ps_data(ctx), *end = ps_data_end(ctx);
	__be16 *to = data, *was = ps_at(data, end, from, PS_MOST_LINK), mac[6];

	if (!was || data + PS_MOST_LINK > end)
		return false;
#pragma unroll
	for (int k = 0; k < 6; k++)
		mac[k] = was[(k + 3) % 6];
#pragma unroll
	for (int k = 0; k < 6; k++)
		to[k] = mac[k];
#pragma unroll
	for (int k = 6; k < PS_MOST_LINK / 2; k++) {
		if ((__u32)k * 2 < net)
			to[k] = was[k];
	}
	return true;
}

/* ps_write - the refusal's headers behind a link header of `net` bytes. */
static __always_inline bool ps_write(struct ps_ctx *ctx, const struct ps_headers *h, __u32 net)
{
	void *data = ps_data(ctx), *end = ps_data_end(ctx);

#pragma unroll
	for (int k = 0; k < 15; k++) {
		__u32 *to = ps_at(data, end, net + 4 * k, 4);

		if ((__u32)k * 4 >= h->size)
			break;
		if (!to)
			return false;
		*to = h->word[k];
	}
	return true;
}

/* ps_padded - a frame that had the least length keeps it, with zeros behind the packet (RFC 1042). */
static __always_inline __u32 ps_padded(struct ps_ctx *ctx, __u32 size)
{
	void *data = ps_data(ctx);

	if (size >= PS_LEAST_FRAME || data + PS_LEAST_FRAME > ps_data_end(ctx))
		return size;
	if (size <= PS_LEAST_FRAME - 6)
		*(__u32 *)(data + PS_LEAST_FRAME - 6) = 0;
	*(__u16 *)(data + PS_LEAST_FRAME - 2) = 0;
	return PS_LEAST_FRAME;
}

static __always_inline bool ps_refuse(struct ps_ctx *ctx)
{
	__u32 available = ps_data_end(ctx) - ps_data(ctx), length = ps_wire_length(ctx, available), quote, size, net, grown;
	struct ps_refusing *all = ps_refusing_area();

	if (!all || !ps_may_answer(ctx, length) || !ps_is_allowed())
		return false;
	net = ps_unknown(all->refused.net);
	quote = ps_quote(&all->refused, available - net);
	if (!ps_answer(ctx, quote))
		return false;
	grown = ps_unknown(all->headers.size);
	size = net + grown + quote;
	if (!quote)
		grown = 0;
	if (grown && bpf_xdp_adjust_head(ctx, -(int)grown))
		return false;
	length += grown;
	if (!ps_return_link(ctx, grown, net) || !ps_write(ctx, &all->headers, net))
		return false;
	size = ps_padded(ctx, size);
	return size == length || !bpf_xdp_adjust_tail(ctx, (int)(size - length));
}

#endif
