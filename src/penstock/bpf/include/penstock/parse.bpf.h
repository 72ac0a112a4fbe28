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

#include <penstock/cursor.bpf.h>

/* Odd-packet conditions as bits: penstock.model.verdict.Condition. */
enum {
	PS_MALFORMED = 1 << 0,
	PS_UNKNOWN_TAG = 1 << 1,
	PS_EXTHDR_LIMIT = 1 << 2,
	PS_FRAGMENT = 1 << 3,
	PS_IP_OPTIONS = 1 << 4,
};

#define PS_MAX_EXTENSIONS 8

static __always_inline bool ps_there(__u64 value)
{
	return value != PS_ABSENT64;
}

/*
 * ps_odd, ps_odd_network - an odd-packet condition holds; the network header's count down to PS_DEPTH only.
 *
 * They are gathered in memory: the verifier would follow each set of them
 * through the rest of the parser.
 */
static __always_inline void ps_odd(const struct ps_cursor *cur, __u32 conditions)
{
	*(volatile __u32 *)&cur->scratch->conditions |= conditions;
}

static __always_inline void ps_odd_network(const struct ps_cursor *cur, __u32 conditions)
{
	if (PS_DEPTH >= PS_NETWORK)
		ps_odd(cur, conditions);
}

/* PS_MALFORMED if `at` is beyond the packet's end, without a branch. */
static __always_inline __u32 ps_beyond(__u32 at, __u32 len)
{
	__u64 left = (__u64)len - at;

	asm volatile("" : "+r"(left));
	return left >> 63;
}

/* A part of a number that may be absent: then the part is, too. */
#define ps_part(value, part) (ps_there(value) ? (__u32)(part) : PS_ABSENT)

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

