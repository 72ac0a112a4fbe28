/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * skb.bpf.h - what packets at TC and at sockets have in common, being socket buffers.
 *
 * One VLAN tag may lie beside the bytes, in the buffer's metadata; the bytes may
 * lie in several pieces; and one buffer may stand for many frames (GSO on the way
 * out, GRO on the way in): an aggregate.
 */
#ifndef PENSTOCK_SKB_BPF_H
#define PENSTOCK_SKB_BPF_H

#include <penstock/uapi.bpf.h>

/* The kernel knows a program's context by its own name for it, also in the functions that take one. */
#define ps_ctx __sk_buff

#include <penstock/copied.bpf.h>

#define PS_TAG_AT 12	/* where a tag's place is, as on the wire */
#define PS_TAG_SIZE 4
#define PS_LINK_SIZE 14

/* What lies beside the packet: the interface that it is at, its mark, whether a socket sees it on its way out. */
#define ps_ifindex(ctx) ((__u64)ps_beside(ctx, ifindex))
#define ps_mark(ctx) ((__u64)ps_beside(ctx, mark))
#define ps_outbound(ctx) ((__u32)(ps_beside(ctx, pkt_type) == PS_OUTGOING))
#define PS_OUTGOING 4	/* PACKET_OUTGOING in <linux/if_packet.h> */

#define ps_is_aggregate(ctx) unlikely(ps_beside(ctx, gso_size))

/* ps_number - the first 1, 2 or 4 bytes as a number in host order. */
static __always_inline __u64 ps_number(const __u8 *b, __u32 size)
{
	__u32 word = (__u32)b[0] << 24 | (__u32)b[1] << 16 | (__u32)b[2] << 8 | b[3];

	return word >> (32 - 8 * size);
}

/* ps_put_tag - put the tag that lies beside a packet into its head, of which the MAC addresses begin where the tag ends. */
static __always_inline void ps_put_tag(struct ps_ctx *ctx, __u8 *head)
{
#pragma unroll
	for (int k = 0; k < PS_TAG_AT; k += 4)
		*(__u32 *)(head + k) = *(__u32 *)(head + k + PS_TAG_SIZE);
	*(__be16 *)(head + PS_TAG_AT) = ctx->vlan_proto;
	*(__be16 *)(head + PS_TAG_AT + 2) = ps_htons(ctx->vlan_tci);
}

/* ps_put_link - put an Ethernet header before a packet that has none: no addresses, the packet's type. */
static __always_inline void ps_put_link(struct ps_ctx *ctx, __u8 *head)
{
	*(__u64 *)head = 0;
	*(__u32 *)(head + 8) = 0;
	*(__be16 *)(head + PS_TAG_AT) = ps_beside(ctx, protocol);
}

/* So much of the head is copied: two tags, IPv6 and TCP.  The helpers' memcpy makes a leap of 12 ns above that. */
#define PS_COPIED 96

/* ps_settle - the copy of the head is made; `length` is the packet's. */
static __always_inline void ps_settle(struct ps_scratch *scratch, __u32 length)
{
	scratch->have = length < PS_COPIED ? length : PS_COPIED;
	scratch->settled = length <= PS_COPIED ? PS_ABSENT : PS_COPIED;
}

#endif
