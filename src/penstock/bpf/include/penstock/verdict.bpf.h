/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * verdict.bpf.h - counters, and for tests a record of the whole outcome.
 *
 * A decision is one number: the counter slot of what decided, times eight, plus
 * the code of the verdict, which is never 0.  So 0 says "go on".
 */
#ifndef PENSTOCK_VERDICT_BPF_H
#define PENSTOCK_VERDICT_BPF_H

#include <penstock/cursor.bpf.h>

#define PS_DECISION(slot, code) ((__u32)(slot) << 3 | (code))
#define ps_slot_of(decision) ((decision) >> 3)
#define ps_code_of(decision) ((decision) & 7)

/* What is decided, at every hook; ps_act says what the hook answers for it (penstock.model.verdict). */
enum { PS_DROP = 1, PS_PASS = 2, PS_BOUNCE = 3, PS_REDIRECT = 4, PS_REJECT = 5 };

struct ps_counter {
	__u64 packets;
	__u64 bytes;
};

/* Slots: 0 the default, 1 + n the condition n, then the rules in order. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PS_SLOTS);
	__type(key, __u32);
	__type(value, struct ps_counter);
} ps_counters SEC(".maps");

/* What a packet counts as: one, or as many as an aggregate has segments. */
struct ps_weight {
	__u64 packets, bytes;
};

#define PS_ONE(bytes) ((struct ps_weight){ 1, (bytes) })

/*
 * ps_weight_of - what a packet counts as that rules know to have `bytes` bytes.
 *
 * The fast path takes no aggregates and need not ask, which is three loads one after the other.
 */
static __always_inline struct ps_weight ps_weight_of(struct ps_ctx *ctx, __u64 bytes)
{
	struct ps_scratch *scratch;

	if (!ps_is_aggregate(ctx))
		return PS_ONE(bytes);
	scratch = ps_scratch_area();
	return scratch ? (struct ps_weight){ scratch->segments, scratch->octets } : PS_ONE(bytes);
}

/*
 * ps_count - count a packet.
 *
 * Plain additions: a per-CPU element has no other writer while a program runs,
 * and so it is with the views in ps_scratch.  XDP and TC ingress run in softirq
 * context; TC egress, and a packet socket's filter on the way out, may run in a
 * process's, but between rcu_read_lock_bh and its end (__dev_queue_xmit), where
 * no softirq comes between.  A filter of an IP socket runs where packets come in,
 * again in softirq context: what lands on a TCP socket's backlog has been through
 * it before.  With PREEMPT_RT softirqs hold a lock of their CPU meanwhile.
 */
static __always_inline void ps_count(__u32 slot, struct ps_weight weight)
{
	struct ps_counter *c = bpf_map_lookup_elem(&ps_counters, &slot);

	if (c) {
		c->packets += weight.packets;
		c->bytes += weight.bytes;
	}
}

#define PS_HIT_WORDS ((PS_SLOTS + 31) / 32)

/*
 * What a probe build leaves for whoever called BPF_PROG_TEST_RUN.  The reader
 * sets wire_length (0: the frame's own), now (0: the kernel's clock and chance) and
 * chance, and clears the rest before each run.
 * `decided` is the verdict's code: what the hook answers does not tell all of them apart.
 * `hits` has a bit for each slot counted without deciding.
 */
struct ps_probe {
	__u32 wire_length;
	__u32 slot;
	__u32 conditions;
	__u32 decided;
	__u64 now;
	__u32 chance;
	__u32 hits[PS_HIT_WORDS];
};

#if PS_PROBE
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct ps_probe);
} ps_probe SEC(".maps");

static __always_inline struct ps_probe *ps_probe_area(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&ps_probe, &zero);
}
#else
static __always_inline struct ps_probe *ps_probe_area(void)
{
	return (void *)0;
}
#endif

/* Of a time that a test has set chance is set as well. */
static __always_inline __u64 ps_now(void)
{
	struct ps_probe *probe = ps_probe_area();

	return probe && probe->now ? probe->now : bpf_ktime_get_boot_ns();
}

/*
 * ps_is_trial - whether the packet is none, but a question of what would become of one.
 *
 * Whoever loads a program may ask it before it is attached, while its sets and
 * buckets are those of the one that runs: it then changes nothing of them.  If what
 * rules add lies in maps that are the trial's own, PS_TRIAL_ADDS lets them add.
 * With PS_TRIAL_SAMPLES it is among those that a sample of every fourth or more takes.
 */
#ifdef PS_EFFECTS
volatile __u32 ps_trial = 0;

#define PS_TRIAL_ADDS 2
#define PS_TRIAL_SAMPLES 4

static __always_inline bool ps_is_trial(void)
{
	return unlikely(ps_trial);
}

static __always_inline bool ps_adds_nothing(void)
{
	return unlikely(ps_trial) && !(ps_trial & PS_TRIAL_ADDS);
}

/* ps_sampled_in_trial - of a trial, whether a sample takes it. */
static __always_inline bool ps_sampled_in_trial(__u32 chances)
{
	return (ps_trial & PS_TRIAL_SAMPLES) && chances >= 1U << 30;
}
#else
#define ps_is_trial() false
#define ps_adds_nothing() false
#define ps_sampled_in_trial(chances) false
#endif

static __always_inline void ps_record_hit(__u32 slot)
{
	struct ps_probe *probe = ps_probe_area();
	__u64 word = slot / 32;

	/* Or clang checks the slot and adds what it makes of it, and the verifier sees no check. */
	asm volatile("" : "+r"(word));
	if (probe && word < PS_HIT_WORDS)
		probe->hits[word] |= 1U << slot % 32;
}

static __always_inline void ps_record_decision(__u32 decision)
{
	struct ps_probe *probe = ps_probe_area();

	if (probe) {
		probe->slot = ps_slot_of(decision);
		probe->decided = ps_code_of(decision);
	}
}

/* ps_length - a packet's length on the wire: its own, or what the probe says it was before a capture cut it. */
static __always_inline __u64 ps_length(__u64 length)
{
	struct ps_probe *probe = ps_probe_area();

	return probe && probe->wire_length > length ? probe->wire_length : length;
}

/* ps_unlimited - no added rule stands before a rule of the program, as far as is known (overlay.bpf.h). */
static __always_inline void ps_unlimited(struct ps_scratch *scratch)
{
#ifdef PS_LIMITED
	scratch->limit = ~0U;
#endif
}

/* ps_hit - a rule that does not decide has matched. */
static __always_inline void ps_hit(struct ps_ctx *ctx, __u32 slot, __u64 bytes)
{
	ps_count(slot, ps_weight_of(ctx, bytes));
	ps_record_hit(slot);
}

/* ps_finish - count the decision; gives it. */
static __always_inline __u32 ps_finish(__u32 decision, struct ps_weight weight)
{
	ps_count(ps_slot_of(decision), weight);
	ps_record_decision(decision);
	return decision;
}

#endif
