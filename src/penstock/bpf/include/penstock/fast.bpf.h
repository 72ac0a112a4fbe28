/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * fast.bpf.h - the usual packet, in a dozen compares.
 *
 * IPv4 without options or IPv6 without extension headers, all of it in the
 * linear part, its lengths agreeing with each other, behind at most two VLAN
 * tags; or no IP at all; and nothing of the frame outside that part.  Each function here either knows all of that and fills
 * the view, true, or gives up, false, and the packet goes to the exact parser:
 * so the only odd-packet condition that can hold of a packet that was parsed
 * here is that of a later fragment.
 *
 * The view is a local that clang keeps in registers; what no rule reads is
 * never loaded.
 */
#ifndef PENSTOCK_FAST_BPF_H
#define PENSTOCK_FAST_BPF_H

#include <penstock/cursor.bpf.h>

#define ps_be16(p) ps_ntohs(*(__be16 *)(p))

#define ps_be32(p) ps_ntohl(*(__be32 *)(p))
#define ps_be64(p) ps_ntohll(*(__be64 *)(p))

static __always_inline bool ps_is_raw_tag(__be16 type)
{
	return type == ps_htons(0x8100) || type == ps_htons(0x88a8) || type == ps_htons(0x9100);
}

/* What follows the link header: where, 0 for "gave up", and of which type, in network order. */
struct ps_fast_net {
	__u32 at;
	__be16 type;
};

/*
 * ps_fast_link - Ethernet.
 *
 * 28 bytes follow it then, which is checked here and not again.  That
 * is an IPv4 header and a UDP header, and an ARP packet: what a shorter
 * packet can still be asked is for the exact parser.
 */
static __always_inline struct ps_fast_net ps_fast_link(struct ps_bounds b, struct ps_view *v)
{
	void *data = b.data;
	__be16 type;

	if (!ps_has_bytes(b, data, 14 + 28))
		return (struct ps_fast_net){};
	type = *(__be16 *)(data + 12);
	v->frame = 0;
	v->net = 14;
	v->eth_type = ps_ntohs(type);
	ps_set_tag(v->tpid[0], ps_ntohs(type));
	ps_set(v, eth_dst, ps_be64(data) >> 16);
	ps_set(v, eth_src, ps_be64(data + 4) & 0xffffffffffffULL);
	return (struct ps_fast_net){ 14, type };
}

/* ps_fast_tags - the same of what is behind a VLAN tag, or two. */
static __always_inline struct ps_fast_net ps_fast_tags(struct ps_bounds b, struct ps_view *v)
{
	void *data = b.data;
	__u32 net = 18;
	__be16 type;
	const struct ps_fast_net gave_up = {};

	if (!ps_has_bytes(b, data, 18 + 28))
		return gave_up;
	type = *(__be16 *)(data + 16);
	ps_set_tag(v->tci[0], ps_be16(data + 14));
	ps_set_tag(v->tpid[1], ps_ntohs(type));
	if (unlikely(type != ps_htons(0x0800) && type != ps_htons(0x86dd) && ps_is_raw_tag(type))) {
		if (!ps_has_bytes(b, data, 22 + 28))
			return gave_up;
		type = *(__be16 *)(data + 20);
		ps_set_tag(v->tci[1], ps_be16(data + 18));
		ps_set_tag(v->tpid[2], ps_ntohs(type));
		net = 22;
		if (ps_is_raw_tag(type))
			return gave_up;
	}
	v->net = net;
	v->eth_type = ps_ntohs(type);
	return (struct ps_fast_net){ net, type };
}

static __always_inline void ps_fast_ports(struct ps_view *v, void *at)
{
	ps_set(v, sport, ps_be16(at));
	ps_set(v, dport, ps_be16(at + 2));
}

/* What may carry a packet that the rules look into (tunnel.bpf.h) is for the exact parser. */
static __always_inline bool ps_is_tunnel_port(__be16 port)
{
	return port == ps_htons(4789) || port == ps_htons(6081) || port == ps_htons(2152);
}

static __always_inline bool ps_is_tunnel(__u32 proto)
{
	return proto == 4 || proto == 41 || proto == 47;
}

/* ps_fast_udp - `total` is what the IP header promises, `header` bytes before `at` included. */
static __always_inline bool ps_fast_udp(struct ps_view *v, void *at, __u32 header, __u32 total)
{
	if (PS_DEPTH >= PS_TRANSPORT) {
		__u32 len = ps_be16(at + 4);

		if (len < 8 || header + len > total)
			return false;
	}
	if (PS_GENEVE && *(__be16 *)(at + 2) == ps_htons(6081))
		return false;
	if (PS_TUNNELS && ps_is_tunnel_port(*(__be16 *)(at + 2)))
		return false;
	ps_fast_ports(v, at);
	ps_set(v, udp_sport, ps_be16(at));
	ps_set(v, udp_dport, ps_be16(at + 2));
	ps_set(v, udp_len, ps_be16(at + 4));
	return true;
}

