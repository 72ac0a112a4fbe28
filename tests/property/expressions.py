"""pcap-filter expressions as hypothesis makes them: every primitive, qualifier and operator, with values that occur.

`plain()` draws expressions without encapsulations; `behind(prefix)` puts one
behind `vlan and …`, `mpls and …`, where both meanings of "behind" agree.
"""

from __future__ import annotations

from hypothesis import strategies as st
from tests import frames

Texts = st.SearchStrategy[str]

DIRECTIONS = ("", "src ", "dst ", "src or dst ", "src and dst ")
PROTOCOL_NUMBERS = (0, 1, 2, 4, 6, 17, 41, 43, 44, 47, 50, 51, 58, 59, 60, 89, 103, 112, 132, 135, 255, 256)
ETHER_TYPES = (
    0x0,
    0x42,
    0x06,
    0xE0,
    0xF0,
    0xFE,
    0xAA,
    0x100,
    1500,
    1501,
    0x0800,
    0x0806,
    0x8035,
    0x86DD,
    0x8137,
    0x809B,
    0x80F3,
    0x6003,
    0x8847,
    0x8863,
    0x8864,
    0x9000,
    0x88CC,
)
NAMES_ANYWHERE = (
    "ip",
    "ip6",
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
)
NAMES_ON_LINK = (
    "arp",
    "rarp",
    "stp",
    "ipx",
    "netbeui",
    "atalk",
    "aarp",
    "decnet",
    "lat",
    "sca",
    "moprc",
    "mopdl",
    "iso",
    "esis",
    "isis",
    "clnp",
    "l1",
    "l2",
    "iih",
    "lsp",
    "snp",
    "csnp",
    "psnp",
)


def _formatted(template: str, **parts: Texts) -> Texts:
    return st.fixed_dictionaries(parts).map(lambda values: template.format(**values))


def _one(*values: object) -> Texts:
    return st.sampled_from([str(value) for value in values])


# ── addresses ────────────────────────────────────────────────────────────────

_ipv4_hosts = _formatted(
    "{protocol}{direction}host {address}",
    protocol=_one("", "", "ip "),
    direction=_one(*DIRECTIONS),
    address=_one(*frames.IPV4),
)
_ipv6_hosts = _formatted(
    "{protocol}{direction}host {address}",
    protocol=_one("", "ip6 "),
    direction=_one(*DIRECTIONS),
    address=_one(*frames.IPV6),
)
_ipv4_nets = _formatted(
    "{direction}net {network}",
    direction=_one(*DIRECTIONS),
    network=_one(
        "10",
        "10.0",
        "10.1",
        "10.0.0",
        "192.168.1",
        "10.0.0.0/8",
        "10.0.0.0/30",
        "10.0.0.1/32",
        "0.0.0.0/0",
        "192.0.2.0/24",
        "128.0.0.0/1",
        "10.0.0.0 mask 255.0.0.0",
        "10.0.0.1 mask 255.0.255.255",
        "0.0.0.1 mask 0.0.0.255",
        "10.0.0.1",
    ),
)
_ipv6_nets = _formatted(
    "{direction}net {network}",
    direction=_one(*DIRECTIONS),
    network=_one("2001:db8::/32", "2001:db8::/64", "fe80::/10", "ff00::/8", "2001:db8::1/128", "2001:db8::1"),
)
_mac_hosts = _formatted(
    "ether {direction}{kind}{address}",
    direction=_one("src ", "dst "),
    kind=_one("", "host "),
    address=_one(*frames.MACS),
) | _formatted("ether host {address}", address=_one(*frames.MACS))
_arp_hosts = _formatted(
    "{protocol} {direction}host {address}",
    protocol=_one("arp", "rarp"),
    direction=_one(*DIRECTIONS),
    address=_one(*frames.IPV4),
)
_inherited_hosts = _formatted(
    "({direction}host {first} {connective} {second})",
    direction=_one(*DIRECTIONS),
    connective=_one("or", "and"),
    first=_one(*frames.IPV4),
    second=_one(*frames.IPV4),
)

# ── ports and protocols ──────────────────────────────────────────────────────

_transport = _one("", "tcp ", "udp ", "sctp ")
_ports = _formatted(
    "{protocol}{direction}port {port}",
    protocol=_transport,
    direction=_one(*DIRECTIONS),
    port=_one(*frames.PORTS, "domain", "http", "ssh"),
)
_port_ranges = _formatted(
    "{protocol}{direction}portrange {low}-{high}",
    protocol=_transport,
    direction=_one(*DIRECTIONS),
    low=_one(*frames.PORTS),
    high=_one(*frames.PORTS),
)
_inherited_ports = _formatted(
    "({protocol}{direction}port {first} or {second})",
    protocol=_transport,
    direction=_one(*DIRECTIONS),
    first=_one(*frames.PORTS),
    second=_one(*frames.PORTS),
)
_ip_protocols = _formatted(
    "{protocol}proto {number}",
    protocol=_one("", "ip ", "ip6 "),
    number=_one(*PROTOCOL_NUMBERS, r"\tcp", r"\udp", r"\icmp", "ospf"),
)
_chains = _formatted(
    "{protocol}protochain {number}",
    protocol=_one("", "ip ", "ip6 "),
    number=_one(1, 6, 17, 51, 58, 59, 89, 132, r"\tcp"),
)
_ether_protocols = _formatted(
    "ether proto {number}",
    number=_one(*ETHER_TYPES, r"\ip", r"\arp", r"\ip6", "loopback", r"\stp", r"\ipx", r"\iso"),
)
_iso_protocols = _formatted("iso proto {number}", number=_one(r"\clnp", r"\esis", r"\isis", 0x81, 0x83))
_is_is = _formatted("isis proto {number}", number=_one(15, 18, 27, 300))
_decnet = _formatted(
    "decnet {direction}host {address}", direction=_one(*DIRECTIONS), address=_one("1.2", "2.1")
)

