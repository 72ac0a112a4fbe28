/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* mistake: too many instructions */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int refused(struct xdp_md *ctx)
{
	__u32 sum = 0;

	for (int i = 0; i < 2000000; i++) /* refused */
		sum += bpf_get_prandom_u32() & 1;
	return sum ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "GPL";
