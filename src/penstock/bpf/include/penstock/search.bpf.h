/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * search.bpf.h - is a number in a long list of intervals?
 *
 * The list is a run of `count` ascending boundaries from `first` on in a table:
 * the start of each interval, and the number after its end.  A number lies
 * inside if it has an odd number of boundaries at or below it.
 *
 * The search is without branches: where a compare decided which half to take,
 * the verifier would follow both each time, 2^steps paths.  The difference is
 * kept from clang, which would turn the arithmetic back into a branch, and the
 * shift is a logical one, since the verifier splits on an arithmetic one.
 * Global functions, so that they are verified once for all lists.
 */
#ifndef PENSTOCK_SEARCH_BPF_H
#define PENSTOCK_SEARCH_BPF_H

#include <penstock/uapi.bpf.h>

#define PS_SEARCH_STEPS 20	/* lists of up to 2^20 boundaries */

/* All ones if boundary <= key, else 0; both below 2^63. */
static __always_inline __u64 ps_at_or_below(__u64 boundary, __u64 key)
{
	__u64 difference = key - boundary;

	asm volatile("" : "+r"(difference));
	return (difference >> 63) - 1;
}

/* 1 if a < b, of any two numbers. */
static __always_inline __u64 ps_borrow(__u64 a, __u64 b)
{
	__u64 top = (~a & b) | (~(a ^ b) & (a - b));

	asm volatile("" : "+r"(top));
	return top >> 63;
}

/* The same of 128 bits: all ones if boundary <= key, else 0. */
static __always_inline __u64 ps_at_or_below128(const __u64 *boundary, __u64 high, __u64 low)
{
	__u64 differs = high ^ boundary[0];
	__u64 equal = ~(differs | -differs) >> 63;

	asm volatile("" : "+r"(equal));
	return (ps_borrow(high, boundary[0]) | (equal & ps_borrow(low, boundary[1]))) - 1;
}

/* Define a global function `name` of a key's parameters; `size` is the table's. */
#define PS_SEARCH(name, size, at_or_below, ...) \
	__noinline int name(__VA_ARGS__, __u32 first, __u32 count) \
	{ \
		__u32 found = 0; \
\
		for (int step = 0; step < PS_SEARCH_STEPS && count; step++) { \
			__u32 half = (count + 1) / 2, at = first + found + half - 1; \
\
			asm volatile("" : "+r"(at)); \
			if (at >= (size)) \
				return 0; \
			found += half & (at_or_below); \
			count -= half; \
		} \
		return found & 1; \
	}

#endif
