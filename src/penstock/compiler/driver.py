"""From rules to an object for the kernel: the compiler's passes in order.

compile_rule_set(rules).spec.slots[-1]  ->  'edge:4'
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.compiler.clang import compile_c
from penstock.compiler.codegen.emit import emit
from penstock.compiler.ir.ops import RuleSet
from penstock.compiler.ir.verify import verify
from penstock.model.spec import ObjectSpec


@dataclass(frozen=True, slots=True)
class Compiled:
    """`elf` is what clang made; `spec` says what is in it."""

    elf: bytes
    spec: ObjectSpec


def compile_rule_set(rule_set: RuleSet, *, probe: bool = False) -> Compiled:
    """The object of one filter; `probe` as in `emit`.

    Raises:
        LimitError: it is larger than a program can be.
        ToolchainError: clang is missing or failed.
    """
    source = emit(verify(rule_set), probe=probe)
    return Compiled(compile_c(source.text, source.files), source.spec)
