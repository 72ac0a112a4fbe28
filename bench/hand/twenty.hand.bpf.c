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
 */
#include <penstock/uapi.bpf.h>

struct counter {
	__u64 packets, bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 21);
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

enum { XDP_DROP = 1, XDP_PASS = 2 };
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

static __always_inline __u32 rule_of(void *data, void *end)
{
	struct packet p = { .sport = 1 << 16, .dport = 1 << 16, .icmp_type = 1 << 16 };
	void *ip = data + 14, *at;
	__be16 type;

	if (ip > end)
		return 0;
	type = *(__be16 *)(data + 12);
	for (int tags = 0; tags < 2; tags++) {
		if (type != ps_htons(0x8100) && type != ps_htons(0x88a8) && type != ps_htons(0x9100))
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
			return rule(&p, end - data);
	} else if (type == ps_htons(0x86dd)) {
		if (ip + 40 > end)
			return 0;
		p.proto = *(__u8 *)(ip + 6);
		at = ip + 40;
	} else {
		return 0;
	}
	if (at + 8 <= end) {
		if (p.proto == TCP || p.proto == UDP) {
			p.sport = ps_ntohs(*(__be16 *)at);
			p.dport = ps_ntohs(*(__be16 *)(at + 2));
		} else if (p.proto == ICMP) {
			p.icmp_type = *(__u8 *)at;
		}
	}
	return rule(&p, end - data);
}

SEC("xdp")
int twenty(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 slot = rule_of(data, end);
	struct counter *c = bpf_map_lookup_elem(&counters, &slot);

	if (c) {
		c->packets++;
		c->bytes += end - data;
	}
	return !slot || slot == 9 || slot == 18 || slot == 19 ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
