/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * uapi.bpf.h - the little of the kernel's ABI that penstock's programs use.
 *
 * Written out here so that a policy compiles with clang alone: no libbpf and
 * no kernel headers to install, and a tenth of a second less to parse.  The
 * numbers are those of <linux/bpf.h>; they are ABI and do not change.
 */
#ifndef PENSTOCK_UAPI_BPF_H
#define PENSTOCK_UAPI_BPF_H

typedef _Bool bool;
#define true 1
#define false 0
typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define __ksym __attribute__((section(".ksyms")))
#define __weak __attribute__((weak))
#define __uint(name, value) int(*name)[value]
#define __type(name, value) value *name
#define __array(name, value) __typeof__(value) *name[]
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/*
 * ps_keep - a use of an argument.  clang passes garbage for an argument that a
 * function does not use, and the verifier refuses the call.
 */
#define ps_keep(x) asm volatile("" : : "r"(x))

/*
 * ps_beside - a number that the context has of the packet.  By an instruction of
 * our own: for two reads of a member clang 14 keeps its address in a register,
 * and the verifier takes no pointer into the context, only the context's.
 */
#define ps_beside(ctx, member) \
	({ \
		__u64 ps_number_of; \
\
		asm("%0 = *(u32 *)(%1 + %2)" \
		    : "=r"(ps_number_of) \
		    : "r"(ctx), "i"(__builtin_offsetof(struct ps_ctx, member))); \
		(__u32)ps_number_of; \
	})

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ps_htons(x) __builtin_bswap16(x)
#define ps_htonl(x) __builtin_bswap32(x)
#define ps_htonll(x) __builtin_bswap64(x)
#define ps_begins(x) ((__u64)(x))
#else
#define ps_htons(x) ((__u16)(x))
#define ps_htonl(x) ((__u32)(x))
#define ps_htonll(x) ((__u64)(x))
#define ps_begins(x) ((__u64)(x) << 32)
#endif
#define ps_ntohs(x) ps_htons(x)
#define ps_ntohl(x) ps_htonl(x)
#define ps_ntohll(x) ps_htonll(x)

enum bpf_map_type {
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_DEVMAP = 14,
};

enum { BPF_F_MMAPABLE = 1U << 10 };
enum { BPF_F_RECOMPUTE_CSUM = 1 };
enum { BPF_HDR_START_MAC, BPF_HDR_START_NET };

/* The verifier and BTF know a program's context by this name (global functions take it as `struct xdp_md *`). */
struct xdp_md {
	__u32 data;
	__u32 data_end;
	__u32 data_meta;
	__u32 ingress_ifindex;
	__u32 rx_queue_index;
	__u32 egress_ifindex;
};

/* The same of programs that meet a socket buffer; the kernel turns each member's read into one of struct sk_buff's. */
struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
	__u32 napi_id;
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 data_meta;
	__u64 flow_keys;
	__u64 tstamp;
	__u32 wire_len;
	__u32 gso_segs;
	__u64 sk;
	__u32 gso_size;
	__u8 tstamp_type;
	__u8 unused[3];
	__u64 hwtstamp;
};

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_skb_store_bytes)(struct __sk_buff *skb, __u32 offset, const void *from, __u32 len,
					 __u64 flags) = (void *)9;
static long (*const bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)23;
static long (*const bpf_skb_load_bytes)(const struct __sk_buff *skb, __u32 offset, void *to, __u32 len) = (void *)26;
static long (*const bpf_skb_load_bytes_relative)(const struct __sk_buff *skb, __u32 offset, void *to, __u32 len,
						 __u32 start) = (void *)68;
static __u64 (*const bpf_ktime_get_boot_ns)(void) = (void *)125;
static __u64 (*const bpf_xdp_get_buff_len)(struct xdp_md *ctx) = (void *)188;
static long (*const bpf_xdp_load_bytes)(struct xdp_md *ctx, __u32 offset, void *buf, __u32 len) = (void *)189;
static long (*const bpf_xdp_store_bytes)(struct xdp_md *ctx, __u32 offset, void *buf, __u32 len) = (void *)190;

/*
 * CO-RE: libbpf replaces what follows by facts about the running kernel, as
 * immediates, so the verifier drops the branches that do not apply.
 */
struct xdp_buff {
	__u32 flags;
} __attribute__((preserve_access_index));

struct sk_buff {
	unsigned char *head, *data;
	__u16 mac_header, network_header;
} __attribute__((preserve_access_index));

enum xdp_buff_flags { XDP_FLAGS_HAS_FRAGS = 1 };
enum special_kfunc_type { KF_bpf_cast_to_kern_ctx = 1 };

extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym __weak;

#define ps_kernel_has(type, value) __builtin_preserve_enum_value(*(enum type *)value, 0)

/*
 * Whether the loader lacks CAP_PERFMON (kernel/bpf_object.py), and so packets are
 * read by helpers alone (copied.bpf.h); a constant to the verifier.
 */
const volatile __u32 ps_by_helpers = 0;

/*
 * ps_is_guarded - the same, for what every packet meets first.
 *
 * The verifier takes the branch away that is not taken, but leaves the load of what
 * decides it.  So here that is an instruction's own number, which whoever loads the
 * program changes (kernel/elf.py).
 */
#define PS_UNGUARDED 0x70735f30

static __always_inline bool ps_is_guarded(void)
{
	__u64 mark;

	asm volatile("%0 = %1" : "=r"(mark) : "i"(PS_UNGUARDED));
	return mark != PS_UNGUARDED;
}

#endif
