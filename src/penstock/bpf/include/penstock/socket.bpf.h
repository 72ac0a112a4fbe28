/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * socket.bpf.h - a packet that a socket is about to be given, from its Ethernet header on.
 *
 * What a socket is given begins at the Ethernet header, the IP header or the
 * transport header, as its kind is; what was before lies in the same buffer, in
 * front.  Nothing can be read directly: the head is copied, and the fast path
 * reads the copy.
 *
 * A packet that came without an Ethernet header (tun, WireGuard) is shown with
 * one whose addresses are 0 and whose type is the packet's.
 */
#ifndef PENSTOCK_SOCKET_BPF_H
#define PENSTOCK_SOCKET_BPF_H

#include <penstock/skb.bpf.h>

#define PS_MAC_UNSET 0xffff

/*
 * Where the socket's part begins, for kernels that do not tell (before Linux 6.2):
 * whoever attaches the program knows the socket's kind.
 */
enum { PS_FROM_LINK, PS_FROM_NETWORK, PS_FROM_TRANSPORT };
const volatile __u32 ps_socket_part = PS_FROM_NETWORK;

/* Where a packet is read from: `start` is the kernel's word for the header that `before` is counted from. */
struct ps_origin {
	__u32 start, before;
};

static __always_inline struct ps_origin ps_origin_in(const struct sk_buff *skb)
{
	__u32 mac = skb->mac_header, net = skb->network_header, data = skb->data - skb->head, link = net - mac;

	/* An Ethernet header, and perhaps tags that no device took out, on the way out. */
	if (mac != PS_MAC_UNSET && link >= PS_LINK_SIZE && link <= PS_LINK_SIZE + 2 * PS_TAG_SIZE)
		return (struct ps_origin){ BPF_HDR_START_MAC, data - mac };
	return (struct ps_origin){ BPF_HDR_START_NET, data - net };
}

/* ps_network_length - how long the IP header says that the packet is: a socket's part ends where it does. */
static __always_inline __u32 ps_network_length(struct ps_ctx *ctx)
{
	__u8 b[6] = {};

	bpf_skb_load_bytes_relative(ctx, 0, b, 6, BPF_HDR_START_NET);
	return b[0] >> 4 == 6 ? 40 + ((__u32)b[4] << 8 | b[5]) : (__u32)b[2] << 8 | b[3];
}

/* Where there is no Ethernet header, that and the network header are at the same place. */
static __always_inline struct ps_origin ps_origin_guessed(struct ps_ctx *ctx)
{
	__u64 link[2] = {}, net[2] = {};
	struct ps_origin from = { BPF_HDR_START_MAC, 0 };

	if (bpf_skb_load_bytes_relative(ctx, 0, link, sizeof(link), BPF_HDR_START_MAC))
		from.start = BPF_HDR_START_NET;
	else if (!bpf_skb_load_bytes_relative(ctx, 0, net, sizeof(net), BPF_HDR_START_NET) && link[0] == net[0] &&
		 link[1] == net[1])
		from.start = BPF_HDR_START_NET;
	if (ps_socket_part != PS_FROM_LINK && from.start == BPF_HDR_START_MAC)
		from.before = PS_LINK_SIZE;
	if (ps_socket_part == PS_FROM_TRANSPORT)
		from.before += ps_network_length(ctx) - ctx->len;
	return from;
}

static __always_inline struct ps_origin ps_origin_of(struct ps_ctx *ctx)
{
	if (!ps_by_helpers && ps_kernel_has(special_kfunc_type, KF_bpf_cast_to_kern_ctx))
		return ps_origin_in(bpf_cast_to_kern_ctx(ctx));
	return ps_origin_guessed(ctx);
}

/* ps_copy - the first bytes of a packet, as many as scratch->have says, behind `gap` bytes of what it has not. */
static __always_inline void ps_copy(struct ps_ctx *ctx, struct ps_scratch *scratch, __u32 start, __u32 gap)
{
	__u32 less = ps_less_one(ps_unknown(scratch->have) - gap), first;

	if (less >= PS_HEAD || gap > PS_LINK_SIZE + PS_TAG_SIZE)
		return;
	if (!bpf_skb_load_bytes_relative(ctx, 0, scratch->head + gap, less + 1, start))
		return;
	/* That helper gives nothing beyond the buffer's first piece; what is before the socket's part lies in it. */
	first = ps_unknown(scratch->before);
	less = ps_less_one(first);
	if (less < PS_HEAD)
		bpf_skb_load_bytes_relative(ctx, 0, scratch->head + gap, less + 1, start);
	less = ps_less_one(ps_unknown(scratch->have) - gap - first);
	if (first < PS_HEAD && less < PS_HEAD)
		bpf_skb_load_bytes(ctx, 0, scratch->head + gap + first, less + 1);
}

