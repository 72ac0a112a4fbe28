"""Hypothesis strategies for expressions, as texts that libpcap understands as well.

`expression_texts()` gives whole expressions; `primitive_texts()` single ones.
Addresses, ports and numbers come from small pools, the same that random packets
should take theirs from (`HOSTS4`, `PORTS`, …), so that tests are often true.

    tcp src or dst port (80 or 443) and not ip[8] & 0xf = 3
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

HOSTS4 = ("10.0.0.1", "10.0.0.2", "192.168.1.1", "255.255.255.255", "224.0.0.1")
HOSTS6 = ("2001:db8::1", "fe80::1", "ff02::1", "::1")
NETS4 = ("10.0.0.0/8", "10.0.0.0/24", "10.0.0.0/31", "192.168.0.0/16", "0.0.0.0/0", "10.0", "192.168.1", "10")
MASKS4 = ("10.0.0.0 mask 255.0.0.0", "192.168.1.0 mask 255.255.255.0", "10.0.0.1 mask 255.0.0.255")
NETS6 = ("2001:db8::/32", "fe80::/10", "2001:db8::/127", "::/0")
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01")
MAC_SPELLINGS = (*MACS, "02-00-00-00-00-01", "0200.0000.0001", "2:0:0:0:0:1", "020000000001")
PORTS = (22, 53, 80, 443, 6081)
PORT_SPELLINGS = (*map(str, PORTS), "0x50", "0120", "ssh", "domain", "http", "https")
PORT_RANGES = ("20-25", "50-60", "80-443", "443-80", "6000-7000", "0-65535")
IP_PROTOS = ("1", "2", "6", "17", "47", "50", "51", "58", "132", "0", "44", "\\tcp", "\\udp", "\\icmp")
ETHER_PROTOS = (
    "0x0800",
    "0x86dd",
    "0x0806",
    "0x8035",
    "\\ip",
    "\\ip6",
    "\\arp",
    "0x88cc",
    "0x8100",
    "0x0042",
)
VLANS = (0, 1, 5, 100, 4095)
LABELS = (0, 1, 16, 1048575)
SESSIONS = (0, 1, 7, 65535)
VNIS = (0, 1, 100, 16777215)

PROTOCOLS = [
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
    "es-is",
    "is-is",
]
COMMON_PROTOCOLS = ["ip", "ip6", "arp", "tcp", "udp", "icmp", "icmp6"]
LLC_KINDS = ["i", "s", "u", "rr", "rnr", "rej", "ui", "ua", "disc", "dm", "sabme", "test", "xid", "frmr"]

_ACCESSORS = {
    "ether": 18,
    "ip": 24,
    "ip6": 44,
    "arp": 28,
    "tcp": 24,
    "udp": 12,
    "icmp": 10,
    "icmp6": 10,
    "sctp": 14,
}
_NAMED = (
    (
        "tcp[tcpflags]",
        ("tcp-syn", "tcp-ack", "tcp-rst", "tcp-fin", "tcp-push", "tcp-urg", "tcp-ece", "tcp-cwr"),
    ),
    ("icmp[icmptype]", ("icmp-echo", "icmp-echoreply", "icmp-unreach", "icmp-timxceed")),
    ("icmp6[icmp6type]", ("icmp6-echo", "icmp6-echoreply", "icmp6-neighborsolicit", "icmp6-routeradvert")),
)


@dataclass(frozen=True)
class Grammar:
    """What the generated expressions may hold; each part left out makes them plainer."""

    arithmetic: bool = True
    encapsulation: bool = True
    """vlan, mpls, pppoed, pppoes, geneve."""
    names: bool = True
    """Names that a service or protocol table resolves, such as `domain` and `\\tcp`."""
    rare_protocols: bool = True
    """LLC, OSI, DECnet and other protocols of old, besides the common ones."""
    protochain: bool = True
    depth: int = 3
    """How deep parentheses are nested, at most."""


EVERYTHING = Grammar()


def _of(*texts: str) -> st.SearchStrategy[str]:
    return st.sampled_from(texts)


def _joined(*parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map(lambda words: " ".join(word for word in words if word))


def _direction() -> st.SearchStrategy[str]:
    return _of("", "", "src", "dst", "src or dst", "src and dst", "dst or src", "dst and src")


def _one_or_more(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """A value, or a list of them in parentheses that all have the qualifiers before it."""
    joint = _of(" or ", " or ", " and ")
    lists = st.tuples(values, joint, _of("", "not "), values).map("".join).map(lambda text: f"({text})")
    return st.one_of(values, values, values, _joined(_of("not"), values), lists)


def _plain(texts: tuple[str, ...], grammar: Grammar) -> st.SearchStrategy[str]:
    """Those of the texts that need no table of names, unless names are wanted."""
    kept = [text for text in texts if grammar.names or not (text[0].isalpha() or text[0] == "\\")]
    return st.sampled_from(kept)


# ── primitives ───────────────────────────────────────────────────────────────


def host_texts() -> st.SearchStrategy[str]:
    """`[ip|arp|rarp] [src|dst|…] host …` in its IPv4, IPv6 and Ethernet forms."""
    v4 = _joined(_of("", "", "ip", "arp", "rarp"), _direction(), _of("host"), _one_or_more(_of(*HOSTS4)))
    v6 = _joined(_of("", "ip6"), _direction(), _of("host"), _one_or_more(_of(*HOSTS6)))
    bare = _joined(_of("src", "dst", "src or dst", "src and dst"), _one_or_more(_of(*HOSTS4, *HOSTS6)))
    mac = _joined(_of("ether", "link"), _direction(), _of("host"), _one_or_more(_of(*MAC_SPELLINGS)))
    return st.one_of(v4, v6, bare, mac)


def net_texts() -> st.SearchStrategy[str]:
    v4 = _joined(
        _of("", "", "ip", "arp", "rarp"), _direction(), _of("net"), _one_or_more(_of(*NETS4, *MASKS4))
    )
    v6 = _joined(_of("", "ip6"), _direction(), _of("net"), _one_or_more(_of(*NETS6, *HOSTS6)))
    return st.one_of(v4, v6)


def port_texts(grammar: Grammar = EVERYTHING) -> st.SearchStrategy[str]:
    protocol = _of("", "tcp", "udp", "sctp")
    ports = _joined(protocol, _direction(), _of("port"), _one_or_more(st.sampled_from(PORTS).map(str)))
    ranges = _plain(PORT_RANGES, grammar)
    ranged = _joined(protocol, _direction(), _of("portrange"), _one_or_more(ranges))
    # A service may exist for one protocol only, and libpcap refuses it for the others: these exist for both.
    named = _joined(_of("", "tcp"), _direction(), _of("port"), _plain(PORT_SPELLINGS, grammar))
    return st.one_of(ports, ports, ranged, named)


def proto_texts(grammar: Grammar = EVERYTHING) -> st.SearchStrategy[str]:
    ip = _joined(_of("", "ip", "ip6"), _of("proto"), _one_or_more(_plain(IP_PROTOS, grammar)))
    ether = _joined(_of("ether", "link"), _of("proto"), _one_or_more(_plain(ETHER_PROTOS, grammar)))
    kinds = [ip, ether]
    if grammar.protochain:
        numbers = _of("6", "17", "50", "58", "0", "44", "51")
        kinds.append(_joined(_of("", "ip", "ip6"), _of("protochain"), numbers))
    if grammar.rare_protocols:
        kinds.append(
            _of("iso proto 0x81", "iso proto \\isis" if grammar.names else "iso proto 0x83", "isis proto 15")
        )
    return st.one_of(kinds)


def bare_texts(grammar: Grammar = EVERYTHING) -> st.SearchStrategy[str]:
    """Primitives of one word or two: protocols, broadcast, multicast, lengths, LLC."""
    common = st.sampled_from(COMMON_PROTOCOLS)
    casts = _of(
        "broadcast", "ether broadcast", "multicast", "ether multicast", "ip multicast", "ip6 multicast"
    )
    lengths = _joined(_of("less", "greater"), _of("0", "42", "60", "64", "100", "1500"))
    kinds = [common, common, casts, lengths]
    if grammar.rare_protocols:
        kinds += [st.sampled_from(PROTOCOLS), _joined(_of("llc"), st.sampled_from(["", *LLC_KINDS]))]
    return st.one_of(kinds)


def encapsulation_texts() -> st.SearchStrategy[str]:
    """Primitives that shift what stands to their right."""

    def numbered(word: str, numbers: tuple[int, ...]) -> st.SearchStrategy[str]:
        return _joined(_of(word), st.sampled_from(["", *map(str, numbers)]))

    return st.one_of(
        numbered("vlan", VLANS),
        numbered("vlan", VLANS),
        numbered("mpls", LABELS),
        _of("pppoed"),
        numbered("pppoes", SESSIONS),
        numbered("geneve", VNIS),
    )


# ── arithmetic ───────────────────────────────────────────────────────────────


def _number() -> st.SearchStrategy[str]:
    small = st.integers(0, 20).map(str)
    return st.one_of(
        small, small, _of("0x0f", "0xff", "0377", "255", "256", "0xffff", "65535", "0x80000000", "4294967295")
    )


def accessor_texts() -> st.SearchStrategy[str]:
    """`proto[offset:size]`, mostly inside the header, now and then far beyond it or with a computed offset."""

    @st.composite
    def accessor(draw: st.DrawFn) -> str:
        protocol = draw(st.sampled_from(sorted(_ACCESSORS)))
        places = st.integers(0, _ACCESSORS[protocol]).map(str)
        computed = _of("(ip[0] & 0xf) << 2", "ip[9] / 4", "len - 60", "(tcp[12] & 0xf0) >> 2")
        offset = draw(st.one_of(places, places, places, places, _of("1500", "0xffffffff", "0 - 1"), computed))
        return f"{protocol}[{offset}{draw(_of('', '', ':1', ':2', ':4'))}]"

    return accessor()


def arithmetic_texts() -> st.SearchStrategy[str]:
    """Terms without division by a literal zero and without shifts that libpcap refuses."""
    leaf = st.one_of(accessor_texts(), accessor_texts(), _number(), _of("len"))

    def extend(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        operator = _of("+", "-", "*", "&", "|", "^")
        plain = st.tuples(inner, operator, inner).map(" ".join)
        divided = st.tuples(inner, _of("/", "%"), _of("1", "2", "3", "16", "ip[8]", "(ip[1])")).map(" ".join)
        shifted = st.tuples(inner, _of("<<", ">>"), st.integers(0, 31).map(str)).map(" ".join)
        wrapped = st.tuples(inner, operator, inner).map(lambda words: f"({' '.join(words)})")
        return st.one_of(plain, plain, divided, shifted, wrapped, inner.map(lambda text: f"- {text}"))

    return st.recursive(leaf, extend, max_leaves=4)


def relation_texts() -> st.SearchStrategy[str]:
    relation = _of("<", "<=", ">", ">=", "=", "==", "!=")
    general = st.tuples(arithmetic_texts(), relation, arithmetic_texts()).map(" ".join)
    byte = st.tuples(accessor_texts(), relation, _number()).map(" ".join)

    @st.composite
    def named(draw: st.DrawFn) -> str:
        term, names = draw(st.sampled_from(_NAMED))
        name, other = draw(st.sampled_from(names)), draw(st.sampled_from(names))
        form = draw(_of("{0} = {1}", "{0} & {1} != 0", "{0} & ({1}|{2}) == {1}", "{0} != {1}"))
        return form.format(term, name, other)

    return st.one_of(byte, byte, named(), general)


# ── whole expressions ────────────────────────────────────────────────────────


def primitive_texts(grammar: Grammar = EVERYTHING) -> st.SearchStrategy[str]:
    """One primitive of any kind that the grammar has."""
    kinds = [host_texts(), net_texts(), port_texts(grammar), proto_texts(grammar), bare_texts(grammar)]
    if grammar.arithmetic:
        kinds.append(relation_texts())
    if grammar.encapsulation:
        kinds.append(encapsulation_texts())
    return st.one_of(kinds)


def expression_texts(grammar: Grammar = EVERYTHING) -> st.SearchStrategy[str]:
    """Primitives joined by `and`, `or` and `not`, with values that inherit their qualifiers, and parentheses."""
    operator = _of(" and ", " and ", " or ", " or ", " && ", " || ")

    def negated(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.tuples(_of("", "", "", "not ", "!"), inner).map("".join)

    def joined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.lists(negated(inner), min_size=1, max_size=3).flatmap(
            lambda terms: st.lists(operator, min_size=len(terms) - 1, max_size=len(terms) - 1).map(
                lambda joints: "".join(
                    text for pair in zip(terms, [*joints, ""], strict=True) for text in pair
                )
            )
        )

    level = st.one_of(primitive_texts(grammar), primitive_texts(grammar), inheriting_texts(grammar))
    for _ in range(grammar.depth):
        level = st.one_of(level, level, joined(level).map(lambda text: f"({text})"))
    return joined(level)


def inheriting_texts(grammar: Grammar = EVERYTHING) -> st.SearchStrategy[str]:
    """`port 80 or 443 and not 22`: values that take the qualifiers of what stands before them."""
    families = [
        (("port", "tcp port", "udp dst port", "src or dst port"), tuple(map(str, PORTS))),
        (("host", "src host", "ip dst host", "src", "src and dst"), HOSTS4),
        (("net", "src net", "ip dst net"), NETS4),
        (("ip6 host", "ip6 src host", "ip6 net"), HOSTS6),
        (("ether host", "ether src", "ether dst host"), MACS),
        (("ip proto", "ip6 proto"), ("6", "17", "1", "58")),
    ]

    @st.composite
    def inheriting(draw: st.DrawFn) -> str:
        heads, values = draw(st.sampled_from(families))
        text = f"{draw(st.sampled_from(heads))} {draw(st.sampled_from(values))}"
        for _ in range(draw(st.integers(1, 3))):
            text += draw(_of(" or ", " and ", " or not "))
            through = draw(_of("", "", "(tcp) or ", "(udp or tcp) and ")) if grammar.depth else ""
            value = st.sampled_from(values)
            listed = st.tuples(value, value).map(lambda pair: f"({pair[0]} or {pair[1]})")
            text += through + draw(st.one_of(value, value, listed))
        return text

    return inheriting()


# ── policies ─────────────────────────────────────────────────────────────────

LABEL_NAMES = ("dns", "web", "ssh-in", "rule_1", "x")
TITLES = ("plain", "with # and }", "it's", "a | b { c")
PACKETS = (
    'IPv4(src="10.0.0.1")/UDP(dport=53)',
    "Ether/IPv6/TCP(dport=80)",
    "ARP",
    'hex "020000000001020000000002080045"',
)


def policy_texts(grammar: Grammar = EVERYTHING) -> st.SearchStrategy[str]:
    """Whole policies with comments, blank lines, odd indentation and penstock's own terms; all can be read."""
    return _policy(grammar)


