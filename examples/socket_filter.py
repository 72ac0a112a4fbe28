#!/usr/bin/env python3
"""Print the packets of an interface that an expression matches, like a very small tcpdump.

    python examples/socket_filter.py lo 'udp port 53' 10
    python examples/socket_filter.py lo 'udp port 53' 10 --classic

The kernel decides: what does not match never comes to this process.
"""

from __future__ import annotations

import argparse
import socket
import sys

import penstock

EVERY_PROTOCOL = 3  # ETH_P_ALL


def main(interface: str, expression: str, packets: int, *, classic: bool) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERY_PROTOCOL)) as sock:
        sock.bind((interface, EVERY_PROTOCOL))
        with penstock.attach_socket(sock, expression, classic=classic) as running:
            print("filtering", flush=True)
            for _ in range(packets):
                frame, address = sock.recvfrom(65535)
                way = "out" if address[2] == socket.PACKET_OUTGOING else "in "
                print(way, len(frame), frame[:48].hex(), flush=True)
            if not classic:
                for name, counter in running.counters().items():
                    print(f"{name}: {counter.packets} packets")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Print the packets of an interface that an expression matches."
    )
    parser.add_argument("interface")
    parser.add_argument("expression", help="as tcpdump takes it: 'udp port 53'")
    parser.add_argument("packets", type=int, nargs="?", default=10, help="how many (10)")
    parser.add_argument("--classic", action="store_true", help="classic BPF, which needs no CAP_BPF")
    try:
        main(**vars(parser.parse_args()))
    except penstock.PenstockError as error:
        sys.exit(f"{error.message}\n{error.hint or ''}".strip())
