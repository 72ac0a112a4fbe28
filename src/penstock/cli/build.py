"""`penstock build FILE`: compile a policy, or show a stage on the way."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from penstock.cli import output
from penstock.cli.classic import classic_text
from penstock.cli.policy_load import show_warnings
from penstock.compiler.lang.source import Source
from penstock.errors import PenstockError
from penstock.pipeline.policy_file import STDIN, read_policy

_STAGE_BY_SUFFIX = {".dot": "diagram", ".svg": "diagram", ".c": "c"}


@click.command("build")
@click.argument("file", type=click.Path())
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(),
    metavar="PATH",
    help="Where to write; - is standard output.",
)
@click.option(
    "--emit",
    type=click.Choice(["ast", "ir", "diagram", "plan", "c", "classic", "object"]),
    help="Which stage: syntax, meaning, decision diagrams (to a .dot or .svg file: a picture), which form "
    "rules take and why, generated C, classic BPF, object file.  "
    "[default: diagram for -o FILE.dot or .svg, c for .c, else object]",
)
@click.option("--filter", "filter_name", metavar="NAME", help="Which filter, when the policy has several.")
@click.option(
    "--classic",
    "is_classic",
    is_flag=True,
    help="Classic BPF, as tcpdump -d prints it; FILE may be an expression instead.  The same as --emit classic.",
)
@click.option(
    "--as",
    "form",
    type=click.Choice(["listing", "c", "decimal", "bytecode"]),
    help="Classic BPF like tcpdump -d, -dd or -ddd, or for iptables -m bpf --bytecode.  [default: listing]",
)
@click.option(
    "--start",
    type=click.Choice(["packet", "frame", "cooked", "network", "bare", "transport"]),
    help="Where classic BPF finds the packet: a packet socket (its VLAN tag beside the packet), a frame of a "
    "capture, a packet socket of type SOCK_DGRAM, a raw IPv4 socket or iptables, a packet socket on an interface "
    "without link headers, a UDP or TCP socket.  "
    "[default: packet]",
)
def command(
    file: str,
    target: str | None,
    emit: str | None,
    filter_name: str | None,
    is_classic: bool,
    form: str | None,
    start: str | None,
) -> None:
    """Compile a policy to an object file that `penstock apply` takes on hosts without a compiler.

    Needs no privilege.  The same policy and clang give the same bytes.
    """
    if _wants_classic(emit, is_classic, form or start):
        _write_text(classic_text(file, filter_name, form or "listing", start or "packet"), target)
        return
    source = read_policy(file)
    emit = emit or _STAGE_BY_SUFFIX.get(Path(target or "").suffix, "object")
    if emit != "object":
        _write_stage(source, emit, filter_name, target)
        return
    from penstock.pipeline.policy import load_policy

    policy = load_policy(source.text, name=source.name, filter=filter_name)
    show_warnings(policy)
    _write_object(policy.to_bytes(), target or _default_target(file, policy.name))


def _wants_classic(emit: str | None, is_classic: bool, detail: str | None) -> bool:
    if is_classic and emit not in (None, "classic"):
        raise PenstockError(f"--classic and --emit {emit} are two different things")
    if detail and not is_classic and emit != "classic":
        raise PenstockError("--as and --start say something of classic BPF only", hint="add --classic")
    return is_classic or emit == "classic"


def _write_stage(source: Source, emit: str, filter_name: str | None, target: str | None) -> None:
    kind = Path(target or "").suffix if emit == "diagram" else ""
    if kind not in (".dot", ".svg"):
        _write_text(_stage(source, emit, filter_name), target)
        return
    from penstock.cli.graphviz import svg_of
    from penstock.compiler.codegen.drawing import diagram_picture
    from penstock.pipeline.policy import rule_set_of

    picture = diagram_picture(rule_set_of(source.text, name=source.name, filter=filter_name))
    _write(picture.encode() if kind == ".dot" else svg_of(picture), str(target))


def _stage(source: Source, emit: str, filter_name: str | None) -> str:
    """The printed form of a stage."""
    from penstock.compiler.lang.parser import parse_policy

    if emit == "ast":
        from penstock.compiler.lang.dump import dump as dump_policy

        return dump_policy(parse_policy(source))
    from penstock.pipeline.policy import rule_set_of

    rules = rule_set_of(source.text, name=source.name, filter=filter_name)
    if emit == "ir":
        from penstock.compiler.ir.dump import dump

        return dump(rules)
    if emit == "diagram":
        from penstock.compiler.codegen.drawing import diagram_lines

        return "\n".join(diagram_lines(rules))
    if emit == "plan":
        from penstock.compiler.codegen.blocks import numbered
        from penstock.compiler.codegen.plan import plan_of
        from penstock.compiler.codegen.plan_text import plan_lines

        return "\n".join(plan_lines(plan_of(rules, numbered(rules)), rules))
    from penstock.compiler.codegen.emit import emit as emit_c

    return emit_c(rules).text


def _default_target(file: str, name: str) -> str:
    return f"{name}.pso" if file == STDIN else str(Path(file).with_suffix(".pso"))


def _write_text(text: str, target: str | None) -> None:
    whole = text if text.endswith("\n") else text + "\n"
    if target in (None, STDIN):
        output.text(whole)
    else:
        _write(whole.encode(), str(target))


def _write_object(data: bytes, target: str) -> None:
    if target != STDIN:
        _write(data, target)
        output.note(f"{target}: {len(data)} bytes")
    elif sys.stdout.isatty():
        raise PenstockError(
            "an object file is not for a terminal", hint="redirect it, or name a file with -o"
        )
    else:
        output.raw(data)


def _write(data: bytes, target: str) -> None:
    try:
        Path(target).write_bytes(data)
    except OSError as error:
        raise PenstockError(f"{target} cannot be written: {error.strerror}") from error