@st.composite
def _policy(draw: st.DrawFn, grammar: Grammar) -> str:
    constants = draw(st.lists(_of("office", "web", "hosts"), unique=True, max_size=3))
    items = [f"let {name} = {draw(_constant_values(name))}{draw(_trailing())}" for name in constants]
    names = draw(st.lists(_of("edge", "inner", "a-b"), unique=True, min_size=1, max_size=2))
    items += [draw(_filter(name, tuple(constants), grammar)) for name in names]
    items += draw(st.lists(_test(names[0], grammar), max_size=2))
    return draw(_leading()) + "\n".join(draw(_leading()) + item for item in items) + "\n" + draw(_leading())


def _constant_values(name: str) -> st.SearchStrategy[str]:
    pool = {"office": [*NETS4[:5], *NETS6], "web": ["80", "443", "8000-8100"], "hosts": [*HOSTS4, *HOSTS6]}[
        name
    ]
    return st.tuples(st.lists(st.sampled_from(pool), min_size=1, max_size=4), _of(", ", ",", ",\n   ")).map(
        lambda drawn: drawn[1].join(drawn[0])
    )


def _leading() -> st.SearchStrategy[str]:
    return _of("", "", "", "\n", "# a comment\n", "\n\n  # one\n\n\t# two\n", "#\n")


