/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* mistake: answer out of range */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

SEC("sk_lookup")
int refused(struct bpf_sk_lookup *ctx)
{
	return 5;
}

char _license[] SEC("license") = "GPL";
