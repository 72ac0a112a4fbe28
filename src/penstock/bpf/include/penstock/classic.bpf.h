/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * classic.bpf.h - what a classic BPF program does that C does not.
 *
 * A program is printed as a global function over its registers a, x and m0..m15
 * (codegen/classic.py), with a goto for each jump.  A load beyond the packet and
 * a division by zero make it return 0, as in libpcap's interpreter.
 */
#ifndef PENSTOCK_CLASSIC_BPF_H
#define PENSTOCK_CLASSIC_BPF_H

#include <penstock/cursor.bpf.h>

/*
 * PS_CLASSIC_LOAD - `size` bytes of the packet at `base` + `offset` into a register.
 *
 * The value is masked behind an empty asm, or the verifier would know less of
 * one that ps_far has read than of one from the linear part, and follow both
 * through the rest of the program: a doubling with every load.
 */
#define PS_CLASSIC_LOAD(register, base, offset, size) \
	do { \
		__u64 ps_value = ps_load(ctx, base, offset, size); \
\
		if (ps_value == PS_ABSENT64) \
			return 0; \
		asm volatile("" : "+r"(ps_value)); \
		(register) = ps_value & (0xffffffffU >> (32 - 8 * (size))); \
	} while (0)

/* PS_CLASSIC_LENGTH - the length of the IPv4 header whose first byte is at `offset`, into x. */
#define PS_CLASSIC_LENGTH(register, offset) \
	do { \
		__u32 ps_first; \
\
		PS_CLASSIC_LOAD(ps_first, 0, offset, 1); \
		(register) = 4 * (ps_first & 15); \
	} while (0)

/*
 * PS_CLASSIC_APART - what stands behind asks a register that clang knows nothing of.
 *
 * clang joins hundreds of comparisons of one value into a switch, and keeps that
 * switch's 64-bit masks on the stack, which holds 512 bytes (clang 19).
 */
#define PS_CLASSIC_APART(register) asm volatile("" : "+r"(register))

#endif
