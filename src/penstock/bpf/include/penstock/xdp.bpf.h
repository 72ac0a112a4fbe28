/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * xdp.bpf.h - a packet at XDP: a driver's buffer, tags and all, and perhaps fragments behind it.
 */
#ifndef PENSTOCK_XDP_BPF_H
#define PENSTOCK_XDP_BPF_H

#include <penstock/uapi.bpf.h>

/* The kernel knows a program's context by its own name for it, also in the functions that take one. */
#define ps_ctx xdp_md

#include <penstock/copied.bpf.h>

/* The verifier loses the range of a packet pointer whose variable part may reach 64 KiB. */
#define PS_NEAR 0x7fff

static __always_inline void *ps_data(struct ps_ctx *ctx)
{
	return (void *)(long)ctx->data;
}

static __always_inline void *ps_data_end(struct ps_ctx *ctx)
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
static __always_inline __u32 ps_has_tail(struct ps_ctx *ctx)
{
	if (ps_kernel_has(special_kfunc_type, KF_bpf_cast_to_kern_ctx)) {
		struct xdp_buff *xdp = bpf_cast_to_kern_ctx(ctx);

		/* Each of the flags says something of fragments, and is set only where there are any. */
		return xdp->flags;
	}
	return ps_kernel_has(xdp_buff_flags, XDP_FLAGS_HAS_FRAGS) &&
	       bpf_xdp_get_buff_len(ctx) != ps_data_end(ctx) - ps_data(ctx);
}

/* ps_wire_length - the frame's length with all of its fragments; `linear` is that of data..data_end. */
static __always_inline __u64 ps_wire_length(struct ps_ctx *ctx, __u64 linear)
{
	return unlikely(ps_has_tail(ctx)) ? bpf_xdp_get_buff_len(ctx) : linear;
}

/* ps_extent - the frame's length with all of its fragments. */
static __always_inline __u64 ps_extent(struct ps_ctx *ctx)
{
	if (ps_by_helpers)
		return bpf_xdp_get_buff_len(ctx);
	return ps_wire_length(ctx, ps_data_end(ctx) - ps_data(ctx));
}

/*
 * The packet's bounds, read once and passed on: a pointer that is read from the
 * context again has no checked range, and clang would read it again after each
 * store to memory.
 */
struct ps_bounds {
	void *data, *end;
};

static __always_inline __u64 ps_bounds_length(struct ps_bounds b)
{
	return b.end - b.data;
}

/* ps_begin - the bounds, and whether they are all of the packet. */
static __always_inline bool ps_begin(struct ps_ctx *ctx, struct ps_bounds *b)
{
	if (unlikely(ps_has_tail(ctx)))
		return false;
	*b = (struct ps_bounds){ ps_data(ctx), ps_data_end(ctx) };
	return true;
}

/* ps_has_bytes - whether `size` bytes at `p` can be read; ps_ends_beyond - whether so many are more than the packet has. */
#define ps_has_bytes(b, p, size) ((p) + (size) <= (b).end)
#define ps_ends_beyond(b, p, size) ((__u64)((p) - (b).data) + (size) > ps_bounds_length(b))

/* Tags are in the frame, or the device has kept them to itself. */
#define ps_tag_beside(ctx) false
#define ps_beside_tpid(ctx) 0
#define ps_beside_tci(ctx) 0
#define ps_show_tag(bounds) ((void)(bounds))

/* What lies beside the frame: the interface.  A mark it has not got yet, and every frame is on its way in. */
#define ps_ifindex(ctx) ((__u64)ps_beside(ctx, ingress_ifindex))
#define ps_mark(ctx) 0ULL
#define ps_outbound(ctx) 0U

/* A policy is attached only where frames have a link header (pipeline/link_header.py). */
#define ps_is_bare 0
#define ps_bare_type(ctx) 0

/* A frame is one frame. */
#define ps_is_aggregate(ctx) false
#define ps_weigh(cur) ((void)0)

/* ps_far - read beyond the linear part; also what says no to a read beyond the end. */
__noinline __u64 ps_far(struct ps_ctx *ctx, __u32 at, __u32 size)
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
static __always_inline __u64 ps_load(struct ps_ctx *ctx, __u32 base, __u64 offset, const __u32 size)
{
	__u64 at = base + offset;
	void *p;

	if (base > 0x1ffff || offset > 0xffff)
		return PS_ABSENT64;
	if (ps_by_helpers)
		return ps_load_copied(ctx, at, size);
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

/* ps_open_by_helpers - the same where pointers may not be subtracted; the helper copies a part of the packet or nothing. */
static __always_inline void ps_open_by_helpers(struct ps_ctx *ctx, struct ps_scratch *scratch)
{
	__u64 length = bpf_xdp_get_buff_len(ctx);
	__u32 less;

	scratch->have = length < PS_HEAD ? length : PS_HEAD;
	scratch->settled = length <= PS_HEAD ? PS_ABSENT : PS_HEAD;
	less = ps_less_one(ps_unknown(scratch->have));
	if (less < PS_HEAD)
		bpf_xdp_load_bytes(ctx, 0, scratch->head, less + 1);
}

/*
 * ps_open - copy the head of the packet into `scratch`, for ps_cursor.
 *
 * A packet shorter than that in the powers of two that its length consists of:
 * word by word the verifier would follow every length.
 */
static __always_inline void ps_open(struct ps_ctx *ctx, struct ps_scratch *scratch)
{
	void *data = ps_data(ctx), *end = ps_data_end(ctx);
	__u64 linear;

	if (ps_by_helpers) {
		ps_open_by_helpers(ctx, scratch);
		return;
	}
	linear = end - data;
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
	if (linear <= PS_HEAD && !ps_has_tail(ctx))
		scratch->settled = PS_ABSENT;
}

/* No head is copied before the exact parser wants it. */
#define PS_OPENED 0

#endif
