"""Why an address is in a set, and what becomes of its packets.

    why("203.0.113.9")  ->  Why(address, held=(Held("threats", …),), asked=(Asked("eth0", "xdp", …),), …)

In: an address or a network.  Out: for each set that an entry of covers it, who put that there, when,
until when and why; the rules of running policies that ask such a set; and what those policies
decide of packets from it, by the reference evaluator, so that no counter moves.  Promised: what
cannot be looked at without privilege is said, and the rest is told; an address that nobody knows
is an answer.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING

from penstock.errors import KernelError, PenstockError, PrivilegeError
from penstock.model.moment import Moment, moment
from penstock.pipeline.damage import damage
from penstock.pipeline.ledger import Ledger, ledgers
from penstock.pipeline.ledger_book import Book, Claim

if TYPE_CHECKING:
    from penstock.pipeline.live_set import LiveSet

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Reason:
    """Somebody's word for an entry.

    `source` is ``manual``, ``import FILE``, a feed's name, or ``rule`` for what is in the kernel alone: a
    rule added it, or a program.  `at` is in seconds since 1970, `left_s` None for an entry that stays.
    """

    entry: str
    source: str
    is_feed: bool
    by: str | None
    at: float | None
    comment: str | None
    left_s: float | None


@dataclass(frozen=True, slots=True)
class Held:
    """A set with entries that cover the address, the narrowest first.

    `is_in` is the kernel's word, None if it was not asked.
    """

    set: str
    is_in: bool | None
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A rule of a running policy that asks such a set."""

    set: str
    interface: str
    hook: str
    filter: str
    rule: str
    action: str
    text: str


@dataclass(frozen=True, slots=True)
class Fate:
    """What a running policy decides of packets from the address: `packet` in words, ``every`` if all fare alike."""

    interface: str
    hook: str
    filter: str
    packet: str
    verdict: str
    rule: str


