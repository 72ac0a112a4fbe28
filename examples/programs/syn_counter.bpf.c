/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * syn_counter.bpf.c - count connection attempts (SYN without ACK) per destination port.
 *
 * Each processor has counters of its own, so nothing is locked; `penstock map
 * dump syns` adds them up.
 */
#include <linux/in.h>
#include <penstock/packet.bpf.h>

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u64);
} syns SEC(".maps");

SEC("xdp")
int syn_counter(struct xdp_md *ctx)
{
	struct ps_packet p;
	__u64 *count;
	__u32 port;

	ps_parse_xdp(ctx, &p);
	if (p.proto != IPPROTO_TCP || (p.tcp_flags & 0x12) != 0x02)
		return XDP_PASS;
	port = p.dport;
	count = bpf_map_lookup_elem(&syns, &port);
	if (count)
		*count += 1;
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
