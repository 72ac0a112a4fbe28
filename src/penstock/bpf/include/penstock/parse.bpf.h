/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * parse.bpf.h - the exact parser: every packet, to the byte.
 *
 * A field is there if its own bytes are, whatever else is cut off; later
 * fragments have no ports; at most eight IPv6 extension headers are walked.
 * On the way the odd-packet conditions are judged, of the frame itself and
 * down to PS_DEPTH only.  src/penstock/compiler/ir/headers.py and
 * conditions.py are the definition of what this file does.
 *
 * Two lengths matter.  Reads end with the bytes at hand; "malformed" is said of
 * a header that ends beyond the frame's length on the wire, which differs only
 * in test runs over captures that were cut.
 */
#ifndef PS_PROBE /* Not a generated program but one by hand, which gets what is made for it. */
#include <penstock/packet.bpf.h>
#elif !defined(PENSTOCK_PARSE_BPF_H)
#define PENSTOCK_PARSE_BPF_H

#include <penstock/chain.bpf.h>
#include <penstock/transport.bpf.h>

/* ps_link - Ethernet at v->frame: addresses, tags, type, and where the network header is. */
static __always_inline void ps_link(const struct ps_cursor *cur, struct ps_view *v, __u32 len)
{
	__u32 at = v->frame + 12;
	__u64 type = ps_read16(cur, at);
	__u64 high, low;

	v->tags = at;
#pragma unroll
	for (int k = 0; k < 2; k++) {
		ps_barrier();
		if (!ps_is_tag(type))
			break;
		at += 4;
		type = ps_read16(cur, at);
	}
	if (ps_there(type)) {
		v->net = at + 2;
		v->eth_type = type;
		if (ps_is_tag(type))
			ps_odd(cur, PS_UNKNOWN_TAG);
	} else if (at + 2 > len) {
		ps_odd(cur, PS_MALFORMED);
	}
	if (PS_WANT_eth_dst) {
		high = ps_read16(cur, v->frame);
		low = ps_read32(cur, v->frame + 2);
		v->eth_dst = ps_there(low) ? high << 32 | low : PS_ABSENT64;
	}
	if (PS_WANT_eth_src) {
		high = ps_read16(cur, v->frame + 6);
		low = ps_read32(cur, v->frame + 8);
		v->eth_src = ps_there(low) ? high << 32 | low : PS_ABSENT64;
	}
}

/* ps_tags - as many tags as the rules ask for, also those that are not stepped over. */
static __always_inline void ps_tags(const struct ps_cursor *cur, struct ps_view *v)
{
	__u64 type, control;
	__u32 at = v->tags;

#pragma unroll
	for (int k = 0; k < PS_TAGS; k++, at += 4) {
		ps_barrier();
		type = ps_read16(cur, at);
		v->tpid[k] = type;
		if (!ps_is_tag(type))
			break;
		control = ps_read16(cur, at + 2);
		v->tci[k] = control;
	}
}

static __always_inline void ps_ipv4_fields(const struct ps_cursor *cur, struct ps_view *v)
{
	__u32 at = ps_unknown(v->net);
	__u64 x;

	if (PS_WANT_ttl)
		v->ttl = ps_read8(cur, at + 8);
	if (PS_WANT_dscp || PS_WANT_ecn) {
		x = ps_read8(cur, at + 1);
		ps_set(v, dscp, ps_part(x, x >> 2));
		ps_set(v, ecn, ps_part(x, x & 3));
	}
	if (PS_WANT_ip_id)
		v->ip_id = ps_read16(cur, at + 4);
	if (PS_WANT_ip_src || PS_WANT_addr_src) {
		x = ps_read32(cur, at + 12);
		ps_set(v, ip_src, x);
		ps_set(v, addr_src, x);
	}
	if (PS_WANT_ip_dst || PS_WANT_addr_dst) {
		x = ps_read32(cur, at + 16);
		ps_set(v, ip_dst, x);
		ps_set(v, addr_dst, x);
	}
}

