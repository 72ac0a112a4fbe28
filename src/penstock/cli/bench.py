"""`penstock bench`: what a policy costs a packet, measured before anyone meets it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.options import json_option
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from penstock.price import Price

_TITLES = ("TRAFFIC", "NS", "EMPTY", "ABOVE EMPTY", "BY HAND", "RATIO")
_BY_HAND = ".hand.bpf.c"


@click.command("bench")
@click.argument("file", type=click.Path())
@click.option(
    "--pcap", type=click.Path(), metavar="FILE", help="Measure with the first packets of a capture."
)
@click.option(
    "--hand",
    type=click.Path(),
    metavar="FILE",
    help=f"C of the same filter by hand; by default FILE's {_BY_HAND}.",
)
@click.option(
    "--rounds", type=click.IntRange(1, 999), default=31, show_default=True, help="Rounds; medians count."
)
@json_option
def command(file: str, pcap: str | None, hand: str | None, rounds: int, as_json: bool) -> int:
    """Measure what a policy costs a packet, in nanoseconds.

    Beside it, in the same run, an empty program and, where there is one, the
    same filter written by hand in C.  Compare what stands in one table and
    nothing else.  No interface of this machine is touched.
    """
    from penstock.cli.policy_load import load_file
    from penstock.price import price

    policy = load_file(file)
    found = price(policy, _frames(pcap), hand_written=_hand_written(file, hand), rounds=rounds)
    if as_json:
        output.record("penstock.bench/1", _as_json(found))
    else:
        _show(found)
    return 0


def _frames(pcap: str | None) -> dict[str, bytes]:
    from penstock.observe.capture import ethernet_frames
    from penstock.price.traffic import capture_frames, odd_frames, usual_frames

    if pcap is None:
        return {**usual_frames(), **odd_frames()}
    frames = capture_frames(bytes(frame.data) for frame in ethernet_frames(pcap))
    if not frames:
        raise PenstockError(f"{pcap} has no packet that could be measured with")
    return frames


def _hand_written(file: str, hand: str | None) -> str | None:
    path = Path(hand) if hand else Path(file).with_suffix(_BY_HAND)
    if hand is None and not path.is_file():
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PenstockError(f"{path} cannot be read: {error}") from error


def _as_json(found: Price) -> dict[str, object]:
    traffic = [
        {
            "name": one.name,
            "ns": round(one.ns, 2),
            "empty_ns": round(one.empty_ns, 2),
            "hand_written_ns": None if one.hand_written_ns is None else round(one.hand_written_ns, 2),
        }
        for one in found.traffic
    ]
    return {
        "policy": found.policy,
        "traffic": traffic,
        "instructions": found.instructions,
        "verified_instructions": found.verified_instructions,
        "jited_bytes": found.jited_bytes,
        "map_bytes": found.map_bytes,
        "load_ms": round(found.load_s * 1000, 1),
    }


def _show(found: Price) -> None:
    rows = [
        (
            one.name,
            f"{one.ns:.1f}",
            f"{one.empty_ns:.1f}",
            f"{one.above_empty_ns:.1f}",
            "-" if one.hand_written_ns is None else f"{one.hand_written_ns - one.empty_ns:.1f}",
            "-" if one.ratio is None else f"{one.ratio:.2f}",
        )
        for one in found.traffic
    ]
    output.table(_TITLES, rows, right=(1, 2, 3, 4, 5))
    output.answer()
    output.answer(
        f"{found.policy}: {found.instructions} instructions, {found.verified_instructions} verified, "
        f"{found.jited_bytes} bytes of machine code, {found.map_bytes} bytes of maps, "
        f"loaded in {found.load_s * 1000:.1f} ms"
    )
    output.note(
        "ABOVE EMPTY and BY HAND are nanoseconds above the empty program in this run; the packets are warm"
    )
