/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* mistake: constant written */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

const volatile __u32 limit = 7;

SEC("xdp")
int refused(struct xdp_md *ctx)
{
	volatile __u32 *place = (__u32 *)&limit;

	*place = 8; /* refused */
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
