"""What the compiler's process may do: next to nothing.

`confine` is called in the child, between fork and exec.  What is run then has

* no capability, and none that an exec could give it (no_new_privs; capset(2));
* no network: an empty network namespace, where the kernel lets this process make one;
* bounds on processor time, memory and the size of a file, and leaves no core.

What is not permitted is left out: a compiler that runs with less confinement
does what the same user could do anyhow.  ctypes, since Python has none of these
calls; constants are those of <linux/prctl.h>, <linux/capability.h> and <sched.h>.
"""

from __future__ import annotations

import ctypes
import resource
from contextlib import suppress

CPU_LIMIT_S = 120
MEMORY_LIMIT = 4 << 30
FILE_LIMIT = 256 << 20

_SET_NO_NEW_PRIVS, _CAPBSET_DROP, _CAP_AMBIENT, _AMBIENT_CLEAR_ALL = 38, 24, 47, 4
_CAPABILITIES = 64
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_CAPABILITY_VERSION_3 = 0x20080522

_LIMITS = (
    (resource.RLIMIT_CPU, CPU_LIMIT_S),
    (resource.RLIMIT_AS, MEMORY_LIMIT),
    (resource.RLIMIT_FSIZE, FILE_LIMIT),
    (resource.RLIMIT_CORE, 0),
)

_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl
_prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)


def confine() -> None:
    """Give up, for this process and what it runs, all that a compiler does not need."""
    for what, limit in _LIMITS:
        with suppress(OSError, ValueError):
            resource.setrlimit(what, (limit, limit))
    _leave_the_network()
    _prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _prctl(_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)
    for number in range(_CAPABILITIES):
        if _prctl(_CAPBSET_DROP, number, 0, 0, 0) != 0:
            break
    # Header, and two times 32 bits of the effective, permitted and inheritable set: all empty.
    header, sets = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    _libc.capset(ctypes.byref(header), ctypes.byref(sets))


def _leave_the_network() -> None:
    """By CAP_SYS_ADMIN, or as everybody may who may make a user namespace."""
    if _libc.unshare(ctypes.c_int(_CLONE_NEWNET)) != 0:
        _libc.unshare(ctypes.c_int(_CLONE_NEWUSER | _CLONE_NEWNET))
