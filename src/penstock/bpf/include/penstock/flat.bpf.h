/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * flat.bpf.h - sets of networks whose cost does not grow with their entries.
 *
 * The front is asked first, a plain array with a part for each bank: a miss is a bit
 * of it.  The content lies in lines of one map (penstock/model/flat.py says how), and
 * that map in a slot of another, so that a content of any size is put in place by one
 * store to the set's control.  Looking into the front takes no call.
 *
 * Lines are read through volatile: a word of the root is moved while packets flow,
 * and must be read once.
 */
#ifndef PENSTOCK_FLAT_BPF_H
#define PENSTOCK_FLAT_BPF_H

#include <penstock/set.bpf.h>

enum { BPF_MAP_TYPE_ARRAY_OF_MAPS = 12 };
enum { BPF_F_INNER_MAP = 1 << 12 };

enum { PS_FLAT_LOGGED = 2, PS_FLAT_ROOT_V4 = 8, PS_FLAT_ROOT_V6 = 32776 };
enum { PS_FLAT_MARKS = 32768, PS_FLAT_MARKED = 65536, PS_FLAT_MARKS_V6 = 65600 };
#define PS_FLAT_HASH 0x9e3779b97f4a7c15ULL
#define PS_FLAT_REHASH 0xd6e8feb86659fd93ULL
#define PS_FLAT_MARK 0x9e3779b1ULL
enum { PS_FLAT_PROBES = 128, PS_FLAT_GONE = 255 };
#define PS_FLAT_LEAF (1U << 31)
#define PS_FLAT_MOVING (1U << 30)
/* Of IPv6: the networks of a leaf behind its first, and that one's line. */
#define PS_FLAT_LEAF_COUNT(place) ((place) >> 27 & 7)
#define PS_FLAT_LEAF_LINE(place) ((place) & ((1U << 27) - 1))

struct ps_flat_front {
	__u64 words[8];
};

#define PS_FLAT_FRONT(name, lines) \
	struct { \
		__uint(type, BPF_MAP_TYPE_ARRAY); \
		__uint(max_entries, 2 * lines); \
		__uint(map_flags, BPF_F_MMAPABLE); \
		__type(key, __u32); \
		__type(value, struct ps_flat_front); \
	} name SEC(".maps")

struct ps_flat_content {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	/* clang writes a mere declaration of a type that only a map in a map names. */
	__uint(key_size, sizeof(__u32));
	__uint(value_size, 4 * sizeof(__u64));
};

#define PS_FLAT_MAP(name) \
	struct { \
		__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); \
		__uint(max_entries, 2); \
		__type(key, __u32); \
		__array(values, struct ps_flat_content); \
	} name SEC(".maps")

/*
 * ps_flat_line - a line of a content.
 *
 * The key fills a word of the stack: behind a store to one that a verifier follows it lets no
 * speculation go on, where it minds that (Linux 6.17), or it would never leave a loop of lines.
 */
static __always_inline const volatile __u64 *ps_flat_line(void *content, __u32 at)
{
	__u64 key = ps_begins(at);

	return bpf_map_lookup_elem(content, &key);
}

/*
 * ps_flat_settled - what a word names that is moving: `place` has the line of the log that tells.
 *
 * {…, what it named; …; …; what it is to name, …}, which counts when that line has happened.
 */
static __always_inline __u32 ps_flat_settled(void *content, __u32 place)
{
	const volatile __u64 *header = ps_flat_line(content, PS_FLAT_LOGGED);
	const volatile __u32 *line;
	__u32 before, after;

	place &= ~(PS_FLAT_LEAF | PS_FLAT_MOVING);
	line = (const volatile __u32 *)ps_flat_line(content, place);
	if (!header || !line)
		return 0;
	before = line[1];
	after = line[6];
	/* Of a choice between two places clang makes one of their numbers, which the same verifier refuses. */
	asm volatile("" : "+r"(before), "+r"(after));
	return place < header[0] ? after : before;
}

