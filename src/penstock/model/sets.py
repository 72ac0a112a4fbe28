"""Sets as a policy defines them, and how their entries lie in the kernel.

    set threats : net size 1M timeout 10m     ->  SetSpec("threats", ("net",), 1_000_000, 600_000_000_000)

A set is one map for each family of its keys: IPv4 and IPv6 where an address is
among them, else one.  A key is its parts one after the other in network order;
that of a network begins with the prefix's length in host order, as the kernel's
trie wants it.  A value begins with a word:

    63 …                        4   3 2     1 0
    expiry on the boot clock, ns    asked   holds

`holds` has a bit for each of two banks: whether what has this key as its
longest match is in the set while that bank is the active one.  `asked` has the
same bits for whether this very entry is in it.  At rest all four are set.  While
no bank is active the set is empty.  An expiry of 0 is never.

What rules add to a *dynamic* set lies apart (added.bpf.h), so that no change by
commands or feeds meets it: of each family a hash `added`, whose entries have an
expiry and no banks, a queue `turn` of its keys in the order in which they came, and
for all one `tally` of how many came and went.

A set of networks is searched in tries, or flat: then its entries lie in a map of
their own kind (`model/flat.py`), and the tries beside it hold those alone that
were given a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from penstock.model.flat import FRONT_BYTES

#: What a part of a key is called, and its bytes; of addresses, for IPv4 and IPv6.
PART_BYTES = {"host": (4, 16), "net": (4, 16), "port": (2, 2), "mac": (6, 6), "proto": (1, 1)}
#: What a set of one part can be of; `proto` stands in composite keys only.
KINDS = ("host", "net", "port", "mac")
COMPOSITE_KINDS = ("host", "port", "mac", "proto")
MAX_PARTS = 4
DEFAULT_SIZE = 65_536
MAX_SIZE = 16_000_000
#: More sets in one filter are refused: each takes up to three of the 64 maps of a program.
MAX_SETS = 16

#: What a set of networks can be searched in, and from which size on it is flat by itself.
STRUCTURES = ("trie", "flat")
FLAT_FROM = 4096

FAMILIES = ("v4", "v6")
#: The tables of a flat set beside its tries: what packets ask first, and the content.
FRONT, FLAT = "front", "flat"
#: The only family of a set without addresses.
ONLY = "all"

#: What the maps of entries that rules add are called.
ADDED, TURN, TALLY = "added", "turn", "tally"
#: A queue takes its memory at once.
MAX_TURNS = 1 << 20

HOLDS, ASKED = 0b0011, 0b1100
REST = HOLDS | ASKED
#: The third bank, in which nothing ever is.
HIDDEN = 2
#: Expiries are whole multiples of so many nanoseconds.
GRAIN = 256
EXPIRY_MASK = ((1 << 64) - 1) ^ (GRAIN - 1)


@dataclass(frozen=True, slots=True)
class SetSpec:
    """What a policy says of a set; `size` is the most entries of each family, `timeout_ns` how long one stays.

    Rules may add entries to one that is `dynamic`.  `structure` is how it is searched: ``hash``, ``trie``
    or ``flat``; what is left out follows from the rest.
    """

    name: str
    kind: tuple[str, ...]
    size: int = DEFAULT_SIZE
    timeout_ns: int | None = None
    counters: bool = False
    dynamic: bool = False
    structure: str = ""

    def __post_init__(self) -> None:
        if not self.structure:
            object.__setattr__(self, "structure", self._own_structure)

    @property
    def _own_structure(self) -> str:
        """How it is searched unless the policy says otherwise."""
        if self.kind != ("net",):
            return "hash"
        is_plain = self.timeout_ns is None and not self.counters
        return "flat" if is_plain and self.size >= FLAT_FROM else "trie"

    @property
    def is_flat(self) -> bool:
        """Whether its entries lie in lines of memory, and only those with a time in tries."""
        return self.structure == "flat"

    @property
    def search(self) -> str:
        """How it is searched, in words."""
        return "flat" if self.is_flat else f"in a {self.structure}"

    @property
    def timed(self) -> SetSpec:
        """What the tries beside a flat set are; any other set itself."""
        return replace(self, structure="trie") if self.is_flat else self

    @property
    def tables(self) -> tuple[str, ...]:
        """Its maps but the control: one for each family, and those of a flat one."""
        return (*self.families, *([FRONT, FLAT] if self.is_flat else []))

    @property
    def families(self) -> tuple[str, ...]:
        """The families of its keys, each of which has a map."""
        return FAMILIES if {"host", "net"} & set(self.kind) else (ONLY,)

    def family_of(self, bits: int) -> str:
        """The family of keys whose addresses have so many bits."""
        return ONLY if len(self.families) == 1 else FAMILIES[bits == 128]

    def part_bytes(self, family: str) -> tuple[int, ...]:
        """The sizes of a key's parts."""
        return tuple(PART_BYTES[part][family == "v6"] for part in self.kind)

    def key_bytes(self, family: str) -> int:
        """The size of a key of a family; keys are aligned to 4 bytes."""
        parts = sum(self.part_bytes(family)) + (4 if self.kind == ("net",) else 0)
        return (parts + 3) & ~3

    @property
    def room(self) -> int:
        """How many entries a map takes: in a change, the old ones and the new ones for a moment."""
        return 2 * self.size

    @property
    def value_words(self) -> int:
        """The 64-bit words of a value: the state, of a network its own expiry, packets and bytes."""
        return 1 + (self.kind == ("net",)) + 2 * self.counters

    def shape_of(self, table: str) -> tuple[int, int]:
        """The bytes of keys and values of one of its tables."""
        if table == FRONT:
            return 4, FRONT_BYTES
        return (4, 4) if table == FLAT else (self.key_bytes(table), 8 * self.value_words)

    @property
    def added_tables(self) -> tuple[str, ...]:
        """The maps of what rules add: of each family the entries and their turn, and the tally."""
        if not self.dynamic:
            return ()
        return (*(f"{family}_{part}" for part in (ADDED, TURN) for family in self.families), TALLY)

    def added_bytes(self, family: str) -> int:
        """The size of a key that rules add: of a network, an address of it."""
        return (sum(self.part_bytes(family)) + 3) & ~3

    @property
    def turns(self) -> int:
        """How many keys wait for their turn to be looked at; some are of entries that are gone."""
        return min(2 * self.size, MAX_TURNS)

    @property
    def text(self) -> str:
        """The line that defines it, in canonical form but with its size always told."""
        words = [f"set {self.name} : {' . '.join(self.kind)}", f"size {count_text(self.size)}"]
        if self.timeout_ns is not None:
            words.append(f"timeout {time_text(self.timeout_ns)}")
        words += ["counters"] if self.counters else []
        words += ["dynamic"] if self.dynamic else []
        return " ".join(
            [*words, *([f"as {self.structure}"] if self.structure != self._own_structure else [])]
        )


