/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* mistake: number as pointer */
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
	__u8 *p = (void *)(long)ctx->rx_queue_index;

	return *p; /* refused */
}

char _license[] SEC("license") = "GPL";