/* ps_flat_root - a word of a root; 0 for nothing. */
static __always_inline __u32 ps_flat_root(void *content, __u32 root, __u32 number)
{
	const volatile __u32 *line = (const volatile __u32 *)ps_flat_line(content, root + (number >> 3));

	return line ? line[number & 7] : 0;
}

static __always_inline __u32 ps_flat_bits(__u64 word)
{
	return __builtin_popcountll(word);
}

/*
 * ps_flat_may_have_v4 - whether the front has an address: its /24, and that as a whole or its /27.
 *
 * `part` is the first line of the bank's part.
 */
static __always_inline bool ps_flat_may_have_v4(void *front, __u32 part, __u32 address)
{
	__u64 word = address >> 14 & 7, mark, bit = 1ULL << (address >> 8 & 63);
	__u32 at = part + (address >> 17);
	const volatile struct ps_flat_front *line = bpf_map_lookup_elem(front, &at);

	if (!line || !(line->words[word] & bit))
		return false;
	at += PS_FLAT_MARKS;
	line = bpf_map_lookup_elem(front, &at);
	if (!line)
		return false;
	mark = (address >> 5 & 2047) * PS_FLAT_MARK >> 24 & 255;
	if (line->words[word] & bit)
		return true;
	word = (word & 4) + (mark >> 6);
	/* Of a sum that clang makes an `or` a verifier before Linux 6.8 knows no bounds. */
	asm volatile("" : "+r"(word));
	return line->words[word & 7] >> (mark & 63) & 1;
}

static __always_inline bool ps_flat_has_v4(void *content, __u32 address)
{
	const volatile __u64 *line;
	__u64 bit = 1ULL << (address >> 8 & 63), has;
	__u32 at = ps_flat_root(content, PS_FLAT_ROOT_V4, address >> 14), rank, place;

	if (at & PS_FLAT_MOVING)
		at = ps_flat_settled(content, at);
	line = ps_flat_line(content, at);
	if (!at || !line)
		return false;
	if (line[0] & bit)
		return true;
	has = line[1];
	if (!(has & bit))
		return false;
	/* The words are behind two of 64 bits. */
	rank = 4 + ps_flat_bits(has & (bit - 1));
	if (rank >= 8) {
		line = ps_flat_line(content, at + (rank >> 3));
		if (!line)
			return false;
	}
	place = ((const volatile __u32 *)line)[rank & 7];
	if (place & PS_FLAT_LEAF) {
		if (place & PS_FLAT_MOVING)
			place = ps_flat_settled(content, place);
		if (place & PS_FLAT_LEAF)
			return !((address ^ place) & place >> 8 & 0xff);
	}
	line = place ? ps_flat_line(content, place) : 0;
	return line && line[address >> 6 & 3] >> (address & 63) & 1;
}

/*
 * ps_flat_rank - how many of a block's values before this one have something narrower.
 *
 * `line` is the half of the block that the value lies in, `has` its word there.
 */
static __always_inline __u32 ps_flat_rank(void *content, __u32 at, const volatile __u64 *line, __u64 has,
					  __u32 value)
{
	__u32 rank = ps_flat_bits(has & ((1ULL << (value & 63)) - 1));

	if (value & 64)
		rank += ps_flat_bits(line[1]);
	if (value & 128) {
		line = ps_flat_line(content, at);
		if (line)
			rank += ps_flat_bits(line[1]) + ps_flat_bits(line[3]);
	}
	return rank;
}

/* ps_flat_hash - of so many first bits of an address, by what was drawn for the content. */
static __always_inline __u64 ps_flat_hash(__u64 hi, __u64 count, __u64 seed)
{
	__u64 hash = (hi >> (64 - count) ^ count << 56 ^ seed) * PS_FLAT_HASH;

	return (hash ^ hash >> 32) * PS_FLAT_REHASH;
}

/*
 * ps_flat_marked - whether the front has the mark of an address's first bits, so many of them.
 *
 * `lines` are those of a bank's part.
 */