static __always_inline bool ps_fast_tcp(struct ps_bounds b, struct ps_view *v, void *at, __u32 header, __u32 total)
{
	if (!ps_has_bytes(b, at, 20))
		return false;
	if (PS_DEPTH >= PS_TRANSPORT) {
		__u32 offset = *(__u8 *)(at + 12);

		/* Without masking the reserved bits, which asks for up to three bytes more: then the exact parser knows. */
		if (offset < 0x50 || header + (offset >> 2) > total)
			return false;
	}
	ps_fast_ports(v, at);
	ps_set(v, tcp_sport, ps_be16(at));
	ps_set(v, tcp_dport, ps_be16(at + 2));
	ps_set(v, tcp_seq, ps_be32(at + 4));
	ps_set(v, tcp_ack, ps_be32(at + 8));
	ps_set(v, tcp_flags, *(__u8 *)(at + 13));
	ps_set(v, tcp_window, ps_be16(at + 14));
	return true;
}

static __always_inline bool ps_fast_ipv4_transport(struct ps_bounds b, struct ps_view *v, void *ip, __u32 total)
{
	__u32 proto = *(__u8 *)(ip + 9);
	void *at = ip + 20;

	if (proto == 17)
		return ps_fast_udp(v, at, 20, total);
	if (proto == 6)
		return ps_fast_tcp(b, v, at, 20, total);
	if (PS_TUNNELS && ps_is_tunnel(proto))
		return false;
	/* 12 bytes are the longest fixed header among the rest, SCTP's. */
	if (PS_DEPTH >= PS_TRANSPORT && total < 32)
		return false;
	if (proto == 132)
		ps_fast_ports(v, at);
	if (proto == 1) {
		ps_set(v, icmp_type, *(__u8 *)at);
		ps_set(v, icmp_code, *(__u8 *)(at + 1));
	}
	return true;
}

static __always_inline void ps_fast_ipv4_fields(struct ps_view *v, void *ip)
{
	__u32 word = ps_be16(ip + 6), proto = *(__u8 *)(ip + 9);

	v->proto = proto;
	ps_set(v, ip_proto, proto);
	ps_set(v, chain_proto, proto);
	ps_set(v, ttl, *(__u8 *)(ip + 8));
	ps_set(v, dscp, *(__u8 *)(ip + 1) >> 2);
	ps_set(v, ecn, *(__u8 *)(ip + 1) & 3);
	ps_set(v, ip_id, ps_be16(ip + 4));
	ps_set(v, ip_len, ps_be16(ip + 2));
	ps_set(v, ip_df, word >> 14 & 1);
	ps_set(v, frag_offset, (word & 0x1fff) * 8);
	ps_set(v, ip_src, ps_be32(ip + 12));
	ps_set(v, ip_dst, ps_be32(ip + 16));
	ps_set(v, addr_src, ps_be32(ip + 12));
	ps_set(v, addr_dst, ps_be32(ip + 16));
}

static __always_inline bool ps_fast_ipv4(struct ps_bounds b, struct ps_view *v, __u32 net)
{
	void *ip = b.data + net;
	__u32 total = ps_be16(ip + 2);

	/* Version 4, ihl 5, no fragment: two fields eight bytes apart in one compare. */
	if ((*(__be64 *)ip & ps_htonll(0xff00000000003fffULL)) != ps_htonll(0x4500000000000000ULL))
		return false;
	if (ps_ends_beyond(b, ip, total))
		return false;
	/* A transport header that fits says as much. */
	if (PS_DEPTH < PS_TRANSPORT && total < 20)
		return false;
	if (PS_WANT_chain_proto && *(__u8 *)(ip + 9) == 51)
		return false;
	v->trans = net + 20;
	v->frag = 0;
	ps_fast_ipv4_fields(v, ip);
	return PS_LEVEL < PS_TRANSPORT || ps_fast_ipv4_transport(b, v, ip, total);
}

/* ps_fast_fragment - a later IPv4 fragment: addresses and protocol, no transport header. */
static __always_inline bool ps_fast_fragment(struct ps_bounds b, struct ps_view *v, __u32 net)
{
	void *ip = b.data + net;
	__u32 total = ps_be16(ip + 2);

	if (*(__u8 *)ip != 0x45 || !(ps_be16(ip + 6) & 0x1fff) || total < 20 || ps_ends_beyond(b, ip, total))
		return false;
	v->frag = 2;
	ps_fast_ipv4_fields(v, ip);
	return true;
}

