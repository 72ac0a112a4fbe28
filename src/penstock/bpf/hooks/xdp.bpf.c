/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * xdp.bpf.c - what a generated file ends with at XDP: what is answered for a decision, and the program.
 */

_Static_assert(PS_DROP == 1 && PS_PASS == 2 && PS_BOUNCE == 3, "the verdicts' codes are those of enum xdp_action");

#ifdef PS_REDIRECTS
/* Where packets are redirected to, by the device's number; those on their way to one leave in batches. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, PS_DEVICES);
	__type(key, __u32);
	__type(value, __u32);
} ps_devmap SEC(".maps");

static long (*const bpf_redirect_map)(void *map, __u64 key, __u64 flags) = (void *)51;
#endif

#ifdef PS_REJECTS
#include <penstock/reject_xdp.bpf.h>
#endif

/*
 * ps_act - carry a decision out, and give the action code.
 *
 * A frame to be sent back has its MAC addresses swapped first.  One for a device
 * that has gone away, which the kernel takes out of the map, is dropped.
 */
static __always_inline int ps_act(struct ps_ctx *ctx, __u32 decision)
{
	int code = ps_code_of(decision);
	__u16 *mac = ps_data(ctx);

#ifdef PS_REDIRECTS
	if (code == PS_REDIRECT)
		return bpf_redirect_map(&ps_devmap, ps_device_of(ps_slot_of(decision)), PS_DROP);
#endif
#ifdef PS_REJECTS
	if (code == PS_REJECT)
		return ps_reject(ctx) ? PS_BOUNCE : PS_DROP;
#endif
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
