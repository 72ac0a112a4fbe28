/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * refusal.bpf.h - what a refusal says.
 *
 * TCP gets a reset (RFC 9293, 3.5.2), anything else "port unreachable" (RFC 792,
 * RFC 4443), with as much of the packet as fits into 576 bytes of IPv4 (RFC 1812,
 * 4.3.2.3) or 1280 of IPv6.  It comes from the address that was written to.
 */
#ifndef PENSTOCK_REFUSAL_BPF_H
#define PENSTOCK_REFUSAL_BPF_H

#include <penstock/cursor.bpf.h>

#define PS_REPLY4 576
#define PS_REPLY6 1280
#define PS_LEAST_FRAME 60	/* what shorter frames are filled up to on the wire, without their checksum */

static long (*const bpf_csum_diff)(const void *from, __u32 from_size, const void *to, __u32 to_size,
				    __u32 seed) = (void *)28;

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

/* ps_at - `size` bytes at `at`, or null; the verifier is told how far that may be. */
static __always_inline void *ps_at(void *data, void *end, __u64 at, const __u32 size)
{
	asm volatile("" : "+r"(at));
	if (at > 0xfff || data + at + size > end)
		return (void *)0;
	return data + at;
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

#endif
