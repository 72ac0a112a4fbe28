/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * cursor.bpf.h - read the packet at any offset, or learn that it ends before.
 *
 * ps_read8, ps_read16 and ps_read32 (the exact parser's) and ps_load (the rules')
 * give a number in host order, or PS_ABSENT64 when a byte of it is not in the
 * packet.
 */
#ifndef PENSTOCK_CURSOR_BPF_H
#define PENSTOCK_CURSOR_BPF_H

#include <penstock/uapi.bpf.h>
#include <penstock/view.bpf.h>

/* The verifier loses the range of a packet pointer whose variable part may reach 64 KiB. */
#define PS_NEAR 0x7fff

static __always_inline void *ps_data(struct xdp_md *ctx)
{
	return (void *)(long)ctx->data;
}

static __always_inline void *ps_data_end(struct xdp_md *ctx)
{
	return (void *)(long)ctx->data_end;
}

/*
 * ps_has_tail - whether a part of the frame lies outside data..data_end, as a jumbo frame's does.
 *
 * The helper that counts that part costs more than a whole small filter.  The
 * flag that says whether there is one can be read directly since Linux 6.2;
 * before 5.18 there was none.
 */
static __always_inline bool ps_has_tail(struct xdp_md *ctx, __u64 linear)
{
	if (ps_kernel_has(special_kfunc_type, KF_bpf_cast_to_kern_ctx)) {
		struct xdp_buff *xdp = bpf_cast_to_kern_ctx(ctx);

		return xdp->flags & XDP_FLAGS_HAS_FRAGS;
	}
	return ps_kernel_has(xdp_buff_flags, XDP_FLAGS_HAS_FRAGS) && bpf_xdp_get_buff_len(ctx) != linear;
}

/* ps_wire_length - the frame's length with all of its fragments; `linear` is that of data..data_end. */
static __always_inline __u64 ps_wire_length(struct xdp_md *ctx, __u64 linear)
{
	return unlikely(ps_has_tail(ctx, linear)) ? bpf_xdp_get_buff_len(ctx) : linear;
}

/* ps_far - read beyond the linear part; also what says no to a read beyond the end. */
__noinline __u64 ps_far(struct xdp_md *ctx, __u32 at, __u32 size)
{
	__u8 b[4] = {};

	if (!ps_kernel_has(xdp_buff_flags, XDP_FLAGS_HAS_FRAGS))
		return PS_ABSENT64;
	switch (size) {
	case 1:
		return bpf_xdp_load_bytes(ctx, at, b, 1) < 0 ? PS_ABSENT64 : b[0];
	case 2:
		return bpf_xdp_load_bytes(ctx, at, b, 2) < 0 ? PS_ABSENT64 : (__u32)b[0] << 8 | b[1];
	case 4:
		if (bpf_xdp_load_bytes(ctx, at, b, 4) < 0)
			return PS_ABSENT64;
		return (__u32)b[0] << 24 | (__u32)b[1] << 16 | (__u32)b[2] << 8 | b[3];
	}
	return PS_ABSENT64;
}

/*
 * ps_load - `size` bytes at `base` + `offset`, for the rules' accessors.
 *
 * An absent base or offset has a bit above the 32nd, or is so large that the
 * sum is beyond any packet; the sum does not wrap.
 */
static __always_inline __u64 ps_load(struct xdp_md *ctx, __u32 base, __u64 offset, const __u32 size)
{
	__u64 at = base + offset;
	void *p;

	if (base > 0x1ffff || offset > 0xffff)
		return PS_ABSENT64;
	/* Or clang checks one register and adds another, and the verifier sees no check. */
	if (!__builtin_constant_p(at))
		asm volatile("" : "+r"(at));
	if (at <= PS_NEAR) {
		p = ps_data(ctx) + at;
		if (p + size <= ps_data_end(ctx))
			return size == 1   ? *(__u8 *)p
			       : size == 2 ? ps_ntohs(*(__be16 *)p)
					   : ps_ntohl(*(__be32 *)p);
	}
	return ps_far(ctx, at, size);
}

/*
 * ps_load_transport - the same, counted as libpcap's programs do: the offset is
 * added modulo 2^32 to the distance from network to transport header.
 */
static __always_inline __u64 ps_load_transport(struct xdp_md *ctx, __u32 net, __u32 trans, __u64 offset,
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
	struct xdp_md *ctx;
	struct ps_scratch *scratch;
};

/* ps_copy_words - `size` bytes, by words of eight. */
static __always_inline void ps_copy_words(__u8 *to, const void *from, const __u32 size)
{
#pragma unroll
	for (__u32 at = 0; at < size; at += 8)
		*(__u64 *)(to + at) = *(__u64 *)(from + at);
}

/* ps_copy_part - the part of `size` bytes, a power of two, of a copy that is shorter than the head. */
#define ps_copy_part(scratch, data, end, size) \
	do { \
		__u32 ps_have = ps_unknown((scratch)->have); \
		__u32 ps_at = ps_have & (PS_HEAD - 2 * (size)); \
\
		if ((ps_have & (size)) && (data) + ps_at + (size) <= (end)) { \
			if ((size) >= 8) \
				ps_copy_words((scratch)->head + ps_at, (data) + ps_at, size); \
			else if ((size) == 4) \
				*(__u32 *)((scratch)->head + ps_at) = *(__u32 *)((data) + ps_at); \
			else if ((size) == 2) \
				*(__u16 *)((scratch)->head + ps_at) = *(__u16 *)((data) + ps_at); \
			else \
				(scratch)->head[ps_at] = *(__u8 *)((data) + ps_at); \
		} \
	} while (0)

/*
 * ps_open - copy the head of the packet into `scratch`, for ps_cursor.
 *
 * A packet shorter than that in the powers of two that its length consists of:
 * word by word the verifier would follow every length.
 */
static __always_inline void ps_open(struct xdp_md *ctx, struct ps_scratch *scratch)
{
	void *data = ps_data(ctx), *end = ps_data_end(ctx);
	__u64 linear = end - data;

	scratch->settled = scratch->have = linear < PS_HEAD ? linear : PS_HEAD;
	if (data + PS_HEAD <= end) {
		ps_copy_words(scratch->head, data, PS_HEAD);
	} else {
		ps_copy_part(scratch, data, end, 64);
		ps_copy_part(scratch, data, end, 32);
		ps_copy_part(scratch, data, end, 16);
		ps_copy_part(scratch, data, end, 8);
		ps_copy_part(scratch, data, end, 4);
		ps_copy_part(scratch, data, end, 2);
		ps_copy_part(scratch, data, end, 1);
	}
	if (linear <= PS_HEAD && !ps_has_tail(ctx, linear))
		scratch->settled = PS_ABSENT;
}

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
	const void *p = cur->scratch->head + (at & (PS_HEAD - 1));

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
