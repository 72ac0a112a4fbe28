/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* mistake: packet bounds missing */
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
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + ETH_HLEN;

	if ((void *)(ip + 1) > data_end)
		return XDP_PASS;
	struct udphdr *udp = (void *)(ip + 1);

	return udp->dest == bpf_htons(53) ? XDP_DROP : XDP_PASS; /* refused */
}

char _license[] SEC("license") = "GPL";
