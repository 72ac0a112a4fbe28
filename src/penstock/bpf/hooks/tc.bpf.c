/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * tc.bpf.c - what a generated file ends with at TC: what is answered for a decision, and the program.
 */

enum { TC_ACT_UNSPEC = -1, TC_ACT_SHOT = 2 };

#ifdef PS_MANGLES
#include <penstock/mangle_tc.bpf.h>
#endif
#ifdef PS_REJECTS
#include <penstock/reject_tc.bpf.h>
#endif

/*
 * ps_act - carry a decision out, and give the action code; what passes is for the programs behind this one to decide.
 *
 * The kernel drops what is redirected to a device that is no more.
 */
static __always_inline int ps_act(struct ps_ctx *ctx, __u32 decision)
{
	__u32 code = ps_code_of(decision);

#ifdef PS_MANGLES
	ps_carry_out(ctx, code);
#endif
#ifdef PS_REDIRECTS
	if (code == PS_REDIRECT) {
		__u32 device = ps_device_of(ps_slot_of(decision));

		return bpf_redirect(device < PS_DEVICES ? ps_devices[device] : 0, 0);
	}
#endif
#ifdef PS_REJECTS
	if (code == PS_REJECT)
		return ps_reject(ctx) ? bpf_redirect(ctx->ifindex, 0) : TC_ACT_SHOT;
#endif
	return code == PS_DROP ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

#include <penstock/aggregate.bpf.h>
#include <penstock/filter.bpf.h>