static __always_inline bool ps_flat_marked(void *front, __u32 part, __u32 lines, __u64 hi, __u64 count, __u64 seed)
{
	__u64 hash = ps_flat_hash(hi, count, seed), bits;
	const volatile struct ps_flat_front *line;
	__u32 at;

	at = part + PS_FLAT_MARKS_V6 + (hash >> 47 & (lines - PS_FLAT_MARKS_V6 - 1));
	bits = 1ULL << (hash >> 38 & 63) | 1ULL << (hash >> 32 & 63) | 1ULL << (hash >> 26 & 63);
	line = bpf_map_lookup_elem(front, &at);
	return line && (line->words[hash >> 44 & 7] & bits) == bits;
}

/* ps_flat_may_have_v6 - where the front has a beginning of an address: 1 in the table, 2 from the root on. */
static __always_inline __u32 ps_flat_may_have_v6(void *front, __u32 part, __u32 lines, __u64 hi)
{
	__u32 at = part + PS_FLAT_MARKED, may;
	const volatile struct ps_flat_front *line = bpf_map_lookup_elem(front, &at);
	__u64 marked = line ? line->words[0] : 0, seed = line ? line->words[3] : 0;

	may = marked & 16 && ps_flat_marked(front, part, lines, hi, 48, seed);
	if ((marked & 8 && ps_flat_marked(front, part, lines, hi, 40, seed)) ||
	    (marked & 4 && ps_flat_marked(front, part, lines, hi, 32, seed)) ||
	    (marked & 2 && ps_flat_marked(front, part, lines, hi, 24, seed)) ||
	    (marked & 1 && ps_flat_marked(front, part, lines, hi, 16, seed)))
		may |= 2;
	return may;
}

/* ps_flat_leaf_has - whether an address is in one of a leaf's networks, {first 64 bits, last 64 bits, their masks}. */
static __always_inline bool ps_flat_leaf_has(void *content, __u32 place, __u64 hi, __u64 lo)
{
	__u32 at = PS_FLAT_LEAF_LINE(place), last = at + PS_FLAT_LEAF_COUNT(place), number;
	const volatile __u64 *line;

#pragma clang loop unroll(disable)
	for (number = 0; number < 8 && at <= last; number++, at++) {
		line = ps_flat_line(content, at);
		if (line && !(((hi ^ line[0]) & line[2]) | ((lo ^ line[1]) & line[3])))
			return true;
	}
	return false;
}

/* ps_flat_walk - whether an address is in the tree that a word names, whose blocks begin behind `depth` bits. */
static __always_inline bool ps_flat_walk(void *content, __u64 hi, __u64 lo, __u32 at, __u32 depth)
{
	__u64 left = hi << depth | lo >> (64 - depth), rest = lo << depth, bit, has;
	const volatile __u64 *line;
	__u32 value, rank;

#pragma clang loop unroll(disable)
	for (; depth < 128 && at; depth += 8) {
		if (at & PS_FLAT_LEAF && at & PS_FLAT_MOVING) {
			at = ps_flat_settled(content, at);
			if (!at)
				return false;
		}
		if (at & PS_FLAT_LEAF)
			return ps_flat_leaf_has(content, at, hi, lo);
		value = left >> 56;
		left = left << 8 | rest >> 56;
		rest <<= 8;
		bit = 1ULL << (value & 63);
		line = ps_flat_line(content, at + (value >> 7));
		if (!line)
			return false;
		if (line[value >> 5 & 2] & bit)
			return true;
		has = line[(value >> 5 & 2) + 1];
		if (!(has & bit))
			return false;
		rank = ps_flat_rank(content, at, line, has, value);
		line = ps_flat_line(content, at + 2 + (rank >> 3));
		at = line ? ((const volatile __u32 *)line)[rank & 7] : 0;
	}
	return false;
}

