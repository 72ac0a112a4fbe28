"""What a running filter says of itself: kept beside its counters in the BPF file system, and in built objects.

In: what was compiled and put in place.  Out: a JSON text with a schema, so that
a later penstock can tell what it finds.  It holds the policy's own text: the
filter can be shown, compared and compiled again when the file has moved on.

    Identity(name="dns", path="dns.policy", counters=(CounterKey("default", …), …))
"""

from __future__ import annotations

import errno
import os
from hashlib import sha256

import msgspec

from penstock.compiler.ir.ops import Rule, RuleSet, counter_names
from penstock.errors import KernelError
from penstock.model.feeds import SetFeed
from penstock.model.limiter import Limiter
from penstock.model.overlay import LAYOUT
from penstock.model.sets import SetSpec
from penstock.model.verdict import Condition

SCHEMA = "penstock.identity/1"


class CounterKey(msgspec.Struct, frozen=True):
    """One counter slot: its name, what it does, its text, and what must be equal for a total to be carried over.

    `meaning` is empty for the default, the conditions and labelled rules: their
    name alone decides.  A rule without a label is named after its line, which
    another rule may stand on tomorrow, so its meaning must be the same too.
    """

    name: str
    action: str
    text: str = ""
    line: int = 0
    meaning: str = ""
    until_ns: int | None = None


class Emergency(msgspec.Struct, frozen=True):
    """A rule that `penstock drop` or `try` put before the policy's; it lapses at `until_ns` of the boot clock."""

    name: str
    action: str
    expression: str
    until_ns: int
    #: The sets that it asks, as they were when it came.
    sets: tuple[SetSpec, ...] = ()


class Added(msgspec.Struct, frozen=True):
    """A rule that was added to the running policy: `text` as in a policy, without its name.

    It stands before the policy's rule of the name `before`, behind those added
    there earlier in the list; without one, before the default.
    """

    name: str
    text: str
    before: str | None = None
    labelled: bool = False


class Clsact(msgspec.Struct, frozen=True):
    """How a filter on clsact is found again: by the name that it has in the kernel; it has no link.

    `owns_qdisc` is true where penstock made the qdisc, which goes with the last filter.
    """

    name: str
    priority: int
    owns_qdisc: bool


class Offer(msgspec.Struct, frozen=True):
    """What the program lets added rules test while it runs.

    `fields` says where it keeps them, `depth` how deep it judges packets
    (model/field.py, Layer), `layout` how its banks are read.
    """

    fields: dict[str, int]
    depth: int
    layout: int = LAYOUT


class DeviceAt(msgspec.Struct, frozen=True):
    """A network interface that the policy names; its index where the program was loaded, 0 in a built file."""

    name: str
    ifindex: int = 0


class Probation(msgspec.Struct, frozen=True):
    """A policy that is taken back at `until_ns` of the boot clock unless somebody confirms it.

    Those of several hooks that were put in place together have the same `token`.
    """

    token: str
    until_ns: int


