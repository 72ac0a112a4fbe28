/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* mistake: packet bounds lost */
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
	__u8 *p;

	if (data + 18 > data_end)
		return XDP_PASS;
	p = data + *(__u32 *)(data + 14);
	if (p + 1 > (__u8 *)data_end)
		return XDP_PASS;
	return *p ? XDP_DROP : XDP_PASS; /* refused: the offset may be any number, and past 64 KiB no check counts */
}

char _license[] SEC("license") = "GPL";
