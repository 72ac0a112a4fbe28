/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* mistake: loop without bound */
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
	while (bpf_get_prandom_u32() != 7) /* refused */
		;
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
