"""Read what `iptables-save` prints.

In: the text.  Out: the chains of one table, each rule with its tests as values.
What of a rule is not understood is kept by name, so that whoever uses the rule
can leave it out and say so.

    read(text).chains["INPUT"].rules[0].tests        ->  (Address("src", …), Protocol(6))
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network, summarize_address_range
from typing import Literal

from penstock.errors import PenstockError

Side = Literal["src", "dst"]


@dataclass(frozen=True, slots=True)
class Address:
    """An address within one of some networks, written as ``10.0.0.0/8``."""

    side: Side
    networks: tuple[str, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Protocol:
    """The protocol in the IP header."""

    number: int
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Ports:
    """A port within one of some inclusive ranges; `either` side or one of them."""

    side: Literal["src", "dst", "either"]
    ranges: tuple[tuple[int, int], ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class IcmpType:
    """An ICMP type, and a code if it is not None."""

    type: int
    code: int | None
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Flags:
    """TCP flags: of those in `mask` exactly `value` are set."""

    mask: int
    value: int
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Interface:
    """The interface that the packet came by; a name may end in ``+``."""

    name: str
    negated: bool = False

    def is_of(self, name: str) -> bool:
        """Whether packets of the interface `name` pass the test."""
        stem = self.name.removesuffix("+")
        same = name.startswith(stem) if self.name.endswith("+") else name == self.name
        return same != self.negated


Test = Address | Protocol | Ports | IcmpType | Flags | Interface


@dataclass(frozen=True, slots=True)
class SavedRule:
    """One ``-A`` line.  `unsupported` says what of it is not understood, '' if all is."""

    line: int
    text: str
    tests: tuple[Test, ...]
    target: str
    unsupported: str = ""


@dataclass(slots=True)
class Chain:
    """The rules of a chain; `policy` is None for one of the user's."""

    policy: str | None
    rules: list[SavedRule] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Saved:
    """The chains of one table."""

    chains: dict[str, Chain]


_FLAGS = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ALL": 63, "NONE": 0}
_PROTOCOLS = {
    "icmp": 1,
    "igmp": 2,
    "ipencap": 4,
    "tcp": 6,
    "udp": 17,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "sctp": 132,
}
_ICMP = {"echo-reply": 0, "destination-unreachable": 3, "source-quench": 4, "redirect": 5, "echo-request": 8,
         "router-advertisement": 9, "router-solicitation": 10, "time-exceeded": 11, "parameter-problem": 12,
         "timestamp-request": 13, "timestamp-reply": 14}  # fmt: skip
#: Modules that only name where the options that follow are explained, and such as change nothing.
_PLAIN_MODULES = {"tcp", "udp", "sctp", "icmp", "multiport", "comment", "iprange"}


def read(text: str, table: str = "filter") -> Saved:
    """The chains of a table.

    Raises:
        PenstockError: the text is not what iptables-save prints.
    """
    chains: dict[str, Chain] = {}
    here = ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("*"):
            here = line[1:].strip()
        elif here != table or not line or line.startswith(("#", "COMMIT")):
            continue
        elif line.startswith(":"):
            name, policy, *_ = line[1:].split()
            chains[name] = Chain(None if policy == "-" else policy)
        else:
            name, rule = _rule(number, line)
            if name not in chains:
                raise PenstockError(f"line {number} appends to chain {name}, which is not declared")
            chains[name].rules.append(rule)
    if not chains:
        raise PenstockError(f"there is no table {table}: is this the output of iptables-save?")
    return Saved(chains)


def _rule(number: int, line: str) -> tuple[str, SavedRule]:
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise PenstockError(f"line {number} has an open quotation mark") from error
    if words and words[0].startswith("["):  # iptables-save -c
        words = words[1:]
    if len(words) < 2 or words[0] not in ("-A", "--append"):
        raise PenstockError(f"line {number} is no rule: {line[:60]}")
    reader = _Options(words[2:])
    try:
        tests = tuple(reader.tests())
    except (ValueError, IndexError, KeyError) as error:
        raise PenstockError(f"line {number} cannot be read: {line[:80]}") from error
    return words[1], SavedRule(number, line, tests, reader.target, ", ".join(reader.unsupported))


