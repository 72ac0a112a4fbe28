/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* mistake: map value out of range */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct row {
	__u32 cells[8];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct row);
} rows SEC(".maps");

SEC("xdp")
int refused(struct xdp_md *ctx)
{
	__u32 key = 0;
	struct row *row = bpf_map_lookup_elem(&rows, &key);

	if (!row)
		return XDP_PASS;
	return row->cells[ctx->rx_queue_index]; /* refused */
}

char _license[] SEC("license") = "GPL";
