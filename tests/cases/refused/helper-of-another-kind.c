/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* mistake: wrong helper for the program */
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
	__u32 word;

	bpf_skb_load_bytes(ctx, 0, &word, sizeof(word)); /* refused */
	return word ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
