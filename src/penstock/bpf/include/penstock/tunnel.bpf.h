/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * tunnel.bpf.h - the packet that a packet carries, in whatever tunnel.
 *
 * IP in IP, GRE, VXLAN, Geneve and GTP-U; what carries neither IPv4, IPv6 nor
 * Ethernet carries nothing.  src/penstock/compiler/ir/tunnel.py is the
 * definition of what this file does.  Programs include it whose rules say
 * inner(EXPR), and no others.
 *
 * Where the carried packet begins, and of which type it is, is kept in
 * scratch->walk: the verifier would follow every tunnel's way through the inner
 * headers, and takes a number from a map for unknown.
 */
#ifndef PENSTOCK_TUNNEL_BPF_H
#define PENSTOCK_TUNNEL_BPF_H

#include <penstock/scope.bpf.h>

#define PS_MAX_GTP_EXTENSIONS 4

/* ps_carried - a tunnel carries what is at `at`, of this Ethernet type. */
static __always_inline void ps_carried(const struct ps_cursor *cur, __u32 type, __u32 at)
{
	*(volatile __u32 *)&cur->scratch->walk.nh = type;
	*(volatile __u32 *)&cur->scratch->walk.at = at;
}

/* RFC 2784, 2890: checksum, key and sequence number are words that are there if their bit is set. */
static __always_inline void ps_in_gre(const struct ps_cursor *cur, __u32 at)
{
	__u64 flags = ps_read16(cur, at), type = ps_read16(cur, at + 2);

	/* A source route, or a version that is not 0. */
	if (!ps_there(flags | type) || (flags & 0x4007))
		return;
	ps_carried(cur, type, at + 4 + (flags >> 13 & 4) + (flags >> 11 & 4) + (flags >> 10 & 4));
}

/* RFC 7348: the flag says that there is a network identifier. */
static __always_inline void ps_in_vxlan(const struct ps_cursor *cur, __u32 at)
{
	__u64 flags = ps_read8(cur, at);

	if (ps_there(flags) && (flags & 8))
		ps_carried(cur, 0x6558, at + 8);
}

static __always_inline void ps_in_geneve(const struct ps_cursor *cur, __u32 at)
{
	__u64 first = ps_read8(cur, at), type = ps_read16(cur, at + 2);

	if (ps_there(first | type) && !(first & 0xc0))
		ps_carried(cur, type, at + 8 + (first & 0x3f) * 4);
}

/*
 * ps_gtp_extension - one extension header of the walk; whether it could be stepped over.
 *
 * A function of its own, so that the verifier follows it once.
 */
__noinline int ps_gtp_extension(struct ps_ctx *ctx)
{
	struct ps_scratch *scratch = ps_scratch_area();
	struct ps_cursor cur;
	__u64 words, next;
	__u32 at;

	ps_keep(ctx);
	if (!scratch)
		return 0;
	cur = (struct ps_cursor){ ctx, scratch };
	at = ps_unknown(scratch->walk.at);
	words = ps_read8(&cur, at);
	if (!ps_there(words) || !words)
		return 0;
	at += words * 4;
	next = ps_read8(&cur, at - 1);
	if (!ps_there(next))
		return 0;
	ps_carried(&cur, next, at);
	return 1;
}

/* ps_gtp_payload - where a G-PDU's packet begins, whose header is at `at`; PS_ABSENT if that is not to be known. */
static __always_inline __u32 ps_gtp_payload(const struct ps_cursor *cur, __u32 at, __u32 flags)
{
	__u64 next;

	if (!(flags & 7))
		return at + 8;
	if (!(flags & 4))
		return at + 12;
	next = ps_read8(cur, at + 11);
	if (!ps_there(next))
		return PS_ABSENT;
	ps_carried(cur, next, at + 12);
	for (int k = 0; k < PS_MAX_GTP_EXTENSIONS; k++) {
		if (!ps_unknown(cur->scratch->walk.nh))
			break;
		if (!ps_gtp_extension(cur->ctx))
			return PS_ABSENT;
	}
	return ps_unknown(cur->scratch->walk.nh) ? PS_ABSENT : ps_unknown(cur->scratch->walk.at);
}

/* 3GPP TS 29.281: version 1, GTP and not GTP', and a message that carries a packet. */
static __always_inline void ps_in_gtp(const struct ps_cursor *cur, __u32 at)
{
	__u64 flags = ps_read8(cur, at), first;

	if (!ps_there(flags) || (flags & 0xf0) != 0x30 || ps_read8(cur, at + 1) != 0xff)
		return;
	at = ps_gtp_payload(cur, at, flags);
	first = at == PS_ABSENT ? PS_ABSENT64 : ps_read8(cur, at);
	ps_carried(cur, first >> 4 == 4 ? 0x0800 : first >> 4 == 6 ? 0x86dd : 0, at);
}

static __always_inline void ps_in_udp(const struct ps_cursor *cur, __u32 at)
{
	__u64 port = ps_read16(cur, at + 2);

	if (port == 4789)
		ps_in_vxlan(cur, at + 8);
	else if (port == 6081)
		ps_in_geneve(cur, at + 8);
	else if (port == 2152)
		ps_in_gtp(cur, at + 8);
}

/* ps_find_carried - leave in scratch->walk what view `parent` carries, type 0 if nothing.  Gives 0. */
__noinline int ps_find_carried(struct ps_ctx *ctx, __u32 parent)
{
	struct ps_scratch *scratch = ps_scratch_area();
	struct ps_view *p = ps_view_of(scratch, parent);
	struct ps_cursor cur;
	__u32 at;

	if (!scratch || !p)
		return 0;
	cur = (struct ps_cursor){ ctx, scratch };
	ps_carried(&cur, 0, 0);
	at = ps_unknown(p->trans);
	if (at == PS_ABSENT)
		return 0;
	switch (p->proto) {
	case 4:
		ps_carried(&cur, 0x0800, at);
		break;
	case 41:
		ps_carried(&cur, 0x86dd, at);
		break;
	case 47:
		ps_in_gre(&cur, at);
		break;
	case 17:
		ps_in_udp(&cur, at);
		break;
	}
	return 0;
}

__noinline int ps_behind_tunnel(struct ps_ctx *ctx, __u32 parent, __u32 child)
{
	struct ps_scratch *scratch = ps_scratch_area();
	struct ps_view *c = ps_view_of(scratch, child);
	__u32 at, type;

	if (!scratch || !c)
		return 0;
	ps_clear(c);
	ps_find_carried(ctx, parent);
	at = ps_unknown(scratch->walk.at);
	type = ps_unknown(scratch->walk.nh);
	if (type != 0x0800 && type != 0x86dd && type != 0x6558)
		return 0;
	c->exists = 1;
	if (type == 0x6558) {
		c->frame = at;
		return ps_scope_ethernet(ctx, child);
	}
	c->net = at;
	c->eth_type = type;
	return ps_scope_headers(ctx, child);
}

#endif