/* ps_open - find the packet's beginning and copy its head into `scratch`, with the tag at its place. */
static __always_inline void ps_open(struct ps_ctx *ctx, struct ps_scratch *scratch)
{
	struct ps_origin from = ps_origin_of(ctx);
	__u32 tag = ctx->vlan_present ? PS_TAG_SIZE : 0, made = from.start == BPF_HDR_START_NET ? PS_LINK_SIZE : 0;

	scratch->before = from.before;
	scratch->start = from.start;
	scratch->gap = tag + made;
	scratch->extent = ctx->len + from.before + tag + made;
	ps_settle(scratch, scratch->extent);
	if (made)
		ps_put_link(ctx, scratch->head + (ps_hidden(tag, ps_unknown(scratch->gap)) & PS_TAG_SIZE));
	ps_copy(ctx, scratch, from.start, ps_unknown(scratch->gap));
	if (tag)
		ps_put_tag(ctx, scratch->head);
}

/* ps_begin has made the copy. */
#define PS_OPENED 1

static __always_inline __u64 ps_extent(struct ps_ctx *ctx)
{
	struct ps_scratch *scratch = ps_scratch_area();

	return scratch ? ps_unknown(scratch->extent) : 0;
}

/* The copy of the head, how much of it the packet has, and the length of all. */
struct ps_bounds {
	void *data;
	__u64 have, length;
};

static __always_inline __u64 ps_bounds_length(struct ps_bounds b)
{
	return b.length;
}

/* ps_begin - the bounds, and whether the packet is one frame. */
static __always_inline bool ps_begin(struct ps_ctx *ctx, struct ps_bounds *b)
{
	struct ps_scratch *scratch = ps_scratch_area();

	if (!scratch)
		return false;
	ps_open(ctx, scratch);
	*b = (struct ps_bounds){ scratch->head, ps_unknown(scratch->have), ps_unknown(scratch->extent) };
	return !ps_by_helpers && !ps_is_aggregate(ctx);
}

#define ps_has_bytes(b, p, size) ((__u64)((p) - (b).data) + (size) <= (b).have)
#define ps_ends_beyond(b, p, size) ((__u64)((p) - (b).data) + (size) > (b).length)

/* The tag is in the copy. */
#define ps_tag_beside(ctx) false
#define ps_beside_tpid(ctx) 0
#define ps_beside_tci(ctx) 0
#define ps_show_tag(bounds) ((void)(bounds))

/* ps_far - read beyond the head; also what says no to a read beyond the end. */
__noinline __u64 ps_far(struct ps_ctx *ctx, __u32 at, __u32 size)
{
	struct ps_scratch *scratch = ps_scratch_area();
	__u32 before, start, less = ps_less_one(size);
	__u8 b[4] = {};
	long failed = 0;

	if (!scratch || less >= 4)
		return PS_ABSENT64;
	size = less + 1;
	at -= scratch->gap;
	before = scratch->before;
	start = scratch->start;
	if (at >= before)
		return bpf_skb_load_bytes(ctx, at - before, b, size) ? PS_ABSENT64 : ps_number(b, size);
#pragma unroll
	for (__u32 k = 0; k < 4; k++) {
		ps_barrier();
		if (k >= size)
			break;
		if (at + k >= before)
			failed |= bpf_skb_load_bytes(ctx, at + k - before, b + k, 1);
		else
			failed |= bpf_skb_load_bytes_relative(ctx, at + k, b + k, 1, start);
	}
	return failed ? PS_ABSENT64 : ps_number(b, size);
}

/* ps_load - `size` bytes at `base` + `offset`, for the rules' accessors; as in xdp.bpf.h, but of the copy. */
static __always_inline __u64 ps_load(struct ps_ctx *ctx, __u32 base, __u64 offset, const __u32 size)
{
	if (base > 0x1ffff || offset > 0xffff)
		return PS_ABSENT64;
	return ps_load_copied(ctx, base + offset, size);
}

#endif
