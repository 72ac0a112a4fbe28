/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * limit.bpf.h - token buckets, and samples.
 *
 * A bucket is the time at which it is full again: `full_at` nanoseconds of the
 * boot clock and `part` of one, so that nothing is ever rounded.  A packet that
 * may pay moves that time by what its tokens take to come.  It may if that is no
 * more than a burst ahead, or if the bucket is full: a packet that costs more
 * than a burst is owed, and its debt is paid back before the next
 * (penstock.compiler.ir.buckets is the same in whole numbers).
 *
 * A table is an array of rows of PS_WAYS buckets.  A key has a row in the first
 * half and one in the second, found by hashes that nobody outside can foresee, and
 * takes a place whose bucket is full: it says nothing that a new one would not
 * say.  So a place is given away without loss, never one whose bucket still
 * counts, and whoever came twice keeps its place for PS_GRACE longer, so that it is
 * not lost to a flood of sources that come once.  The second row is looked into
 * only if the first has no place, or if a bucket in the second half may still count
 * whose key came by way of the first: `spilled` says until when.  A key that finds
 * no place in either is judged by the bucket of the row behind all others, which
 * all such keys have in common.
 *
 * An LRU map would make room by forgetting buckets that still count, 128 at a
 * time, and a flood chooses which.
 *
 * A row is under a lock while it is read and changed, and a key's first row while
 * anything is done about the key: no token is given twice.  The lock of a row of the
 * second half is taken after that of one of the first, so that none waits for another.
 */
#ifndef PENSTOCK_LIMIT_BPF_H
#define PENSTOCK_LIMIT_BPF_H

#include <penstock/verdict.bpf.h>

#define PS_WAYS 8
#define PS_GRACE 1000000000ULL
/* Of a key; clang before 15 unrolls what it can count before it inlines, and no other loop over keys is taken without CAP_PERFMON. */
#define PS_MOST_WORDS 5
#define PS_MOST_COST ((1ULL << 20) - 1)
#define PS_NO_PLACE 255
#define PS_FOUND 8	/* added to the number of a place that is the key's own */
#define PS_PATIENCE 256	/* tries to take a row's lock */

static __u32 (*const bpf_get_prandom_u32)(void) = (void *)7;

/* What a hash begins with; set where the program is loaded, and kept over reloads. */
const volatile __u64 ps_limit_seed = 0;

/* A rate: what a token takes to come, what an empty bucket takes to be full, in `share`-ths of a nanosecond. */
struct ps_rate {
	__u64 token, share;
	__u64 burst_ns, burst_part;
};

/* A bucket, its key behind it. */
struct ps_bucket {
	__u64 full_at;
	__u32 part;
	__u32 again;	/* whether the key came more than once */
	__u64 key[];
};

/*
 * The kernel's own lock turns interrupts off and on again, which costs more than
 * all the rest.  It is for kernels that have no atomic exchange (before 5.12); the
 * verifier lets no socket filter take it.
 */
#ifdef PS_SPIN_LOCKS
/* The verifier lets nobody hold two of them (until 6.15): a key has one row. */
#define PS_FIRST_ROWS(rows) (rows)
struct bpf_spin_lock {
	__u32 val;
};
static long (*const bpf_spin_lock)(struct bpf_spin_lock *lock) = (void *)93;
static long (*const bpf_spin_unlock)(struct bpf_spin_lock *lock) = (void *)94;
#define ps_lock struct bpf_spin_lock

static __always_inline bool ps_lock_row(ps_lock *lock)
{
	bpf_spin_lock(lock);
	return true;
}

static __always_inline void ps_unlock_row(ps_lock *lock)
{
	bpf_spin_unlock(lock);
}
#else
#define PS_FIRST_ROWS(rows) (((rows) + 1) / 2)
#define ps_lock __u32
#define PS_SHORT_PATIENCE 64

/*
 * A lock of our own, held for some twenty instructions and given up on: who holds
 * it may be the very thread that this one has interrupted, a filter of a packet
 * that is sent, or a processor that its hypervisor has stopped.
 */
