/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* mistake: context read-only */
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
	ctx->ingress_ifindex = 1; /* refused */
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
