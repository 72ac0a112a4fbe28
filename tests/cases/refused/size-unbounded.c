/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* mistake: size not bounded */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} rows SEC(".maps");

SEC("tc")
int refused(struct __sk_buff *skb)
{
	__u8 copy[64];

	if (bpf_skb_load_bytes(skb, 0, copy, skb->len)) /* refused */
		return 0;
	return copy[3];
}

char _license[] SEC("license") = "GPL";
