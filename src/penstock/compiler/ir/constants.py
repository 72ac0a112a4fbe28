"""What pcap-filter's protocol names stand for in packets: types, protocols, LLC control bytes."""

from __future__ import annotations

from typing import Final

#: `ether proto NAME`: Ethernet types, and LLC service access points (at most 1500).
ETHER_PROTOCOLS: Final = {
    "aarp": 0x80F3, "arp": 0x0806, "atalk": 0x809B, "decnet": 0x6003, "ip": 0x0800, "ip6": 0x86DD,
    "lat": 0x6004, "loopback": 0x9000, "mopdl": 0x6001, "moprc": 0x6002, "rarp": 0x8035, "sca": 0x6007,
    "iso": 0xFE, "stp": 0x42, "ipx": 0xE0, "netbeui": 0xF0,
}  # fmt: skip

#: `iso proto NAME`: the first byte behind the LLC header (ISO/IEC TR 9577).
ISO_PROTOCOLS: Final = {"clnp": 0x81, "esis": 0x82, "isis": 0x83}
IS_IS: Final = 0x83

#: IS-IS packets by their type (ISO/IEC 10589).
IS_IS_TYPES: Final = {
    "l1": (15, 17, 18, 24, 26),
    "l2": (16, 17, 20, 25, 27),
    "iih": (15, 16, 17),
    "lsp": (18, 20),
    "snp": (24, 25, 26, 27),
    "csnp": (24, 25),
    "psnp": (26, 27),
}

#: Abbreviations of IP protocols -> (family, number); family 0 is both.
IP_PROTOCOLS: Final = {
    "tcp": (0, 6), "udp": (0, 17), "sctp": (0, 132), "pim": (0, 103), "ah": (0, 51), "esp": (0, 50),
    "icmp": (4, 1), "igmp": (4, 2), "igrp": (4, 9), "vrrp": (4, 112), "carp": (4, 112), "icmp6": (6, 58),
}  # fmt: skip

#: `llc NAME`: the control byte of a supervisory frame under mask 0x0f, of an unnumbered one under 0xef.
LLC_SUPERVISORY: Final = {"rr": 0x01, "rnr": 0x05, "rej": 0x09}
LLC_UNNUMBERED: Final = {
    "ui": 0x03, "ua": 0x63, "disc": 0x43, "dm": 0x0F, "sabme": 0x6F, "test": 0xE3, "xid": 0xAF, "frmr": 0x87,
}  # fmt: skip
