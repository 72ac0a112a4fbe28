"""`penstock build --classic`: a policy, or a bare expression, as classic BPF in one of tcpdump's forms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from penstock.cli import output
from penstock.errors import PenstockError
from penstock.pipeline.policy_file import STDIN, read_policy

if TYPE_CHECKING:
    from penstock.compiler.ir.ops import RuleSet


# XT_BPF_MAX_NUM_INSTR of <linux/netfilter/xt_bpf.h>
_XTABLES_MOST = 64


def classic_text(file: str, filter_name: str | None, form: str, start: str) -> str:
    """The program's text; `file` is a policy's path, or an expression where no such file is.

    Raises:
        PenstockError: it is neither, or classic BPF cannot say it.
    """
    from penstock.compiler.classic import listing
    from penstock.compiler.classic.generate import compile_classic
    from penstock.compiler.classic.start import Start

    program = compile_classic(_rules(file, filter_name), Start(start)).instructions
    if form == "bytecode" and len(program) > _XTABLES_MOST:
        output.warn(
            f"iptables takes at most {_XTABLES_MOST} instructions, this program has {len(program)}: most of them walk "
            "IPv6 extension headers up to the ports; `ip and …` without ports is short"
        )
    write = {
        "listing": listing.listing,
        "c": listing.as_c,
        "decimal": listing.decimal,
        "bytecode": listing.bytecode,
    }[form]
    return write(program)


def _rules(file: str, filter_name: str | None) -> RuleSet:
    from penstock.pipeline.expression import is_policy, matcher
    from penstock.pipeline.policy import rule_set_of

    if file == STDIN or _is_path(file):
        source = read_policy(file)
        if is_policy(source.text):
            return rule_set_of(source.text, name=source.name, filter=filter_name)
        return matcher(source.text, source.name)
    if filter_name is not None:
        raise PenstockError(f"an expression has no filter {filter_name}")
    return matcher(file)


def _is_path(file: str) -> bool:
    """Whether it is a file, or a name that is no expression's beginning either."""
    return Path(file).suffix == ".policy" or (len(file) < 256 and Path(file).is_file())
