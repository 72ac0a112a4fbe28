/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * view.bpf.h - what is known of one scope's headers.
 *
 * Numbers are in host order.  A field that the packet does not have holds a
 * number outside its domain (all ones), so one unsigned compare asks for
 * presence and value together:
 *
 *     v->dport - 8000 <= 100          false of a packet without ports
 *
 * The generated file says which fields its rules name (PS_WANT_...); the
 * others are never stored.  Where a view lives in registers the compiler would
 * find that out by itself, where it lives in a map it could not.
 */
#ifndef PENSTOCK_VIEW_BPF_H
#define PENSTOCK_VIEW_BPF_H

#include <penstock/uapi.bpf.h>

#define PS_ABSENT 0xffffffffU	/* of fields of at most 20 bits, and of positions */
#define PS_ABSENT64 (~0ULL)	/* of fields of 32 and 48 bits, and of terms */

/* PS_LEVEL and PS_DEPTH: how deep headers are parsed, how deep they are judged. */
enum { PS_LINK = 1, PS_NETWORK = 2, PS_TRANSPORT = 3 };

#define PS_FIELDS32(X) \
	X(eth_type) \
	X(ip_proto) X(ip6_proto) X(ip6_headers) X(chain_proto) X(proto) \
	X(ttl) X(dscp) X(ecn) X(ip_id) X(ip_len) X(ip_df) X(ip6_flow) X(frag) X(frag_offset) \
	X(sport) X(dport) X(tcp_sport) X(tcp_dport) X(tcp_flags) X(tcp_window) \
	X(udp_sport) X(udp_dport) X(udp_len) X(icmp_type) X(icmp_code) X(icmp6_type) X(icmp6_code)
#define PS_FIELDS64(X) \
	X(eth_dst) X(eth_src) X(addr_src) X(addr_dst) X(ip_src) X(ip_dst) X(tcp_seq) X(tcp_ack)

struct ps_ip6 {
	__u64 hi, lo;
	__u32 present;
};

struct ps_view {
	/* Offsets from the start of the packet, or PS_ABSENT. */
	__u32 frame, net, trans;
	__u32 exists;	/* whether the packet has such a scope at all */
	__u32 tags;
	/* tpid[k]: the 16 bits where tag k's type would be; tci[k]: the tag's own 16 bits. */
	__u32 tpid[PS_TAGS], tci[PS_TAGS];
#define X(name) __u32 name;
	PS_FIELDS32(X)
#undef X
#define X(name) __u64 name;
	PS_FIELDS64(X)
#undef X
	struct ps_ip6 ip6_src, ip6_dst;
};

#define PS_OVERLAY_SPAN 1024	/* fields that added rules ask for begin below (overlay.bpf.h) */
#define PS_HEAD 128	/* as many bytes of a packet are copied for the exact parser */

/* How far the walk over IPv6 extension headers has come. */
struct ps_walk {
	__u32 nh, at;
};

/* What the exact parser reads (cursor.bpf.h), and what it leaves for the rules: a view for each scope. */
struct ps_scratch {
	__u8 head[PS_HEAD + 4];	/* a number may begin in the last byte */
	__u32 have;	/* bytes in the head */
	__u32 settled;	/* what ends up to here is in the head or nowhere */
	/* At a socket: where the packet begins, and what is shown before its bytes (socket.bpf.h). */
	__u32 start, before, gap;
	struct ps_walk walk;
	__u32 len;	/* what rules know as `len` */
	__u32 extent;	/* the packet's length as it lies here: of an aggregate more than any of its segments has */
	__u32 segments, octets;	/* of an aggregate: what it counts as */
	__u32 conditions;	/* those of the frame itself, as bits */
	__u32 end;	/* where the IP length says that the packet ends */
	/* Of the added rules (overlay.bpf.h): where the one that may decide stands, its record, what was counted last. */
	__u32 limit, added, counted;
#ifdef PS_OVERLAY
	__u64 ifindex, mark;	/* for added rules: what lies beside the packet */
#endif
	struct ps_view s[PS_SCOPES];
#ifdef PS_OVERLAY
	__u64 spare[PS_OVERLAY_SPAN / 8];	/* so that a masked offset needs no check: each would double the verifier's states */
#endif
};

/*
 * Views live in a per-CPU map, not on the stack: the verifier follows every
 * constant that is spilled to the stack (each "absent" is one) and would keep
 * a state for each way through the parser.  What is read back from a map is an
 * unknown number, so the rules are verified once.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ps_scratch);
} ps_scratch SEC(".maps");

static __always_inline struct ps_scratch *ps_scratch_area(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&ps_scratch, &zero);
}

/* ps_view_of - the view of scope `number`, or null. */
static __always_inline struct ps_view *ps_view_of(struct ps_scratch *scratch, __u64 number)
{
	/* Or clang checks the number's 32-bit half and adds the whole, and the verifier sees no check. */
	asm volatile("" : "+r"(number));
	if (!scratch || number >= PS_SCOPES)
		return (void *)0;
	return &scratch->s[number];
}

/*
 * ps_unknown - a number that was stored, read again.
 *
 * What comes from a map is unknown to the verifier.  It would follow a number
 * that is used as an offset through all the ways in which it may have come
 * about; so offsets take this way.
 */
#define ps_unknown(place) (*(const volatile __typeof__(place) *)&(place))

/* ps_set - store a field that the rules name; the constant PS_WANT_ drops the rest. */
#define ps_set(v, name, value) \
	do { \
		if (PS_WANT_##name) \
			(v)->name = (value); \
	} while (0)

#define ps_set_tag(place, value) \
	do { \
		if (PS_WANT_vlan) \
			(place) = (value); \
	} while (0)

/* ps_clear - a view of nothing: every field absent. */
static __always_inline void ps_clear(struct ps_view *v)
{
	v->frame = v->net = v->trans = PS_ABSENT;
	v->tags = 0;
	v->exists = 0;
	if (PS_WANT_vlan) {
		for (int k = 0; k < PS_TAGS; k++)
			v->tpid[k] = v->tci[k] = PS_ABSENT;
	}
#define X(name) ps_set(v, name, PS_ABSENT);
	PS_FIELDS32(X)
#undef X
#define X(name) ps_set(v, name, PS_ABSENT64);
	PS_FIELDS64(X)
#undef X
	if (PS_WANT_ip6_src)
		v->ip6_src.present = 0;
	if (PS_WANT_ip6_dst)
		v->ip6_dst.present = 0;
	/* Positions and these three steer the parser, whatever the rules name. */
	v->eth_type = v->proto = v->frag = PS_ABSENT;
}

/* The parts of a tag's 16 bits; absent if the tag is. */
static __always_inline __u32 ps_tag_id(__u32 tci)
{
	return tci > 0xffff ? PS_ABSENT : tci & 0xfff;
}

static __always_inline __u32 ps_tag_pcp(__u32 tci)
{
	return tci > 0xffff ? PS_ABSENT : tci >> 13;
}

static __always_inline __u32 ps_tag_dei(__u32 tci)
{
	return tci > 0xffff ? PS_ABSENT : tci >> 12 & 1;
}

#endif
