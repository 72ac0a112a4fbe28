"""A large set in other filters, asked for 2^20 random sources over a veth pair (penstock.price.peers.wire).

    rows = set_wire_rows((100_000, 1_000_000), rounds=5)
    python -m bench.sets_wire --entries 100000

Out: a row a size, kind of set and kind of packets (`hit`: the set holds their source; `miss`): nanoseconds
a packet, sending and receiving included, of penstock at XDP, `ipset` behind iptables in raw PREROUTING and an
`nft` set at netdev ingress, beside XDP programs that drop or pass everything.  Each filter has to let through just
the packets that it should.  nft has networks as intervals, up to as many as it takes in a few seconds.
"""

from __future__ import annotations

import argparse
import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from statistics import median

import numpy as np

from bench.set_tools import NFT_NETWORKS
from bench.sets_hash import policy_of
from bench.sets_lookup import PACKETS, Networks, addresses, asked, networks
from bench.turns import undisturbed
from bench.usual import HAND
from penstock.compiler.clang import compile_c
from penstock.kernel.bpf_object import load_object
from penstock.kernel.maps import Map
from penstock.kernel.program import Program
from penstock.model.packet import build_packet, parse_packet
from penstock.model.spec import PROGRAM
from penstock.price.peers.tools import run
from penstock.price.peers.wire import Wire, on_one_processor, prepared

Row = dict[str, object]
Place = Callable[[Wire], AbstractContextManager[None]]
_FRAME = "Ether()/IPv4(dst='192.0.2.1')/UDP(dport=53)"
_SIZE, _TURN = 64, 1 << 17
_HEADER, _SOURCE, _CHECKSUM = slice(14, 34), slice(12, 16), slice(10, 12)


def set_wire_rows(sizes: Sequence[int], rounds: int, told: Callable[[str], None] = print) -> list[Row]:
    """A row a size, kind of set and kind of packets."""
    rows = list[Row]()
    for size in sizes:
        for kind in ("host", "net"):
            told(f"sets over veth: {size:,} of {kind}")
            rows += _rows(kind, size, rounds)
    return rows


def _rows(kind: str, size: int, rounds: int) -> Iterator[Row]:
    nets = networks("v4", size) if kind == "net" else _hosts(size)
    with ExitStack() as held, on_one_processor():
        sender = held.enter_context(_Sender())
        wires: dict[str, Wire] = {}
        for name, place in _places(kind, nets).items():
            wires[name] = held.enter_context(Wire(_SIZE))
            held.enter_context(place(wires[name]))
        for traffic in ("hit", "miss"):
            sender.fill(nets, traffic)
            with undisturbed():
                found = _measured(sender, wires, rounds, passes=traffic == "miss")
            yield {"entries": len(nets.hi), "kind": kind, "traffic": traffic, "ns": found}


