"""As whom feeds are asked when root asks for it: as whoever could have had root ask something else.

    fetches_as()      ->  (998, 997), the owner of the copies, where another than root may write the state directory
    become(998, 997)  this process is that user from now on, without any way back

A feed may be a file or `exec:COMMAND`, and what a set wants is told by files that the daemon's user may
write.  Run as root such a command would be that user's way to be root.  So root asks feeds as itself only
where nobody else can have written what it is told to ask.
"""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module

from penstock.errors import FeedError
from penstock.model.state_directory import state_directory

_KEPT_VARIABLES = frozenset({"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR"})
_OURS = ("PENSTOCK_", "PYTHON")
_LATER = (
    "aiohttp",
    "aiohttp.resolver",
    "concurrent.futures.thread",
    "encodings.idna",
    "numpy",
    "pwd",
    *(f"penstock.feeds.{name}" for name in ("crowdsec", "fetch", "formats", "judge", "presets", "protected")),
    *(f"penstock.feeds.{name}" for name in ("refresh", "taxii")),
    *(f"penstock.pipeline.{name}" for name in ("fetching", "surroundings")),
)


def fetches_as() -> tuple[int, int] | None:
    """User and group to ask feeds as; None where that is whoever asks: no root, or one who has the state alone."""
    if os.geteuid() != 0:
        return None
    root = state_directory()
    sets = root / "sets"
    subscribed = sorted(sets.glob("*/feeds.json"))
    places = [root / "feeds", *subscribed, *(path.parent for path in subscribed), sets, root]
    for place in places:
        try:
            found = os.lstat(place)
        except FileNotFoundError:
            continue
        if found.st_uid != 0:
            return found.st_uid, found.st_gid
    return None


def become(uid: int, gid: int) -> None:
    """Be that user for good, with nothing of root's that could be used: capabilities, groups, variables.

    Raises:
        FeedError: this process may not.
    """
    _have_everything_imported()
    try:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise FeedError(
            f"feeds cannot be asked as user {uid}, who may write what is asked: {error.strerror}",
            hint="root may; or `penstock feed fetch` as that user",
        ) from error
    for name in [*os.environ]:
        if name not in _KEPT_VARIABLES and not name.startswith(_OURS):
            del os.environ[name]


def _have_everything_imported() -> None:
    """Python may lie where only root can read it."""
    for name in _LATER:
        # Without aiohttp URLs are an error of their feed, and files and commands are feeds all the same.
        with suppress(ModuleNotFoundError):
            import_module(name)