class _Options:
    """The options of one rule, left to right."""

    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._at = 0
        self.target = ""
        self.unsupported: list[str] = []

    def tests(self) -> Iterator[Test]:
        negated = False
        while self._at < len(self._words):
            word = self._next()
            if word == "!":
                negated = True
                continue
            yield from self._option(word, negated)
            negated = False

    def _next(self) -> str:
        self._at += 1
        return self._words[self._at - 1]

    def _option(self, word: str, negated: bool) -> Iterator[Test]:
        match word:
            case "-s" | "--source" | "--src-range":
                yield Address("src", _networks(self._next()), negated)
            case "-d" | "--destination" | "--dst-range":
                yield Address("dst", _networks(self._next()), negated)
            case "-p" | "--protocol":
                yield from _protocol(self._next(), negated)
            case "--sport" | "--source-port" | "--sports":
                yield Ports("src", _ranges(self._next()), negated)
            case "--dport" | "--destination-port" | "--dports":
                yield Ports("dst", _ranges(self._next()), negated)
            case "--ports":
                yield Ports("either", _ranges(self._next()), negated)
            case "--icmp-type":
                yield from _icmp(self._next(), negated)
            case "--tcp-flags":
                yield Flags(_flags(self._next()), _flags(self._next()), negated)
            case "--syn":
                yield Flags(_flags("FIN,SYN,RST,ACK"), _flags("SYN"), negated)
            case "-i" | "--in-interface":
                yield Interface(self._next(), negated)
            case _:
                self._other(word)

    def _other(self, word: str) -> None:
        """Targets, and modules: known ones are stepped over, the options of others are skipped with them."""
        match word:
            case "-j" | "--jump":
                self.target = self._next()
                self._at = len(self._words)  # what follows are the target's options
            case "-g" | "--goto":
                self.unsupported.append("-g")
                self._at = len(self._words)
            case "-m" | "--match":
                module = self._next()
                if module not in _PLAIN_MODULES:
                    self.unsupported.append(f"-m {module}")
                    self._skip()
            case "--comment":
                self._next()
            case _:
                self.unsupported.append(word)
                self._skip()

    def _skip(self) -> None:
        """Go on behind the options of a module that is not understood: they are the long ones."""
        while self._at < len(self._words):
            word, following = self._words[self._at], self._words[self._at + 1 : self._at + 2]
            is_next = word in ("-m", "-j", "-g", "-s", "-d", "-p", "-i", "-o", "-f")
            if is_next or (word == "!" and following and not following[0].startswith("--")):
                return
            self._at += 1


def _networks(word: str) -> tuple[str, ...]:
    if "-" in word:
        first, _, last = word.partition("-")
        return tuple(str(part) for part in summarize_address_range(ip_address(first), ip_address(last)))
    return tuple(str(ip_network(part, strict=False)) for part in word.split(","))


def _protocol(word: str, negated: bool) -> Iterator[Protocol]:
    if word not in ("all", "0"):
        yield Protocol(_PROTOCOLS[word] if word in _PROTOCOLS else int(word), negated)


def _ranges(word: str) -> tuple[tuple[int, int], ...]:
    found = []
    for part in word.split(","):
        low, colon, high = part.partition(":")
        found.append((int(low or 0), int(high or 65535) if colon else int(low)))
    return tuple(found)


def _icmp(word: str, negated: bool) -> Iterator[IcmpType]:
    if word not in ("any", "255"):
        kind, _, code = word.partition("/")
        yield IcmpType(_ICMP[kind] if kind in _ICMP else int(kind), int(code) if code else None, negated)


def _flags(word: str) -> int:
    value = 0
    for name in word.split(","):
        value |= _FLAGS[name]
    return value
