/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * tc_classifier.bpf.c - mark traffic by what it is, for `ip rule` and qdiscs; telnet is dropped.
 *
 *     penstock program load tc_classifier.bpf.c --hook tc-egress -i eth0
 *     tc filter … handle 1 fw …     or     ip rule add fwmark 1 …
 */
#include <linux/in.h>
#include <linux/pkt_cls.h>
#include <penstock/packet.bpf.h>

enum { INTERACTIVE = 1, BULK = 2 };

SEC("tc")
int tc_classifier(struct __sk_buff *skb)
{
	struct ps_packet p;

	/* Not TC_ACT_OK: that would end the search, and programs behind this one would not be asked. */
	if (ps_parse_tc(skb, &p) < 0 || !p.l4)
		return TC_ACT_UNSPEC;
	if (p.proto == IPPROTO_TCP && p.dport == 23)
		return TC_ACT_SHOT;
	if (p.dport == 22 || p.dport == 53)
		skb->mark = INTERACTIVE;
	else if (p.length > 1000)
		skb->mark = BULK;
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Dual BSD/GPL";
