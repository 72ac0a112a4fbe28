"""From where this host was administered by SSH lately: a feed must not block that, whoever brings it in.

    note_peer()         a command that is run over SSH remembers its peer
    recent_peers()      those of the last day, for processes that have no such connection: the daemon

STATE/peers.json has them, with the moment of each.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import ip_address, ip_network

import msgspec

from penstock.feeds.protected import Protected
from penstock.model.moment import Moment, moment
from penstock.model.state_directory import make_place, read_kept, state_directory, write_atomically
from penstock.pipeline.lifelines import ssh_connection

_DAY_S, _AGAIN_S = 86_400.0, 3600.0
_MOST = 64
_REASON = "peer of an SSH connection of the last day"


def note_peer(environment: Mapping[str, str] = os.environ) -> None:
    """Remember the peer of the SSH connection that this command is run over, if it is.

    What cannot be written is not remembered: that is no reason to leave a set as it is.
    """
    connection = ssh_connection(environment)
    if connection is None:
        return
    known, now, peer = _known(), moment(), str(connection.peer)
    if peer in known and known[peer].elapsed_s(now) < _AGAIN_S:
        return
    kept = sorted({**_recent(known, now), peer: now}.items(), key=lambda one: -one[1].wall)[:_MOST]
    place = state_directory()
    try:
        make_place(place)
        write_atomically(place / "peers.json", msgspec.json.encode(dict(kept)), mode=0o600)
    except OSError:
        return


def recent_peers() -> tuple[Protected, ...]:
    """The peers of the last day, sorted."""
    return tuple(Protected(ip_network(peer), _REASON) for peer in sorted(_recent(_known(), moment())))


def _recent(known: Mapping[str, Moment], now: Moment) -> dict[str, Moment]:
    return {peer: at for peer, at in known.items() if at.elapsed_s(now) < _DAY_S}


def _known() -> dict[str, Moment]:
    try:
        found = msgspec.json.decode(read_kept(state_directory() / "peers.json"), type=dict[str, Moment])
        return {str(ip_address(peer)): at for peer, at in found.items()}
    except (OSError, ValueError):
        return {}
