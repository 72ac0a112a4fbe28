/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * dns_linear.bpf.c - the same without jumbo frames: all of the packet is in data..data_end.
 *
 * Does what the policy does for the usual packet and no more: at most two VLAN
 * tags stepped over, IPv4 with options, IPv6 without extension headers, later
 * fragments left alone; the rule and the default have counters of packets and
 * bytes.
 * It does not look for malformed packets and does not count them.
 *
 * At XDP; at TC with AT_TC, at a socket with AT_SOCKET, where it counts the
 * packet from its network header on.  A tag that lies beside the packet and the
 * segments of an aggregate are counted at TC with AS_ON_THE_WIRE, else not.
 */
#include <penstock/uapi.bpf.h>

#if defined(AT_TC)
#define HOOK "tc"
#elif defined(AT_SOCKET)
#define HOOK "socket"
#else
#define HOOK "xdp"
#endif

#if defined(AS_ON_THE_WIRE)
typedef struct __sk_buff context;
#define length_of(ctx) ((ctx)->len + ((ctx)->vlan_present ? 4 : 0))
#elif defined(AT_TC) || defined(AT_SOCKET)
typedef struct __sk_buff context;
#define length_of(ctx) ((ctx)->len)
#else
typedef struct xdp_md context;
#define length_of(ctx) ((ctx)->data_end - (ctx)->data)
#endif

#if defined(AT_SOCKET)
enum { DROP = 0, PASS = -1 };
#elif defined(AT_TC)
enum { DROP = 2, PASS = -1 };
#else
enum { DROP = 1, PASS = 2 };
#endif

struct counter {
	__u64 packets, bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

#ifdef AS_ON_THE_WIRE
/* An aggregate of TCP as its segments, each with the headers again; what else there may be as one packet. */
static __noinline int segment_headers(context *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end, *tcp = data + 14 + 20;

	if (tcp + 20 + 20 > end)
		return 0;
	if (*(__be16 *)(data + 12) == ps_htons(0x86dd))
		tcp += 20;
	return tcp - data + (*(__u8 *)(tcp + 12) >> 4) * 4;
}

static __always_inline void count_segments(context *ctx, struct counter *c)
{
	__u32 segments = ctx->gso_segs ? ctx->gso_segs : 1;

	c->packets += segments;
	c->bytes += length_of(ctx) + (segments - 1) * segment_headers(ctx);
}
#endif

static __always_inline int finish(context *ctx, __u32 slot, int code)
{
	struct counter *c = bpf_map_lookup_elem(&counters, &slot);

	if (c) {
#ifdef AS_ON_THE_WIRE
		if (unlikely(ctx->gso_size)) {
			count_segments(ctx, c);
			return code;
		}
#endif
		c->packets++;
		c->bytes += length_of(ctx);
	}
	return code;
}

static __always_inline bool is_tag(__be16 type)
{
	return type == ps_htons(0x8100) || type == ps_htons(0x88a8) || type == ps_htons(0x9100);
}

#ifdef AT_SOCKET
static __always_inline bool is_dns(context *ctx)
{
	__be16 type = ctx->protocol, port;
	__u8 head[44] __attribute__((aligned(8)));
	__u32 ip = 0, udp;

	for (int tags = 0; tags < 2; tags++) {
		if (!is_tag(type))
			break;
		if (bpf_skb_load_bytes_relative(ctx, ip + 2, &type, 2, BPF_HDR_START_NET))
			return false;
		ip += 4;
	}
	if (type == ps_htons(0x0800)) {
		if (bpf_skb_load_bytes_relative(ctx, ip, head, 24, BPF_HDR_START_NET) || head[9] != 17)
			return false;
		if ((head[0] & 15) < 5 || *(__be16 *)(head + 6) & ps_htons(0x1fff))
			return false;
		if (head[0] == 0x45)
			return *(__be16 *)(head + 22) == ps_htons(53);
		udp = ip + (head[0] & 15) * 4;
		return !bpf_skb_load_bytes_relative(ctx, udp + 2, &port, 2, BPF_HDR_START_NET) &&
		       port == ps_htons(53);
	}
	if (type != ps_htons(0x86dd))
		return false;
	return !bpf_skb_load_bytes_relative(ctx, ip, head, 44, BPF_HDR_START_NET) && head[6] == 17 &&
	       *(__be16 *)(head + 42) == ps_htons(53);
}
#else
static __always_inline bool is_dns(context *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__be16 type;
	void *ip = data + 14, *udp;

	if (ip > end)
		return false;
	type = *(__be16 *)(data + 12);
	for (int tags = 0; tags < 2; tags++) {
		if (!is_tag(type))
			break;
		if (ip + 4 > end)
			return false;
		type = *(__be16 *)(ip + 2);
		ip += 4;
	}
	if (type == ps_htons(0x0800)) {
		if (ip + 20 > end || *(__u8 *)(ip + 9) != 17)
			return false;
		if ((*(__u8 *)ip & 15) < 5 || *(__be16 *)(ip + 6) & ps_htons(0x1fff))
			return false;
		udp = ip + (*(__u8 *)ip & 15) * 4;
	} else if (type == ps_htons(0x86dd)) {
		if (ip + 40 > end || *(__u8 *)(ip + 6) != 17)
			return false;
		udp = ip + 40;
	} else {
		return false;
	}
	return udp + 8 <= end && *(__be16 *)(udp + 2) == ps_htons(53);
}
#endif

SEC(HOOK)
int dns(context *ctx)
{
	if (is_dns(ctx))
		return finish(ctx, 1, DROP);
	return finish(ctx, 0, PASS);
}

char _license[] SEC("license") = "Dual BSD/GPL";
