/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * reject.bpf.h - to whom a refusal is said; refusal.bpf.h has what it says.
 *
 * Nobody is answered (RFC 1122, 3.2.2; RFC 4443, 2.4) who sent an ICMP error or a
 * redirect, a reset, a fragment, something malformed, or to or from an address
 * that is not one host's; nor when the processor has answered too much already.
 *
 * reject_xdp.bpf.h and reject_tc.bpf.h put the refusal in the packet's place.
 */
#ifndef PENSTOCK_REJECT_BPF_H
#define PENSTOCK_REJECT_BPF_H

#include <penstock/refusal.bpf.h>

/* One processor answers one packet in so many ns, and so many at once: as icmp_msgs_per_sec and icmp_msgs_burst do. */
const volatile __u64 ps_reject_interval = 1000000;
const volatile __u64 ps_reject_burst = 50;

static __u64 (*const bpf_ktime_get_ns)(void) = (void *)5;

/* How often packets were answered, and were not, by processor; `status` shows it (pipeline/refusals.py). */
struct ps_refusals {
	__u64 answered, suppressed;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ps_refusals);
} ps_refusals SEC(".maps");

/*
 * A processor's bucket, with its credit in ns, and what is known of the packet that it refuses.
 *
 * In a map, because the verifier knows nothing of what is read from one, and so
 * follows what is done with it once.
 */
struct ps_refusing {
	__u64 credit, last;
	struct ps_refused refused;
	struct ps_headers headers;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ps_refusing);
} ps_refusing SEC(".maps");

static __always_inline struct ps_refusing *ps_refusing_area(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&ps_refusing, &zero);
}

/* ps_is_allowed - take a token out of the bucket, if there is one. */
static __always_inline bool ps_is_allowed(void)
{
	__u64 now = bpf_ktime_get_ns(), most = ps_reject_burst * ps_reject_interval, credit;
	struct ps_refusing *all = ps_refusing_area();

	if (!all)
		return false;
	credit = all->credit + (now - all->last);
	all->last = now;
	if (credit > most)
		credit = most;
	all->credit = credit;
	if (credit < ps_reject_interval)
		return false;
	all->credit = credit - ps_reject_interval;
	return true;
}

/* ── whom to answer ──────────────────────────────────────────────────────── */

/* ps_icmp_is_query - the types that are answered when nobody may be told of errors about errors. */
static __always_inline bool ps_icmp_is_query(__u32 type)
{
	return type == 0 || type == 8 || (type >= 13 && type <= 18);
}

/* ps_reset - what a reset says of sequence numbers; false if the segment is a reset, or broken. */
static __always_inline bool ps_reset(struct ps_refused *r, void *data, void *end)
{
	__u8 *tcp = ps_at(data, end, r->trans, 20);
	__u32 header, length;

	if (!tcp)
		return false;
	header = (tcp[12] >> 4) * 4;
	if (header < 20 || r->trans + header > r->end || tcp[13] & 0x04)
		return false;
	length = r->end - r->trans - header + !!(tcp[13] & 0x02) + (tcp[13] & 0x01);
	if (tcp[13] & 0x10) {
		r->seq = *(__be32 *)(tcp + 8);
		r->ack = 0;
		r->has_ack = 0;
	} else {
		r->seq = 0;
		r->ack = ps_htonl(ps_ntohl(*(__be32 *)(tcp + 4)) + length);
		r->has_ack = 1;
	}
	return true;
}

/* ps_may_hear - whether what follows the IP header is something that may be answered. */
static __always_inline bool ps_may_hear(struct ps_refused *r, void *data, void *end)
{
	__u8 *next;

	if (r->proto == 6)
		return ps_reset(r, data, end);
	if (r->proto != 17 && r->proto != 1 && r->proto != 58)
		return true;
	next = ps_at(data, end, r->trans, 8);
	if (!next || r->trans + 8 > r->end)
		return false;
	if (r->proto == 17) {
		__u32 length = ps_ntohs(*(__be16 *)(next + 4));

		return (length >= 8 && r->trans + length <= r->end) || (r->is_ip6 && !length);
	}
	if (r->proto == 1)
		return r->is_ip6 || ps_icmp_is_query(next[0]);
	return !r->is_ip6 || (next[0] >= 128 && next[0] != 137);
}

/* ps_is_host4 - whether an address can be one host's: not this network, loopback, multicast, or reserved. */
static __always_inline bool ps_is_host4(__be32 address)
{
	__u32 first = ps_ntohl(address) >> 24;

	return first != 0 && first != 127 && first < 224;
}

