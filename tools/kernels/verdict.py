"""What a guest reported, against what is expected of its kernel.

The expectation is the tables' own: a name is there from its release on (`penstock.kernel.probe.tables`,
`behaviours`).  What a kernel of Debian's leaves out by its configuration is in `NOT_CONFIGURED`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.kernel.probe.behaviours import BEHAVIOURS, WATCHED_HELPERS
from penstock.kernel.probe.tables import ATTACH_TYPES, HELPERS, MAP_TYPES, PROGRAM_TYPES, release

#: Names that Debian's cloud kernels leave out, whatever their version.
NOT_CONFIGURED = {"programs": {"lirc_mode2"}}
#: Helpers that no program type has which can be asked: those of programs that are tied to a function of the kernel,
#: of infrared receivers and of error injection, which are not configured, and those that would write into the log.
NOT_ASKED = frozenset(
    {
        *("trace_printk", "trace_vprintk", "probe_write_user", "rc_repeat", "rc_keydown", "rc_pointer_rel"),
        *("override_return", "tcp_send_ack", "skb_output", "xdp_output", "seq_printf", "seq_write"),
        *("seq_printf_btf", "d_path", "bprm_opts_set", "ima_inode_hash", "ima_file_hash", "sock_from_file"),
        *("get_func_arg", "get_func_ret", "get_func_arg_cnt", "inode_storage_get", "inode_storage_delete"),
    }
)
#: Helpers that were of such programs alone at first.
LATER = {"copy_from_user": PROGRAM_TYPES["syscall"].since}

_SINCE = {
    "behaviours": {one.name: one.since for one in (*BEHAVIOURS, *WATCHED_HELPERS)},
    "programs": {name: known.since for name, known in PROGRAM_TYPES.items()},
    "maps": {name: known.since for name, known in MAP_TYPES.items()},
    "attach": {name: known.since for name, known in ATTACH_TYPES.items()},
}


def complaints(report: dict[str, Any]) -> list[str]:
    """Everything about a report that is not as it should be; none: all is well."""
    if "broken" in report:
        return [f"the guest broke: {report['broken']}"]
    return [
        *(f"it could not {what}" for what in report["failed"]),
        *_probe(report),
        *_helpers(report),
        *_objects(report),
        *_attached(report),
    ]


def _probe(report: dict[str, Any]) -> Iterator[str]:
    here = release(report["release"])
    for section, since in _SINCE.items():
        for name, found in report["probe"][section].items():
            wanted = here >= release(since[name]) and name not in NOT_CONFIGURED.get(section, ())
            if found is not wanted:
                words = {True: "there", False: "not there", None: "said to be untellable"}
                yield f"{section} {name} (Linux {since[name]}): {words[found]}, expected {words[wanted]}"


def _helpers(report: dict[str, Any]) -> Iterator[str]:
    here = release(report["release"])
    found = {name for names in report["probe"]["helpers"].values() for name in names or ()}
    for name, known in HELPERS.items():
        wanted = here >= release(LATER.get(name, known.since)) and name not in NOT_ASKED
        if wanted and name not in found:
            yield f"helper {name} (Linux {known.since}): no program type has it"
        if name in found and here < release(known.since):
            yield f"helper {name}: there before Linux {known.since}"


def _objects(report: dict[str, Any]) -> Iterator[str]:
    there = report["probe"]["behaviours"]
    for one in report["objects"]:
        lacks = one.get("needs") is not None and not there[one["needs"]]
        if lacks != bool(one["refused"]) and lacks:
            yield f"{one['name']}: loaded, though the kernel has no {one['needs']}"
        elif one["refused"] and not lacks:
            yield f"{one['name']}: {one['refused']}"
        yield from (f"{one['name']}: {text}" for text in one["wrong"])


def _attached(report: dict[str, Any]) -> Iterator[str]:
    tcx = report["probe"]["behaviours"]["tcx"]
    ways = {"at xdp": "native", "at tc ingress": "tcx" if tcx else "clsact"}
    for one in report["attached"]:
        if one["refused"]:
            yield f"{one['name']}: not attached: {one['refused']}"
        elif one["way"] != ways.get(one["name"], one["way"]):
            yield f"{one['name']}: attached by {one['way']}, expected {ways[one['name']]}"


def summary(report: dict[str, Any]) -> str:
    """One line of what was done."""
    loaded = [one for one in report["objects"] if not one["refused"]]
    ways = ", ".join(f"{one['name']}: {one['way'] or 'refused'}" for one in report["attached"])
    return f"{len(loaded)} of {len(report['objects'])} objects loaded; {ways}"


def kept(report: dict[str, Any]) -> dict[str, Any]:
    """What of a report is kept for docs/kernels.md."""
    names = {
        section: sorted(name for name, found in report["probe"][section].items() if found)
        for section in ("behaviours", "programs", "maps", "attach")
    }
    ways = {one["name"]: one["way"] for one in report["attached"]}
    return {"release": report["release"], **names, "attached": ways}
