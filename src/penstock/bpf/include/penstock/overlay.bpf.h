/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * overlay.bpf.h - rules that were added to a running program.
 *
 * A large policy's tables take seconds to compile; a rule that is added to it
 * takes effect through a list that is searched beside them.  The list lies in
 * one of two banks: whoever changes it fills the bank that is not in use and
 * then switches, which is one store, so a packet meets all of a change or none
 * of it.  Packets that began before the switch are waited for before a bank is
 * filled again (pipeline/overlay.py).
 *
 * A record is a conjunction of conditions; the first record that fits names the
 * added rule.  It stands before the rule of the program whose slot is its
 * position, and wins if what the program comes to by itself lies at or behind
 * that slot.
 *
 * Most records fail by one field, so each has a key: a range that a field must lie
 * in, which is compared here; only what passes is looked at as a whole, in a
 * function of its own, since a call costs as much as two or three keys.
 *
 * src/penstock/model/overlay.py writes what this file reads.
 */
#ifndef PENSTOCK_OVERLAY_BPF_H
#define PENSTOCK_OVERLAY_BPF_H

#include <penstock/cursor.bpf.h>
#include <penstock/verdict.bpf.h>

#define PS_OVERLAY_RECORDS 64
#define PS_OVERLAY_CONDITIONS 8
#define PS_OVERLAY_TURN 8	/* so many records are counted by one function, or the verifier would follow all of them */
#define PS_OVERLAY_END 0xfffffffeU	/* the position behind all rules, before the default */
#define PS_OVERLAY_COUNTS 4
#define PS_OVERLAY_NONE 0xffffffffU	/* behind everything: no record fits */

/* How a condition reads its field. */
enum {
	PS_ASK_WORD,	/* 32 bits, in either of two ranges (low, high - low) */
	PS_ASK_LONG,	/* the same of 64 bits */
	PS_ASK_TAG,	/* the same of a part of a VLAN tag: its lowest bit, its mask in what is above */
	PS_ASK_BITS,	/* a number below 256: the bit of that number in `word` */
	PS_ASK_WIDE,	/* 128 bits in one range: lowest high and low half, highest high and low half */
};

struct ps_condition {
	__u64 word[4];
	__u16 at;	/* where in struct ps_scratch the field lies, below PS_OVERLAY_SPAN */
	__u8 ask;
	__u8 absent;	/* of BITS and WIDE: whether a packet without the field is meant too */
	__u16 mask;
	__u8 shift;
	__u8 unused;
};

struct ps_record {
	__u64 until;	/* the boot clock's time at which the rule ends, 0 for never */
	__u32 position;
	__u16 rule;	/* its counter is that of slot PS_ADDED + rule; records of one rule are neighbours */
	__u8 code;	/* the hook's action code, 0 if the rule only counts */
	__u8 conditions;
	struct ps_condition condition[PS_OVERLAY_CONDITIONS];
};

/* What must hold of 64 bits of struct ps_scratch if a record is to fit: (x >> shift & mask) - low <= span. */
struct ps_key {
	__u64 mask, low, span;
	__u16 at;
	__u8 shift;
	__u8 unused[5];
};

struct ps_overlay_bank {
	__u32 generation;
	__u32 records;
	__u32 counting;	/* how many of them only count */
	__u32 text_size;
	struct ps_key key[PS_OVERLAY_RECORDS];
	struct ps_record record[PS_OVERLAY_RECORDS];
	__u8 text[PS_OVERLAY_TEXT];	/* what user space keeps of the rules: it switches with them */
};

_Static_assert(__builtin_offsetof(struct ps_scratch, s[1]) <= PS_OVERLAY_SPAN, "a field is out of reach");
_Static_assert(sizeof(struct ps_overlay_bank) == PS_OVERLAY_BANK, "model/overlay.py has another layout");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct ps_overlay_bank);
} ps_added SEC(".maps");

/* in_use: 0 while there is no added rule, else the bank plus one, and 4 if a rule counts.  The rest is user space's. */
struct ps_overlay {
	__u32 in_use;
	__u32 generation;
	__u32 settled;
} ps_overlay SEC(".data.overlay") = {};

/*
 * ps_overlay_in_use - all that a packet pays while there are no added rules.
 *
 * Its loops are more than the verifier follows where it guards against
 * speculation: there added rules are compiled in (pipeline/overlaid.py).
 */
