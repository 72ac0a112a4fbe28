/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * scope.bpf.h - from one scope's headers to what they carry.
 *
 * Each step is told the numbers of two views: the parent's, filled, and the
 * child's, which it clears and fills if the parent carries such a thing.  A
 * child that does not exist stays cleared: everything in it is absent.
 */
#ifndef PENSTOCK_SCOPE_BPF_H
#define PENSTOCK_SCOPE_BPF_H

#include <penstock/parse.bpf.h>

/* ps_scope_headers - the headers of view `number`, its link header being known.  Gives 0. */
__noinline int ps_scope_headers(struct ps_ctx *ctx, __u32 number)
{
	struct ps_scratch *scratch = ps_scratch_area();
	struct ps_view *v = ps_view_of(scratch, number);
	struct ps_cursor cur;

	ps_keep(ctx);
	if (!scratch || !v)
		return 0;
	cur = (struct ps_cursor){ ctx, scratch };
	ps_headers(&cur, v, number, scratch->extent);
	return 0;
}

/* ps_scope_ethernet - view `number` is that of an Ethernet frame at v->frame; parse all of it.  Gives 0. */
__noinline int ps_scope_ethernet(struct ps_ctx *ctx, __u32 number)
{
	struct ps_scratch *scratch = ps_scratch_area();
	struct ps_view *v = ps_view_of(scratch, number);
	struct ps_cursor cur;

	if (!scratch || !v)
		return 0;
	cur = (struct ps_cursor){ ctx, scratch };
	ps_link(&cur, v, scratch->extent);
	if (PS_WANT_vlan)
		ps_tags(&cur, v);
	return ps_scope_headers(ctx, number);
}

/* ps_behind_mpls - `nested`: the parent is itself behind a label, and that label's bottom bit decides. */
__noinline int ps_behind_mpls(struct ps_ctx *ctx, __u32 parent, __u32 child, __u32 nested)
{
	struct ps_scratch *scratch = ps_scratch_area();
	struct ps_view *p = ps_view_of(scratch, parent), *c = ps_view_of(scratch, child);
	struct ps_cursor cur;
	__u64 bottom, first;

	if (!scratch || !p || !c)
		return 0;
	cur = (struct ps_cursor){ ctx, scratch };
	ps_clear(c);
	if (p->net == PS_ABSENT)
		return 0;
	bottom = ps_read8(&cur, p->net - 2);
	if (nested ? (bottom & 1) : p->eth_type != 0x8847)
		return 0;
	c->exists = 1;
	c->frame = p->frame;
	c->net = p->net + 4;
	ps_set(c, eth_dst, p->eth_dst);
	ps_set(c, eth_src, p->eth_src);
	bottom = ps_read8(&cur, c->net - 2);
	first = ps_read8(&cur, c->net);
	if (ps_there(bottom) && (bottom & 1))
		c->eth_type = first >> 4 == 4 ? 0x0800 : first >> 4 == 6 ? 0x86dd : PS_ABSENT;
	return ps_scope_headers(ctx, child);
}

/* PPP protocol numbers that mean the same as an Ethernet type. */
static __always_inline __u32 ps_ppp_type(__u32 protocol)
{
	switch (protocol) {
	case 0x21:
		return 0x0800;
	case 0x57:
		return 0x86dd;
	case 0x25:
		return 0x0600;
	case 0x27:
		return 0x6003;
	case 0x29:
		return 0x809b;
	case 0x281:
		return 0x8847;
	}
	return protocol;
}

__noinline int ps_behind_pppoe(struct ps_ctx *ctx, __u32 parent, __u32 child)
{
	struct ps_scratch *scratch = ps_scratch_area();
	struct ps_view *p = ps_view_of(scratch, parent), *c = ps_view_of(scratch, child);
	struct ps_cursor cur;
	__u64 protocol;

	if (!scratch || !p || !c)
		return 0;
	cur = (struct ps_cursor){ ctx, scratch };
	ps_clear(c);
	if (p->net == PS_ABSENT || p->eth_type != 0x8864)
		return 0;
	c->exists = 1;
	c->frame = p->net + 6;
	c->net = p->net + 8;
	protocol = ps_read16(&cur, c->frame);
	if (ps_there(protocol))
		c->eth_type = ps_ppp_type(protocol);
	return ps_scope_headers(ctx, child);
}

__noinline int ps_behind_geneve(struct ps_ctx *ctx, __u32 parent, __u32 child)
{
	struct ps_scratch *scratch = ps_scratch_area();
	struct ps_view *p = ps_view_of(scratch, parent), *c = ps_view_of(scratch, child);
	struct ps_cursor cur;
	__u64 first, type;
	__u32 at, inner;

	if (!scratch || !p || !c)
		return 0;
	cur = (struct ps_cursor){ ctx, scratch };
	ps_clear(c);
	at = p->trans;
	if (at == PS_ABSENT || p->proto != 17 || ps_read16(&cur, at + 2) != 6081)
		return 0;
	first = ps_read8(&cur, at + 8);
	type = ps_read16(&cur, at + 10);
	if (first & 0xc0)
		return 0;
	c->exists = 1;
	if (!ps_there(type))
		return 0;
	inner = at + 16 + (first & 0x3f) * 4;
	if (type == 0x6558) {
		c->frame = inner;
		return ps_scope_ethernet(ctx, child);
	}
	c->net = inner;
	c->eth_type = type;
	return ps_scope_headers(ctx, child);
}

#endif
