"""What doctor says of machines and interfaces, those of these tests made up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.kernel.device import Channels, Offload
from penstock.model.hook import Hook
from penstock.pipeline.findings import (
    LARGEST_PLAIN_MTU,
    Device,
    Finding,
    Level,
    Machine,
    OnHook,
    of_device,
    of_machine,
)

SOUND = Machine(
    kernel="6.12.1",
    missing=(),
    bpf_permitted=True,
    kernel_btf=True,
    links=True,
    tcx=True,
    memcg=True,
    memlock_bytes=8 << 20,
    bpffs=True,
    bpffs_path="/sys/fs/bpf",
    bpffs_writable=True,
    bpffs_hidden_by=None,
    jit=1,
    jit_harden=0,
    unprivileged_disabled=2,
    clang="clang 19 (/usr/bin/clang-19)",
    clang_trouble="",
    libbpf="libbpf 1.1",
    libbpf_trouble="",
)
QUICK = Device(
    name="eth0",
    driver="mlx5_core",
    mtu=1500,
    xdp=frozenset({"basic", "redirect", "rx-sg"}),
    xdp_mode=None,
    offloads={"rx-lro": Offload(False, False), "rx-vlan-hw-parse": Offload(False, False)},
    channels=Channels(8, 8),
    processors=8,
    programs=(),
)


def of(found: tuple[Finding, ...], check: str) -> tuple[Level, str | None]:
    one = next(one for one in found if one.check == check)
    return one.level, one.command


def test_a_sound_machine_and_a_quick_interface_have_nothing_to_mend() -> None:
    assert {one.level for one in (*of_machine(SOUND), *of_device(QUICK))} == {Level.FINE}


@pytest.mark.parametrize(
    ("change", "check", "level", "command"),
    [
        ({"missing": ("CAP_BPF",)}, "privilege", Level.FAULT, "sudo penstock …"),
        (
            {"bpf_permitted": False},
            "privilege",
            Level.FAULT,
            "cat /sys/kernel/security/lockdown",
        ),
        ({"links": False}, "kernel", Level.FAULT, None),
        ({"kernel_btf": False}, "kernel", Level.FAULT, None),
        ({"bpffs": False}, "bpffs", Level.FAULT, "mount -t bpf bpf /sys/fs/bpf"),
        ({"bpffs": False, "bpffs_hidden_by": "blue"}, "bpffs", Level.FAULT, "penstock --netns blue …"),
        ({"bpffs_writable": False}, "bpffs", Level.FAULT, "mount -o remount,rw /sys/fs/bpf"),
        ({"memcg": False}, "memlock", Level.ADVICE, "ulimit -l unlimited"),
        ({"jit": 0}, "jit", Level.ADVICE, "sysctl -w net.core.bpf_jit_enable=1"),
        ({"jit_harden": 2}, "jit-harden", Level.ADVICE, "sysctl -w net.core.bpf_jit_harden=1"),
        (
            {"unprivileged_disabled": 0},
            "unprivileged-bpf",
            Level.ADVICE,
            "sysctl -w kernel.unprivileged_bpf_disabled=2",
        ),
        ({"clang": None, "clang_trouble": "no clang"}, "clang", Level.ADVICE, "apt install clang"),
        ({"libbpf": None, "libbpf_trouble": "none"}, "libbpf", Level.FAULT, "apt install libbpf1"),
    ],
)
def test_a_machine(change: dict[str, object], check: str, level: Level, command: str | None) -> None:
    found = of_machine(replace(SOUND, **change))  # type: ignore[arg-type]
    assert of(found, check) == (level, command)
    assert sum(one.level is not Level.FINE for one in found) == 1


@pytest.mark.parametrize(
    ("change", "check", "level", "command"),
    [
        ({"xdp": frozenset()}, "driver", Level.ADVICE, None),
        ({"xdp": None}, "driver", Level.NOTE, None),
        (
            {"mtu": 9000, "xdp": frozenset({"basic"})},
            "mtu",
            Level.ADVICE,
            f"ip link set dev eth0 mtu {LARGEST_PLAIN_MTU}",
        ),
        ({"offloads": {"rx-lro": Offload(True, False)}}, "lro", Level.ADVICE, "ethtool -K eth0 lro off"),
        ({"offloads": {"rx-gro-hw": Offload(True, True)}}, "rx-gro-hw", Level.NOTE, None),
        (
            {"offloads": {"rx-vlan-hw-parse": Offload(True, False)}},
            "rxvlan",
            Level.ADVICE,
            "ethtool -K eth0 rxvlan off",
        ),
        ({"channels": Channels(2, 16)}, "queues", Level.ADVICE, "ethtool -L eth0 combined 8"),
        (
            {"programs": (OnHook(Hook.XDP, "program id 7 (theirs), native mode", ours=False),)},
            "programs",
            Level.ADVICE,
            "ip link set dev eth0 xdp off",
        ),
        (
            {
                "programs": (
                    OnHook(Hook.XDP, "program id 7 (theirs), native mode, by link 9", ours=False, link=9),
                )
            },
            "programs",
            Level.ADVICE,
            "bpftool link detach id 9",
        ),
        (
            {
                "programs": (
                    OnHook(Hook.XDP, "program id 7 (mine)", ours=False, program=7, path="mine.c", link=9),
                )
            },
            "programs",
            Level.ADVICE,
            "penstock program detach 7",
        ),
        ({"programs": (OnHook(Hook.TC_INGRESS, "program id 7", ours=False),)}, "programs", Level.NOTE, None),
    ],
)
def test_a_device(change: dict[str, object], check: str, level: Level, command: str | None) -> None:
    found = of_device(replace(QUICK, **change))  # type: ignore[arg-type]
    assert of(found, check) == (level, command)
    assert sum(one.level is not Level.FINE for one in found) == 1


def test_jumbo_frames_are_no_trouble_where_there_are_several_buffers_or_no_driver() -> None:
    assert of(of_device(replace(QUICK, mtu=9000)), "mtu")[0] is Level.FINE
    generic = of_device(replace(QUICK, mtu=9000, xdp=frozenset(), offloads={"rx-lro": Offload(True, False)}))
    assert [one.check for one in generic if one.level is not Level.FINE] == ["driver"]