# ── the rest ─────────────────────────────────────────────────────────────────

_casts = _one("broadcast", "multicast", "ether broadcast", "ether multicast")
_ip_casts = _one("ip broadcast", "ip multicast", "ip6 multicast")
_lengths = _formatted(
    "{word} {number}", word=_one("less", "greater"), number=_one(0, 14, 42, 60, 64, 100, 1500)
)
_llc = _one(
    "llc",
    "llc i",
    "llc s",
    "llc u",
    "llc rr",
    "llc rnr",
    "llc rej",
    "llc ui",
    "llc ua",
    "llc disc",
    "llc dm",
    "llc sabme",
    "llc test",
    "llc xid",
    "llc frmr",
)

_offsets = st.integers(0, 45).map(str) | _one(
    "tcpflags", "icmptype", "icmpcode", "icmp6type", "0 - 4", "0xffffffff"
)
_small = st.integers(0, 300).map(str) | _one(
    "0x0f", "0xff", "0xffff", "0xffffffff", "tcp-syn", "tcp-ack", "icmp-echo"
)
_operators = _one("<", "<=", ">", ">=", "=", "==", "!=")


def _accessors(*protocols: str) -> Texts:
    fixed = _formatted(
        "{protocol}[{offset}{size}]",
        protocol=_one(*protocols),
        offset=_offsets,
        size=_one("", "", ":1", ":2", ":4"),
    )
    computed = _formatted(
        "{protocol}[{inner}[0] & 0xf * {factor} + {offset}]",
        protocol=_one(*protocols),
        inner=_one("ether", "ip"),
        factor=_one(1, 2, 4),
        offset=_offsets,
    )
    return fixed | fixed | computed


def _relations(*protocols: str) -> Texts:
    accessor = _accessors(*protocols) | _one("len")
    masked = _formatted(
        "{accessor} {operator} {number}",
        accessor=accessor,
        operator=_one("&", "|", "^", "+", "-", "*", ">>", "<<"),
        number=_one(0, 1, 2, 7, 0x0F, 16, 31),
    )
    divided = _formatted(
        "{accessor} {operator} {number}", accessor=accessor, operator=_one("/", "%"), number=_one(1, 3, 16)
    )
    left = accessor | masked | divided
    return _formatted("{left} {operator} {right}", left=left, operator=_operators, right=_small) | _formatted(
        "{right} {operator} {left}", left=accessor, operator=_operators, right=_small
    )


NETWORK_ACCESSORS = ("ip", "ip6")
TRANSPORT_ACCESSORS = ("tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "pim", "vrrp")

#: What can be asked behind any encapsulation.
ANYWHERE = st.one_of(
    _ipv4_hosts,
    _ipv6_hosts,
    _ipv4_nets,
    _ipv6_nets,
    _inherited_hosts,
    _ports,
    _ports,
    _port_ranges,
    _inherited_ports,
    _ip_protocols,
    _one(*NAMES_ANYWHERE),
    _ip_casts,
    _lengths,
    _relations(*NETWORK_ACCESSORS),
    _relations(*TRANSPORT_ACCESSORS),
    _relations("ether"),
)
#: What needs an Ethernet header, or at least a type that says it.
ON_LINK = st.one_of(
    _mac_hosts,
    _arp_hosts,
    _ether_protocols,
    _iso_protocols,
    _is_is,
    _decnet,
    _casts,
    _llc,
    _one(*NAMES_ON_LINK),
    _one("pppoed"),
    _chains,
    _relations("arp", "rarp", "decnet", "lat"),
)


def _joined(leaves: Texts) -> Texts:
    def extend(inner: Texts) -> Texts:
        return st.one_of(
            _formatted("{left} and {right}", left=inner, right=inner),
            _formatted("{left} or {right}", left=inner, right=inner),
            _formatted("{left} && ! ({right})", left=inner, right=inner),
            _formatted("not ({inner})", inner=inner),
            _formatted("({inner})", inner=inner),
        )

    return st.recursive(leaves, extend, max_leaves=4)


def plain() -> Texts:
    """Expressions about the frame itself."""
    return _joined(ANYWHERE | ON_LINK)


def on_any_link() -> Texts:
    """Expressions that make sense behind MPLS and PPPoE too."""
    return _joined(ANYWHERE)


def behind(prefix: str, inner: Texts) -> Texts:
    """`prefix and (inner)`."""
    return _formatted(prefix + " and ({inner})", inner=inner)
