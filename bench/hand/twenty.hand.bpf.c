/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * twenty.hand.bpf.c - twenty.policy as one would write it by hand.
 *
 * Divided by protocol, ports in a switch, in the order of the rules where that
 * matters.  Does what the policy does for the usual packet and no more: at most
 * two VLAN tags stepped over, IPv4 with options, IPv6 without extension
 * headers, later fragments without ports; a counter of packets and bytes for
 * each rule and the default.  It does not look for malformed packets, nor for
 * jumbo frames.
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
	__uint(max_entries, 21);
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

enum { ICMP = 1, TCP = 6, UDP = 17, GRE = 47 };

/* One look at what is behind the link header. */
struct packet {
	__u32 proto, src, dst, sport, dport, icmp_type;
	bool ipv4;
};

static __always_inline __u32 tcp_rule(const struct packet *p, __u64 length)
{
	if (p->ipv4 && (p->src & 0xffffff00) == 0xc6336400)
		return 4;
	switch (p->dport) {
	case 22:
		return p->ipv4 && (p->src & 0xfffe0000) == 0xc6120000 ? 9 : 10;
	case 23:
		return 11;
	case 135 ... 139:
		return 12;
	case 445:
		return 13;
	case 3389:
		return 14;
	}
	if (length < 54)
		return 17;
	return p->dport == 80 ? 18 : p->dport == 443 ? 19 : 0;
}

static __always_inline __u32 udp_rule(const struct packet *p)
{
	switch (p->sport) {
	case 11211:
		return 5;
	case 389:
		return 6;
	case 19:
		return 7;
	}
	if (p->dport == 1900)
		return 8;
	return p->dport == 53 && !(p->ipv4 && p->dst == 0xc0000235) ? 15 : 0;
}

static __always_inline __u32 rule(const struct packet *p, __u64 length)
{
	if (p->ipv4) {
		if (p->src >> 24 == 10)
			return 1;
		if (p->src >> 16 == 0xc0a8)
			return 2;
		if (p->src >> 20 == 0xac1)
			return 3;
	}
	if (p->proto == TCP)
		return tcp_rule(p, length);
	if (p->proto == UDP)
		return udp_rule(p);
	if (!p->ipv4)
		return 0;
	return p->proto == ICMP && p->icmp_type == 5 ? 16 : p->proto == GRE ? 20 : 0;
}

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

static __always_inline bool is_tag(__be16 type)
{
	return type == ps_htons(0x8100) || type == ps_htons(0x88a8) || type == ps_htons(0x9100);
}

static __always_inline void look_behind_ip(struct packet *p, void *at)
{
	if (p->proto == TCP || p->proto == UDP) {
		p->sport = ps_ntohs(*(__be16 *)at);
		p->dport = ps_ntohs(*(__be16 *)(at + 2));
	} else if (p->proto == ICMP) {
		p->icmp_type = *(__u8 *)at;
	}
}

#ifdef AT_SOCKET
static __always_inline __u32 rule_of(context *ctx)
{
	struct packet p = { .sport = 1 << 16, .dport = 1 << 16, .icmp_type = 1 << 16 };
	__be16 type = ctx->protocol;
	__u8 head[44] __attribute__((aligned(8)));
	__u32 ip = 0;

	for (int tags = 0; tags < 2; tags++) {
		if (!is_tag(type))
			break;
		if (bpf_skb_load_bytes_relative(ctx, ip + 2, &type, 2, BPF_HDR_START_NET))
			return 0;
		ip += 4;
	}
	if (type == ps_htons(0x0800)) {
		if (bpf_skb_load_bytes_relative(ctx, ip, head, 24, BPF_HDR_START_NET) || (head[0] & 15) < 5)
			return 0;
		p.ipv4 = true;
		p.proto = head[9];
		p.src = ps_ntohl(*(__be32 *)(head + 12));
		p.dst = ps_ntohl(*(__be32 *)(head + 16));
		if (*(__be16 *)(head + 6) & ps_htons(0x1fff))
			return rule(&p, length_of(ctx) + 14);
		if (head[0] == 0x45)
			look_behind_ip(&p, head + 20);
		else if (!bpf_skb_load_bytes_relative(ctx, ip + (head[0] & 15) * 4, head, 4, BPF_HDR_START_NET))
			look_behind_ip(&p, head);
	} else if (type == ps_htons(0x86dd)) {
		if (bpf_skb_load_bytes_relative(ctx, ip, head, 44, BPF_HDR_START_NET))
			return 0;
		p.proto = head[6];
		look_behind_ip(&p, head + 40);
	} else {
		return 0;
	}
	return rule(&p, length_of(ctx) + 14);
}
#else
static __always_inline __u32 rule_of(context *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct packet p = { .sport = 1 << 16, .dport = 1 << 16, .icmp_type = 1 << 16 };
	void *ip = data + 14, *at;
	__be16 type;

	if (ip > end)
		return 0;
	type = *(__be16 *)(data + 12);
	for (int tags = 0; tags < 2; tags++) {
		if (!is_tag(type))
			break;
		if (ip + 4 > end)
			return 0;
		type = *(__be16 *)(ip + 2);
		ip += 4;
	}
	if (type == ps_htons(0x0800)) {
		if (ip + 20 > end || (*(__u8 *)ip & 15) < 5)
			return 0;
		p.ipv4 = true;
		p.proto = *(__u8 *)(ip + 9);
		p.src = ps_ntohl(*(__be32 *)(ip + 12));
		p.dst = ps_ntohl(*(__be32 *)(ip + 16));
		at = ip + (*(__u8 *)ip & 15) * 4;
		if (*(__be16 *)(ip + 6) & ps_htons(0x1fff))
			return rule(&p, length_of(ctx));
	} else if (type == ps_htons(0x86dd)) {
		if (ip + 40 > end)
			return 0;
		p.proto = *(__u8 *)(ip + 6);
		at = ip + 40;
	} else {
		return 0;
	}
	if (at + 8 <= end)
		look_behind_ip(&p, at);
	return rule(&p, length_of(ctx));
}
#endif

/* finish - count the packet for its rule; what the hook answers. */
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

SEC(HOOK)
int twenty(context *ctx)
{
	__u32 slot = rule_of(ctx);

	return finish(ctx, slot, !slot || slot == 9 || slot == 18 || slot == 19 ? PASS : DROP);
}

char _license[] SEC("license") = "Dual BSD/GPL";
