/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ring_logger.bpf.c - report packets to one port through a ring buffer (Linux 5.8), and let them pass.
 *
 *     penstock program load ring_logger.bpf.c -i eth0 --set port=22
 */
#include <penstock/packet.bpf.h>

/* Set before the load: the verifier knows its value, and what does not apply to it costs nothing. */
const volatile __u16 port = 22;

/* What user space reads; the layout is the same on both sides. */
struct event {
	__u64 time_ns;
	__be32 src[4];
	__u16 sport;
	__u16 dport;
	__u8 ip_version;
	__u8 proto;
	__u8 tcp_flags;
	__u8 padding;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} events SEC(".maps");

__u64 lost;	/* events for which there was no room */

SEC("xdp")
int ring_logger(struct xdp_md *ctx)
{
	struct ps_packet p;
	struct event *event;

	ps_parse_xdp(ctx, &p);
	if (!p.l4 || p.dport != port)
		return XDP_PASS;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		__sync_fetch_and_add(&lost, 1);
		return XDP_PASS;
	}
	event->time_ns = bpf_ktime_get_boot_ns();
	__builtin_memcpy(event->src, p.src, sizeof(event->src));
	event->sport = p.sport;
	event->dport = p.dport;
	event->ip_version = p.ip_version;
	event->proto = p.proto;
	event->tcp_flags = p.tcp_flags;
	event->padding = 0;
	/* From here on the record is the reader's; every way out has to submit or discard it. */
	bpf_ringbuf_submit(event, 0);
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