def _trailing() -> st.SearchStrategy[str]:
    return _of("", "", "", " # behind", "# close", "   #")


def _own_terms(constants: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Terms that only penstock has."""
    plain = ["ttl < 5", "frag", "not frag.first", "tcp.flags & tcp-syn != 0", "vlan.id == 5", "tcp xor udp"]
    used = {"office": "src net $office", "web": "tcp dst port ($web or 22)", "hosts": "host $hosts"}
    return st.sampled_from(plain + [used[name] for name in constants])


RULE_HEADS = {
    "xdp": ("pass", "drop", "bounce", "audit", "count", "reject", "redirect  eth1", 'redirect "if"'),
    "tc ingress": (
        "pass", "drop", "reject", "redirect eth1", "mirror eth0.100", "mark 7", "mark  0x10/255", "dscp 3", "dscp Af41",
    ),
}  # fmt: skip


@st.composite
def _filter(draw: st.DrawFn, name: str, constants: tuple[str, ...], grammar: Grammar) -> str:
    hook = draw(_of(*RULE_HEADS))
    statements = draw(st.lists(_of("default pass", "default drop", "default  reject"), max_size=1))
    words = draw(st.lists(_of("malformed", "fragment", "ip-options", "unknown-tag"), unique=True, max_size=2))
    statements += [f"on {word} {draw(_of('pass', 'drop', 'reject', 'continue'))}" for word in words]
    labels = draw(st.lists(_of("", *LABEL_NAMES), max_size=5, unique_by=lambda label: label or object()))
    expressions = st.one_of(expression_texts(grammar), _own_terms(constants))
    for label in labels:
        rule = draw(_of(*RULE_HEADS[hook]))
        if draw(st.booleans()):
            joint = draw(_of(" and ", "\n      and ", " and\n", " or # why\n  # else\n"))
            rule += f" if {draw(expressions)}{joint}{draw(expressions)}"
        statements.append(f"{label}: {rule}" if label else rule)
    indent = draw(_of("", "    ", "\t"))
    body = "".join(f"{draw(_leading())}{indent}{statement}{draw(_trailing())}\n" for statement in statements)
    return f"filter {name} at {hook} {{{draw(_trailing())}\n{body}{draw(_leading())}}}{draw(_trailing())}"


@st.composite
def _test(draw: st.DrawFn, filter_name: str, grammar: Grammar) -> str:
    steps = []
    for _ in range(draw(st.integers(0, 3))):
        subject = draw(st.one_of(_of(*PACKETS).map(lambda text: f"packet {text}"), _of('pcap "x.pcap"')))
        if subject.startswith("pcap") and draw(st.booleans()):
            subject += f" '{draw(expression_texts(grammar))}'"
        share = draw(_of("", " >= 90%", " < 1.5%")) if subject.startswith("pcap") else ""
        verdict = draw(_of("pass", "drop", "reject", "redirect", "drop by default", "drop by malformed"))
        steps.append(f"{draw(_leading())}  {subject} -> {verdict}{share}{draw(_trailing())}\n")
    target = draw(_of("", f" for {filter_name}"))
    title = draw(st.sampled_from(TITLES))
    return f'test "{title}"{target} {{\n{"".join(steps)}}}'