/* ps_chain_proto - what follows at most eight authentication headers (RFC 4302). */
static __always_inline __u32 ps_chain_proto(const struct ps_cursor *cur, __u64 proto, __u32 at)
{
	__u64 length;

	if (at == PS_ABSENT)
		return proto;
#pragma unroll
	for (int k = 0; k < PS_MAX_EXTENSIONS; k++) {
		ps_barrier();
		if (proto != 51)
			break;
		proto = ps_read8(cur, at);
		length = ps_read8(cur, at + 1);
		if (!ps_there(length))
			return PS_ABSENT;
		at += (length + 2) * 4;
	}
	return proto == 51 ? PS_ABSENT : proto;
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
	__u32 at = ps_unknown(v->net), header = 0;
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

static __always_inline void ps_ip6_address(const struct ps_cursor *cur, struct ps_ip6 *a, __u32 at)
{
	__u64 last = ps_read32(cur, at + 12);

	a->present = ps_there(last);
	a->hi = ps_read32(cur, at) << 32 | (__u32)ps_read32(cur, at + 4);
	a->lo = ps_read32(cur, at + 8) << 32 | (__u32)last;
}

static __always_inline void ps_ipv6_fields(const struct ps_cursor *cur, struct ps_view *v)
{
	__u32 at = ps_unknown(v->net);
	__u64 x;

	if (PS_WANT_ttl)
		v->ttl = ps_read8(cur, at + 7);
	if (PS_WANT_dscp || PS_WANT_ecn || PS_WANT_ip6_flow) {
		x = ps_read32(cur, at);
		ps_set(v, dscp, ps_part(x, x >> 22 & 0x3f));
		ps_set(v, ecn, ps_part(x, x >> 20 & 3));
		ps_set(v, ip6_flow, ps_part(x, x & 0xfffff));
	}
	if (PS_WANT_ip6_src)
		ps_ip6_address(cur, &v->ip6_src, at + 8);
	if (PS_WANT_ip6_dst)
		ps_ip6_address(cur, &v->ip6_dst, at + 24);
}

/* The bit of an extension header in ip6.headers: penstock.model.field.EXTENSION_HEADERS. */
static __always_inline __u32 ps_extension_bit(__u32 nh)
{
	return nh == 0 ? 1 : nh == 43 ? 2 : nh == 44 ? 4 : nh == 51 ? 8 : nh == 60 ? 16 : 32;
}

/*
 * ps_extension - one extension header of the walk of view `number`; whether another header follows.
 *
 * A function of its own, so that the verifier follows its branches once and not
 * for each of the headers that there may be.
 */
__noinline int ps_extension(struct ps_ctx *ctx, __u32 number)
{
	struct ps_scratch *scratch = ps_scratch_area();
	struct ps_view *v = ps_view_of(scratch, number);
	struct ps_walk *walk;
	struct ps_cursor cur;
	/* 64 bits each: where half of them takes the stack's place of a pointer, whoever lacks CAP_PERFMON is refused. */
	__u64 nh, at, next, word;

	ps_keep(ctx);
	if (!scratch || !v)
		return 0;
	walk = &scratch->walk;
	cur = (struct ps_cursor){ ctx, scratch };
	nh = walk->nh;
	at = walk->at;
	asm volatile("" : "+r"(nh), "+r"(at));
	next = ps_read8(&cur, at);
	word = nh == 44 ? ps_read16(&cur, at + 2) : ps_read8(&cur, at + 1);
	ps_set(v, ip6_headers, v->ip6_headers | ps_extension_bit(nh));
	ps_odd_network(&cur, ps_beyond(at + 8, scratch->extent));
	v->proto = PS_ABSENT;
	if (!ps_there(next | word)) {
		if (ps_there(next) && nh == 44) {
			v->frag = PS_ABSENT;
			ps_set(v, frag_offset, PS_ABSENT);
		}
		if (ps_there(next) && !ps_is_extension(next))
			v->proto = next;
		return 0;
	}
	walk->nh = next;
	if (nh == 44) {
		ps_set(v, frag_offset, word & 0xfff8);
		v->frag = word & 0xfff8 ? 2 : 1;
		if (word & 0xfff8) {
			v->proto = next;
			return 0;
		}
		walk->at = at + 8;
		return 1;
	}
	at += nh == 51 ? (word + 2) * 4 : (word + 1) * 8;
	ps_odd_network(&cur, ps_beyond(at, scratch->extent));
	walk->at = at;
	return 1;
}

/*
 * ps_chain - walk the extension headers from `nh` at `at`.
 *
 * Sets v->proto, v->trans and v->frag as far as they are known.  The fragment header is eight bytes whatever its reserved second byte
 * says (RFC 8200, 4.5); one with offset 0 is a first fragment even when no more
 * follow.
 */
static __always_inline void ps_chain(const struct ps_cursor *cur, struct ps_view *v, __u32 nh, __u32 at, __u32 number)
{
	struct ps_walk *walk = &cur->scratch->walk;

	v->frag = 0;
	ps_set(v, frag_offset, 0);
	ps_set(v, ip6_headers, 0);
	*walk = (struct ps_walk){ nh, at };
#pragma unroll
	for (int k = 0; k <= PS_MAX_EXTENSIONS; k++) {
		ps_barrier();
		nh = ps_unknown(walk->nh);
		if (!ps_is_extension(nh)) {
			v->proto = nh;
			v->trans = ps_unknown(walk->at);
			return;
		}
		if (k == PS_MAX_EXTENSIONS)
			ps_odd_network(cur, PS_EXTHDR_LIMIT);
		else if (!ps_extension(cur->ctx, number))
			return;
	}
}

static __always_inline void ps_ipv6(const struct ps_cursor *cur, struct ps_view *v, __u32 number, __u32 len)
{
	__u32 at = ps_unknown(v->net);
	__u64 first = ps_read8(cur, at), payload = ps_read16(cur, at + 4), nh = ps_read8(cur, at + 6);

	if (ps_there(payload) && payload)
		cur->scratch->end = at + 40 + payload;
	if (at + 40 > len || (ps_there(first) && first >> 4 != 6))
		ps_odd_network(cur, PS_MALFORMED);
	if (ps_there(payload) && at + 40 + payload > len)
		ps_odd_network(cur, PS_MALFORMED);
	if (ps_there(nh))
		ps_chain(cur, v, nh, at + 40, number);
	ps_set(v, ip6_proto, v->proto);
	ps_ipv6_fields(cur, v);
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

static __always_inline void ps_tcp(const struct ps_cursor *cur, struct ps_view *v)
{
	__u32 at = ps_unknown(v->trans);

	ps_set(v, tcp_sport, ps_read16(cur, at));
	ps_set(v, tcp_dport, ps_read16(cur, at + 2));
	ps_set(v, tcp_seq, ps_read32(cur, at + 4));
	ps_set(v, tcp_ack, ps_read32(cur, at + 8));
	ps_set(v, tcp_flags, ps_read8(cur, at + 13));
	ps_set(v, tcp_window, ps_read16(cur, at + 14));
	ps_apart(6);
}

static __always_inline void ps_udp(const struct ps_cursor *cur, struct ps_view *v)
{
	__u32 at = ps_unknown(v->trans);

	ps_set(v, udp_sport, ps_read16(cur, at));
	ps_set(v, udp_dport, ps_read16(cur, at + 2));
	ps_set(v, udp_len, ps_read16(cur, at + 4));
	ps_apart(17);
}

static __always_inline void ps_transport(const struct ps_cursor *cur, struct ps_view *v)
{
	__u32 at = ps_unknown(v->trans), proto = v->proto;

	if (proto == 6 || proto == 17 || proto == 132) {
		ps_set(v, sport, ps_read16(cur, at));
		ps_set(v, dport, ps_read16(cur, at + 2));
	}
	if (proto == 6)
		ps_tcp(cur, v);
	if (proto == 17)
		ps_udp(cur, v);
	if (proto == 1 && v->eth_type == 0x0800) {
		ps_set(v, icmp_type, ps_read8(cur, at));
		ps_set(v, icmp_code, ps_read8(cur, at + 1));
	}
	if (proto == 58 && v->eth_type == 0x86dd) {
		ps_set(v, icmp6_type, ps_read8(cur, at));
		ps_set(v, icmp6_code, ps_read8(cur, at + 1));
	}
}

static __always_inline bool ps_tcp_is_malformed(const struct ps_cursor *cur, __u32 at, __u32 end)
{
	__u64 offset = ps_read8(cur, at + 12);

	if (at + 20 > end)
		return true;
	return ps_there(offset) && (offset >> 4 < 5 || at + (offset >> 4) * 4 > end);
}

static __always_inline bool ps_udp_is_malformed(const struct ps_cursor *cur, struct ps_view *v, __u32 end)
{
	__u64 length = ps_read16(cur, v->trans + 4);

	if (v->trans + 8 > end)
		return true;
	if (!ps_there(length) || (!length && v->eth_type == 0x86dd))
		return false;
	return length < 8 || (v->frag == 0 && v->trans + length > end);
}

static __always_inline bool ps_transport_is_malformed(const struct ps_cursor *cur, struct ps_view *v, __u32 end)
{
	switch (v->proto) {
	case 6:
		return ps_tcp_is_malformed(cur, v->trans, end);
	case 17:
		return ps_udp_is_malformed(cur, v, end);
	case 132:
		return v->trans + 12 > end;
	case 1:
		return v->eth_type == 0x0800 && v->trans + 8 > end;
	case 58:
		return v->eth_type == 0x86dd && v->trans + 4 > end;
	}
	return false;
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
