"""From rules to an object for the kernel: the compiler's passes in order.

compile_rule_set(rules).spec.slots[-1]  ->  'edge:4'
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.compiler.clang import Clang, compile_c
from penstock.compiler.codegen.emit import CSource, emit
from penstock.compiler.ir.ops import RuleSet
from penstock.compiler.ir.verify import verify
from penstock.compiler.objectfile import add_section
from penstock.model.spec import ObjectSpec
from penstock.model.tables import SECTION, packed


@dataclass(frozen=True, slots=True)
class Compiled:
    """`elf` is what clang made, and the tables; `spec` says what is in it, `dear` what makes it slow."""

    elf: bytes
    spec: ObjectSpec
    dear: tuple[str, ...] = ()


def compile_rule_set(rule_set: RuleSet, *, probe: bool = False, kernel_locks: bool = False) -> Compiled:
    """The object of one filter; `probe` and `kernel_locks` as in `emit`.

    Raises:
        LimitError: it is larger than a program can be.
        ToolchainError: clang is missing or failed.
    """
    source = emit(verify(rule_set), probe=probe, kernel_locks=kernel_locks)
    return Compiled(object_of(source), source.spec, source.dear)


def object_of(source: CSource, clang: Clang | None = None, *, strict: bool = False) -> bytes:
    """The ELF object of printed C, with a section for its tables if it has any; arguments as of `compile_c`.

    Raises:
        ToolchainError: clang is missing or failed.
    """
    elf = compile_c(source.text, source.files, clang, strict=strict)
    return add_section(elf, SECTION, packed(source.tables)) if source.tables else elf
