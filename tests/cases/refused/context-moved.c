/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* mistake: context moved */
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
	__u32 *words = (void *)ctx;

	return *(words + (ctx->rx_queue_index & 3)); /* refused */
}

char _license[] SEC("license") = "GPL";
