"""penstock: packet rules in tcpdump's language, run by the Linux kernel at XDP.

    policy = penstock.load_policy("filter guard at xdp { drop if udp dst port 53 }")
    with penstock.attach("eth0", policy) as running:
        print(running.counters()["guard:1"].packets)

`load_policy` needs no privilege and no kernel, `attach` and `apply` need
CAP_BPF and CAP_NET_ADMIN.  `attach` lasts as long as its block; what `apply`
puts in place outlives the process.  Every failure is a `PenstockError`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from penstock import version

if TYPE_CHECKING:
    from penstock.errors import (
        CaptureError,
        KernelError,
        LimitError,
        PenstockError,
        PolicyError,
        ToolchainError,
    )
    from penstock.pipeline import Attached, Counter, LoadedPolicy, apply, attach, detach, load_policy, status

__version__ = version.VERSION

__all__ = [
    "load_policy",
    "LoadedPolicy",
    "attach",
    "Attached",
    "Counter",
    "apply",
    "status",
    "detach",
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
    module = "penstock.errors" if name.endswith("Error") else "penstock.pipeline"
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
