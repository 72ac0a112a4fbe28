"""Read the definition of a set, and check what is asked of sets.

set threats : net size 1M timeout 10m counters
set allowed : host . proto . port
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches

from penstock.compiler.lang.ast import Expr, FeedClause, Membership, Policy, Qualifiers, SetDefinition
from penstock.compiler.lang.cursor import Cursor
from penstock.compiler.lang.faults import SyntaxFault
from penstock.compiler.lang.feeds import read_feed
from penstock.compiler.lang.findings import Findings
from penstock.compiler.lang.source import Span
from penstock.compiler.lang.spelling import spell_qualifiers
from penstock.compiler.lang.walk import inner_leaves, rules
from penstock.model.sets import (
    COMPOSITE_KINDS,
    KINDS,
    MAX_PARTS,
    MAX_SIZE,
    STRUCTURES,
    TIME_UNITS,
    SetSpec,
)

_PART = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_COUNT = re.compile(r"([0-9]{1,12})([kM]?)(?![A-Za-z0-9_.])")
_TIME = re.compile(r"([0-9]{1,9})([smhd])(?![A-Za-z0-9_.])")
_FACTORS = {"": 1, "k": 1000, "M": 1_000_000}
_OPTIONS = ("size", "timeout", "counters", "dynamic", "as", "feed")
_LONGEST_NS = 1 << 62


def read_set(cursor: Cursor) -> SetDefinition:
    """`set NAME : KIND [size N] [timeout TIME] [counters] [dynamic] [as trie|flat] [feed SOURCE …]…`.

    Raises:
        SyntaxFault: it is not one.
    """
    start = cursor.advance(len("set"))
    name, name_span = cursor.identifier("a set")
    cursor.expect_mark(":", "behind the name of a set")
    kind, end = _kind(cursor)
    found: dict[str, int] = {}
    feeds: list[FeedClause] = []
    chosen: str | None = None
    chosen_span = start
    while not cursor.at_line_end():
        if cursor.peek_word() == "feed":
            feeds.append(read_feed(cursor, kind, feeds))
            end = feeds[-1].span
            continue
        word, span = _option(cursor)
        if word in found:
            raise cursor.faults.fail("PS112", f"`{word}` is said twice of one set", span)
        found[word], end = _argument(cursor, word, span)
        if word == "as":
            chosen, chosen_span = STRUCTURES[found[word]], end
    if chosen and (fault := _structure_fault(kind, found, chosen)):
        raise cursor.faults.fail("PS104", fault[0], chosen_span, hint=fault[1])
    return SetDefinition(
        name,
        kind,
        found.get("size"),
        found.get("timeout"),
        "counters" in found,
        "dynamic" in found,
        name_span,
        start.to(end),
        tuple(feeds),
        chosen,
    )


def _structure_fault(kind: tuple[str, ...], found: Mapping[str, int], chosen: str) -> tuple[str, str] | None:
    """What is wrong with a structure that was chosen, and what to do."""
    if kind != ("net",):
        return f"a set of {' . '.join(kind)} is looked up in a hash", "a set of net can be a trie or flat"
    if chosen == "flat" and (keeps := [word for word in ("counters", "timeout") if word in found]):
        hint = (
            f"without `as flat`, or without `{keeps[0]}`; entries of a flat set can have times of their own"
        )
        return f"a flat set has no room beside its entries, and `{keeps[0]}` wants some", hint
    return None


def _kind(cursor: Cursor) -> tuple[tuple[str, ...], Span]:
    parts: list[str] = []
    while True:
        cursor.skip_blanks()
        part = _PART.match(cursor.text, cursor.at)
        if part is None or part.group() not in (*KINDS, *COMPOSITE_KINDS):
            known = tuple(dict.fromkeys((*KINDS, *COMPOSITE_KINDS)))
            raise cursor.unexpected(f"what a set is of ({', '.join(KINDS)})", known=known)
        parts.append(part.group())
        span = cursor.advance(len(parts[-1]))
        if not cursor.take_mark("."):
            break
    fault = _kind_fault(parts)
    if fault:
        raise cursor.faults.fail("PS104", fault[0], span, hint=fault[1])
    return tuple(parts), span


def _kind_fault(parts: list[str]) -> tuple[str, str | None] | None:
    """What is wrong with the parts of a key, and what to do."""
    if len(parts) > MAX_PARTS:
        return f"a key has at most {MAX_PARTS} parts", None
    if len(parts) > 1 and "net" in parts:
        return "a key of several parts is looked up as it is, so none of them is a net", "write `host`"
    if parts == ["proto"]:
        return "a set of protocols alone is a list", "as in `ip proto (6 or 17)`"
    return None


def _option(cursor: Cursor) -> tuple[str, Span]:
    word = cursor.peek_word()
    if word not in _OPTIONS:
        raise cursor.unexpected(
            "`size`, `timeout`, `counters`, `dynamic`, `as`, `feed` or the end of the line",
            "behind what a set is of",
            known=_OPTIONS,
        )
    return word, cursor.advance(len(word))


def _argument(cursor: Cursor, word: str, span: Span) -> tuple[int, Span]:
    match word:
        case "size":
            return _size(cursor)
        case "timeout":
            return read_time(cursor)
        case "as":
            return _structure(cursor)
        case _:
            return 1, span


def _size(cursor: Cursor) -> tuple[int, Span]:
    cursor.skip_blanks()
    found = _COUNT.match(cursor.text, cursor.at)
    if not found:
        raise _wrong(cursor, "the most entries of a set", "as in: size 100k")
    size, span = int(found[1]) * _FACTORS[found[2]], cursor.advance(len(found.group()))
    if not 0 < size <= MAX_SIZE:
        raise cursor.faults.fail("PS104", f"the size of a set is 1 to {MAX_SIZE:,}", span)
    return size, span


def _structure(cursor: Cursor) -> tuple[int, Span]:
    cursor.skip_blanks()
    word = cursor.peek_word()
    if word not in STRUCTURES:
        raise cursor.unexpected("`trie` or `flat`", "behind `as`", known=STRUCTURES)
    return STRUCTURES.index(word), cursor.advance(len(word))


def read_time(cursor: Cursor) -> tuple[int, Span]:
    """A time such as `10m`, in nanoseconds.

    Raises:
        SyntaxFault: none comes next, or none that can be.
    """
    cursor.skip_blanks()
    found = _TIME.match(cursor.text, cursor.at)
    if not found:
        raise _wrong(cursor, "a time", "as in: 30s, 10m, 2h, 7d")
    nanoseconds = int(found[1]) * TIME_UNITS[found[2]] * 1_000_000_000
    span = cursor.advance(len(found.group()))
    if not 0 < nanoseconds < _LONGEST_NS:
        raise cursor.faults.fail("PS104", f"`{found.group()}` is no time that an entry can stay", span)
    return nanoseconds, span


def _wrong(cursor: Cursor, wanted: str, hint: str) -> SyntaxFault:
    here = cursor.here()
    shown = cursor.text[here.start : here.end]
    message = f"`{shown}` stands where {wanted} should" if shown else f"{wanted} is missing here"
    return cursor.faults.fail("PS102", message, here, hint=hint)


# ── what is asked ────────────────────────────────────────────────────────────

Sets = Mapping[str, SetSpec]


def check_sets(policy: Policy, findings: Findings) -> None:
    """Report sets that are defined twice or never used, and uses of none that exists or of another kind."""
    known: dict[str, SetDefinition] = {}
    for item in policy.sets:
        if item.name in known:
            where = findings.place(known[item.name].name_span)
            findings.error("PS112", f"the set `{item.name}` is defined already, on {where}", item.name_span)
        known.setdefault(item.name, item)
    specs = {name: item.spec for name, item in known.items()}
    used = {name for rule in rules(policy) for name in check_members(rule.condition, specs, findings)}
    targets = [rule.target for rule in rules(policy) if rule.target is not None]
    used |= {name for target in targets for name in check_members(target, specs, findings)}
    for item in policy.sets:
        if item.name not in used:
            findings.warning("PS206", f"the set `{item.name}` is never used", item.name_span)


def with_filled(policy: Policy) -> tuple[SetDefinition, ...]:
    """The sets of a policy; those that its rules change are dynamic."""
    changed = {rule.target.set for rule in rules(policy) if rule.target is not None}
    return tuple(replace(item, dynamic=item.dynamic or item.name in changed) for item in policy.sets)


def check_members(expr: Expr | None, sets: Sets, findings: Findings) -> set[str]:
    """The sets that an expression asks; faults of asking are reported."""
    used: set[str] = set()
    for leaf in inner_leaves(expr):
        if not isinstance(leaf, Membership):
            continue
        used.add(leaf.set)
        if leaf.set not in sets:
            message, span, hint = undefined(leaf, sets)
            findings.error("PS111", message, span, hint=hint)
        elif not fits(leaf.keys, sets[leaf.set].kind):
            findings.error("PS116", misfit(leaf, sets[leaf.set]), leaf.span)
    return used


def undefined(leaf: Membership, sets: Sets) -> tuple[str, Span, str]:
    """What is said of a set that no line defines: the sentence, its place, and what to do."""
    near = get_close_matches(leaf.set, sets, n=1, cutoff=0.7)
    kind = " . ".join(likely_part(key) for key in leaf.keys)
    hint = f"did you mean `@{near[0]}`?" if near else f"define it above the filter: set {leaf.set} : {kind}"
    return f"the set `@{leaf.set}` is not defined", leaf.set_span, hint


def likely_part(key: Qualifiers) -> str:
    """What a set is of where these qualifiers are looked up."""
    if key.kind in ("port", "proto"):
        return key.kind
    return "mac" if key.protocol == "ether" else "net" if key.kind == "net" else "host"


def fits(keys: tuple[Qualifiers, ...], kind: tuple[str, ...]) -> bool:
    """Whether the qualifiers name keys of the kind, part by part."""
    if len(keys) != len(kind):
        return False
    return all(
        likely_part(key) in (("host", "net") if part in ("host", "net") else (part,))
        for key, part in zip(keys, kind, strict=True)
    )


def misfit(leaf: Membership, spec: SetSpec) -> str:
    """The sentence about a set that is asked for what it is not of."""
    asked = " . ".join(spell_qualifiers(key) for key in leaf.keys)
    return f"`@{leaf.set}` is a set of {' . '.join(spec.kind)}, and `{asked}` is none"
