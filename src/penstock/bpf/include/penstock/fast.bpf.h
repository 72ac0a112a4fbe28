/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * fast.bpf.h - the usual packet, in a dozen compares.
 *
 * IPv4 without options or IPv6 without extension headers, not a fragment, all
 * of it in the linear part, its lengths agreeing with each other, behind at
 * most two VLAN tags.  Each function here either knows all of that and fills
 * the view, true, or gives up, false, and the packet goes to the exact parser:
 * so no odd-packet condition can hold of a packet that was parsed here.
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

/*
 * ps_fast_link - Ethernet and its tags.  On true, 28 bytes follow v->net.
 *
 * 28 is an IPv4 header and a UDP header, and an ARP packet: what a shorter
 * packet can still be asked is for the exact parser.
 */
static __always_inline bool ps_fast_link(struct xdp_md *ctx, struct ps_view *v)
{
	void *data = ps_data(ctx), *end = ps_data_end(ctx);
	__u32 net = 14, type;

	if (data + 14 + 28 > end)
		return false;
	type = ps_be16(data + 12);
	ps_set_tag(v->tpid[0], type);
	if (unlikely(ps_is_tag(type))) {
		if (data + 18 + 28 > end)
			return false;
		type = ps_be16(data + 16);
		ps_set_tag(v->tci[0], ps_be16(data + 14));
		ps_set_tag(v->tpid[1], type);
		net = 18;
		if (ps_is_tag(type)) {
			if (data + 22 + 28 > end)
				return false;
			type = ps_be16(data + 20);
			ps_set_tag(v->tci[1], ps_be16(data + 18));
			ps_set_tag(v->tpid[2], type);
			net = 22;
			if (ps_is_tag(type))
				return false;
		}
	}
	v->frame = 0;
	v->net = net;
	v->eth_type = type;
	ps_set(v, eth_dst, ps_be64(data) >> 16);
	ps_set(v, eth_src, ps_be64(data + 4) & 0xffffffffffffULL);
	return true;
}

static __always_inline void ps_fast_ports(struct ps_view *v, void *at)
{
	ps_set(v, sport, ps_be16(at));
	ps_set(v, dport, ps_be16(at + 2));
}

/* ps_fast_udp - `room` is what the IP header promises from `at` on. */
static __always_inline bool ps_fast_udp(struct ps_view *v, void *at, __u32 room)
{
	if (PS_DEPTH >= PS_TRANSPORT) {
		__u32 len = ps_be16(at + 4);

		if (len < 8 || len > room)
			return false;
	}
	if (PS_GENEVE && *(__be16 *)(at + 2) == ps_htons(6081))
		return false;
	ps_fast_ports(v, at);
	ps_set(v, udp_sport, ps_be16(at));
	ps_set(v, udp_dport, ps_be16(at + 2));
	ps_set(v, udp_len, ps_be16(at + 4));
	return true;
}

static __always_inline bool ps_fast_tcp(struct xdp_md *ctx, struct ps_view *v, void *at, __u32 room)
{
	if (at + 20 > ps_data_end(ctx))
		return false;
	if (PS_DEPTH >= PS_TRANSPORT) {
		__u32 header = *(__u8 *)(at + 12) >> 4 << 2;

		if (header < 20 || header > room)
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

static __always_inline bool ps_fast_ipv4_transport(struct xdp_md *ctx, struct ps_view *v, void *ip, __u32 total)
{
	__u32 proto = *(__u8 *)(ip + 9);
	void *at = ip + 20;

	if (proto == 17)
		return ps_fast_udp(v, at, total - 20);
	if (proto == 6)
		return ps_fast_tcp(ctx, v, at, total - 20);
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

static __always_inline bool ps_fast_ipv4(struct xdp_md *ctx, struct ps_view *v)
{
	void *data = ps_data(ctx), *ip = data + v->net;
	__u32 linear = ps_data_end(ctx) - data, total, word;

	if (ip + 28 > ps_data_end(ctx))
		return false;
	word = ps_be16(ip + 6);
	total = ps_be16(ip + 2);
	if (*(__u8 *)ip != 0x45 || (word & 0x3fff) || total < 20 || v->net + total > linear)
		return false;
	v->trans = v->net + 20;
	v->proto = *(__u8 *)(ip + 9);
	if (PS_WANT_chain_proto && v->proto == 51)
		return false;
	v->frag = 0;
	ps_set(v, ip_proto, v->proto);
	ps_set(v, chain_proto, v->proto);
	ps_set(v, ttl, *(__u8 *)(ip + 8));
	ps_set(v, dscp, *(__u8 *)(ip + 1) >> 2);
	ps_set(v, ecn, *(__u8 *)(ip + 1) & 3);
	ps_set(v, ip_id, ps_be16(ip + 4));
	ps_set(v, ip_len, total);
	ps_set(v, ip_df, word >> 14 & 1);
	ps_set(v, frag_offset, 0);
	ps_set(v, ip_src, ps_be32(ip + 12));
	ps_set(v, ip_dst, ps_be32(ip + 16));
	ps_set(v, addr_src, ps_be32(ip + 12));
	ps_set(v, addr_dst, ps_be32(ip + 16));
	return PS_LEVEL < PS_TRANSPORT || ps_fast_ipv4_transport(ctx, v, ip, total);
}

static __always_inline void ps_fast_ip6_address(struct ps_ip6 *a, void *at)
{
	a->hi = ps_be64(at);
	a->lo = ps_be64(at + 8);
	a->present = 1;
}

static __always_inline bool ps_fast_ipv6_transport(struct xdp_md *ctx, struct ps_view *v, void *ip, __u32 payload)
{
	__u32 nh = *(__u8 *)(ip + 6);
	void *at = ip + 40;

	if (nh == 17)
		return ps_fast_udp(v, at, payload);
	if (nh == 6)
		return ps_fast_tcp(ctx, v, at, payload);
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

static __always_inline bool ps_fast_ipv6(struct xdp_md *ctx, struct ps_view *v)
{
	void *data = ps_data(ctx), *ip = data + v->net;
	__u32 linear = ps_data_end(ctx) - data, payload, nh, word;

	if (ip + 48 > ps_data_end(ctx))
		return false;
	word = ps_be32(ip);
	payload = ps_be16(ip + 4);
	nh = *(__u8 *)(ip + 6);
	if (word >> 28 != 6 || !payload || v->net + 40 + payload > linear || ps_is_extension(nh))
		return false;
	v->trans = v->net + 40;
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
	return PS_LEVEL < PS_TRANSPORT || ps_fast_ipv6_transport(ctx, v, ip, payload);
}

#endif