static __always_inline __u32 ps_overlay_in_use(void)
{
	if (ps_by_helpers)
		return 0;
	return *(volatile __u32 *)&ps_overlay.in_use;
}

static __always_inline struct ps_overlay_bank *ps_overlay_bank(__u32 in_use)
{
	__u32 number = (in_use & 3) - 1;

	return bpf_map_lookup_elem(&ps_added, &number);
}

static __always_inline struct ps_record *ps_overlay_record(__u32 in_use, __u32 number)
{
	struct ps_overlay_bank *b = ps_overlay_bank(in_use);
	__u64 at = number;

	asm volatile("" : "+r"(at));
	return b && at < PS_OVERLAY_RECORDS ? &b->record[at] : (void *)0;
}

static __always_inline bool ps_in_ranges(__u64 x, const struct ps_condition *c)
{
	return (x - c->word[0] <= c->word[1]) | (x - c->word[2] <= c->word[3]);
}

static __always_inline bool ps_in_wide(const struct ps_ip6 *a, const struct ps_condition *c)
{
	if (!a->present)
		return c->absent;
	if (a->hi < c->word[0] || (a->hi == c->word[0] && a->lo < c->word[1]))
		return false;
	return a->hi < c->word[2] || (a->hi == c->word[2] && a->lo <= c->word[3]);
}

static __always_inline bool ps_holds(const struct ps_scratch *scratch, const struct ps_condition *c)
{
	__u64 at = c->at & (PS_OVERLAY_SPAN - 4);
	const void *p;
	__u64 x;

	if (c->ask == PS_ASK_WORD)
		return ps_in_ranges(*(__u32 *)((void *)scratch + at), c);
	if (c->ask == PS_ASK_BITS) {
		x = *(__u32 *)((void *)scratch + at);
		return x > 255 ? c->absent : c->word[x >> 6 & 3] >> (x & 63) & 1;
	}
	if (c->ask == PS_ASK_TAG) {
		x = *(__u32 *)((void *)scratch + at);
		return ps_in_ranges(x > 0xffff ? PS_ABSENT : x >> (c->shift & 15) & c->mask, c);
	}
	p = (void *)scratch + (at & ~7ULL);
	if (c->ask == PS_ASK_LONG)
		return ps_in_ranges(*(__u64 *)p, c);
	return ps_in_wide(p, c);
}

/* ps_overlay_fits - whether record `number` is one that decides, or not, fits the packet and has not ended. */
__noinline __u32 ps_overlay_fits(struct ps_ctx *ctx, __u32 in_use, __u32 number, __u32 decides)
{
	struct ps_scratch *scratch = ps_scratch_area();
	struct ps_record *record = ps_overlay_record(in_use, number);

	ps_keep(ctx);
	if (!scratch || !record || !record->code == !!decides)
		return 0;
#pragma clang loop unroll(disable)
	for (__u32 k = 0; k < PS_OVERLAY_CONDITIONS; k++) {
		if (k >= record->conditions)
			break;
		if (!ps_holds(scratch, &record->condition[k]))
			return 0;
	}
	return !record->until || bpf_ktime_get_boot_ns() < record->until;
}

static __always_inline bool ps_key_passes(const struct ps_scratch *scratch, const struct ps_key *key)
{
	__u64 at = key->at & (PS_OVERLAY_SPAN - 8), x;

	x = *(__u64 *)((void *)scratch + at) >> (key->shift & 63) & key->mask;
	return x - key->low <= key->span;
}

/* ps_overlay_first - the position of the first record that decides and fits, PS_OVERLAY_NONE if none does. */
static __always_inline __u32 ps_overlay_first(struct ps_ctx *ctx, struct ps_scratch *scratch, __u32 in_use)
{
	struct ps_overlay_bank *b = ps_overlay_bank(in_use);
	struct ps_record *record;
	__u32 found = 0;

	scratch->added = 0;
	scratch->ifindex = ps_ifindex(ctx);
	scratch->mark = ps_mark(ctx);
	if (!b)
		return PS_OVERLAY_NONE;
#pragma clang loop unroll(disable)
	for (__u32 k = 0; k < PS_OVERLAY_RECORDS; k++) {
		if (k >= b->records)
			break;
		if (ps_key_passes(scratch, &b->key[k]) && ps_overlay_fits(ctx, in_use, k, 1)) {
			found = k + 1;
			break;
		}
	}
	if (!found)
		return PS_OVERLAY_NONE;
	/* By way of memory, or the verifier would go on with each number that this can be. */
	scratch->added = found;
	record = ps_overlay_record(in_use, ps_unknown(scratch->added) - 1);
	if (!record)
		return PS_OVERLAY_NONE;
	scratch->limit = record->position;
	return ps_unknown(scratch->limit);
}