/*
 * ps_fast_other - a packet that is no IP, or a later IPv4 fragment.
 *
 * What an Ethernet type may carry that the rules look into (PS_SHIMS: labels, PPPoE) is for
 * the exact parser.
 */
static __always_inline bool ps_fast_other(struct ps_bounds b, struct ps_view *v, struct ps_fast_net net)
{
	void *arp = b.data + net.at;

	if (net.type == ps_htons(0x0800))
		return ps_fast_fragment(b, v, net.at);
	if (net.type == ps_htons(0x86dd) || PS_SHIMS)
		return false;
	if (net.type == ps_htons(0x0806) || net.type == ps_htons(0x8035)) {
		ps_set(v, addr_src, ps_be32(arp + 14));
		ps_set(v, addr_dst, ps_be32(arp + 24));
	}
	return true;
}

static __always_inline void ps_fast_ip6_address(struct ps_ip6 *a, void *at)
{
	a->hi = ps_be64(at);
	a->lo = ps_be64(at + 8);
	a->present = 1;
}

static __always_inline bool ps_fast_ipv6_transport(struct ps_bounds b, struct ps_view *v, void *ip, __u32 payload)
{
	__u32 nh = *(__u8 *)(ip + 6);
	void *at = ip + 40;

	if (nh == 17)
		return ps_fast_udp(v, at, 0, payload);
	if (nh == 6)
		return ps_fast_tcp(b, v, at, 0, payload);
	if (PS_TUNNELS && ps_is_tunnel(nh))
		return false;
	if (PS_DEPTH >= PS_TRANSPORT && payload < 12)
		return false;
	if (nh == 132)
		ps_fast_ports(v, at);
	if (nh == 58) {
		ps_set(v, icmp6_type, *(__u8 *)at);
		ps_set(v, icmp6_code, *(__u8 *)(at + 1));
	}
	return true;
}

static __always_inline bool ps_fast_ipv6(struct ps_bounds b, struct ps_view *v, __u32 net)
{
	void *ip = b.data + net;
	__u32 payload, nh, word;

	if (!ps_has_bytes(b, ip, 48))
		return false;
	word = ps_be32(ip);
	payload = ps_be16(ip + 4);
	nh = *(__u8 *)(ip + 6);
	if (word >> 28 != 6 || ps_ends_beyond(b, ip + 40, payload))
		return false;
	/* UDP and TCP come first, and a header that fits says that the length is not 0. */
	if ((PS_DEPTH < PS_TRANSPORT || (nh != 17 && nh != 6)) && (!payload || ps_is_extension(nh)))
		return false;
	v->trans = net + 40;
	v->proto = nh;
	v->frag = 0;
	ps_set(v, ip6_proto, nh);
	ps_set(v, ip6_headers, 0);
	ps_set(v, ttl, *(__u8 *)(ip + 7));
	ps_set(v, dscp, word >> 22 & 0x3f);
	ps_set(v, ecn, word >> 20 & 3);
	ps_set(v, ip6_flow, word & 0xfffff);
	ps_set(v, frag_offset, 0);
	if (PS_WANT_ip6_src)
		ps_fast_ip6_address(&v->ip6_src, ip + 8);
	if (PS_WANT_ip6_dst)
		ps_fast_ip6_address(&v->ip6_dst, ip + 24);
	return PS_LEVEL < PS_TRANSPORT || ps_fast_ipv6_transport(b, v, ip, payload);
}

/*
 * ps_fast_beside - the packet of which a tag lies beside, into a view in memory.
 *
 * Addressed as on the wire: the packet then begins four bytes earlier than its
 * bytes do, of which the first sixteen are not to be read.  In ps_filter it would
 * cost every packet without a tag: all positions would be variables.
 */
static __always_inline bool ps_fast_beside(struct ps_ctx *ctx, struct ps_view *v)
{
	struct ps_bounds b;
	struct ps_fast_net net;

	if (ps_by_helpers || PS_SCOPES > 1 || !ps_tag_beside(ctx) || ps_is_aggregate(ctx))
		return false;
	ps_begin(ctx, &b);
	ps_clear(v);
	net = ps_fast_link(b, v);
	if (!net.at || ps_is_raw_tag(net.type))
		return false;
	ps_show_tag(&b);
	v->net = net.at = 18;
	ps_set_tag(v->tpid[0], ps_beside_tpid(ctx));
	ps_set_tag(v->tci[0], ps_beside_tci(ctx));
	ps_set_tag(v->tpid[1], ps_ntohs(net.type));
	if (PS_LEVEL < PS_NETWORK)
		return true;
	if (net.type == ps_htons(0x0800) && ps_fast_ipv4(b, v, net.at))
		return true;
	if (net.type == ps_htons(0x86dd) && ps_fast_ipv6(b, v, net.at))
		return true;
	return ps_fast_other(b, v, net);
}

#endif
