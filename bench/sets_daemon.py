"""Single entries added through the daemon, as fail2ban does: how many a second.

ban_rows()     ->  [{"way": "one connection", "per_s": 2400}, {"way": "a connection each", …}]

A daemon of its own, with a ledger on disk; each add is answered before the next is asked.
"""

from __future__ import annotations

import time
from statistics import median

from bench.serving import serving
from bench.sets import sets_place
from bench.turns import undisturbed, unpreempted
from penstock.control.client import Connection, connect
from penstock.model.sets import SetSpec
from penstock.pipeline.set_store import delete, shared

_ADDS, _TURNS = 1000, 3

_SET = "banned"
Row = dict[str, object]


def ban_rows() -> list[Row]:
    """A row a way of asking."""
    with sets_place() as folder, shared([SetSpec(_SET, ("host",), 100_000)]):
        with serving(folder) as held:
            rates = _rates(held)
        delete(_SET)
    return [{"way": way, "per_s": round(median(each))} for way, each in rates.items()]


def _rates(held: Connection) -> dict[str, list[float]]:
    ways: dict[str, list[float]] = {"one connection": [], "a connection each": []}
    for turn in range(_TURNS):
        with undisturbed(), unpreempted():
            ways["one connection"].append(_rate(held, 2 * turn))
            ways["a connection each"].append(_rate(None, 2 * turn + 1))
    return ways


def _rate(held: Connection | None, turn: int) -> float:
    begun = time.perf_counter()
    for number in range(_ADDS):
        entry = f"198.18.{16 * turn + (number >> 8)}.{number & 255}"
        if held is not None:
            done = held.ask("SetAdd", set=_SET, entries=[entry])
        else:
            asked = connect()
            assert asked is not None
            with asked:
                done = asked.ask("SetAdd", set=_SET, entries=[entry])
        assert done["added"] == 1, done
    return _ADDS / (time.perf_counter() - begun)
