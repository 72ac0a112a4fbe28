/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * chain.bpf.h - the IPv6 header and its extension headers, for the exact parser; authentication headers behind IPv4.
 */
#ifndef PENSTOCK_CHAIN_BPF_H
#define PENSTOCK_CHAIN_BPF_H

#include <penstock/odd.bpf.h>

#define PS_MAX_EXTENSIONS 8

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
 * Sets v->proto, v->trans and v->frag as far as they are known.  The fragment
 * header is eight bytes whatever its reserved second byte says (RFC 8200, 4.5);
 * one with offset 0 is a first fragment even when no more follow.
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

#endif
