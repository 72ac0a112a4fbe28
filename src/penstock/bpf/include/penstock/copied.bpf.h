/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * copied.bpf.h - the rules' reads out of the copy of a packet's head.
 *
 * So they go at sockets, and at every hook for a loader without CAP_PERFMON, to
 * whom the verifier allows no arithmetic with packet pointers: neither the
 * difference of two nor the sum with a number that it does not know.  Then all
 * packets take the exact parser's way (ps_begin says so), and what it does not
 * have a copy of is read by the kernel's helpers.
 */
#ifndef PENSTOCK_COPIED_BPF_H
#define PENSTOCK_COPIED_BPF_H

#include <penstock/view.bpf.h>

/*
 * ps_less_one - a size less one, to be compared and then passed on plus one.
 *
 * A helper takes no size of zero (bpf_skb_load_bytes before Linux 6.14), and what
 * the verifier of Linux 6.1 learns from a comparison with zero is nothing, from one
 * of another register less still.
 */
static __always_inline __u32 ps_less_one(__u32 size)
{
	size -= 1;
	asm volatile("" : "+r"(size));
	return size;
}

__noinline __u64 ps_far(struct ps_ctx *ctx, __u32 at, __u32 size);

/*
 * ps_barrier - what the processor guesses ends here, where the program is guarded against that.
 *
 * The verifier then follows each branch the wrong way, too, and a loop without
 * end.  It gives that up at an instruction that is wrong on such a way alone, and
 * puts a barrier before it (Linux 6.17): here a shift of the stack's pointer.
 */
#define ps_barrier() \
	do { \
		if (ps_by_helpers) \
			asm volatile("r5 = 0\n\tif r5 == 0 goto +1\n\tr5 = r10\n\tr5 <<= 1" : : : "r5"); \
	} while (0)

/*
 * ps_unguarded - what follows is for programs that are not guarded against speculation.
 *
 * The verifier of a guarded one is here on a way that the processor only guesses,
 * and goes no further: the stack's pointer is led astray.  Of others it adds 0.
 */
#define ps_unguarded() asm volatile("r5 = r10\n\tr5 += %0" : : "r"((__u64)ps_by_helpers << 12) : "r5")

/* ps_apart - the ends of two branches stay two: clang would make one store to a place that it knows two of (see ps_hidden). */
#define ps_apart(number) asm volatile("" : : "i"(number))

/*
 * ps_hidden - a number that the verifier knows nothing of, `unknown` being another one.
 *
 * Where it guards against speculation it refuses a sum of which it knows different
 * numbers on the ways that lead to it.
 */
static __always_inline __u32 ps_hidden(__u32 number, __u32 unknown)
{
	if (!__builtin_constant_p(number)) {
		number ^= unknown;
		asm volatile("" : "+r"(number));
		number ^= unknown;
	}
	return number;
}

/* ps_load_copied - `size` bytes at `at`; PS_ABSENT64 if one of them is beyond the packet. */
static __always_inline __u64 ps_load_copied(struct ps_ctx *ctx, __u64 at, const __u32 size)
{
	struct ps_scratch *scratch = ps_scratch_area();
	__u32 have;

	if (!scratch)
		return PS_ABSENT64;
	have = ps_unknown(scratch->have);
	asm volatile("" : "+r"(at));
	if (at + size <= have) {
		const void *p = scratch->head + (ps_hidden(at, have) & (PS_HEAD - 1));

		return size == 1 ? *(__u8 *)p : size == 2 ? ps_ntohs(*(__be16 *)p) : ps_ntohl(*(__be32 *)p);
	}
	return ps_far(ctx, at, size);
}

#endif
