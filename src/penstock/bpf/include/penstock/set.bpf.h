/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * set.bpf.h - sets that live in maps of their own, shared by all programs that ask them.
 *
 * A value begins with a word of state (penstock/model/sets.py):
 *
 *     bits 0, 1    is what has this key as its longest match in the set, while bank 0 or 1 is the active one
 *     bits 2, 3    the same of this very entry; user space alone reads them
 *     the rest     the expiry on the boot clock in nanoseconds, rounded down to 16; 0 is never
 *
 * A change of many entries writes those that come for the other bank only, takes
 * those that go out of it, and moves `active` by one store: packets meet the old
 * content or the new, and so does whoever is left when the writer is killed.  A
 * set that is empty before or after a change is in no bank at all meanwhile, and
 * each of its entries is written once.  The clock is read for an entry that was
 * found and may expire, the control for one that was found.
 *
 * Elements are allocated one by one: a removed one is not given away before every
 * packet has left it, as a preallocated one is.
 */
#ifndef PENSTOCK_SET_BPF_H
#define PENSTOCK_SET_BPF_H

#include <penstock/verdict.bpf.h>

enum { BPF_MAP_TYPE_HASH = 1, BPF_MAP_TYPE_LPM_TRIE = 11 };
enum { BPF_F_NO_PREALLOC = 1 };

struct ps_set_control {
	__u32 active;	/* the bank that counts, 0 or 1; 2 for none */
	__u32 changing;	/* whether a change has begun that has not ended */
	__u32 expiring;	/* not 0 while an entry may have an expiry, as user space knows */
	__u32 timed;	/* of a flat set: whether a trie beside it may hold an entry */
	__u64 entries[2];	/* of each family, as user space knows */
};

struct ps_set_value {
	__u64 state;
};

struct ps_set_counted {
	__u64 state, packets, bytes;
};

struct ps_set_network {
	__u64 state, own;
};

struct ps_set_network_counted {
	__u64 state, own, packets, bytes;
};

#define PS_SET_MAP(name, kind, entries, flags, value_type) \
	struct { \
		__uint(type, kind); \
		__uint(max_entries, entries); \
		__uint(map_flags, flags); \
		__type(key, struct name##_key); \
		__type(value, value_type); \
	} name SEC(".maps")

/* A variable in a section of its own, which is a map, and read without a lookup: no call, no key, no doubt. */
#define PS_SET_CONTROL(set) volatile struct ps_set_control set##_control SEC(".data." #set) = {}

/* ps_set_is_in - whether an entry of that state is in the set while `active` is the bank that counts. */
static __always_inline bool ps_set_is_in(__u64 state, __u32 active)
{
	if (!((state & 3) >> (active & 3) & 1))
		return false;
	state &= ~15ULL;
	return !state || ps_now() < state;
}

/* ps_set_holds - whether an entry that was found is in the set at this moment. */
static __always_inline bool ps_set_holds(__u64 state, const volatile struct ps_set_control *control)
{
	return ps_set_is_in(state, control->active);
}

static __always_inline void ps_set_count(__u64 *packets, __u32 len)
{
	if (ps_is_trial())
		return;
	__sync_fetch_and_add(&packets[0], 1);
	__sync_fetch_and_add(&packets[1], len);
}

#endif
