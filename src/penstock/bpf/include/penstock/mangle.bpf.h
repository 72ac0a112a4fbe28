/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * mangle.bpf.h - what rules ask to be done with a packet besides its verdict.
 *
 * Rules that do not decide ask (ps_want_...), and the hook's frame carries it
 * out once the decision has fallen: until then every rule sees the packet as it
 * arrived.  Of marks the last one counts, bit by bit, and of DSCPs the last one.
 */
#ifndef PENSTOCK_MANGLE_BPF_H
#define PENSTOCK_MANGLE_BPF_H

#include <penstock/uapi.bpf.h>

struct ps_wishes {
	__u32 mark, mask;
	__u32 dscp;	/* plus one, 0 for none */
	__u32 mirrors;	/* a bit for each device */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ps_wishes);
} ps_wishes SEC(".maps");

static __always_inline struct ps_wishes *ps_wishes_area(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&ps_wishes, &zero);
}

/* ps_want_nothing - forget what the packet before asked for. */
static __always_inline void ps_want_nothing(void)
{
	struct ps_wishes *wishes = ps_wishes_area();

	if (wishes)
		*wishes = (struct ps_wishes){};
}

static __always_inline void ps_want_mark(__u32 value, __u32 mask)
{
	struct ps_wishes *wishes = ps_wishes_area();

	if (wishes) {
		wishes->mark = (wishes->mark & ~mask) | value;
		wishes->mask |= mask;
	}
}

static __always_inline void ps_want_dscp(__u32 value)
{
	struct ps_wishes *wishes = ps_wishes_area();

	if (wishes)
		wishes->dscp = value + 1;
}

static __always_inline void ps_want_mirror(__u32 device)
{
	struct ps_wishes *wishes = ps_wishes_area();

	if (wishes)
		wishes->mirrors |= 1U << device;
}

/* Where added rules may stand before a rule of the program, overlay.bpf.h has another one. */
#ifndef ps_reached
#define ps_reached(slot) 1
#endif

#endif
