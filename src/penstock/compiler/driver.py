"""From policy text to an object file: the compiler's passes in order.

compile_policy(Source("edge.policy", text)).spec.slots[-1]  ->  'edge:4'
"""

from __future__ import annotations

from penstock.compiler.clang import compile_c
from penstock.compiler.codegen.emit import emit
from penstock.compiler.ir.ops import RuleSet
from penstock.compiler.ir.verify import verify
from penstock.compiler.objectfile import ObjectFile


def compile_rule_set(rule_set: RuleSet, *, probe: bool = False) -> ObjectFile:
    """The object file of one filter; `probe` as in `emit`.

    Raises:
        LimitError: it is larger than a program can be.
        ToolchainError: clang is missing or failed.
    """
    source = emit(verify(rule_set), probe=probe)
    return ObjectFile.of(compile_c(source.text, source.files), source.spec)
