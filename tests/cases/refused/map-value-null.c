/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* mistake: possible NULL */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

SEC("xdp")
int refused(struct xdp_md *ctx)
{
	__u32 key = 9;
	__u64 *count = bpf_map_lookup_elem(&seen, &key);

	*count += 1; /* refused */
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
