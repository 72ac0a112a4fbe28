"""What runs as process 1 in the guest: the work of /work.json, and a report of one line on the second serial port.

It has penstock's own Python and the kernel's modules, and nothing else: no shell, no numpy, no network.
"""

import base64
import ctypes
import errno
import json
import os
import socket
import struct
import sys
import traceback
import zlib
from pathlib import Path

PLACES = (
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("bpf", "/sys/fs/bpf"),
    ("tmpfs", "/run"),
)
REPORT = "/dev/ttyS1"
FINIT_MODULE = 313  # x86-64
POWER_OFF = 0x4321FEDC
SO_ATTACH_BPF = 50
OPTION_MEMORY = Path("/proc/sys/net/core/optmem_max")

libc = ctypes.CDLL(None, use_errno=True)


def settle() -> list[str]:
    """Mount what penstock expects to find, and load the modules; what failed is told."""
    failed = []
    for kind, place in PLACES:
        if libc.mount(kind.encode(), place.encode(), kind.encode(), 0, None) != 0:
            failed.append(f"mount {place}: {os.strerror(ctypes.get_errno())}")
    for module in sorted(Path("/modules").glob("*.ko")):
        with module.open("rb") as file:
            if libc.syscall(FINIT_MODULE, file.fileno(), b"", 0) != 0:
                failed.append(f"{module.name}: {os.strerror(ctypes.get_errno())}")
    return failed


def survey() -> dict[str, object]:
    """Everything that the probe says."""
    from penstock.kernel.probe.survey import survey_kernel

    found = survey_kernel()
    sections = {
        section: {name: answer.has for name, answer in getattr(found, section).items()}
        for section in ("behaviours", "programs", "maps", "attach")
    }
    sections["helpers"] = {name: names and sorted(names) for name, names in found.helpers.items()}
    return sections


def load(item: dict) -> dict[str, object]:
    """Load an object, and run its packets; a refusal is told in the kernel's words."""
    from penstock.errors import PenstockError
    from penstock.kernel.bpf_object import load_object

    try:
        with load_object(base64.b64decode(item["elf"]), "guest") as loaded:
            for name, lines in item.get("flat", {}).items():
                fill(loaded.maps[name], zlib.decompress(base64.b64decode(lines)))
            wrong = [run(loaded, item, packet) for packet in item.get("packets", ())]
            done = {"name": item["name"], "refused": None, "needs": item.get("needs")}
            return {**done, "wrong": [text for text in wrong if text]}
    except PenstockError as error:
        return {
            "name": item["name"],
            "refused": str(error),
            "needs": item.get("needs"),
            "log": getattr(error, "log", "")[-1500:],
            "wrong": [],
        }


