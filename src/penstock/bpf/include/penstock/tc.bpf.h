/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * tc.bpf.h - a packet at TC, on its way in or out: a socket buffer from its Ethernet header on.
 *
 * Its first piece can be read directly.  As a rule that holds the headers; what
 * does not lie there is copied by the kernel, so that no packet is changed by
 * looking at it.
 *
 * A device without link headers (tun, WireGuard, ipip) has packets that begin
 * with the IP header.  They are shown with an Ethernet header whose addresses are
 * 0 and whose type is the packet's, as at sockets, and all of them go to the exact
 * parser.  Which device it is, is known where the program is loaded.
 */
#ifndef PENSTOCK_TC_BPF_H
#define PENSTOCK_TC_BPF_H

#include <penstock/skb.bpf.h>

/* The verifier loses the range of a packet pointer whose variable part may reach 64 KiB. */
#define PS_NEAR 0x7fff

/* Whether packets come without a link header here (pipeline/link_header.py); a constant to the verifier. */
const volatile __u32 ps_is_bare = 0;
#define ps_bare_type(ctx) ps_beside(ctx, protocol)

/* Read anew each time, for a helper may have moved them; else as ps_beside. */
#define ps_pointer(ctx, member) \
	({ \
		void *ps_pointer_of; \
\
		asm volatile("%0 = *(u32 *)(%1 + %2)" \
			     : "=r"(ps_pointer_of) \
			     : "r"(ctx), "i"(__builtin_offsetof(struct ps_ctx, member))); \
		ps_pointer_of; \
	})

static __always_inline void *ps_data(struct ps_ctx *ctx)
{
	return ps_pointer(ctx, data);
}

static __always_inline void *ps_data_end(struct ps_ctx *ctx)
{
	return ps_pointer(ctx, data_end);
}

/* A tag beside the packet: whether there is one, its type and its 16 bits. */
#define ps_tag_beside(ctx) ps_beside(ctx, vlan_present)
#define ps_beside_tpid(ctx) ps_ntohs(ps_beside(ctx, vlan_proto))
#define ps_beside_tci(ctx) ps_beside(ctx, vlan_tci)
/* How much is shown that is not in the packet, and where that ends. */
#define ps_shown(ctx) (ps_is_bare ? PS_LINK_SIZE : ps_tag_beside(ctx) ? PS_TAG_SIZE : 0)
#define ps_shown_end(shown) ((shown) == PS_TAG_SIZE ? PS_TAG_AT + PS_TAG_SIZE : (shown))

/* ps_extent - the packet's length with all of its pieces, and what is shown besides. */
static __always_inline __u64 ps_extent(struct ps_ctx *ctx)
{
	return ps_beside(ctx, len) + ps_shown(ctx);
}

/* The first piece, and the length of all; read once and passed on, as in xdp.bpf.h. */
struct ps_bounds {
	void *data, *end;
	__u64 length;
};

static __always_inline __u64 ps_bounds_length(struct ps_bounds b)
{
	return b.length;
}

/* ps_begin - the bounds, and whether the packet is one frame with all of its tags in place. */
static __always_inline bool ps_begin(struct ps_ctx *ctx, struct ps_bounds *b)
{
	*b = (struct ps_bounds){ ps_data(ctx), ps_data_end(ctx), ps_beside(ctx, len) };
	return !ps_is_bare && !ps_tag_beside(ctx) && !ps_is_aggregate(ctx);
}

/* ps_show_tag - the bounds of a packet with a tag beside it, as on the wire. */
static __always_inline void ps_show_tag(struct ps_bounds *b)
{
	b->data -= PS_TAG_SIZE;
	b->length += PS_TAG_SIZE;
}

#define ps_has_bytes(b, p, size) ((p) + (size) <= (b).end)
#define ps_ends_beyond(b, p, size) ((__u64)((p) - (b).data) + (size) > (b).length)

