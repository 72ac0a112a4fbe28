/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* mistake: unreachable code */
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
	asm volatile( /* refused */
		"r0 = 2; exit; r0 = 1; exit;");
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
