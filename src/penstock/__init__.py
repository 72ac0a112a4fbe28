"""penstock: packet rules in tcpdump's language, run by the Linux kernel at XDP.

    policy = penstock.load_policy("filter guard at xdp { drop if udp dst port 53 }")
    with penstock.attach("eth0", policy) as running:
        print(running.counters()["guard:1"].packets)

`load_policy` needs no privilege and no kernel, `attach` and `apply` need
CAP_BPF and CAP_NET_ADMIN.  `attach` lasts as long as its block; what `apply`
puts in place outlives the process.  Every failure is a `PenstockError`.
"""

from __future__ import annotations

from penstock import version

# `typing` takes longer to import than all else that a command needs which asks the daemon (cli/start.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from penstock.errors import (
        CaptureError,
        KernelError,
        LimitError,
        PenstockError,
        PolicyError,
        ToolchainError,
    )
    from penstock.pipeline.apply import apply, apply_all, detach
    from penstock.pipeline.attach import Attached, attach
    from penstock.pipeline.counters import Counter
    from penstock.pipeline.live_set import LiveSet
    from penstock.pipeline.policy import LoadedPolicy, load_policies, load_policy
    from penstock.pipeline.rules import add_rule, added_rules, remove_rule
    from penstock.pipeline.shared_set import SharedSet, open_set
    from penstock.pipeline.sockets import SocketFilter, attach_socket
    from penstock.pipeline.status import status

__version__ = version.VERSION

_PIPELINE = {
    "load_policy": "policy",
    "load_policies": "policy",
    "LoadedPolicy": "policy",
    "attach": "attach",
    "Attached": "attach",
    "attach_socket": "sockets",
    "SocketFilter": "sockets",
    "Counter": "counters",
    "apply": "apply",
    "apply_all": "apply",
    "status": "status",
    "detach": "apply",
    "add_rule": "rules",
    "remove_rule": "rules",
    "added_rules": "rules",
    "open_set": "shared_set",
    "SharedSet": "shared_set",
    "LiveSet": "live_set",
}

__all__ = [
    "load_policy",
    "load_policies",
    "LoadedPolicy",
    "attach",
    "Attached",
    "attach_socket",
    "SocketFilter",
    "Counter",
    "apply",
    "apply_all",
    "status",
    "detach",
    "add_rule",
    "remove_rule",
    "added_rules",
    "open_set",
    "SharedSet",
    "LiveSet",
    "PenstockError",
    "PolicyError",
    "LimitError",
    "CaptureError",
    "ToolchainError",
    "KernelError",
]


def __getattr__(name: str) -> object:
    """The public names are imported when they are first used: `import penstock` alone loads nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = f"penstock.pipeline.{_PIPELINE[name]}" if name in _PIPELINE else "penstock.errors"
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