def _hosts(size: int) -> Networks:
    rng = np.random.default_rng([7, size])
    some = rng.permutation(np.unique(rng.integers(1 << 24, 224 << 24, size + size // 20)))[:size]
    hi = np.sort(some).astype(np.uint64) << np.uint64(32)
    return Networks("v4", hi, hi * np.uint64(0), np.full(size, 32))


def _measured(sender: _Sender, wires: Mapping[str, Wire], rounds: int, *, passes: bool) -> dict[str, float]:
    samples = {name: list[float]() for name in wires}
    for _ in range(rounds):
        for name, wire in wires.items():
            sent = wire.send_by(sender.program, sender.frame, _TURN)
            wanted = {"drops all": 0, "passes all": _TURN}.get(name, _TURN * passes)
            if sent.delivered != wanted:
                raise AssertionError(f"{name} lets {sent.delivered} packets through, not {wanted}")
            samples[name].append(sent.ns)
    return {name: round(median(found), 1) for name, found in samples.items()}


class _Sender(ExitStack):
    """Sends packets whose sources are those of `fill`, in turn."""

    def __init__(self) -> None:
        super().__init__()
        (self.frame,) = prepared([build_packet(parse_packet(_FRAME))])
        loaded = self.enter_context(
            load_object(compile_c((HAND / "addresses_wire.bpf.c").read_text()), "send")
        )
        self.program: Program = loaded.programs["send"]
        self._addresses: Map = loaded.maps["addresses"]
        header = bytearray(self.frame[_HEADER])
        header[_SOURCE], header[_CHECKSUM] = bytes(4), bytes(2)
        loaded.variable("head")[:] = self.frame[:_SIZE]
        loaded.variable("sum")[:] = struct.pack("=I", sum(struct.unpack("=10H", header)))

    def fill(self, nets: Networks, traffic: str) -> None:
        """Send from addresses in the set, or from others."""
        hi, _ = addresses(nets, traffic, PACKETS)
        self._addresses.view(np.uint64)[:, 0] = (hi >> np.uint64(32)).astype(">u4").view(np.uint32)


# ── the filters ──────────────────────────────────────────────────────────────


def _places(kind: str, nets: Networks) -> dict[str, Place]:
    texts = _texts(nets, kind)
    places: dict[str, Place] = {"drops all": lambda wire: _put(wire, drops=True), "passes all": _put}
    if kind == "host":
        places["penstock"] = lambda wire: _hash(wire, nets)
    else:
        places |= {
            f"penstock, {one}": lambda wire, one=one: _asked(wire, one, nets) for one in ("flat", "trie")
        }
    places["ipset"] = lambda wire: _ipset(wire, kind, texts)
    if kind == "host" or len(texts) <= NFT_NETWORKS:
        places["nft"] = lambda wire: _nft(wire, kind, texts)
    return places


def _texts(nets: Networks, kind: str) -> list[str]:
    numbers = (nets.hi >> np.uint64(32)).tolist()
    dotted = [f"{one >> 24}.{one >> 16 & 255}.{one >> 8 & 255}.{one & 255}" for one in numbers]
    if kind == "host":
        return dotted
    return [f"{text}/{bits}" for text, bits in zip(dotted, nets.length.tolist(), strict=True)]


@contextmanager
def _put(wire: Wire, *, drops: bool = False) -> Iterator[None]:
    wire.put(drops=drops)
    yield


@contextmanager
def _hash(wire: Wire, nets: Networks) -> Iterator[None]:
    with ExitStack() as held:
        loaded = policy_of(held, (nets.hi >> np.uint64(32)).astype(np.int64))
        wire.put(loaded.programs[PROGRAM])
        yield


@contextmanager
def _asked(wire: Wire, structure: str, nets: Networks) -> Iterator[None]:
    with asked(structure, nets) as (program, _):
        wire.put(program)
        yield


@contextmanager
def _ipset(wire: Wire, kind: str, texts: list[str]) -> Iterator[None]:
    wire.put()
    head = f"create bench hash:{'ip' if kind == 'host' else 'net'} hashsize {len(texts)} maxelem {2 * len(texts)}\n"
    with wire.inside():
        run("ipset", "restore", text=head + "".join(f"add bench {text}\n" for text in texts))
        asks = f"-A PREROUTING -i {wire.device} -m set --match-set bench src -j DROP"
        run("iptables-restore", text=f"*raw\n:PREROUTING ACCEPT\n{asks}\nCOMMIT\n")
    yield


@contextmanager
def _nft(wire: Wire, kind: str, texts: list[str]) -> Iterator[None]:
    wire.put()
    flags = "" if kind == "host" else "flags interval; auto-merge;"
    text = (
        f"table netdev bench {{\n set s {{ type ipv4_addr; size {4 * len(texts)}; {flags} }}\n"
        f' chain c {{ type filter hook ingress device "{wire.device}" priority 0; policy accept;\n'
        f"  ip saddr @s drop\n }}\n}}\nadd element netdev bench s {{ {', '.join(texts)} }}\n"
    )
    with wire.inside():
        run("nft", "-f", "-", text=text)
    yield


def main() -> None:
    """Measure and print a line of JSON for each row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--entries", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    for row in set_wire_rows(chosen.entries, chosen.rounds):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
