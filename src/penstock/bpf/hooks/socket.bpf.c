/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * socket.bpf.c - what a generated file ends with at a socket: what is answered for a verdict, and the program.
 */

/* ps_act - give how many bytes of the packet the socket gets: all, or none and it never hears of the packet. */
static __always_inline int ps_act(struct ps_ctx *ctx, __u32 decision)
{
	return ps_code_of(decision) == PS_DROP ? 0 : -1;
}

#include <penstock/aggregate.bpf.h>
#include <penstock/filter.bpf.h>
