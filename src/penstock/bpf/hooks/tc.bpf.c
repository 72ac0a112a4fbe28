/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * tc.bpf.c - what a generated file ends with at TC: what is answered for a verdict, and the program.
 */

enum { TC_ACT_UNSPEC = -1, TC_ACT_SHOT = 2 };

/* ps_act - give the action code; what passes is for the programs behind this one to decide. */
static __always_inline int ps_act(struct ps_ctx *ctx, __u32 decision)
{
	return ps_code_of(decision) == PS_DROP ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

#include <penstock/aggregate.bpf.h>
#include <penstock/filter.bpf.h>
