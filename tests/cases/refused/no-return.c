/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* mistake: no way out */
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
	bpf_get_prandom_u32(); /* refused */
	__builtin_unreachable();
}

char _license[] SEC("license") = "GPL";
