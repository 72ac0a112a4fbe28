"""The words of the policy language and of pcap-filter(7), as libpcap 1.10 knows them.

Tables only.  A word that has a meaning elsewhere (802.11, ATM, PF) or will have
one in a later version is listed too, so that whoever writes it reads one
sentence that says why it is refused.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Literal

from penstock.model.field import FIELDS, FLAG_WORDS

# ── pcap-filter ──────────────────────────────────────────────────────────────

#: Protocol words -> the one name that the syntax tree uses.
PROTOCOLS = {
    **dict.fromkeys(("ether", "link", "ppp", "slip", "fddi", "tr", "wlan"), "ether"),
    **{
        word: word
        for word in [
            "ip",
            "ip6",
            "arp",
            "rarp",
            "tcp",
            "udp",
            "sctp",
            "icmp",
            "icmp6",
            "igmp",
            "igrp",
            "pim",
            "vrrp",
            "carp",
            "ah",
            "esp",
            "atalk",
            "aarp",
            "decnet",
            "lat",
            "sca",
            "moprc",
            "mopdl",
            "iso",
            "clnp",
            "esis",
            "isis",
            "l1",
            "l2",
            "iih",
            "lsp",
            "snp",
            "csnp",
            "psnp",
            "stp",
            "ipx",
            "netbeui",
            "radio",
        ]
    },
    "es-is": "esis",
    "is-is": "isis",
}
KINDS = ("host", "net", "port", "portrange", "proto", "protochain", "gateway")
DIRECTIONS = ("src", "dst")
EncapsulationKind = Literal["vlan", "mpls", "pppoed", "pppoes", "geneve", "vxlan"]
#: Encapsulation -> the greatest number that may follow it, None where none may.
ENCAPSULATIONS: dict[str, tuple[EncapsulationKind, int | None]] = {
    "vlan": ("vlan", 0xFFF),
    "mpls": ("mpls", 0xFFFFF),
    "pppoed": ("pppoed", None),
    "pppoes": ("pppoes", 0xFFFF),
    "geneve": ("geneve", 0xFFFFFF),
    "vxlan": ("vxlan", 0xFFFFFF),
}
OPERATOR_WORDS = {"and": "and", "&&": "and", "or": "or", "||": "or", "xor": "xor"}
LLC_KINDS = frozenset(
    ["i", "s", "u", "rr", "rnr", "rej", "ui", "ua", "disc", "dm", "sabme", "test", "xid", "frmr"]
)

_OTHER = [
    "mask",
    "less",
    "greater",
    "byte",
    "broadcast",
    "multicast",
    "and",
    "or",
    "not",
    "len",
    "length",
    "inbound",
    "outbound",
    "ifindex",
    "ifname",
    "llc",
]

#: Words of pcap-filter that say nothing about an Ethernet frame -> why.
REFUSED = {
    **dict.fromkeys(
        [
            "type",
            "subtype",
            "direction",
            "dir",
            "addr1",
            "address1",
            "addr2",
            "address2",
            "addr3",
            "address3",
            "addr4",
            "address4",
            "ra",
            "ta",
        ],
        "only 802.11 (wireless) frames have that, and at this hook frames are Ethernet",
    ),
    **dict.fromkeys(
        [
            "lane",
            "metac",
            "bcc",
            "oam",
            "oamf4",
            "oamf4ec",
            "oamf4sc",
            "sc",
            "ilmic",
            "vpi",
            "vci",
            "connectmsg",
            "metaconnect",
        ],
        "only raw ATM captures have that",
    ),
    **dict.fromkeys(
        [
            "fisu",
            "lssu",
            "lsu",
            "msu",
            "hfisu",
            "hlssu",
            "hmsu",
            "sio",
            "opc",
            "dpc",
            "sls",
            "hsio",
            "hopc",
            "hdpc",
            "hsls",
        ],
        "only SS7 (MTP2, MTP3) captures have that",
    ),
    **dict.fromkeys(
        ["on", "rset", "ruleset", "rnr", "rulenum", "srnr", "subrulenum", "reason", "action"],
        "only OpenBSD's pflog captures have that",
    ),
}
KEYWORDS = frozenset((*PROTOCOLS, *KINDS, *DIRECTIONS, *ENCAPSULATIONS, *_OTHER, *REFUSED))

#: Names that stand for numbers, wherever a number may stand.
NAMED_NUMBERS = {
    "icmptype": 0, "icmpcode": 1, "icmp6type": 0, "icmp6code": 1, "tcpflags": 13,
    "tcp-fin": 0x01, "tcp-syn": 0x02, "tcp-rst": 0x04, "tcp-push": 0x08,
    "tcp-ack": 0x10, "tcp-urg": 0x20, "tcp-ece": 0x40, "tcp-cwr": 0x80,
    "icmp-echoreply": 0, "icmp-unreach": 3, "icmp-sourcequench": 4, "icmp-redirect": 5, "icmp-echo": 8,
    "icmp-routeradvert": 9, "icmp-routersolicit": 10, "icmp-timxceed": 11, "icmp-paramprob": 12,
    "icmp-tstamp": 13, "icmp-tstampreply": 14, "icmp-ireq": 15, "icmp-ireqreply": 16,
    "icmp-maskreq": 17, "icmp-maskreply": 18,
    "icmp6-destinationunreach": 1, "icmp6-packettoobig": 2, "icmp6-timeexceeded": 3,
    "icmp6-parameterproblem": 4, "icmp6-echo": 128, "icmp6-echoreply": 129,
    "icmp6-multicastlistenerquery": 130, "icmp6-multicastlistenerreportv1": 131,
    "icmp6-multicastlistenerdone": 132, "icmp6-routersolicit": 133, "icmp6-routeradvert": 134,
    "icmp6-neighborsolicit": 135, "icmp6-neighboradvert": 136, "icmp6-redirect": 137,
    "icmp6-routerrenum": 138, "icmp6-nodeinformationquery": 139, "icmp6-nodeinformationresponse": 140,
    "icmp6-ineighbordiscoverysolicit": 141, "icmp6-ineighbordiscoveryadvert": 142,
    "icmp6-multicastlistenerreportv2": 143, "icmp6-homeagentdiscoveryrequest": 144,
    "icmp6-homeagentdiscoveryreply": 145, "icmp6-mobileprefixsolicit": 146,
    "icmp6-mobileprefixadvert": 147, "icmp6-certpathsolicit": 148, "icmp6-certpathadvert": 149,
    "icmp6-multicastrouteradvert": 151, "icmp6-multicastroutersolicit": 152, "icmp6-multicastrouterterm": 153,
}  # fmt: skip

# ── penstock ─────────────────────────────────────────────────────────────────

NUMBER_FIELDS = frozenset(name for name, field in FIELDS.items() if field.word)
FLAG_FIELDS = frozenset(FLAG_WORDS)

#: Actions that end the search; those of them that need no device, so that a `default` can be one.
DECIDING = ("pass", "drop", "reject", "bounce", "redirect")
VERDICTS = DECIDING[:-1]
ACTIONS = (*DECIDING, "audit", "count", "mark", "dscp", "mirror", "add", "remove")
TOP_WORDS = ("let", "set", "filter", "test")
BODY_WORDS = ("default", "on", *ACTIONS)
TEST_WORDS = ("packet", "pcap", "with")

#: Words that are a predicate with what follows them, and names anywhere else.
FORM_WORDS = ("pcap", "inner", "over", "sample")

#: Words of later versions -> what they will be about.  Where each may stand differs.
LATER_TOP = {"include": "including other files"}
LATER_ACTIONS = {
    "steer": "steering",
    "balance": "load balancing",
    "log": "logging",
}
LATER_EVENT_FIELDS = frozenset({"rule", "verdict", "worker"})

EXPRESSION_WORDS = tuple(
    sorted({*KEYWORDS, *NAMED_NUMBERS, *NUMBER_FIELDS, *FLAG_FIELDS, *FORM_WORDS, "xor"} - set(REFUSED)),
)


def suggestion(word: str, known: tuple[str, ...]) -> str | None:
    """A hint that names the known word nearest to `word`, if any is near."""
    if len(word) > 64:
        return None
    lowered = word.lower()
    if lowered != word and lowered in known:
        return f"words are written in small letters: `{lowered}`"
    letters = sorted(lowered)
    near = [other for other in known if len(other) == len(lowered) and sorted(other) == letters]
    near = near or get_close_matches(lowered, known, n=1, cutoff=0.7)
    return f"did you mean `{near[0]}`?" if near else None


def later(word: str, subject: str) -> str:
    """The sentence for a word that this version does not have yet."""
    return f"`{word}` ({subject}) is not in this version of penstock yet"
