/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * added.bpf.h - entries that rules add to sets.
 *
 * They lie in maps of their own beside what commands and feeds put into a set,
 * so neither ever writes over the other, and a rule takes away only what rules
 * have added: no sender of packets can lift a ban.  A value begins with the
 * expiry on the boot clock, 0 for never, and has no banks.
 *
 * Nothing is evicted.  Each key waits in a queue for its turn to be looked at;
 * whoever adds one lets the first few step forward: those that have expired are
 * removed, the others wait again.  So room is made without user space, and a set
 * that is full of live entries refuses, which is counted.
 *
 * `came` and `went` only grow, each addition and each removal that the map has
 * confirmed counts once: their difference is what is there.  User space counts
 * what it removes by itself (`swept`), as it cannot add to a word of ours in one
 * step.  Whoever reads them reads `came` last: it may be too large, never too small.
 *
 * Between a look at an entry that has expired and its removal lie a few
 * nanoseconds; one that is revived just then is lost, and the next packet adds it.
 * So it is when two processors lengthen one entry at once: the later store stays.
 * A compare-and-exchange would close both gaps, but is unknown before Linux 5.12.
 */
#ifndef PENSTOCK_ADDED_BPF_H
#define PENSTOCK_ADDED_BPF_H

#include <penstock/set.bpf.h>

enum { BPF_MAP_TYPE_QUEUE = 22 };
enum { BPF_ANY, BPF_NOEXIST, BPF_EXIST };

/* How many keys step forward for one that comes: usually, and when there is no room. */
#define PS_TURNS 2
#define PS_MORE_TURNS 8

static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*const bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static long (*const bpf_map_push_elem)(void *map, const void *value, __u64 flags) = (void *)87;
static long (*const bpf_map_pop_elem)(void *map, void *value) = (void *)88;

struct ps_set_tally {
	__u64 came[2];	/* of each family: entries that rules have added */
	__u64 went[2];	/* entries that programs have removed */
	__u64 swept[2];	/* entries that user space has removed */
	__u64 refused[2];	/* packets whose key found no room */
};

#define PS_SET_TURNS(name, count, entry) \
	struct { \
		__uint(type, BPF_MAP_TYPE_QUEUE); \
		__uint(max_entries, count); \
		__type(value, entry); \
	} name SEC(".maps")

#define PS_SET_TALLY(name) \
	struct { \
		__uint(type, BPF_MAP_TYPE_ARRAY); \
		__uint(max_entries, 1); \
		__uint(map_flags, BPF_F_MMAPABLE); \
		__type(key, __u32); \
		__type(value, struct ps_set_tally); \
	} name SEC(".maps")

static __always_inline __u64 ps_set_left(const volatile struct ps_set_tally *tally, const __u32 family)
{
	__u64 gone = tally->went[family] + tally->swept[family];

	return tally->came[family] - gone;
}

/* ps_set_any - whether rules have added anything that is still there. */
static __always_inline bool ps_set_any(void *map, const __u32 family)
{
	__u32 zero = 0;
	struct ps_set_tally *tally = bpf_map_lookup_elem(map, &zero);

	return tally && ps_set_left(tally, family);
}

static __always_inline bool ps_set_lives(__u64 end)
{
	return !end || ps_now() < end;
}

/* The maps of a family of a set, and what is known of it. */
struct ps_set_added {
	void *added, *turn, *tally;
	const volatile struct ps_set_control *control;
	__u32 family;
	__u64 size;
};

/* ps_set_turn - let the first key step forward; `key` is room for one. */
static __always_inline bool ps_set_turn(const struct ps_set_added set, struct ps_set_tally *tally, void *key)
{
	volatile struct ps_set_value *entry;

	if (bpf_map_pop_elem(set.turn, key))
		return false;
	entry = bpf_map_lookup_elem(set.added, key);
	if (!entry)
		return true;
	if (ps_set_lives(entry->state))
		return !bpf_map_push_elem(set.turn, key, BPF_ANY);
	if (!bpf_map_delete_elem(set.added, key))
		__sync_fetch_and_add(&tally->went[set.family], 1);
	return true;
}

static __always_inline bool ps_set_has_room(const struct ps_set_added set, struct ps_set_tally *tally)
{
	return set.control->entries[set.family] + ps_set_left(tally, set.family) < set.size;
}

/* ps_set_lengthens - whether the key is there, and now stays at least until `end`. */
static __always_inline bool ps_set_lengthens(const struct ps_set_added set, const void *key, __u64 end)
{
	volatile struct ps_set_value *entry = bpf_map_lookup_elem(set.added, key);
	__u64 before;

	if (!entry)
		return false;
	before = entry->state;
	if (before && (!end || before < end))
		entry->state = end;
	if (ps_set_lives(before))
		return true;
	/* One that had expired may have been removed just now. */
	return bpf_map_lookup_elem(set.added, key);
}

/* ps_set_step - the turn of number `k`; whether there may be another one. */
static __always_inline bool ps_set_step(const struct ps_set_added set, struct ps_set_tally *tally, void *spare, const __u32 k)
{
	if (k >= PS_TURNS && ps_set_has_room(set, tally))
		return false;
	return ps_set_turn(set, tally, spare);
}

/*
 * ps_set_turns - let PS_TURNS keys step forward, and as many as PS_MORE_TURNS where there is no room.
 *
 * No loop: the verifier of a program that is guarded against speculation would never leave it (copied.bpf.h).
 */
static __always_inline void ps_set_turns(const struct ps_set_added set, struct ps_set_tally *tally, void *spare)
{
#define PS_STEP(k) ps_set_step(set, tally, spare, k)
	_Static_assert(PS_MORE_TURNS == 8, "as many steps");
	(void)(PS_STEP(0) && PS_STEP(1) && PS_STEP(2) && PS_STEP(3) && PS_STEP(4) && PS_STEP(5) && PS_STEP(6) &&
	       PS_STEP(7));
#undef PS_STEP
}

/* ps_set_put - add a key for so many nanoseconds, 0 for ever; `value` is room for one, all 0, `spare` for a key. */
static __always_inline void ps_set_put(const struct ps_set_added set, const void *key, struct ps_set_value *value,
				       void *spare, __u64 stay)
{
	__u32 zero = 0;
	__u64 end = stay ? (ps_now() + stay) & ~15ULL : 0;
	struct ps_set_tally *tally = bpf_map_lookup_elem(set.tally, &zero);

	if (!tally || ps_adds_nothing() || ps_set_lengthens(set, key, end))
		return;
	ps_set_turns(set, tally, spare);
	value->state = end;
	/* The turn first: an entry without one would never be removed. */
	if (!ps_set_has_room(set, tally) || bpf_map_push_elem(set.turn, key, BPF_ANY)) {
		__sync_fetch_and_add(&tally->refused[set.family], 1);
		return;
	}
	if (!bpf_map_update_elem(set.added, key, value, BPF_NOEXIST))
		__sync_fetch_and_add(&tally->came[set.family], 1);
}

/* ps_set_take - remove a key, if a rule has added it. */
static __always_inline void ps_set_take(const struct ps_set_added set, const void *key)
{
	__u32 zero = 0;
	struct ps_set_tally *tally = bpf_map_lookup_elem(set.tally, &zero);

	if (tally && !ps_adds_nothing() && !bpf_map_delete_elem(set.added, key))
		__sync_fetch_and_add(&tally->went[set.family], 1);
}

/* Where added rules may stand before a rule of the program, overlay.bpf.h has another one. */
#ifndef ps_reached
#define ps_reached(slot) 1
#endif

#endif
