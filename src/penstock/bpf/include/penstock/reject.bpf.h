/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * reject.bpf.h - what a refusal says, and to whom one is said.
 *
 * TCP gets a reset (RFC 9293, 3.5.2), anything else "port unreachable" (RFC 792,
 * RFC 4443), with as much of the packet as fits into 576 bytes of IPv4 (RFC 1812,
 * 4.3.2.3) or 1280 of IPv6.  It comes from the address that was written to.
 *
 * Nobody is answered (RFC 1122, 3.2.2; RFC 4443, 2.4) who sent an ICMP error or a
 * redirect, a reset, a fragment, something malformed, or to or from an address
 * that is not one host's; nor when the processor has answered too much already.
 *
 * reject_xdp.bpf.h and reject_tc.bpf.h put the refusal in the packet's place.
 */
#ifndef PENSTOCK_REJECT_BPF_H
#define PENSTOCK_REJECT_BPF_H

#include <penstock/cursor.bpf.h>

/* One processor answers one packet in so many ns, and so many at once: as icmp_msgs_per_sec and icmp_msgs_burst do. */
const volatile __u64 ps_reject_interval = 1000000;
const volatile __u64 ps_reject_burst = 50;

#define PS_REPLY4 576
#define PS_REPLY6 1280
#define PS_LEAST_FRAME 60	/* what shorter frames are filled up to on the wire, without their checksum */

static long (*const bpf_csum_diff)(const void *from, __u32 from_size, const void *to, __u32 to_size,
				    __u32 seed) = (void *)28;
static __u64 (*const bpf_ktime_get_ns)(void) = (void *)5;

/* What a refusal answers: where the headers are, from the frame's start, and what a reset needs to know. */
struct ps_refused {
	__u32 net, trans, end;	/* `end`: where the IP packet ends */
	__u32 proto;
	__u32 is_ip6;
	__be32 seq, ack;	/* those of the reset */
	__u32 has_ack;		/* whether the reset has an ACK flag */
};

/* A refusal's headers behind the link header, 4-byte aligned: IP, then TCP or ICMP; 15 words at most. */
struct ps_headers {
	__u32 word[16];
	__u32 size;
};

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

/* ── checksums (RFC 1071) ────────────────────────────────────────────────── */

static __always_inline __u16 ps_folded(__u32 sum)
{
	sum = (sum >> 16) + (sum & 0xffff);
	return ~((sum >> 16) + sum);
}

#define ps_sum_step(p, end, size, sum, part) \
	do { \
		if (size & (part)) { \
			if (p + (part) > end) \
				return 0; \
			sum = bpf_csum_diff((void *)0, 0, p, part, sum); \
			p += part; \
		} \
	} while (0)

/* ps_sum - the sum of `size` bytes of the frame from `at` on, not folded; 0 if they do not lie in its first piece. */
__noinline __u32 ps_sum(struct ps_ctx *ctx, __u32 at, __u32 size)
{
	void *end = ps_data_end(ctx), *p = ps_data(ctx);
	__u32 sum = 0;

	if (at > 0x1fff || size > PS_REPLY6)
		return 0;
	/* Or clang knows that `size` alone ends the loop, which the verifier does not. */
	asm volatile("" : "+r"(at), "+r"(size));
	p += at & 0x1fff;
#pragma clang loop unroll(disable)
	for (__u32 k = 0; k < PS_REPLY6 / 64; k++) {
		if (k >= size / 64)
			break;
		if (p + 64 > end)
			return 0;
		sum = bpf_csum_diff((void *)0, 0, p, 64, sum);
		p += 64;
	}
	ps_sum_step(p, end, size, sum, 32);
	ps_sum_step(p, end, size, sum, 16);
	ps_sum_step(p, end, size, sum, 8);
	ps_sum_step(p, end, size, sum, 4);
	if (size & 3) {
		__u8 last[4] = {};

#pragma unroll
		for (__u32 k = 0; k < 3; k++) {
			if (k >= (size & 3))
				break;
			if (p + k + 1 > end)
				return 0;
			last[k] = *(__u8 *)(p + k);
		}
		sum = bpf_csum_diff((void *)0, 0, last, 4, sum);
	}
	return sum;
}

/* ── whom to answer ──────────────────────────────────────────────────────── */

/* ps_at - `size` bytes at `at`, or null; the verifier is told how far that may be. */
static __always_inline void *ps_at(void *data, void *end, __u64 at, const __u32 size)
{
	asm volatile("" : "+r"(at));
	if (at > 0xfff || data + at + size > end)
		return (void *)0;
	return data + at;
}

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

