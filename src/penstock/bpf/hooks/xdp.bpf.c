/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * xdp.bpf.c - what a generated file ends with at XDP: what is answered for a verdict, and the program.
 */

_Static_assert(PS_DROP == 1 && PS_PASS == 2 && PS_BOUNCE == 3, "the verdicts' codes are those of enum xdp_action");

/* ps_act - give the action code; a frame to be sent back has its MAC addresses swapped first. */
static __always_inline int ps_act(struct ps_ctx *ctx, int code)
{
	__u16 *mac = ps_data(ctx);

	if (!PS_BOUNCES || code != PS_BOUNCE)
		return code;
	if ((void *)(mac + 6) > ps_data_end(ctx))
		return code;
	for (int k = 0; k < 3; k++) {
		__u16 destination = mac[k];

		mac[k] = mac[k + 3];
		mac[k + 3] = destination;
	}
	return code;
}

#include <penstock/filter.bpf.h>
