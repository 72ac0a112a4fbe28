/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * device.bpf.h - the network interfaces that a policy names.
 *
 * Rules know them by number.  Their indexes are filled in where the program is
 * loaded, before it is verified, so they are constants to the verifier; a
 * program that runs by BPF_PROG_TEST_RUN alone has zeros, which are no device.
 */
#ifndef PENSTOCK_DEVICE_BPF_H
#define PENSTOCK_DEVICE_BPF_H

#include <penstock/uapi.bpf.h>

const volatile __u32 ps_devices[PS_DEVICES] = {};

#endif
