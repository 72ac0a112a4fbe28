/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * socket_filter.bpf.c - let a socket see DNS only, and of each packet the first 256 bytes.
 *
 *     penstock program load socket_filter.bpf.c --hook socket --pin /sys/fs/bpf/dns
 *
 * It serves at packet sockets and at UDP sockets alike: ps_parse_socket counts
 * from the IP header, wherever the packet that the socket is offered begins.
 */
#include <linux/in.h>
#include <penstock/packet.bpf.h>

SEC("socket")
int socket_filter(struct __sk_buff *skb)
{
	struct ps_packet p;

	/* The answer is how many bytes the socket gets: 0 hides the packet, from this socket alone. */
	if (ps_parse_socket(skb, &p) < 0 || p.proto != IPPROTO_UDP)
		return 0;
	return p.sport == 53 || p.dport == 53 ? 256 : 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
