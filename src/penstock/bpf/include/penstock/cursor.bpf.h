/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * cursor.bpf.h - read the packet at any offset, or learn that it ends before.
 *
 * ps_read8, ps_read16 and ps_read32 (the exact parser's) and ps_load (the rules')
 * give a number in host order, or PS_ABSENT64 when a byte of it is not in the
 * packet.
 *
 * How a packet is got at is its hook's business, of which the generated file
 * includes one: xdp.bpf.h, tc.bpf.h or socket.bpf.h.  Each says what struct
 * ps_ctx is and gives
 *
 *     ps_begin       what the fast path needs to know, or "for the exact parser"
 *     ps_has_bytes, ps_ends_beyond, ps_bounds_length    bounds, for the fast path
 *     ps_tag_beside, ps_show_tag    a tag that lies beside the packet
 *     ps_open        the head's copy, for the exact parser; PS_OPENED: ps_begin made it
 *     ps_extent      the packet's length, all of its parts and tags included
 *     ps_load, ps_far
 *     ps_weigh, ps_is_aggregate    what the packet counts as, being perhaps many segments
 *
 * Everywhere a packet is addressed as it is on the wire, from its Ethernet
 * header on.
 */
#ifndef PENSTOCK_CURSOR_BPF_H
#define PENSTOCK_CURSOR_BPF_H

#ifndef ps_ctx
#error "include the context first: penstock/xdp.bpf.h, penstock/tc.bpf.h or penstock/socket.bpf.h"
#endif

/*
 * ps_load_transport - the same, counted as libpcap's programs do: the offset is
 * added modulo 2^32 to the distance from network to transport header.
 */
static __always_inline __u64 ps_load_transport(struct ps_ctx *ctx, __u32 net, __u32 trans, __u64 offset,
					       const __u32 size)
{
	if (trans == PS_ABSENT || offset >> 32)
		return PS_ABSENT64;
	return ps_load(ctx, net, (__u32)(trans - net + offset), size);
}

/*
 * The exact parser's way to read: from a copy of the packet's head.
 *
 * A copy in a map has no packet pointers in it, whose checks would double the
 * parser's states with each read: the verifier sees a number that it knows
 * nothing of.  And a flood of odd packets, which all come here, pays no call for
 * a byte.
 */
struct ps_cursor {
	struct ps_ctx *ctx;
	struct ps_scratch *scratch;
};

/*
 * ps_read - `size` bytes at `at`; PS_ABSENT64 if one of them is beyond the packet.
 *
 * Without a branch as far as the copy goes: the mask bounds the offset for the
 * verifier, and the sign of a difference makes the number absent.
 */
static __always_inline __u64 ps_read(const struct ps_cursor *cur, __u32 at, const __u32 size)
{
	__u32 have = ps_unknown(cur->scratch->have);
	__u64 left = (__u64)have - at - size, value;
	const void *p = cur->scratch->head + (ps_hidden(at, have) & (PS_HEAD - 1));

	value = size == 1 ? *(__u8 *)p : size == 2 ? ps_ntohs(*(__be16 *)p) : ps_ntohl(*(__be32 *)p);
	asm volatile("" : "+r"(left));
	value |= -(left >> 63);
	if (unlikely(at + size > ps_unknown(cur->scratch->settled)))
		value = ps_far(cur->ctx, at, size);
	return value;
}

static __always_inline __u64 ps_read8(const struct ps_cursor *cur, __u32 at)
{
	return ps_read(cur, at, 1);
}

static __always_inline __u64 ps_read16(const struct ps_cursor *cur, __u32 at)
{
	return ps_read(cur, at, 2);
}

static __always_inline __u64 ps_read32(const struct ps_cursor *cur, __u32 at)
{
	return ps_read(cur, at, 4);
}

static __always_inline bool ps_is_tag(__u32 type)
{
	return type == 0x8100 || type == 0x88a8 || type == 0x9100;
}

static __always_inline bool ps_is_extension(__u32 nh)
{
	return nh == 0 || nh == 43 || nh == 44 || nh == 51 || nh == 60 || nh == 135;
}

#endif
