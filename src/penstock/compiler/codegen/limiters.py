"""Rates and samples in C: a table for each limiter, and the function that asks it.

over 1000/s per src      ->  ps_ask_0(ctx, &s[0], len), over map ps_limit0
sample 1/100             ->  ps_sampled(42949672U)

Each limiter is a function of its own, called wherever its rule is printed: a
program may have its rules several times over, and the search for a place is
long.  It is a global one, which the verifier follows once, whoever calls it; until
Linux 5.13 those take numbers alone, and a packet's cost travels in the last word
of a key of five.  A policy without rates has none of this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penstock.compiler.codegen.fields import Naming
from penstock.compiler.codegen.writer import comment
from penstock.compiler.ir.depth import countings
from penstock.compiler.ir.ops import Over, Rule, Sample
from penstock.errors import LimitError
from penstock.model.limiter import KEY_WORDS, Limiter, limiter_map

#: Each is a map and a function.
MAX_LIMITERS = 32
#: A function of eBPF takes no more.
_MOST_ARGUMENTS = 5


@dataclass(frozen=True, slots=True)
class Countings:
    """The limiters of a program by number; `sampled` if it has samples."""

    tests: tuple[Over, ...] = ()
    sampled: bool = False

    def over(self, test: Over, naming: Naming) -> str:
        """A C expression that asks the bucket; true if it cannot pay."""
        scope = test.refs[0].scope if test.refs else ()
        return f"ps_ask_{self.tests.index(test)}(ctx, &{naming.view(scope)}, {naming.length})"

    @property
    def limiters(self) -> tuple[Limiter, ...]:
        return tuple(test.limiter for test in self.tests)

    def lines(self) -> Iterator[str]:
        """The tables and functions; nothing without rates and samples."""
        if self.tests or self.sampled:
            yield "#include <penstock/limit.bpf.h>"
        for number, test in enumerate(self.tests):
            yield from _lines(number, test.limiter)


def countings_of(rules: Sequence[Rule]) -> Countings:
    """Those of the rules that are printed.

    Raises:
        LimitError: naming the rule that has one limiter too many.
    """
    found: list[Over] = []
    sampled = False
    for rule in rules:
        tests = countings([rule.condition])
        found += [test for test in tests if isinstance(test, Over)]
        sampled |= any(isinstance(test, Sample) for test in tests)
        if len(found) > MAX_LIMITERS:
            raise LimitError(
                f"line {rule.line}: rule {rule.name} has one rate too many; a filter can have {MAX_LIMITERS}",
                limit="rates per filter",
            )
    return Countings(tuple(found), sampled)


def _lines(number: int, limiter: Limiter) -> Iterator[str]:
    words, name = KEY_WORDS[limiter.key.kind], limiter_map(number)
    burst_ns, burst_part = divmod(limiter.burst_parts, limiter.share)
    rate = f"{{ {limiter.token_ns}ULL, {limiter.share}ULL, {burst_ns}ULL, {burst_part}ULL }}"
    call = _call(words, f"ps_cost(ctx, len, {int(limiter.bytes)})")
    yield ""
    yield comment(f"{limiter.name}: over {limiter.text} burst {limiter.burst}")
    yield f"PS_LIMIT_MAP({name}, {words}, {limiter.rows});"
    yield f"__noinline __u32 ps_over_{number}({call.parameters})"
    yield "{"
    yield f"\tconst struct ps_rate rate = {rate};"
    yield f"\tconst __u64 key[{max(words, 1)}] = {{ {call.key} }};"
    yield ""
    yield f"\treturn ps_over(&{name}, key, {words}, {limiter.rows}, {number}, rate, {call.cost});"
    yield "}"
    yield ""
    yield f"static __always_inline bool ps_ask_{number}(struct ps_ctx *ctx, const struct ps_view *v, __u64 len)"
    yield "{"
    if words:
        yield f"\t__u64 key[{words}] = {{}};"
        yield ""
    yield f"\treturn {' && '.join([*_parts(limiter), f'ps_over_{number}({call.arguments})'])};"
    yield "}"


@dataclass(frozen=True, slots=True)
class _Call:
    """How a key's words and what the packet costs get into a function, and how they are called there."""

    parameters: str
    key: str
    cost: str
    arguments: str


def _call(words: int, cost: str) -> _Call:
    names = [f"k{at}" for at in range(words)]
    given = [f"key[{at}]" for at in range(words)]
    if words == _MOST_ARGUMENTS:
        joint = f"ps_with_cost({given.pop()}, {cost})"
        key = ", ".join([*names[:-1], f"ps_less_cost({names[-1]})"])
        return _Call(_numbers(names), key, f"ps_cost_with({names[-1]})", ", ".join([*given, joint]))
    return _Call(_numbers([*names, "cost"]), ", ".join(names), "cost", ", ".join([*given, cost]))


def _numbers(names: Sequence[str]) -> str:
    return ", ".join(f"__u64 {name}" for name in names)


def _parts(limiter: Limiter) -> Iterator[str]:
    """What fills the key, each false of a packet that has not that part."""
    match limiter.key.kind:
        case "src" | "dst" as way:
            yield _address(0, way, limiter.key.lengths)
        case "flow":
            yield _address(0, "src", (32, 128))
            yield _address(2, "dst", (32, 128))
            yield "ps_key_ports(key + 4, v->proto, v->sport, v->dport)"
        case "rule":
            pass
        case name:
            yield f"ps_key_number(key, v->{name})"


def _address(at: int, way: str, lengths: tuple[int, int]) -> str:
    four, six = (_mask(bits, length) for bits, length in zip((32, 128), lengths, strict=True))
    masks = f"{four:#x}U, {six >> 64:#x}ULL, {six & (1 << 64) - 1:#x}ULL"
    return f"ps_key_address(key + {at}, v->addr_{way}, &v->ip6_{way}, {masks})"


def _mask(bits: int, length: int) -> int:
    return (1 << bits) - (1 << bits - length)