static __always_inline bool ps_lock_row(ps_lock *lock)
{
	/* Written out: of a loop the verifier follows more rounds than there are, where it follows wrong guesses. */
	if (ps_by_helpers) {
#pragma unroll
		for (__u32 k = 0; k < PS_SHORT_PATIENCE; k++) {
			if (!__sync_lock_test_and_set(lock, 1))
				return true;
		}
		return false;
	}
	ps_unguarded();
#pragma clang loop unroll(disable)
	for (__u32 k = 0; k < PS_PATIENCE; k++) {
		if (!__sync_lock_test_and_set(lock, 1))
			return true;
	}
	return false;
}

static __always_inline void ps_unlock_row(ps_lock *lock)
{
	__sync_lock_test_and_set(lock, 0);
}
#endif

/*
 * The head of a row.  What is chosen under the lock is stored and read again,
 * so that the verifier does not follow each way in which it was found.
 */
struct ps_row {
	ps_lock lock;
	__u32 place;
	__u64 given;	/* places that were another key's before */
	__u64 refused;	/* packets whose key found no place, in its first row */
	__u64 spilled;	/* when all buckets are full of whom this row sent to the second half */
};

/* A row with its buckets.  The kernel looks for a lock among a value's own members, behind no other name. */

#define PS_LIMIT_MAP(name, words, row_count) \
	struct name##_row { \
		ps_lock lock; \
		__u32 place; \
		__u64 given, refused, spilled; \
		__u64 way[PS_WAYS * (2 + (words))]; \
	}; \
	struct { \
		__uint(type, BPF_MAP_TYPE_ARRAY); \
		__uint(max_entries, (row_count) + 1); \
		__type(key, __u32); \
		__type(value, struct name##_row); \
	} name SEC(".maps")

/* ps_sampled - whether 32 random bits are below `chances`; of a trial only if that asks for it. */
static __always_inline bool ps_sampled(__u32 chances)
{
	struct ps_probe *probe = ps_probe_area();

	if (ps_is_trial())
		return ps_sampled_in_trial(chances);
	return (probe && probe->now ? probe->chance : bpf_get_prandom_u32()) < chances;
}

/* ps_cost - what a packet takes: one token, or its bytes; an aggregate that of its segments. */
static __always_inline __u64 ps_cost(struct ps_ctx *ctx, __u64 len, const bool bytes)
{
	struct ps_scratch *scratch;
	__u64 cost = bytes ? len : 1;

	if (ps_is_aggregate(ctx)) {
		scratch = ps_scratch_area();
		if (scratch)
			cost = bytes ? scratch->octets : scratch->segments;
	}
	return cost < PS_MOST_COST ? cost : PS_MOST_COST;
}

/* ── keys ────────────────────────────────────────────────────────────────── */

/* ps_key_address - an address as two words, cut to a prefix; false of a packet without one. */
static __always_inline bool ps_key_address(__u64 *key, __u64 four, const struct ps_ip6 *six, __u32 mask, __u64 hi, __u64 lo)
{
	if (four <= 0xffffffffULL) {
		key[0] = 0;
		key[1] = 0xffff00000000ULL | (four & mask);
		return true;
	}
	key[0] = six->hi & hi;
	key[1] = six->lo & lo;
	return six->present;
}

/* ps_key_ports - protocol and ports as a word; a port that is not there as 0. */
static __always_inline bool ps_key_ports(__u64 *key, __u32 proto, __u32 sport, __u32 dport)
{
	*key = (__u64)proto << 32 | (sport > 0xffff ? 0 : sport << 16) | (dport > 0xffff ? 0 : dport);
	return proto <= 0xff;
}

/* A word of protocol and ports has room for a cost above it. */
#define PS_COST_AT 40
_Static_assert((PS_MOST_COST << PS_COST_AT >> PS_COST_AT) == PS_MOST_COST, "a cost needs more bits");
#define ps_with_cost(word, cost) ((word) | (cost) << PS_COST_AT)
#define ps_less_cost(joint) ((joint) & ((1ULL << PS_COST_AT) - 1))
#define ps_cost_with(joint) ((joint) >> PS_COST_AT)

/* ps_key_number - a field of at most 16 bits. */
static __always_inline bool ps_key_number(__u64 *key, __u32 number)
{
	*key = number;
	return number <= 0xffff;
}

static __always_inline __u64 ps_key_hash(const __u64 *key, const __u32 words)
{
	__u64 hash = ps_limit_seed;

#pragma unroll
	for (__u32 k = 0; k < PS_MOST_WORDS; k++) {
		if (k >= words)
			break;
		hash = (hash ^ key[k]) * 0x9e3779b97f4a7c15ULL;
		hash ^= hash >> 29;
	}
	return hash * 0xbf58476d1ce4e5b9ULL;
}

/* ps_second_hash - a number that the first half of the hash does not tell. */
static __always_inline __u64 ps_second_hash(__u64 hash)
{
	hash ^= hash >> 31;
	return hash * 0x94d049bb133111ebULL;
}

static __always_inline bool ps_key_is(const struct ps_bucket *bucket, const __u64 *key, const __u32 words)
{
	__u64 other = 0;

#pragma unroll
	for (__u32 k = 0; k < PS_MOST_WORDS; k++)
		if (k < words)
			other |= bucket->key[k] ^ key[k];
	return !other;
}

/* ── buckets ─────────────────────────────────────────────────────────────── */

/* What a packet takes, in nanoseconds and parts of one. */
struct ps_price {
	__u64 ns, part;
};

/* ps_over_bucket - whether the bucket cannot pay; else it has paid.  Hold its row's lock. */
static __always_inline bool ps_over_bucket(struct ps_bucket *bucket, __u64 now, struct ps_rate rate, struct ps_price price)
{
	__u64 full_at = bucket->full_at, part = bucket->part;
	bool full = full_at < now || (full_at == now && !part);

	if (full) {
		full_at = now;
		part = 0;
	}
	full_at += price.ns;
	part += price.part;
	if (part >= rate.share) {
		part -= rate.share;
		full_at++;
	}
	if (!full && (full_at - now > rate.burst_ns || (full_at - now == rate.burst_ns && part > rate.burst_part)))
		return true;
	bucket->full_at = full_at;
	bucket->part = part;
	return false;
}

static __always_inline struct ps_bucket *ps_bucket_at(struct ps_row *row, __u64 place, const __u32 words)
{
	return (void *)(row + 1) + place * (16 + 8 * words);
}

/* ps_find_place - the place of a key in its row: its own, another's whose bucket is full, or PS_NO_PLACE. */
static __always_inline void ps_find_place(struct ps_row *row, const __u64 *key, const __u32 words, __u64 now)
{
	volatile __u32 *place = &row->place;

	*place = PS_NO_PLACE;
#pragma unroll
	for (__u32 k = 0; k < PS_WAYS; k++) {
		struct ps_bucket *bucket = ps_bucket_at(row, k, words);

		if (ps_key_is(bucket, key, words)) {
			*place = k + PS_FOUND;
			return;
		}
	}
	/* Only now: who is known is met far more often, and in the first places of its row. */
#pragma unroll
	for (__u32 k = 0; k < PS_WAYS; k++) {
		struct ps_bucket *bucket = ps_bucket_at(row, k, words);

		if (bucket->full_at + (bucket->again ? PS_GRACE : 0) <= now) {
			*place = k;
			return;
		}
	}
}

/* ps_over_place - the answer of a key's bucket at the place that was found for it.  Hold the lock. */
static __always_inline __u32 ps_over_place(struct ps_row *row, __u32 place, const __u64 *key, const __u32 words,
					   __u64 now, struct ps_rate rate, struct ps_price price)
{
	struct ps_bucket *bucket = ps_bucket_at(row, place & (PS_WAYS - 1), words);

	if (place >= PS_FOUND) {
		bucket->again = 1;
		return ps_over_bucket(bucket, now, rate, price);
	}
	if (bucket->full_at)
		row->given++;
	bucket->full_at = bucket->part = bucket->again = 0;
#pragma unroll
	for (__u32 k = 0; k < PS_MOST_WORDS; k++)
		if (k < words)
			bucket->key[k] = key[k];
	return ps_over_bucket(bucket, now, rate, price);
}

/*
 * ps_over_second - the answer of a key's second row, or PS_NO_PLACE.
 *
 * Hold the lock of the first.  `kept` says that there is a place there: then only
 * the key's own bucket is of interest here.
 */
static __always_inline __u32 ps_over_second(void *table, __u32 at, struct ps_row *first, bool kept, const __u64 *key,
					    const __u32 words, __u64 now, struct ps_rate rate, struct ps_price price)
{
	struct ps_row *row = bpf_map_lookup_elem(table, &at);
	__u32 place, answer = PS_NO_PLACE;
	__u64 full_at;

	if (!row || !ps_lock_row(&row->lock))
		return PS_NO_PLACE;
	ps_find_place(row, key, words, now);
	place = *(volatile __u32 *)&row->place;
	if (place != PS_NO_PLACE && (place >= PS_FOUND || !kept)) {
		answer = ps_over_place(row, place, key, words, now, rate, price);
		full_at = ps_bucket_at(row, place & (PS_WAYS - 1), words)->full_at;
		if (first->spilled < full_at)
			first->spilled = full_at;
	}
	ps_unlock_row(&row->lock);
	return answer;
}

/* ps_over_rows - the answer of a key's bucket, or PS_NO_PLACE. */
static __always_inline __u32 ps_over_rows(void *table, const __u64 *key, const __u32 words, const __u32 rows, __u64 now,
					  struct ps_rate rate, struct ps_price price)
{
	__u64 hash = ps_key_hash(key, words);
	__u32 at = ((hash >> 32) * PS_FIRST_ROWS(rows)) >> 32, place, answer = PS_NO_PLACE;
	struct ps_row *row = bpf_map_lookup_elem(table, &at);

	if (!row || !ps_lock_row(&row->lock))
		return PS_NO_PLACE;
	ps_find_place(row, key, words, now);
	place = *(volatile __u32 *)&row->place;
	if (rows > PS_FIRST_ROWS(rows) && (place == PS_NO_PLACE || (place < PS_FOUND && row->spilled >= now))) {
		at = ((ps_second_hash(hash) >> 32) * (rows - PS_FIRST_ROWS(rows))) >> 32;
		at += PS_FIRST_ROWS(rows);
		answer = ps_over_second(table, at, row, place != PS_NO_PLACE, key, words, now, rate, price);
	}
	if (answer == PS_NO_PLACE && place != PS_NO_PLACE)
		answer = ps_over_place(row, place, key, words, now, rate, price);
	else if (answer == PS_NO_PLACE)
		row->refused++;
	ps_unlock_row(&row->lock);
	return answer;
}

/* ps_over_common - the answer of the bucket of all keys without a place. */
static __always_inline bool ps_over_common(void *table, __u32 rows, __u64 now, struct ps_rate rate,
					   struct ps_price price)
{
	struct ps_row *row = bpf_map_lookup_elem(table, &rows);
	bool over;

	if (!row || !ps_lock_row(&row->lock))
		return true;
	over = ps_over_bucket(ps_bucket_at(row, 0, 0), now, rate, price);
	ps_unlock_row(&row->lock);
	return over;
}

#ifdef PS_EFFECTS
/* The limiters of which a trial's packets are over, a bit for each; the others find every bucket full. */
volatile __u32 ps_trial_over = 0;

static __always_inline bool ps_over_in_trial(const __u32 number)
{
	return ps_trial_over & 1U << number;
}
#else
#define ps_over_in_trial(number) false
#endif

/*
 * ps_over - whether the bucket of a key cannot pay for a packet; else it has paid.  `rows` may be 0.
 *
 * A trial finds every bucket full, as an explanation does, unless it is told otherwise of the limiter of that number.
 */
static __always_inline bool ps_over(void *table, const __u64 *key, const __u32 words, const __u32 rows,
				    const __u32 number, struct ps_rate rate, __u64 cost)
{
	__u64 parts = cost * rate.token, now = ps_now();
	struct ps_price price = { parts / rate.share, parts % rate.share };
	__u32 answer = PS_NO_PLACE;

	if (ps_is_trial())
		return ps_over_in_trial(number);
	if (rows)
		answer = ps_over_rows(table, key, words, rows, now, rate, price);
	return answer == PS_NO_PLACE ? ps_over_common(table, rows, now, rate, price) : answer;
}

#endif