/*
 * ps_overlay_counts - count record `number`, if it only counts, fits, and the packet came as far as it.
 *
 * `last` is the slot that decided.  Records of one rule count once.
 */
__noinline __u32 ps_overlay_counts(struct ps_ctx *ctx, __u32 in_use, __u32 number, __u32 last)
{
	struct ps_scratch *scratch = ps_scratch_area();
	struct ps_record *record = ps_overlay_record(in_use, number);

	if (!scratch || !record || record->position > last)
		return 0;
	if (scratch->counted == record->rule + 1U || !ps_overlay_fits(ctx, in_use, number, 0))
		return 0;
	scratch->counted = record->rule + 1U;
	ps_hit(ctx, PS_ADDED + record->rule, scratch->len);
	return 1;
}

/* ps_overlay_count_some - count what a packet met of a turn of records from `first` on, those before `end`.  Gives 0. */
__noinline __u32 ps_overlay_count_some(struct ps_ctx *ctx, __u32 in_use, __u32 first, __u32 end, __u32 last)
{
	struct ps_scratch *scratch = ps_scratch_area();
	struct ps_overlay_bank *b = ps_overlay_bank(in_use);
	__u64 at = first;

	asm volatile("" : "+r"(at));
	if (!scratch || !b || at > PS_OVERLAY_RECORDS - PS_OVERLAY_TURN)
		return 0;
#pragma clang loop unroll(disable)
	for (__u32 k = 0; k < PS_OVERLAY_TURN; k++) {
		if (at + k >= end || at + k >= b->records)
			break;
		if (ps_key_passes(scratch, &b->key[at + k]))
			ps_overlay_counts(ctx, in_use, at + k, last);
	}
	return 0;
}

/* ps_overlay_count - count what the packet met on its way to slot `last`, of the first `end` records.  Gives 0. */
__noinline __u32 ps_overlay_count(struct ps_ctx *ctx, __u32 in_use, __u32 end, __u32 last)
{
	struct ps_scratch *scratch = ps_scratch_area();
	struct ps_overlay_bank *b = ps_overlay_bank(in_use);

	if (!scratch || !b)
		return 0;
	scratch->counted = 0;
#pragma clang loop unroll(disable)
	for (__u32 first = 0; first < PS_OVERLAY_RECORDS; first += PS_OVERLAY_TURN) {
		if (first >= end || first >= b->records)
			break;
		ps_overlay_count_some(ctx, in_use, first, end, last);
	}
	return 0;
}

/* ps_overlay_merge - what the program came to by itself, or the added rule that stands before that; counts. */
static __always_inline __u32 ps_overlay_merge(struct ps_ctx *ctx, struct ps_scratch *scratch, __u32 in_use,
					      __u32 decision)
{
	__u32 last = ps_slot_of(decision) ? ps_slot_of(decision) : PS_OVERLAY_END, end = PS_OVERLAY_RECORDS;
	struct ps_record *record = ps_overlay_record(in_use, ps_unknown(scratch->added) - 1);

	if (record && record->position <= last) {
		last = record->position;
		end = ps_unknown(scratch->added) - 1;
		decision = PS_DECISION(PS_ADDED + record->rule, record->code);
	}
	if (in_use & PS_OVERLAY_COUNTS)
		ps_overlay_count(ctx, in_use, end, last);
	return decision;
}

/* The program's own rules count, and ask for something, only before the added rule that may decide; `scratch` is the name they know. */
#define ps_reached(slot) ((slot) < scratch->limit)
#define ps_hit(ctx, slot, bytes) (ps_reached(slot) ? (ps_hit)(ctx, slot, bytes) : (void)0)

#endif
