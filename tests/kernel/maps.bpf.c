// Maps of every kind that people use, with keys and values of every type that C has.
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <bpf/bpf_helpers.h>

enum proto { NONE, ICMP = 1, TCP = 6, UDP = 17 };
enum wide { SMALL = -1, LARGE = 1ULL << 40 };

struct flow {
	__be32 saddr;
	struct in_addr daddr;
	__be16 sport;
	__u16 dport;
	enum proto proto;
};

struct stats {
	__u64 packets;
	__u64 bytes;
	__u32 seen[3];
};

struct all {
	char name[16];
	unsigned char mac[6];
	_Bool on;
	signed char small;
	__u32 low : 3, high : 29;
	__s32 negative : 5;
	union {
		__u32 word;
		__u8 parts[4];
	};
	struct in6_addr six;
	__be32 seq;
	__be64 token;
	void *where;
	enum wide wide;
	struct {
		__u16 a, b;
	} pair[2];
	__u8 blob[3];
};

struct real {
	double large;
	float small;
};

struct lpm4 {
	__u32 prefixlen;
	__be32 addr;
};

struct lpm6 {
	__u32 prefixlen;
	__u8 addr[16];
};

struct lpm_odd {
	__u32 prefixlen;
	__u16 vlan;
	__u16 port;
};

#define MAP(name, kind, count, k, v) struct { __uint(type, BPF_MAP_TYPE_##kind); __uint(max_entries, count); \
	__type(key, k); __type(value, v); } name SEC(".maps")
#define TRIE(name, k, v) struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __uint(max_entries, 8); \
	__uint(map_flags, BPF_F_NO_PREALLOC); __type(key, k); __type(value, v); } name SEC(".maps")

MAP(t_flows, HASH, 8, struct flow, struct stats);
MAP(t_lru, LRU_HASH, 64, __u32, __u32);
MAP(t_all, ARRAY, 2, __u32, struct all);
MAP(t_real, ARRAY, 1, __u32, struct real);
MAP(t_cpu, PERCPU_ARRAY, 2, __u32, struct stats);
MAP(t_cpuhash, PERCPU_HASH, 8, __be32, __u64);
MAP(t_devices, DEVMAP, 4, __u32, __u32);
TRIE(t_lpm4, struct lpm4, __u32);
TRIE(t_lpmpart, struct lpm4, struct stats);
TRIE(t_lpm6, struct lpm6, __u32);
TRIE(t_lpmodd, struct lpm_odd, __u32);
struct { __uint(type, BPF_MAP_TYPE_QUEUE); __uint(max_entries, 4); __type(value, __u32); } t_queue SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_STACK); __uint(max_entries, 4); __type(value, __u32); } t_stack SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } t_ring SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 4); __uint(key_size, 4);
	__uint(value_size, 4); } t_jumps SEC(".maps");
struct inner { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);
	__type(value, __u32); } t_inner SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __uint(max_entries, 4); __type(key, __u32);
	__array(values, struct inner); } t_outer SEC(".maps");

const volatile __u32 limit = 7;
int seen_total;
struct stats totals = { .packets = 1, .seen = { 1, 2, 3 } };

#define USE(map) found += !!bpf_map_lookup_elem(&map, &zero)

SEC("xdp") int maps(struct xdp_md *ctx)
{
	char zero[64] = {};
	int found = 0;
	USE(t_flows); USE(t_lru); USE(t_all); USE(t_cpu); USE(t_cpuhash); USE(t_lpm4); USE(t_lpm6); USE(t_lpmodd);
	USE(t_outer); USE(t_real); USE(t_lpmpart);
	found += bpf_map_peek_elem(&t_queue, zero) + bpf_map_peek_elem(&t_stack, zero);
	bpf_ringbuf_output(&t_ring, zero, 8, 0);
	bpf_redirect_map(&t_devices, 0, 0);
	bpf_tail_call(ctx, &t_jumps, 0);
	seen_total += found + limit;
	totals.packets++;
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