/* ps_far_shown - `size` bytes of a packet of which not all are its own, one by one where they touch what is not. */
static __always_inline long ps_far_shown(struct ps_ctx *ctx, __u32 shown, __u32 at, __u8 *b, __u32 size)
{
	__u32 end = ps_shown_end(shown), type = ps_is_bare ? ps_ntohs(ps_bare_type(ctx)) : ps_beside_tpid(ctx);
	__u32 tag = type << 16 | ps_beside_tci(ctx);
	long failed = 0;

	if (at >= end)
		return bpf_skb_load_bytes(ctx, at - shown, b, size);
#pragma unroll
	for (__u32 k = 0; k < 4; k++) {
		__u32 place = at + k;

		ps_barrier();
		if (k >= size)
			break;
		if (place >= end)
			failed |= bpf_skb_load_bytes(ctx, place - shown, b + k, 1);
		else if (place >= PS_TAG_AT)
			b[k] = tag >> (8 * (PS_TAG_AT + PS_TAG_SIZE - 1 - place) & 31);
		else if (!ps_is_bare)
			failed |= bpf_skb_load_bytes(ctx, place, b + k, 1);
	}
	return failed;
}

/* ps_far - read beyond the first piece; also what says no to a read beyond the end. */
__noinline __u64 ps_far(struct ps_ctx *ctx, __u32 at, __u32 size)
{
	__u32 less = ps_less_one(size), shown = ps_shown(ctx);
	__u8 b[4] = {};
	long failed;

	if (less >= 4)
		return PS_ABSENT64;
	size = less + 1;
	if (shown)
		failed = ps_far_shown(ctx, shown, at, b, size);
	else
		failed = bpf_skb_load_bytes(ctx, at, b, size);
	return failed ? PS_ABSENT64 : ps_number(b, size);
}

/* ps_load - `size` bytes at `base` + `offset`, for the rules' accessors; as in xdp.bpf.h. */
static __always_inline __u64 ps_load(struct ps_ctx *ctx, __u32 base, __u64 offset, const __u32 size)
{
	__u32 shown = ps_shown(ctx);
	__u64 at = base + offset, near;
	void *p;

	if (base > 0x1ffff || offset > 0xffff)
		return PS_ABSENT64;
	if (ps_by_helpers)
		return ps_load_copied(ctx, at, size);
	near = at;
	if (unlikely(shown))
		near = at < ps_shown_end(shown) ? PS_NEAR + 1 : at - shown;
	/* Or clang checks one register and adds another, and the verifier sees no check. */
	asm volatile("" : "+r"(near));
	if (near <= PS_NEAR) {
		p = ps_data(ctx) + near;
		if (p + size <= ps_data_end(ctx))
			return size == 1   ? *(__u8 *)p
			       : size == 2 ? ps_ntohs(*(__be16 *)p)
					   : ps_ntohl(*(__be32 *)p);
	}
	return ps_far(ctx, at, size);
}

/* ps_open - copy the head of the packet into `scratch`, for ps_cursor; what is shown besides is put at its place. */
static __always_inline void ps_open(struct ps_ctx *ctx, struct ps_scratch *scratch)
{
	__u32 shown = ps_shown(ctx), length = ps_beside(ctx, len) + shown, less;

	if (ps_by_helpers) {
		/* Out of memory: hardened against speculation, a sum may not have another number each way that leads to it. */
		scratch->gap = shown;
		shown = ps_unknown(scratch->gap) & 15;
	}
	ps_settle(scratch, length);
	less = ps_less_one(ps_unknown(scratch->have) - shown);
	if (less < PS_HEAD)
		bpf_skb_load_bytes(ctx, 0, scratch->head + shown, less + 1);
	if (ps_is_bare)
		ps_put_link(ctx, scratch->head);
	else if (shown)
		ps_put_tag(ctx, scratch->head);
}

/* No head is copied before the exact parser wants it. */
#define PS_OPENED 0

#endif
