/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * term.bpf.h - pcap-filter's arithmetic, and tests of numbers.
 *
 * A term is a __u64 that holds a 32-bit number, or PS_ABSENT64 when it needs a
 * byte the packet does not have, or divides by zero.  An absent operand makes
 * the result absent, and a comparison with it false.
 */
#ifndef PENSTOCK_TERM_BPF_H
#define PENSTOCK_TERM_BPF_H

#include <penstock/cursor.bpf.h>

/* ps_term - a field of less than 32 bits as a term. */
static __always_inline __u64 ps_term(__u32 field)
{
	return field == PS_ABSENT ? PS_ABSENT64 : field;
}

#define PS_BINARY(name, defined, expression) \
	static __always_inline __u64 ps_##name(__u64 left, __u64 right) \
	{ \
		__u32 a = left, b = right; \
\
		return (left | right) >> 32 || !(defined) ? PS_ABSENT64 : (__u32)(expression); \
	}

PS_BINARY(add, 1, a + b)
PS_BINARY(sub, 1, a - b)
PS_BINARY(mul, 1, a * b)
PS_BINARY(div, b, a / b)
PS_BINARY(mod, b, a % b)
PS_BINARY(and, 1, a & b)
PS_BINARY(or, 1, a | b)
PS_BINARY(xor, 1, a ^ b)
PS_BINARY(lsh, 1, b < 32 ? a << b : 0)
PS_BINARY(rsh, 1, b < 32 ? a >> b : 0)

#define PS_COMPARE(left, operator, right) \
	({ \
		__u64 ps_l = (left), ps_r = (right); \
		!((ps_l | ps_r) >> 32) && ps_l operator ps_r; \
	})

/* ps_walked - whether the extension headers include those of `bit`. */
static __always_inline bool ps_walked(__u32 headers, __u32 bit)
{
	return headers <= 0xff && headers & bit;
}

#endif
