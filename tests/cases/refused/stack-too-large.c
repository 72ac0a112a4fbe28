/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* mistake: stack too large */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

static __attribute__((noinline)) __u32 inner(__u32 at)
{
	volatile __u8 room[300] = {};

	return room[at & 255];
}

SEC("xdp")
int refused(struct xdp_md *ctx)
{
	volatile __u8 room[300] = {};

	return inner(ctx->rx_queue_index) + room[ctx->ingress_ifindex & 255];
}

char _license[] SEC("license") = "GPL";