static __always_inline bool ps_refused4(struct ps_ctx *ctx, struct ps_refused *r, void *data, void *end, __u32 length)
{
	__u8 *ip = ps_at(data, end, r->net, 20);
	__u32 header, total;

	if (!ip || ip[0] >> 4 != 4)
		return false;
	header = (ip[0] & 15) * 4;
	total = ps_ntohs(*(__be16 *)(ip + 2));
	if (header < 20 || total < header || r->net + total > length)
		return false;
	if (*(__be16 *)(ip + 6) & ps_htons(0x3fff))
		return false;
	if (!ps_is_host4(*(__be32 *)(ip + 12)) || !ps_is_host4(*(__be32 *)(ip + 16)))
		return false;
	r->is_ip6 = 0;
	r->trans = r->net + header;
	r->end = r->net + total;
	r->proto = ip[9];
	return !ps_folded(ps_sum(ctx, r->net, header)) && ps_may_hear(r, data, end);
}

/* ps_is_host6 - the same of IPv6: not multicast, unspecified or loopback. */
static __always_inline bool ps_is_host6(const __u8 *address)
{
	const __u32 *word = (const void *)address;

	return address[0] != 0xff && (word[0] | word[1] | word[2] || ps_ntohl(word[3]) > 1);
}

static __always_inline bool ps_refused6(struct ps_refused *r, void *data, void *end, __u32 length)
{
	__u8 *ip = ps_at(data, end, r->net, 40), *header;
	__u32 next, at = r->net + 40;

	if (!ip || ip[0] >> 4 != 6)
		return false;
	r->end = at + ps_ntohs(*(__be16 *)(ip + 4));
	if (r->end > length || !ps_is_host6(ip + 8) || !ps_is_host6(ip + 24))
		return false;
	next = ip[6];
#pragma clang loop unroll(disable)
	for (int k = 0; k < 8; k++) {
		if (next == 44)
			return false;
		if (next != 0 && next != 43 && next != 51 && next != 60 && next != 135)
			break;
		header = ps_at(data, end, at, 8);
		if (!header)
			return false;
		at += next == 51 ? (header[1] + 2) * 4 : (header[1] + 1) * 8;
		next = header[0];
	}
	if (at > r->end || next == 0 || next == 43 || next == 44 || next == 51 || next == 60 || next == 135)
		return false;
	r->is_ip6 = 1;
	r->trans = at;
	r->proto = next;
	return ps_may_hear(r, data, end);
}

/*
 * ps_may_answer - whether a frame of `length` bytes may be answered, and what is to be known for that.
 *
 * The frame's own bytes are looked at: a tag that lies beside it stays there.
 */
__noinline int ps_may_answer(struct ps_ctx *ctx, __u32 length)
{
	void *data = ps_data(ctx), *end = ps_data_end(ctx);
	struct ps_refusing *all = ps_refusing_area();
	struct ps_refused *r;
	__u8 *mac = data;
	__be16 type;

	if (!all)
		return false;
	r = &all->refused;
	if (data + 14 > end || (!ps_is_bare && (mac[0] | mac[6]) & 1))
		return false;
	r->net = ps_is_bare ? 0 : 14;
	type = ps_is_bare ? ps_bare_type(ctx) : *(__be16 *)(data + 12);
#pragma unroll
	for (int k = 0; k < 2; k++) {
		if (type == ps_htons(0x8100) || type == ps_htons(0x88a8)) {
			__be16 *behind = ps_at(data, end, r->net, 4);

			if (!behind)
				return false;
			type = behind[1];
			r->net += 4;
		}
	}
	if (type == ps_htons(0x0800))
		return ps_refused4(ctx, r, data, end, length);
	return type == ps_htons(0x86dd) && ps_refused6(r, data, end, length);
}

/* ps_answer - write the refusal's headers into the map, for a quote of `quote` bytes from the IP header on. */
__noinline int ps_answer(struct ps_ctx *ctx, __u32 quote)
{
	void *data = ps_data(ctx), *end = ps_data_end(ctx);
	struct ps_refusing *all = ps_refusing_area();
	__u32 sum;

	if (!all)
		return false;
	sum = quote ? ps_sum(ctx, ps_unknown(all->refused.net), quote) : 0;
	if (all->refused.is_ip6)
		return ps_answer6(&all->headers, &all->refused, data, end, quote, sum);
	return ps_answer4(&all->headers, &all->refused, data, end, quote, sum);
}

static __always_inline bool ps_refuse(struct ps_ctx *ctx);

/* ps_reject - answer a packet if it may be; whether it was, and then it is the refusal. */
__noinline int ps_reject(struct ps_ctx *ctx)
{
	bool is_answered = ps_refuse(ctx);
	struct ps_refusals *all;
	__u32 zero = 0;

	all = bpf_map_lookup_elem(&ps_refusals, &zero);
	if (all && is_answered)
		all->answered++;
	else if (all)
		all->suppressed++;
	return is_answered;
}

#endif
