/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * tail_calls.bpf.c - one program looks at the packet and hands it on to another.
 *
 *     penstock program load tail_calls.bpf.c --section dispatch -i eth0
 *
 * The map is filled here, by `.values`; libbpf puts the programs into it when
 * the object is loaded.  `penstock map update steps 6 …` changes it later.
 */
#include <penstock/packet.bpf.h>

SEC("xdp")
int ipv4(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp")
int ipv6(struct xdp_md *ctx)
{
	return XDP_DROP;
}

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 8);
	__uint(key_size, sizeof(__u32));
	__array(values, int(void *));
} steps SEC(".maps") = { .values = { [4] = (void *)&ipv4, [6] = (void *)&ipv6 } };

SEC("xdp")
int dispatch(struct xdp_md *ctx)
{
	struct ps_packet p;

	ps_parse_xdp(ctx, &p);
	/* Does not come back, unless there is no program at that number. */
	bpf_tail_call(ctx, &steps, p.ip_version);
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