/* ps_ipv4 - the header at v->net; scratch->end is where the IP length says that the packet ends. */
static __always_inline void ps_ipv4(const struct ps_cursor *cur, struct ps_view *v, __u32 len)
{
	__u32 at = ps_unknown(v->net);
	/* Of 64 bits as what it may share a place of the stack with, which half a word may not be written to. */
	__u64 header = 0;
	__u64 first = ps_read8(cur, at), total = ps_read16(cur, at + 2);
	__u64 word = ps_read16(cur, at + 6), proto = ps_read8(cur, at + 9);

	if (ps_there(first))
		header = (first & 15) * 4;
	if (ps_there(word)) {
		v->frag = word & 0x1fff ? 2 : word & 0x2000 ? 1 : 0;
		if (header >= 20 && v->frag != 2)
			v->trans = at + header;
	}
	v->proto = proto;
	ps_set(v, ip_proto, proto);
	ps_set(v, chain_proto, ps_chain_proto(cur, proto, ps_unknown(v->trans)));
	ps_set(v, ip_len, total);
	ps_set(v, ip_df, ps_part(word, word >> 14 & 1));
	ps_set(v, frag_offset, ps_part(word, (word & 0x1fff) * 8));
	ps_ipv4_fields(cur, v);

	/* A length that 16 bits do not hold is 0 (BIG TCP): then the packet says. */
	if (!total && len - at > 0xffff)
		total = len - at;
	if (ps_there(total))
		cur->scratch->end = at + total;
	if (header > 20)
		ps_odd_network(cur, PS_IP_OPTIONS);
	if (at + 20 > len)
		ps_odd_network(cur, PS_MALFORMED);
	if (ps_there(first) && (first >> 4 != 4 || header < 20 || at + header > len))
		ps_odd_network(cur, PS_MALFORMED);
	if (ps_there(total) && (total < header || at + total > len))
		ps_odd_network(cur, PS_MALFORMED);
}

static __always_inline void ps_arp(const struct ps_cursor *cur, struct ps_view *v, __u32 len)
{
	if (PS_WANT_addr_src)
		v->addr_src = ps_read32(cur, v->net + 14);
	if (PS_WANT_addr_dst)
		v->addr_dst = ps_read32(cur, v->net + 24);
	if (v->net + 28 > len)
		ps_odd_network(cur, PS_MALFORMED);
}

/* ps_judge - what PS_DEPTH lets count of the transport header; LINK's conditions are judged always. */
static __always_inline void ps_judge(const struct ps_cursor *cur, struct ps_view *v)
{
	if (PS_DEPTH >= PS_NETWORK && v->frag == 2)
		ps_odd(cur, PS_FRAGMENT);
	if (PS_DEPTH >= PS_TRANSPORT && !(ps_unknown(cur->scratch->conditions) & PS_MALFORMED) &&
	    v->trans != PS_ABSENT && ps_transport_is_malformed(cur, v, ps_unknown(cur->scratch->end)))
		ps_odd(cur, PS_MALFORMED);
}

/*
 * ps_headers - network and transport header of a scope, v->net and v->eth_type being known.
 *
 * Adds to the conditions; scratch->end is where the IP length says the packet ends.
 */
static __always_inline void ps_headers(const struct ps_cursor *cur, struct ps_view *v, __u32 number, __u32 len)
{
	cur->scratch->end = len;
	if (PS_LEVEL < PS_NETWORK || v->net == PS_ABSENT)
		return;
	if (v->eth_type == 0x0800)
		ps_ipv4(cur, v, len);
	else if (v->eth_type == 0x86dd)
		ps_ipv6(cur, v, number, len);
	else if (v->eth_type == 0x0806 || v->eth_type == 0x8035)
		ps_arp(cur, v, len);
	if (PS_LEVEL >= PS_TRANSPORT && v->trans != PS_ABSENT)
		ps_transport(cur, v);
}

/* ps_frame - parse all of the frame itself into view 0; its conditions are then in scratch->conditions. */
static __always_inline void ps_frame(const struct ps_cursor *cur, struct ps_view *v, __u32 len)
{
	cur->scratch->conditions = 0;
	v->frame = 0;
	ps_link(cur, v, len);
	if (PS_WANT_vlan)
		ps_tags(cur, v);
	ps_headers(cur, v, 0, len);
	ps_judge(cur, v);
}

#endif