def fill(table, lines: bytes) -> None:
    """Write the first part of a flat set's front, or put a content into its first slot."""
    from penstock.kernel.maps import INNER_MAP, MMAPABLE, Map, MapType

    if table.info.type == MapType.ARRAY:
        table.memory(part=slice(0, len(lines)))[:] = lines
        return
    sizes = {"key_size": 4, "value_size": 32, "max_entries": len(lines) // 32}
    with Map.create(MapType.ARRAY, "lines", **sizes, flags=MMAPABLE | INNER_MAP) as inner:
        inner.memory()[:] = lines
        table.update(bytes(4), struct.pack("=I", inner.fd))


def run(loaded, item: dict, packet: dict) -> str:
    """What is wrong with the program's answer to a packet; nothing if it is right, or no test run takes it."""
    probe, layout, program = loaded.maps["ps_probe"], item["layout"], loaded.programs[item["program"]]
    frame = bytes.fromhex(packet["frame"])
    if not program.takes(frame):
        return ""
    asked = bytearray(probe.size)
    struct.pack_into("=I", asked, 0, packet["wire"])
    struct.pack_into("=Q", asked, layout["now"], packet.get("now", 0))
    probe.update(bytes(4), bytes(asked))
    answer = program.test_run(frame).retval
    said = probe.lookup(bytes(4))
    slot, conditions, decision = struct.unpack_from("=III", said, layout["slot"])
    hits = int.from_bytes(said[layout["hits"] :], sys.byteorder) & ((1 << layout["slots"]) - 1)
    got = [answer, decision, slot, conditions, hits]
    if got == packet["wanted"]:
        return ""
    words = "(answer, decision, slot, conditions, hits)"
    return f"{packet['text']}: {got} in place of {packet['wanted']} {words}"


# ── attaching ────────────────────────────────────────────────────────────────


def attach(item: dict) -> dict[str, object]:
    """Put a policy's program in its place on a veth pair of the guest's own, replace it, take it off."""
    from penstock.errors import PenstockError
    from penstock.kernel.bpf_object import load_object

    place = {"xdp": at_xdp, "tc ingress": at_tc, "socket": at_socket}[item["hook"]]
    elf = base64.b64decode(item["elf"])
    try:
        with load_object(elf, "first") as first, load_object(elf, "second") as second:
            way = place(first.programs[item["program"]], second.programs[item["program"]])
    except (PenstockError, OSError) as error:
        return {"name": item["name"], "refused": f"{type(error).__name__}: {error}", "way": ""}
    return {"name": item["name"], "refused": None, "way": way}


def at_xdp(first, second) -> str:
    """The mode in which the second program runs once it has replaced the first."""
    from penstock.kernel.link import attach_xdp
    from penstock.kernel.netlink import interface

    with attach_xdp(first, interface("v0").index, mode="native") as link:
        link.update(second, expected_old=first)
        return next(found.mode for found in interface("v0").xdp if found.id == second.id)


def at_tc(first, second) -> str:
    """`tcx` or `clsact`, whichever the kernel has."""
    from penstock.kernel.clsact import plan_filter
    from penstock.kernel.netlink import interface
    from penstock.kernel.order import LAST
    from penstock.kernel.tcx import attach_tcx, has_tcx
    from penstock.model.hook import Hook

    index, hook = interface("v0").index, Hook.TC_INGRESS
    way = "tcx" if has_tcx(index) else "clsact"
    made = attach_tcx(first, index, hook) if way == "tcx" else plan_filter(index, hook, LAST).attach(first)
    with made as link:
        link.update(second, expected_old=first)
        assert link.info().program_id == second.id
        link.detach()
    return way


def at_socket(first, second) -> str:
    """A packet socket that has the first program, then the second; whether that needed more of its memory."""
    way = "SO_ATTACH_BPF"
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as tapped:
        for program in (first, second):
            try:
                tapped.setsockopt(socket.SOL_SOCKET, SO_ATTACH_BPF, program.fd)
            except OSError as error:
                if error.errno != errno.ENOMEM:
                    raise
                # Programs count against the socket's option memory, the old one still when the new one comes:
                # 20 KiB in all before Linux 6.9.
                OPTION_MEMORY.write_text("131072")
                tapped.setsockopt(socket.SOL_SOCKET, SO_ATTACH_BPF, program.fd)
                way = "SO_ATTACH_BPF, replaced with net.core.optmem_max raised"
    return way


def make_veth() -> None:
    """The pair v0 and v1."""
    from pyroute2 import IPRoute

    with IPRoute() as route:
        route.link("add", ifname="v0", kind="veth", peer={"ifname": "v1"})


def main() -> None:
    report: dict[str, object] = {"release": os.uname().release, "failed": settle()}
    try:
        work = json.loads(Path("/work.json").read_text())
        report["probe"] = survey()
        report["objects"] = [load(item) for item in work["objects"]]
        make_veth()
        report["attached"] = [attach(item) for item in work["attach"]]
    except BaseException:  # noqa: BLE001 - process 1 tells what went wrong, whatever it was
        report["broken"] = traceback.format_exc()
    with Path(REPORT).open("w") as port:
        port.write(json.dumps(report) + "\n")
        port.flush()
        libc.tcdrain(port.fileno())


if os.getpid() == 1:
    sys.path.insert(0, "/penstock")
    os.environ["HOME"] = "/run"
    try:
        main()
    finally:
        os.sync()
        libc.reboot(POWER_OFF)
