"""`penstock match 'EXPR' FILE…`: how many packets of captures does an expression match?

Plain output is a number a line; with several files or expressions each number
has them in front, separated by tabs.  `--json` gives a line for each file and
expression, in the order of the files and then of the expressions, and one line
for each expression that is none, before them:

    {"file": "a.pcap", "expression": "udp", "packets": 10, "matched": 3}
    {"expression": "udp port", "error": {"code": "PS107", "message": "…"}}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.options import json_option
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from penstock.engine.matching import Expression, Matcher, MatcherName


@click.command("match")
@click.argument("arguments", nargs=-1, required=True, metavar="EXPR FILE…", type=click.Path())
@click.option(
    "--engine",
    type=click.Choice(["reference", "kernel", "libpcap"]),
    default="reference",
    show_default=True,
    help="Who matches: the definition, the compiled program (needs privilege), or libpcap.",
)
@click.option(
    "--expressions",
    type=click.Path(),
    metavar="LIST",
    help="A file with one expression a line in place of EXPR; - for stdin.",
)
@json_option
def command(arguments: tuple[str, ...], engine: MatcherName, expressions: str | None, as_json: bool) -> int:
    """Count the packets of captures (pcap, pcapng) that an expression matches.

    As `tcpdump -r FILE --count EXPR` would.  Exits with 1 if an expression is refused or a file cannot be read.
    """
    texts, files = _split(arguments, expressions)
    alone = expressions is None
    understood, failed = _understand(texts, engine, as_json, alone=alone)
    with _opened(engine, understood, as_json, alone=alone) as matcher:
        refused = [expression for expression, _ in matcher.refused]
        kept = [found for found in understood if all(found is not other for other in refused)]
        unread = [_count(matcher, path, kept, as_json, plain=len(files) * len(texts) == 1) for path in files]
    return 1 if failed or refused or any(unread) else 0


def _split(arguments: tuple[str, ...], listing: str | None) -> tuple[list[str], tuple[str, ...]]:
    if listing is not None:
        return _lines(listing), arguments
    if len(arguments) < 2:
        raise click.UsageError("name a capture file after the expression")
    return [arguments[0]], arguments[1:]


def _lines(path: str) -> list[str]:
    """One expression a line.  Blank lines and comments are left out: each would match every packet."""
    from penstock.pipeline.policy_file import read_text

    lines = [line.strip() for line in read_text(path).text.split("\n")]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise PenstockError(f"there is no expression in {path}", hint="write one a line:  udp port 53")
    return found


def _understand(
    texts: list[str], engine: MatcherName, as_json: bool, *, alone: bool
) -> tuple[list[Expression], int]:
    from penstock.engine.matching import understand

    found, failed = [], 0
    for text in texts:
        try:
            found.append(understand(text, engine))
        except PenstockError as error:
            if alone and not as_json:
                raise
            failed += 1
            _report_fault(text, error, as_json)
    return found, failed


def _opened(engine: MatcherName, expressions: list[Expression], as_json: bool, *, alone: bool) -> Matcher:
    """The matcher; expressions that are right but more than it can take are reported."""
    from penstock.engine.matching import open_matcher

    matcher = open_matcher(engine, expressions)
    for expression, error in matcher.refused:
        if alone and not as_json:
            raise error
        _report_fault(expression.text, error, as_json)
    return matcher


def _report_fault(text: str, error: PenstockError, as_json: bool) -> None:
    from penstock.engine.matching import fault_of

    code, message = fault_of(error)
    if as_json:
        output.bare({"expression": text, "error": {"code": code, "message": message}})
    else:
        output.fault(PenstockError(f"{text}: {message}"))


def _count(matcher: Matcher, path: str, expressions: list[Expression], as_json: bool, *, plain: bool) -> bool:
    """Report one file; True if it could not be read at all."""
    from penstock.observe.capture import ethernet_frames

    warnings: list[str] = []
    try:
        packets, matched = matcher.count(ethernet_frames(path, warnings))
    except PenstockError as error:
        output.fault(error)
        return True
    for warning in warnings:
        output.warn(warning)
    for expression, number in zip(expressions, matched, strict=True):
        if as_json:
            output.bare({"file": path, "expression": expression.text, "packets": packets, "matched": number})
        elif plain:
            output.answer(str(number))
        else:
            output.answer(f"{path}\t{expression.text}\t{number}")
    return False