/* ps_flat_is_in_table - whether an address is in a network from /48 on. */
static __always_inline bool ps_flat_is_in_table(void *content, __u32 at, __u32 slots, __u64 seed, __u64 hi, __u64 lo)
{
	const volatile __u64 *line = 0;
	__u32 word = 0, probe;

	at += (ps_flat_hash(hi, 48, seed) & 0xffffffff) * slots >> 32;
#pragma clang loop unroll(disable)
	for (probe = 0; probe < PS_FLAT_PROBES; probe++) {
		line = ps_flat_line(content, at + probe);
		word = line ? ((const volatile __u32 *)line)[4] : 0;
		if (!word || !((line[0] ^ hi) >> 16))
			break;
		word = 0;
	}
	if ((word & (PS_FLAT_LEAF | PS_FLAT_MOVING)) == (PS_FLAT_LEAF | PS_FLAT_MOVING))
		word = ps_flat_settled(content, word);
	if (!(word & PS_FLAT_LEAF) || (word & ~PS_FLAT_LEAF) > PS_FLAT_GONE)
		return ps_flat_walk(content, hi, lo, word, 48);
	word &= ~PS_FLAT_LEAF;
	if (!line || word == PS_FLAT_GONE)
		return false;
	if (word <= 64)
		return !((line[0] ^ hi) >> (64 - word & 63));
	return line[0] == hi && !((line[1] ^ lo) >> (128 - word & 63));
}

/* ps_flat_has_v6 - whether a content has an address where it may be; the front says where its table is. */
static __always_inline bool ps_flat_has_v6(void *content, void *front, __u32 part, __u32 may, __u64 hi, __u64 lo)
{
	const volatile struct ps_flat_front *line;
	__u32 at = part + PS_FLAT_MARKED;

	line = bpf_map_lookup_elem(front, &at);
	if (may & 1 && line && ps_flat_is_in_table(content, line->words[1], line->words[2], line->words[3], hi, lo))
		return true;
	return may & 2 && ps_flat_walk(content, hi, lo, ps_flat_root(content, PS_FLAT_ROOT_V6, hi >> 48), 16);
}

/*
 * PS_FLAT_ASK - whether a set has an address: `asked` is what the front says of it, `has` the content.
 *
 * What is not there may be in the trie of entries with a time; the bank is read once for
 * all.  A slot is emptied behind the move of the banks: who comes late asks the other one,
 * of which the front has said nothing yet.
 */
#define PS_FLAT_ASK(control, flat, trie, lines, asked, has, fill) \
	__u32 slot, active, part, may; \
	const volatile struct ps_set_control *state = &control; \
	struct ps_set_network *entry; \
	struct trie##_key key = {}; \
	void *content; \
	\
	active = state->active; \
	slot = active & 1; \
	part = slot ? lines : 0; \
	may = asked; \
	if (may) { \
		content = bpf_map_lookup_elem(&flat, &slot); \
		if (!content) { \
			active = state->active; \
			slot = active & 1; \
			part = slot ? lines : 0; \
			may = 3; \
			content = bpf_map_lookup_elem(&flat, &slot); \
		} \
		if (content && (has)) \
			return true; \
	} \
	if (!state->timed) \
		return false; \
	fill; \
	entry = bpf_map_lookup_elem(&trie, &key); \
	return entry && ps_set_is_in(entry->state, active)

#define PS_FLAT_ASK_V4(name, control, front, flat, trie, lines) \
	static __always_inline bool name(__u64 p0, __u32 len) \
	{ \
		if (p0 > 0xffffffffULL) \
			return false; \
		PS_FLAT_ASK(control, flat, trie, lines, ps_flat_may_have_v4(&front, part, p0), \
			    ps_flat_has_v4(content, p0), \
			    (key.length = 32, key.p0 = ps_htonl(p0))); \
	}

/* A function that is verified once, or its loop would be followed wherever a rule asks. */
#define PS_FLAT_ASK_V6(name, control, front, flat, trie, lines) \
	__noinline int name##_global(__u64 hi, __u64 lo) \
	{ \
		PS_FLAT_ASK(control, flat, trie, lines, ps_flat_may_have_v6(&front, part, lines, hi), ps_flat_has_v6(content, &front, part, may, hi, lo), \
			    (key.length = 128, key.p0_hi = ps_htonll(hi), key.p0_lo = ps_htonll(lo))); \
	} \
	static __always_inline bool name(const struct ps_ip6 *p0, __u32 len) \
	{ \
		return p0->present && name##_global(p0->hi, p0->lo); \
	}

#endif
