/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * addresses_wire.bpf.c - sends a frame from another address at each run, in live mode.
 *
 * The whole head is written each time, since the receiver may have changed what lay there;
 * the checksum of IPv4 is right, or the stack would drop the packet on its own account.
 */
#include <penstock/uapi.bpf.h>

enum { ADDRESSES = 1 << 20, HEAD = 64, CHECKSUM = 24, SOURCE = 26 };
enum { XDP_DROP = 1, XDP_TX = 3 };

struct address {
	__u64 hi, lo;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, ADDRESSES);
	__type(key, __u32);
	__type(value, struct address);
} addresses SEC(".maps");

__u64 head[HEAD / 8];
__u32 sum; /* of the header's words without the source */
__u32 cursor;

SEC("xdp.frags") int send(struct xdp_md *ctx)
{
	__u64 *data = (void *)(long)ctx->data;
	__u32 at = cursor++ & (ADDRESSES - 1), source, folded;
	const struct address *from = bpf_map_lookup_elem(&addresses, &at);

	if (!from || (void *)data + HEAD > (void *)(long)ctx->data_end)
		return XDP_DROP;
	for (int word = 0; word < HEAD / 8; word++)
		data[word] = head[word];
	source = from->hi;
	folded = sum + (source & 0xffff) + (source >> 16);
	folded = (folded & 0xffff) + (folded >> 16);
	folded = (folded & 0xffff) + (folded >> 16);
	*(__u16 *)((void *)data + CHECKSUM) = ~folded;
	*(__u32 *)((void *)data + SOURCE) = source;
	return XDP_TX;
}

char _license[] SEC("license") = "Dual BSD/GPL";