@dataclass(frozen=True, slots=True)
class Why:
    """All that is known of an address; `unseen` says what could not be looked at, `damaged` what could not be read."""

    address: str
    protected: str | None
    held: tuple[Held, ...]
    asked: tuple[Asked, ...]
    fates: tuple[Fate, ...]
    unseen: tuple[str, ...]
    damaged: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether any set has it."""
        return any(one.is_in or any(_is_live(reason) for reason in one.reasons) for one in self.held)


def why(address: str) -> Why:
    """Everything about an address or a network.

    Raises:
        PenstockError: it is neither.
    """
    network, damaged = _network(address), list[str]()
    kernel, by_rules, unseen = _in_kernel(network, damaged)
    held = tuple(_held(network, kernel, by_rules, damaged))
    there = {one.set for one in held if one.is_in}
    asked, fates, blind = _policies(network, {one.set for one in held}, there)
    shown = _shown(network)
    notes = tuple(dict.fromkeys((*unseen, *blind)))
    return Why(shown, _protected(network), held, asked, fates, notes, tuple(damaged))


def _network(address: str) -> Network:
    try:
        network = ip_network(address.strip(), strict=False)
    except ValueError as error:
        raise PenstockError(
            f"`{address[:60]}` is no address", hint="as in 203.0.113.9 or 2001:db8::/32"
        ) from error
    if isinstance(network, IPv6Network) and network.prefixlen == 128:
        mapped = network.network_address.ipv4_mapped
        return network if mapped is None else ip_network(mapped)
    return network


def _shown(network: Network) -> str:
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


# ── sets ─────────────────────────────────────────────────────────────────────


def _held(
    network: Network, kernel: dict[str, bool], by_rules: set[str], damaged: list[str]
) -> Iterator[Held]:
    now = moment()
    for name in sorted({*ledgers(), *kernel}):
        faults = damage(name)
        damaged += (f"@{name}: {error.message}" for error in faults)
        try:
            book = Ledger(name).book().without_damage()
        except PenstockError:
            book = Book(Ledger(name).place)
        reasons = sorted(_reasons(book, network, now), key=lambda one: -_length(one.entry))
        is_in = kernel.get(name)
        is_unclaimed = is_in and not faults and not any(_is_live(one) for one in reasons)
        if name in by_rules or is_unclaimed:
            reasons.append(Reason(_shown(network), "rule", False, None, None, None, None))
        if reasons or is_in:
            yield Held(name, is_in, tuple(reasons))


def _is_live(reason: Reason) -> bool:
    return reason.left_s is None or reason.left_s > 0


def _length(entry: str) -> int:
    try:
        return ip_network(entry, strict=False).prefixlen
    except ValueError:
        return 0


def _reasons(book: Book, network: Network, now: Moment) -> Iterator[Reason]:
    """The claims of every entry that is the network or covers it, and of keys that begin with the address."""
    family = "v4" if network.version == 4 else "v6"
    for length in range(network.prefixlen, -1, -1):
        wide = network.supernet(new_prefix=length)
        key = struct.pack("=I", length) + wide.network_address.packed
        yield from (_reason(one, now) for one in book.claims(str(wide), family, key))
    if network.prefixlen == network.max_prefixlen:
        text, packed = str(network.network_address), network.network_address.packed
        yield from (_reason(one, now) for one in book.claims(text, family, packed))
        for entry, claims in book.few.items():
            if " . " in entry and text in entry.split(" . "):
                yield from (_reason(one, now) for one in claims.values())


def _reason(claim: Claim, now: Moment) -> Reason:
    return Reason(
        claim.entry, claim.source, claim.is_feed, claim.by, claim.at.wall, claim.comment, claim.left_s(now)
    )


def _in_kernel(network: Network, damaged: list[str]) -> tuple[dict[str, bool], set[str], tuple[str, ...]]:
    """For each set of addresses or networks, whether a packet from there is in it; those where a rule has added it.

    And what could not be asked; what is `damaged` is told there.
    """
    from penstock.pipeline.set_store import names, open_set

    found: dict[str, bool] = {}
    by_rules: set[str] = set()
    try:
        there = names()
    except KernelError as error:
        return found, by_rules, (f"the sets in the kernel: {error.message}",)
    for name in there:
        try:
            with open_set(name) as one:
                if one.spec.kind == ("net",):
                    found[name] = str(network) in one
                elif one.spec.kind == ("host",):
                    found[name] = network.prefixlen == network.max_prefixlen and _shown(network) in one
                if name in found and _is_added(one, _shown(network)):
                    by_rules.add(name)
        except PrivilegeError as error:
            return found, by_rules, (f"the sets in the kernel: {error.message}",)
        except PenstockError as error:
            damaged.append(f"@{name}: {error.message}")
    return found, by_rules, ()


def _is_added(found: LiveSet, entry: str) -> bool:
    """Whether a rule has added it."""
    from penstock.model.set_text import keys_of
    from penstock.pipeline.dynamic_set import DynamicSet

    if not isinstance(found, DynamicSet) or (found.spec.kind == ("host",) and "/" in entry):
        return False
    keys = [(family, found.added.bare(family, key)) for family, key in keys_of(found.spec, entry)]
    return any(bare is not None and found.added.has(family, bare) for family, bare in keys)


def _protected(network: Network) -> str | None:
    """Why no feed may list the address."""
    from penstock.feeds.protected import SPECIAL
    from penstock.pipeline.surroundings import surroundings

    try:
        own = surroundings()
    except KernelError:
        own = ()
    for one in (*own, *SPECIAL):
        if one.network.version == network.version and _is_in(network, one.network):
            return one.reason
    return None


def _is_in(network: Network, other: Network) -> bool:
    return other.prefixlen <= network.prefixlen and network.network_address in other


# ── policies ─────────────────────────────────────────────────────────────────


def _policies(
    network: Network, names: set[str], there: set[str]
) -> tuple[tuple[Asked, ...], tuple[Fate, ...], tuple[str, ...]]:
    """The rules that ask these sets, and what their policies decide."""
    from penstock.pipeline.status import status
    from penstock.pipeline.why_fate import fates

    asked: list[Asked] = []
    decided: list[Fate] = []
    try:
        running = status()
    except KernelError as error:
        return (), (), (f"the policies in place: {error.message}",)
    unseen: list[str] = []
    for one in running:
        own = {spec.name for spec in one.identity.sets} & names
        place = (one.interface, one.identity.hook, one.identity.name)
        for name in sorted(own):
            word = re.compile(rf"@{re.escape(name)}(?![A-Za-z0-9_-])")
            rules = [key for key in one.keys if word.search(key.text)]
            asked += [Asked(name, *place, key.name, key.action, key.text) for key in rules]
        if own:
            try:
                decided += [Fate(*place, *fate) for fate in fates(one.identity, network, there)]
            except PenstockError as error:
                unseen.append(f"what {one.identity.name} on {one.interface} decides: {error.message}")
    return tuple(asked), tuple(decided), tuple(unseen)
