/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * packet.bpf.h - what is in a packet, for programs written by hand.
 *
 *     #include <penstock/packet.bpf.h>
 *
 *     SEC("xdp")
 *     int drop_dns(struct xdp_md *ctx)
 *     {
 *             struct ps_packet p;
 *
 *             ps_parse_xdp(ctx, &p);
 *             return p.proto == 17 && p.dport == 53 ? XDP_DROP : XDP_PASS;
 *     }
 *
 * The same three lines serve at TC with ps_parse_tc and at sockets with
 * ps_parse_socket.  VLAN tags (two at most, in the packet or in the kernel's
 * metadata), IPv4 options and IPv6 extension headers (six at most) are stepped
 * over; a field that the packet does not have is 0.  Include it after vmlinux.h
 * or alone: <linux/bpf.h> and <bpf/bpf_helpers.h> come with it.  No maps, no
 * global data, at most 200 bytes of stack.
 */
#ifndef PENSTOCK_PACKET_BPF_H
#define PENSTOCK_PACKET_BPF_H

#ifndef __VMLINUX_H__
#include <linux/bpf.h>
#include <linux/types.h>
#endif
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PS_NO_VLAN 0xffff

/* An IPv4 address as a number to compare `src` and `dst` with: ps_ip4(192, 0, 2, 1). */
#define ps_ip4(a, b, c, d) bpf_htonl((__u32)(a) << 24 | (b) << 16 | (c) << 8 | (d))

enum ps_fragment {
	PS_WHOLE = 0,		/* no fragment */
	PS_FIRST_FRAGMENT = 1,	/* it has the transport header, or the beginning of it */
	PS_LATER_FRAGMENT = 2,	/* it has none, and so no ports */
};

struct ps_packet {
	__u32 length;		/* bytes of the frame; at a socket of what the socket is offered */
	__u16 eth_type;		/* behind the tags, in host order: 0x0800 is IPv4; 0 where there is a length (802.3) */
	__u16 vlan;		/* id of the outermost tag, or PS_NO_VLAN */
	__u8 ip_version;	/* 4 or 6, or 0: it is no IP packet */
	__u8 proto;		/* IPPROTO_*, behind the extension headers */
	__u8 fragment;		/* enum ps_fragment */
	__u8 tcp_flags;		/* the byte: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32 */
	__u16 l3;		/* where the IP header begins, from the start of the frame; at a socket 0 */
	__u16 l4;		/* where the transport header begins, in the same way; 0: there is none */
	__u16 sport;		/* of TCP, UDP and SCTP, in host order */
	__u16 dport;
	__be32 src[4];		/* as on the wire; an IPv4 address is src[0] alone */
	__be32 dst[4];
};

/* Where the bytes come from: one of three, known when the program is compiled. */
enum ps_place { PS_AT_XDP, PS_AT_TC, PS_AT_SOCKET };

struct ps_bytes {
	enum ps_place place;
	void *ctx;
	void *data, *end;	/* XDP only */
};

/* ps_copy - `size` bytes at `at` of the packet; 0, or negative where it ends before. */
static __always_inline int ps_copy(const struct ps_bytes *b, __u32 at, void *to, const __u32 size)
{
	void *p;

	if (b->place == PS_AT_TC)
		return bpf_skb_load_bytes(b->ctx, at, to, size);
	if (b->place == PS_AT_SOCKET)
		return bpf_skb_load_bytes_relative(b->ctx, at, to, size, BPF_HDR_START_NET);
	/* Or clang checks one register and adds another, and the verifier sees no check. */
	if (!__builtin_constant_p(at))
		asm volatile("" : "+r"(at));
	if (at > 0x3fff)
		return -1;
	p = b->data + at;
	if (p + size > b->end)
		return -1;
	__builtin_memcpy(to, p, size);
	return 0;
}

static __always_inline int ps_take_transport(const struct ps_bytes *b, struct ps_packet *p)
{
	__u8 head[14] = {};

	if (p->proto != 6 && p->proto != 17 && p->proto != 132)
		return 0;
	if (ps_copy(b, p->l4, head, 4) < 0)
		return -1;
	p->sport = (__u16)head[0] << 8 | head[1];
	p->dport = (__u16)head[2] << 8 | head[3];
	if (p->proto == 6 && ps_copy(b, p->l4 + 13, &p->tcp_flags, 1) < 0)
		return -1;
	return 0;
}

static __always_inline int ps_take_ipv4(const struct ps_bytes *b, struct ps_packet *p)
{
	__u8 head[20];
	__u32 header, word;

	if (ps_copy(b, p->l3, head, sizeof(head)) < 0)
		return -1;
	header = (head[0] & 15) * 4;
	if (head[0] >> 4 != 4 || header < 20)
		return -1;
	p->ip_version = 4;
	p->proto = head[9];
	__builtin_memcpy(&p->src[0], head + 12, 4);
	__builtin_memcpy(&p->dst[0], head + 16, 4);
	word = (__u32)head[6] << 8 | head[7];
	p->fragment = word & 0x1fff ? PS_LATER_FRAGMENT : word & 0x2000 ? PS_FIRST_FRAGMENT : PS_WHOLE;
	if (p->fragment == PS_LATER_FRAGMENT)
		return 0;
	p->l4 = p->l3 + header;
	return ps_take_transport(b, p);
}

