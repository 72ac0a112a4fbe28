/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * transport.bpf.h - the headers of TCP, UDP, ICMP and SCTP, for the exact parser, and whether they are malformed.
 */
#ifndef PENSTOCK_TRANSPORT_BPF_H
#define PENSTOCK_TRANSPORT_BPF_H

#include <penstock/odd.bpf.h>

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

#endif