class Identity(msgspec.Struct, frozen=True):
    """Who is running; `text` is the whole policy.  A built file carries it too."""

    name: str
    hook: str
    path: str
    text: str
    counters: tuple[CounterKey, ...]
    emergencies: tuple[Emergency, ...] = ()
    #: Rules that are no part of the text, and are compiled in.
    added: tuple[Added, ...] = ()
    #: None for a program that takes no rules while it runs.
    offer: Offer | None = None
    #: The devices that the program knows by number, in that order.
    devices: tuple[DeviceAt, ...] = ()
    #: The sets that the program asks, in the order of their numbers.
    sets: tuple[SetSpec, ...] = ()
    #: What tells their maps from others of the name, in the same order (bonds.py).
    set_ids: tuple[int, ...] = ()
    #: All maps of each set by the names of its pins.
    set_maps: tuple[dict[str, int], ...] = ()
    #: The feeds that fill them.
    feeds: tuple[SetFeed, ...] = ()
    #: Where a `path` that is relative begins.
    directory: str = ""
    #: The limiters of the program by number, and what their tables' hashes begin with; 0 in a built file.
    limiters: tuple[Limiter, ...] = ()
    limit_seed: int = 0
    #: False when there was no policy and the filter exists for its emergency rules alone.
    has_policy: bool = True
    #: None for a program that a link holds.
    clsact: Clsact | None = None
    interface: str = ""
    ifindex: int = 0
    mode: str = ""
    applied_at: str = ""
    #: The hooks of the filters of this policy that were put in place in the same change.
    together: tuple[str, ...] = ()
    program: int = 0
    version: str = ""
    probation: Probation | None = None
    #: The token of the probation that it has passed.
    confirmed: str = ""
    schema: str = SCHEMA

    @property
    def place(self) -> str:
        """The policy's file as any process finds it; empty for a text without one."""
        return os.path.normpath(os.path.join(self.directory, self.path)) if self.path else ""  # noqa: PTH118


def encode(identity: Identity) -> bytes:
    """The identity as JSON."""
    return msgspec.json.encode(identity)


def decode(blob: bytes, where: str) -> Identity:
    """The identity in `blob`, which may be padded with zero bytes.

    Raises:
        KernelError: it is not one, or of a schema that this penstock does not know; `where` names it.
    """
    try:
        identity = msgspec.json.decode(blob.rstrip(b"\0"), type=Identity)
    except ValueError as error:
        raise KernelError(
            "read", where, errno.EINVAL, meaning=f"it does not hold a penstock identity: {error}"
        ) from error
    if identity.schema != SCHEMA:
        meaning = f"it was written by another version of penstock ({identity.version}, {identity.schema})"
        raise KernelError("read", where, errno.EINVAL, meaning=meaning)
    return identity


def counter_keys(
    rule_set: RuleSet, emergencies: tuple[Emergency, ...] = (), added: tuple[Added, ...] = ()
) -> tuple[CounterKey, ...]:
    """One key for each counter slot of a rule set, in slot order; its first rules are the emergency ones."""
    names = counter_names(rule_set)
    default = CounterKey("default", rule_set.default.value)
    verdicts = (rule_set.verdict_on(condition) for condition in Condition)
    words = (verdict.value if verdict else "continue" for verdict in verdicts)
    conditions = (CounterKey(name, word) for name, word in zip(names[1:], words, strict=False))
    texts = [f"{rule.action} if {rule.expression}" for rule in emergencies]
    own = {rule.name: rule.text for rule in added}
    texts += [own.get(rule.name) or _text(rule, rule_set) for rule in rule_set.rules[len(emergencies) :]]
    return (default, *conditions, *map(rule_key, rule_set.rules, texts))


def _text(rule: Rule, rule_set: RuleSet) -> str:
    return " ".join(rule_set.source.text[rule.span.start : rule.span.end].split())


def rule_key(rule: Rule, text: str) -> CounterKey:
    """The key of a rule's counter."""
    meaning = "" if rule.labelled else _digest(_meaning(rule))
    return CounterKey(rule.name, rule.doing, text, rule.line, meaning, rule.until_ns)


def _meaning(rule: Rule) -> str:
    """Equal for rules that do the same; without an argument as it was before there were any."""
    parts = (rule.action, rule.condition) if rule.argument is None else (rule.doing, rule.condition)
    return repr(parts)


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def kept_slots(old: tuple[CounterKey, ...], new: tuple[CounterKey, ...]) -> list[tuple[int, int]]:
    """(old slot, new slot) of every counter whose rule is the same in both."""
    before = {(key.name, key.meaning): slot for slot, key in enumerate(old)}
    found = ((before.get((key.name, key.meaning)), slot) for slot, key in enumerate(new))
    return [(old_slot, new_slot) for old_slot, new_slot in found if old_slot is not None]