/* ps_is_extension - hop-by-hop, routing, fragment, AH, destination options, mobility. */
static __always_inline int ps_is_extension_header(__u8 proto)
{
	return proto == 0 || proto == 43 || proto == 44 || proto == 51 || proto == 60 || proto == 135;
}

static __always_inline int ps_take_ipv6(const struct ps_bytes *b, struct ps_packet *p)
{
	__u8 head[40], next[4];
	__u32 at = p->l3 + 40;

	if (ps_copy(b, p->l3, head, sizeof(head)) < 0 || head[0] >> 4 != 6)
		return -1;
	p->ip_version = 6;
	p->proto = head[6];
	__builtin_memcpy(p->src, head + 8, 16);
	__builtin_memcpy(p->dst, head + 24, 16);
#pragma unroll
	for (int k = 0; k < 6; k++) {
		if (!ps_is_extension_header(p->proto))
			break;
		if (ps_copy(b, at, next, sizeof(next)) < 0)
			return -1;
		if (p->proto == 44) {
			__u32 word = (__u32)next[2] << 8 | next[3];

			p->fragment = word & 0xfff8 ? PS_LATER_FRAGMENT : PS_FIRST_FRAGMENT;
			at += 8;
		} else {
			at += p->proto == 51 ? ((__u32)next[1] + 2) * 4 : ((__u32)next[1] + 1) * 8;
		}
		p->proto = next[0];
		if (p->fragment == PS_LATER_FRAGMENT)
			return 0;
	}
	if (ps_is_extension_header(p->proto))
		return -1;
	p->l4 = at;
	return ps_take_transport(b, p);
}

/* ps_take_tags - step over the tags that lie at p->l3, behind `type`. */
static __always_inline int ps_take_tags(const struct ps_bytes *b, struct ps_packet *p, __u32 type)
{
	__u8 tag[4];

#pragma unroll
	for (int k = 0; k < 2; k++) {
		if (type != 0x8100 && type != 0x88a8 && type != 0x9100)
			break;
		if (ps_copy(b, p->l3, tag, sizeof(tag)) < 0)
			return -1;
		if (p->vlan == PS_NO_VLAN)
			p->vlan = ((__u32)tag[0] << 8 | tag[1]) & 0xfff;
		type = (__u32)tag[2] << 8 | tag[3];
		p->l3 += 4;
	}
	p->eth_type = type < 0x600 ? 0 : type;
	return 0;
}

static __always_inline int ps_take(const struct ps_bytes *b, struct ps_packet *p, __u32 type)
{
	if (ps_take_tags(b, p, type) < 0)
		return -1;
	if (p->eth_type == 0x0800)
		return ps_take_ipv4(b, p);
	if (p->eth_type == 0x86dd)
		return ps_take_ipv6(b, p);
	return 0;
}

/* ps_take_frame - the same, from the Ethernet header on. */
static __always_inline int ps_take_frame(const struct ps_bytes *b, struct ps_packet *p)
{
	__u8 type[2];

	p->l3 = 14;
	if (ps_copy(b, 12, type, sizeof(type)) < 0)
		return -1;
	return ps_take(b, p, (__u32)type[0] << 8 | type[1]);
}

/*
 * ps_parse_xdp, ps_parse_tc, ps_parse_socket - fill `p` with what is in the packet.
 *
 * 0, or -1 where a header is cut off or is none; what was read before that is
 * there, and the rest is 0.
 */
static __always_inline int ps_parse_xdp(struct xdp_md *ctx, struct ps_packet *p)
{
	struct ps_bytes b = { PS_AT_XDP, ctx, (void *)(long)ctx->data, (void *)(long)ctx->data_end };

	__builtin_memset(p, 0, sizeof(*p));
	p->length = b.end - b.data;
	p->vlan = PS_NO_VLAN;
	return ps_take_frame(&b, p);
}

static __always_inline int ps_parse_tc(struct __sk_buff *skb, struct ps_packet *p)
{
	struct ps_bytes b = { PS_AT_TC, skb };

	__builtin_memset(p, 0, sizeof(*p));
	p->length = skb->len;
	p->vlan = skb->vlan_present ? skb->vlan_tci & 0xfff : PS_NO_VLAN;
	return ps_take_frame(&b, p);
}

/* At a socket the packet may begin anywhere, at a UDP socket with the UDP header: all is counted from the IP header. */
static __always_inline int ps_parse_socket(struct __sk_buff *skb, struct ps_packet *p)
{
	struct ps_bytes b = { PS_AT_SOCKET, skb };

	__builtin_memset(p, 0, sizeof(*p));
	p->length = skb->len;
	p->vlan = skb->vlan_present ? skb->vlan_tci & 0xfff : PS_NO_VLAN;
	return ps_take(&b, p, bpf_ntohs(skb->protocol));
}

#endif
