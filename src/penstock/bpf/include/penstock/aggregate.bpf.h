/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * aggregate.bpf.h - what a packet counts as that stands for many frames.
 *
 * Every frame but the last has gso_size bytes behind the headers, and each has
 * the headers again: so the wire's bytes are more than the aggregate's.  What
 * rules know as `len` is the length of such a frame.
 */
#ifndef PENSTOCK_AGGREGATE_BPF_H
#define PENSTOCK_AGGREGATE_BPF_H

#include <penstock/cursor.bpf.h>

#define PS_BY_FRAGMENTS 0xffff	/* GSO_BY_FRAGS: the pieces are the segments, as of SCTP */

/* ps_behind_ip - where the header behind the IP header at `at` begins; *proto says which it is. */
static __always_inline __u32 ps_behind_ip(const struct ps_cursor *cur, __u32 at, __u32 type, __u32 *proto)
{
	__u32 nh;

	if (type == 0x0800) {
		*proto = ps_read8(cur, at + 9);
		return at + (ps_read8(cur, at) & 15) * 4;
	}
	if (type != 0x86dd)
		return at;
	nh = ps_read8(cur, at + 6);
	at += 40;
#pragma unroll
	for (int k = 0; k < 2 && ps_is_extension(nh); k++) {
		__u32 length;

		ps_barrier();
		length = nh == 44 ? 8 : nh == 51 ? (ps_read8(cur, at + 1) + 2) * 4 : (ps_read8(cur, at + 1) + 1) * 8;

		nh = ps_read8(cur, at);
		at += length;
	}
	*proto = nh;
	return at;
}

/* ps_repeated - the bytes of the headers that each frame of the aggregate has, 0 if they are not known. */
__noinline __u32 ps_repeated(struct ps_ctx *ctx)
{
	struct ps_scratch *scratch = ps_scratch_area();
	__u32 at = 12, proto = 0, type;
	struct ps_cursor cur;

	if (!scratch)
		return 0;
	cur = (struct ps_cursor){ ctx, scratch };
	type = ps_read16(&cur, at);
#pragma unroll
	for (int k = 0; k < 2 && ps_is_tag(type); k++) {
		ps_barrier();
		at += 4;
		type = ps_read16(&cur, at);
	}
	at = ps_behind_ip(&cur, at + 2, type, &proto);
	if (proto == 6)
		return at + (ps_read8(&cur, at + 12) >> 4) * 4;
	return proto == 17 ? at + 8 : proto == 132 ? at + 12 : 0;
}

/*
 * ps_weigh - how many frames an aggregate stands for, of how many bytes together, and how long one is.
 *
 * A number of segments need not be there where a virtual machine sent the
 * packet: then the size says.
 */
static __always_inline void ps_weigh(const struct ps_cursor *cur)
{
	struct ps_scratch *scratch = cur->scratch;
	struct ps_ctx *ctx = cur->ctx;
	__u32 size = ctx->gso_size, extent = scratch->extent, segments = ctx->gso_segs, headers;

	if (!size)
		return;
	headers = ps_repeated(ctx);
	if (headers >= extent)
		headers = 0;
	if (size != PS_BY_FRAGMENTS)
		segments = (extent - headers + size - 1) / size;
	if (!segments)
		segments = 1;
	scratch->segments = segments;
	scratch->octets = extent + (segments - 1) * headers;
	if (size != PS_BY_FRAGMENTS && headers + size < extent)
		scratch->len = headers + size;
}

#endif
