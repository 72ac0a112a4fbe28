/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * odd.bpf.h - the odd-packet conditions, and numbers that may be absent.
 */
#ifndef PENSTOCK_ODD_BPF_H
#define PENSTOCK_ODD_BPF_H

#include <penstock/cursor.bpf.h>

/* Odd-packet conditions as bits: penstock.model.verdict.Condition. */
enum {
	PS_MALFORMED = 1 << 0,
	PS_UNKNOWN_TAG = 1 << 1,
	PS_EXTHDR_LIMIT = 1 << 2,
	PS_FRAGMENT = 1 << 3,
	PS_IP_OPTIONS = 1 << 4,
};

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

#endif
