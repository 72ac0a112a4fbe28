"""Commands as an own user with exactly CAP_BPF and CAP_NET_ADMIN, in a network and mount namespace of their own.

done = run_least(script)       what a Python script printed that was run so; `main` calls are the caller's affair

That user can read neither root's home, where Python may be, nor a checkout in a
private folder, nor pytest's folders: so all of it is bound below /mnt, which is
a file system in memory that the namespace alone sees, with a BPF file system, a
veth pair v0, v1 and a state directory that belong to the user.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

USER = "65534"
KEPT = "-all,+bpf,+net_admin"
REPOSITORY = Path(__file__).parents[1]

_SET_UP = """
mount -t tmpfs -o mode=755 tmpfs /mnt && cd /mnt && mkdir python site repo bpf state run
mount --bind "$1" python && mount --bind "$2" site && mount --bind "$3" repo && mount -t bpf bpf bpf
chown "$4" bpf state run && chmod 700 bpf
ip link set lo up && ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up
ip address add 10.9.0.2/24 dev v0
cd state && if [ -n "$6" ]; then "$5" -c "$6" "$7"; fi && shift 7 && exec "$@"
"""


def run_least(script: str, *arguments: str, as_root: str = "") -> str:
    """What a script printed; its /mnt/state is its own, and empty but for what a script `as_root` has left before."""
    prefix = Path(sys.base_prefix)
    binary = prefix / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    assert binary.exists(), binary
    python = str(Path("/mnt/python") / binary.relative_to(prefix))
    drop = ["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", "--no-new-privs"]
    drop += [f"--{which}={KEPT}" for which in ("inh-caps", "ambient-caps", "bounding-set")]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/mnt/state",
        "PYTHONPATH": "/mnt/repo/src:/mnt/repo:/mnt/site",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LD_LIBRARY_PATH": "/mnt/python/lib",
        "PENSTOCK_BPFFS": "/mnt/bpf/penstock",
        "PENSTOCK_STATE_DIR": "/mnt/state",
        "PENSTOCK_RUN_DIR": "/mnt/run",
        "PENSTOCK_LOCK_DIR": "/mnt/run",
    }
    # Where Python is the system's, its prefix is /usr: bound again, it is there twice.
    places = [
        str(prefix),
        sysconfig.get_path("purelib"),
        str(REPOSITORY),
        USER,
        python,
        as_root,
        "".join(arguments[:1]),
    ]
    argv = ["unshare", "--mount", "--net", "sh", "-ec", _SET_UP, "sh", *places]
    done = subprocess.run(
        [*argv, *drop, python, "-", *arguments],
        input=script,
        capture_output=True,
        text=True,
        env=environment,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
