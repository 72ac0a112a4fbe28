"""Run Graphviz's `dot`, which makes a picture of a diagram.

In: Graphviz source.  Out: SVG.  The source comes by standard input; no text of a
policy reaches the command line.
"""

from __future__ import annotations

import shutil
import subprocess

from penstock.errors import ToolchainError

TIME_LIMIT_S = 60
_INSTALL = (
    "apt install graphviz (Debian, Ubuntu) or dnf install graphviz (Fedora); or -o FILE.dot for the source"
)


def svg_of(source: str) -> bytes:
    """The picture.

    Raises:
        ToolchainError: there is no `dot`, or it failed.
    """
    dot = shutil.which("dot")
    if dot is None:
        raise ToolchainError("there is no `dot` on this machine to draw an SVG with", hint=_INSTALL)
    argv = [dot, "-Tsvg"]
    try:
        done = subprocess.run(
            argv, input=source.encode(), capture_output=True, timeout=TIME_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(f"dot did not finish within {TIME_LIMIT_S} s", argv=argv) from error
    except OSError as error:
        raise ToolchainError(f"{dot} cannot be run: {error.strerror}", argv=argv, hint=_INSTALL) from error
    if done.returncode:
        stderr = done.stderr.decode("utf-8", "replace")
        raise ToolchainError(f"dot failed with exit code {done.returncode}", argv=argv, stderr=stderr)
    return done.stdout
