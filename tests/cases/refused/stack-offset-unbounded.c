/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* mistake: stack offset unbounded */
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
	volatile __u8 room[16] = {};

	room[ctx->rx_queue_index] = 1; /* refused */
	return room[3];
}

char _license[] SEC("license") = "GPL";
