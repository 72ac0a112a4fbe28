/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* mistake: context field forbidden */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

SEC("socket")
int refused(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data; /* refused */

	return data ? skb->len : 0;
}

char _license[] SEC("license") = "GPL";
