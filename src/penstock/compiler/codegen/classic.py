"""Print classic BPF programs as C functions, one for each different program.

    (000) ldh  [12]                     __noinline __u32 ps_classic_0(struct ps_ctx *ctx, __u32 len)
    (001) jeq  #0x800  jt 2 jf 3   ->       PS_CLASSIC_LOAD(a, 0, 12U, 2);
    (002) ret  #262144                      if (a != 0x800U) goto i3;
    (003) ret  #0                           return 1;
                                        i3: return 0;

A function is global, so that the verifier follows it once and not again wherever
it is called; jumps go forwards only (ir/verify.py), so it ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from penstock.compiler.codegen.writer import comment
from penstock.compiler.ir.depth import classics
from penstock.compiler.ir.ops import Classic, Rule
from penstock.errors import LimitError
from penstock.model.classic import (
    ABS,
    ALU_OPERATORS,
    BY_X,
    IMM,
    IND,
    JA,
    JUMP_OPERATORS,
    LDX,
    LEN,
    MEM,
    MODE,
    NEG,
    OPERATION,
    RET_A,
    SIZE,
    SIZES,
    STX,
    TXA,
    Instruction,
)

#: Of so many instructions clang may join the comparisons.
_JOINED = 16
#: The kernel takes 256 functions in a program: each of these is one, the others are the parser's and the rules'.
MAX_PROGRAMS = 128
_INVERSE = {"==": "!=", ">": "<=", ">=": "<"}


@dataclass(slots=True)
class Programs:
    """The programs collected so far; `call` is how one is asked."""

    _known: dict[Classic, int] = field(default_factory=dict)

    def call(self, classic: Classic, length: str) -> str:
        """A C expression that is true iff the program matches; `length` spells the frame's length on the wire."""
        number = self._known.setdefault(classic, len(self._known))
        return f"ps_classic_{number}(ctx, {length})"

    def lines(self) -> list[str]:
        """The C of all programs."""
        found = ["#include <penstock/classic.bpf.h>", ""] if self._known else []
        for classic, number in self._known.items():
            found += [*_function(classic, number), ""]
        return found


def check_programs(rules: Iterable[Rule]) -> None:
    """Refuse more different programs than there are functions for.

    Raises:
        LimitError: naming the rule that has one too many.
    """
    known: set[Classic] = set()
    for rule in rules:
        known.update(classics([rule.condition]))
        if len(known) > MAX_PROGRAMS:
            raise LimitError(
                f"line {rule.line}: rule {rule.name} asks libpcap one thing too many: a filter can have "
                f'{MAX_PROGRAMS} different `pcap "EXPR"`',
                limit="pcap expressions per filter",
                hint="write expressions without `pcap` where their meaning is the same",
            )


def _function(classic: Classic, number: int) -> Iterator[str]:
    program = classic.program
    targets = {target for at, one in enumerate(program) for target in _gone_to(one, at)}
    words = sorted({one.word for one in program if one.word is not None})
    yield comment(f"pcap {classic.text}")
    yield f"__noinline __u32 ps_classic_{number}(struct ps_ctx *ctx, __u32 len)"
    yield "{"
    yield f"\t__u32 a = 0, x = 0{''.join(f', m{word} = 0' for word in words)};"
    yield ""
    yield "\tps_keep(ctx);"
    yield "\tps_keep(len);"
    yield f"\t(void)a, (void)x{''.join(f', (void)m{word}' for word in words)};"
    for at, one in enumerate(program):
        if at in targets:
            yield f"i{at}:"
        yield from (f"\t{line}" for line in _statement(one, at))
    yield "}"


def _gone_to(one: Instruction, at: int) -> Iterator[int]:
    """The places that the statement of an instruction names."""
    yield from (target for target in one.jump_targets(at) if target != at + 1)


# ── statements ───────────────────────────────────────────────────────────────


def _statement(one: Instruction, at: int) -> Iterator[str]:
    match one.kind:
        case 0 | 1:
            yield _load(one, "x" if one.kind == LDX else "a")
        case 2 | 3:
            yield f"m{one.k} = {'x' if one.kind == STX else 'a'};"
        case 4:
            yield from _arithmetic(one)
        case 5:
            yield from _jump(one, at)
        case 6:
            yield "return a != 0;" if one.code & SIZE == RET_A else f"return {int(one.k != 0)};"
        case _:
            yield "a = x;" if one.code & TXA else "x = a;"


def _load(one: Instruction, register: str) -> str:
    mode, size = one.code & MODE, SIZES[one.code & SIZE]
    if mode == ABS:
        return f"PS_CLASSIC_LOAD({register}, 0, {one.k}U, {size});"
    if mode == IND:
        return f"PS_CLASSIC_LOAD({register}, x, {one.k}U, {size});"
    if mode == IMM:
        return f"{register} = {one.k:#x}U;"
    if mode == MEM:
        return f"{register} = m{one.k};"
    if mode == LEN:
        return f"{register} = len;"
    return f"PS_CLASSIC_LENGTH({register}, {one.k}U);"


def _operand(one: Instruction) -> str:
    return "x" if one.code & BY_X else f"{one.k:#x}U"


def _arithmetic(one: Instruction) -> Iterator[str]:
    """A shift by 32 or more gives 0, where C knows no answer."""
    if one.code & OPERATION == NEG:
        yield "a = -a;"
        return
    operator, right = ALU_OPERATORS[one.code & OPERATION], _operand(one)
    if operator in ("/", "%"):
        yield f"if (!{right})"
        yield "\treturn 0;"
    if operator in ("<<", ">>"):
        yield f"a = {right} < 32 ? a {operator} ({right} & 31) : 0;"
    else:
        yield f"a = a {operator} {right};"


def _jump(one: Instruction, at: int) -> Iterator[str]:
    targets, following = one.jump_targets(at), at + 1
    if one.code & OPERATION == JA:
        yield f"goto i{targets[0]};" if targets[0] != following else ";"
        return
    if at % _JOINED == 0:
        yield "PS_CLASSIC_APART(a);"
    holds, fails = targets
    condition, inverse = _conditions(JUMP_OPERATORS[one.code & OPERATION], _operand(one))
    if holds == fails == following:
        yield ";"
    elif holds == following:
        yield f"if ({inverse}) goto i{fails};"
    else:
        yield f"if ({condition}) goto i{holds};"
        if fails != following:
            yield f"goto i{fails};"


def _conditions(operator: str, right: str) -> tuple[str, str]:
    """What a jump asks, and its negation."""
    if operator == "&":
        return f"a & {right}", f"!(a & {right})"
    return f"a {operator} {right}", f"a {_INVERSE[operator]} {right}"
