"""`penstock test FILE`: run a policy's test blocks, or try it on a capture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.contents import chosen_contents, contents_options
from penstock.cli.options import json_option
from penstock.errors import PenstockError
from penstock.pipeline.policy_file import STDIN, read_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from penstock.compiler.lang.source import Source
    from penstock.engine.policy import EngineName
    from penstock.engine.trials import Result
    from penstock.model.sets import SetSpec
    from penstock.pipeline.set_contents import Contents

    _Contents = Callable[[Iterable[SetSpec]], Contents]


@click.command("test")
@click.argument("file", type=click.Path())
@click.option(
    "--pcap",
    type=click.Path(),
    metavar="CAPTURE",
    help="Run the policy over this capture in place of its tests.",
)
@click.option(
    "--engine",
    type=click.Choice(["reference", "kernel"]),
    default="reference",
    show_default=True,
    help="The definition, or the compiled program (needs privilege).",
)
@click.option(
    "--filter", "filter_name", metavar="NAME", help="Which filter --pcap is for, when there are several."
)
@contents_options
@json_option
def command(
    file: str,
    pcap: str | None,
    engine: EngineName,
    filter_name: str | None,
    set_texts: tuple[str, ...],
    sets_are: str,
    as_json: bool,
) -> int:
    """Run the test blocks of a policy; exits with 1 if a step fails.

    Sets are empty at the beginning of each test, unless --set or --sets says otherwise; lines `with @SET ENTRY, …`
    of a test add to them.
    """
    source = read_policy(file)

    def contents(specs: Iterable[SetSpec]) -> Contents:
        return chosen_contents(specs, set_texts, sets_are)

    if pcap is not None:
        _run_capture(source, pcap, engine, filter_name, contents, as_json)
        return 0
    folder = Path() if file == STDIN else Path(file).parent
    return _run_tests(source, engine, folder, contents, as_json)


def _run_tests(source: Source, engine: EngineName, folder: Path, contents: _Contents, as_json: bool) -> int:
    from penstock.compiler.lang.parser import parse_policy
    from penstock.compiler.lang.sets import with_filled
    from penstock.engine.trials import run_tests

    policy = parse_policy(source)
    if not policy.tests:
        raise PenstockError(
            f"{source.name} has no test block",
            hint='write one:  test "title" { packet IPv4/UDP(dport=53) -> drop }',
        )
    failed = total = 0
    known = contents(item.spec for item in with_filled(policy))
    for result in run_tests(policy, engine, folder, known):
        total += 1
        failed += not result.passed
        _report(source, result, as_json)
    if as_json:
        content = {"file": source.name, "engine": engine, "steps": total, "failed": failed}
        output.record("penstock.test/1", content)
    else:
        output.answer(f"{source.name}: {total - failed} of {total} steps passed ({engine} engine)")
    return 1 if failed else 0


def _report(source: Source, result: Result, as_json: bool) -> None:
    for warning in result.warnings:
        output.warn(warning)
    if as_json:
        content = {
            "file": source.name,
            "line": result.line,
            "test": result.title,
            "step": result.text,
            "passed": result.passed,
            "got": result.got,
        }
        output.record("penstock.test.step/1", content)
    elif not result.passed:
        output.answer(f"{source.name}:{result.line}: {result.title}: {result.text}")
        output.answer(f"    but it was: {result.got}")


def _run_capture(
    source: Source,
    pcap: str,
    engine: EngineName,
    filter_name: str | None,
    contents: _Contents,
    as_json: bool,
) -> None:
    from penstock.engine.trials import run_over_capture
    from penstock.pipeline.policy import rule_set_of

    rules = rule_set_of(source.text, name=source.name, filter=filter_name)
    tally = run_over_capture(rules, engine, pcap, contents(rules.sets))
    for warning in tally.warnings:
        output.warn(warning)
    if as_json:
        content = {"file": source.name, "capture": pcap, "engine": engine, "packets": tally.packets}
        output.record(
            "penstock.test.capture/1", {**content, "verdicts": tally.verdicts, "rules": tally.deciders}
        )
        return
    shares = ", ".join(f"{word} {count}" for word, count in tally.verdicts.items() if count)
    output.answer(f"{pcap}: {tally.packets} packets: {shares or 'none'}")
    output.table(
        ("RULE", "PACKETS"), [(name, str(count)) for name, count in tally.deciders.items()], right=(1,)
    )