def set_map(number: int, family: str) -> str:
    """The name of the map of a family, or another table, of a program's set."""
    return f"ps_set{number}_{family}"


def control_of(number: int) -> str:
    """The variable that says which bank of a program's set counts."""
    return f"ps_set{number}_control"


def control_map(number: int) -> str:
    """The name of the map that this variable lies in alone, its section's."""
    return f".data.ps_set{number}"


def maps_of(sets: tuple[SetSpec, ...]) -> tuple[str, ...]:
    """The names of all maps of a program's sets."""
    return tuple(
        name
        for number, spec in enumerate(sets)
        for name in (
            control_map(number),
            *(set_map(number, table) for table in (*spec.tables, *spec.added_tables)),
        )
    )


def count_text(count: int) -> str:
    """`1M`, `100k`, `1024`."""
    for factor, letter in ((1_000_000, "M"), (1000, "k")):
        if count and count % factor == 0:
            return f"{count // factor}{letter}"
    return str(count)


#: No entry is given a longer time: a hundred years, in seconds.
LONGEST_S = 100 * 366 * 86_400
TIME_UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}


def time_text(nanoseconds: int) -> str:
    """`10m`, `90s`: whole seconds in the largest unit that says them."""
    seconds = nanoseconds // 1_000_000_000
    unit = next(letter for letter, length in TIME_UNITS.items() if seconds % length == 0)
    return f"{seconds // TIME_UNITS[unit]}{unit}"