/* ── what to answer ──────────────────────────────────────────────────────── */

/* ps_quote - how much of the packet a refusal quotes, of what lies in the frame's first piece; 0 for a reset. */
static __always_inline __u32 ps_quote(const struct ps_refused *r, __u32 available)
{
	__u32 most = r->is_ip6 ? PS_REPLY6 - 48 : PS_REPLY4 - 28, size = r->end - r->net;

	if (r->proto == 6)
		return 0;
	if (size > available)
		size = available;
	return size < most ? size : most;
}

/* ps_write_tcp - a reset's TCP header; its checksum is of what `sum` has already, too. */
static __always_inline void ps_write_tcp(__u32 *word, const struct ps_refused *r, const __be16 *ports, __u32 sum)
{
	__be16 *half = (void *)word;

	half[0] = ports[1];
	half[1] = ports[0];
	word[1] = r->seq;
	word[2] = r->ack;
	word[3] = ps_htonl(5U << 28 | (r->has_ack ? 0x14 : 0x04) << 16);
	word[4] = 0;
	half[8] = ps_folded(bpf_csum_diff((void *)0, 0, word, 20, sum));
}

/* ps_write_icmp - an ICMP error's header; `sum` is that of the quote, and of the pseudo header if there is one. */
static __always_inline void ps_write_icmp(__u32 *word, __u32 type, __u32 code, __u32 sum)
{
	__be16 *half = (void *)word;

	word[0] = ps_htonl(type << 24 | code << 16);
	word[1] = 0;
	half[1] = ps_folded(bpf_csum_diff((void *)0, 0, word, 8, sum));
}

/*
 * ps_answer4 - the headers of a refusal: the addresses exchanged, 64 hops, not to be fragmented.
 *
 * ICMP errors have the precedence of internetwork control (RFC 1812, 4.3.2.5).
 */
static __always_inline bool ps_answer4(struct ps_headers *h, const struct ps_refused *r, void *data, void *end,
				       __u32 quote, __u32 sum)
{
	__u8 *ip = ps_at(data, end, r->net, 20), *tcp;
	__u32 is_tcp = r->proto == 6, size = is_tcp ? 40 : 28 + quote;
	__be16 *half = (void *)h->word;

	if (!ip)
		return false;
	h->word[0] = ps_htonl(0x45000000U | (is_tcp ? 0 : 0xc00000) | size);
	h->word[1] = ps_htonl(0x4000);
	h->word[2] = ps_htonl(64U << 24 | (is_tcp ? 6 : 1) << 16);
	h->word[3] = *(__be32 *)(ip + 16);
	h->word[4] = *(__be32 *)(ip + 12);
	half[5] = ps_folded(bpf_csum_diff((void *)0, 0, h->word, 20, 0));
	h->size = is_tcp ? 40 : 28;
	if (!is_tcp) {
		ps_write_icmp(h->word + 5, 3, 3, sum);
		return true;
	}
	tcp = ps_at(data, end, r->trans, 4);
	if (tcp)
		ps_write_tcp(h->word + 5, r, (void *)tcp, bpf_csum_diff((void *)0, 0, h->word + 3, 8, ps_htonl(6 + 20)));
	return tcp;
}

static __always_inline bool ps_answer6(struct ps_headers *h, const struct ps_refused *r, void *data, void *end,
				       __u32 quote, __u32 sum)
{
	__u8 *ip = ps_at(data, end, r->net, 40), *tcp;
	__u32 is_tcp = r->proto == 6, next = is_tcp ? 6 : 58, size = is_tcp ? 20 : 8 + quote;

	if (!ip)
		return false;
	h->word[0] = ps_htonl(6U << 28);
	h->word[1] = ps_htonl(size << 16 | next << 8 | 64);
#pragma unroll
	for (int k = 0; k < 4; k++) {
		h->word[2 + k] = *(__u32 *)(ip + 24 + 4 * k);
		h->word[6 + k] = *(__u32 *)(ip + 8 + 4 * k);
	}
	/* The pseudo header's length and next header are below 65536 together. */
	sum = bpf_csum_diff((void *)0, 0, h->word + 2, 32, sum);
	sum = bpf_csum_diff((void *)0, 0, &(__u32){ ps_htonl(size + next) }, 4, sum);
	h->size = is_tcp ? 60 : 48;
	if (!is_tcp) {
		ps_write_icmp(h->word + 10, 1, 4, sum);
		return true;
	}
	tcp = ps_at(data, end, r->trans, 4);
	if (tcp)
		ps_write_tcp(h->word + 10, r, (void *)tcp, sum);
	return tcp;
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
