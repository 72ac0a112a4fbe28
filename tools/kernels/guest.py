"""What runs as process 1 in the guest: the work of /work.json, and a report of one line on the second serial port.

It has penstock's own Python and the kernel's modules, and nothing else: no shell, no numpy, no network.
"""

import base64
import ctypes
import json
import os
import struct
import sys
import traceback
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
            wrong = [run(loaded, item, packet) for packet in item.get("packets", ())]
            return {"name": item["name"], "refused": None, "wrong": [text for text in wrong if text]}
    except PenstockError as error:
        return {
            "name": item["name"],
            "refused": str(error),
            "log": getattr(error, "log", "")[-1500:],
            "wrong": [],
        }


def run(loaded, item: dict, packet: dict) -> str:
    """What is wrong with the program's answer to a packet; nothing if it is right."""
    from penstock.kernel.libc import address_of  # noqa: F401 - penstock is there

    probe, layout = loaded.maps["ps_probe"], item["layout"]
    probe.update(bytes(4), struct.pack("=I", packet["wire"]).ljust(probe.size, b"\0"))
    code = loaded.programs[item["program"]].test_run(bytes.fromhex(packet["frame"])).retval
    said = probe.lookup(bytes(4))
    slot, conditions, decided = struct.unpack_from("=III", said, layout["slot"])
    hits = int.from_bytes(said[layout["hits"] :], sys.byteorder)
    got = [code, slot, conditions, hits & ((1 << layout["slots"]) - 1)]
    if decided == 1 and got == packet["wanted"]:
        return ""
    return f"{packet['text']}: {got} in place of {packet['wanted']} (code, slot, conditions, hits)"


def attach(item: dict) -> dict[str, object]:
    """Attach a policy's program to a veth pair of the guest's own, replace it by itself, and take it off."""
    from pyroute2 import IPRoute

    from penstock.errors import PenstockError
    from penstock.kernel.bpf_object import load_object
    from penstock.kernel.link import attach_xdp
    from penstock.kernel.netlink import interface

    try:
        with IPRoute() as route:
            route.link("add", ifname="v0", kind="veth", peer={"ifname": "v1"})
        elf = base64.b64decode(item["elf"])
        with load_object(elf, "first") as first, load_object(elf, "second") as second:
            index = interface("v0").index
            program, other = first.programs[item["program"]], second.programs[item["program"]]
            with attach_xdp(program, index, mode="native") as link:
                link.update(other, expected_old=program)
                attached = [found.mode for found in interface("v0").xdp if found.id == other.id]
        return {"name": item["name"], "refused": None, "modes": attached}
    except (PenstockError, OSError) as error:
        return {"name": item["name"], "refused": f"{type(error).__name__}: {error}", "modes": []}


def main() -> None:
    report: dict[str, object] = {"release": os.uname().release, "failed": settle()}
    try:
        work = json.loads(Path("/work.json").read_text())
        report["probe"] = survey()
        report["objects"] = [load(item) for item in work["objects"]]
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
