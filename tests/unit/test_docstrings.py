"""What the docstrings of modules show can be called as they show it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import penstock

ROOT = Path(penstock.__file__).parent
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def definitions(module: ast.Module) -> Iterator[tuple[str, ast.arguments]]:
    """What a module defines that can be called, methods too, without `self`."""
    for one in module.body:
        if isinstance(one, _Function):
            yield one.name, one.args
        for method in one.body if isinstance(one, ast.ClassDef) else ():
            if isinstance(method, _Function) and not method.decorator_list:
                method.args.args = method.args.args[1:]
                assert isinstance(one, ast.ClassDef)
                yield one.name if method.name == "__init__" else f".{method.name}", method.args


def calls(text: str) -> Iterator[ast.Call]:
    """The calls of an example that are written out."""
    for line in text.splitlines():
        for found in re.finditer(r"(?:\b\w+\.)?\b[A-Za-z_]\w*\(", line):
            ends = (at + 1 for at in range(found.end(), len(line)) if line[at] == ")")
            for end in ends:
                try:
                    call = ast.parse(line[found.start() : end], mode="eval").body
                except SyntaxError:
                    continue
                if isinstance(call, ast.Call) and "…" not in line[found.start() : end]:
                    yield call
                break


def fits(call: ast.Call, wanted: ast.arguments) -> bool:
    """Whether a call gives what is wanted, and no more."""
    names = [one.arg for one in wanted.args]
    given = names[: len(call.args)] + [one.arg for one in call.keywords if one.arg]
    optional = names[len(names) - len(wanted.defaults) :]
    pairs = zip(wanted.kwonlyargs, wanted.kw_defaults, strict=True)
    needed = {*names} - {*optional} | {one.arg for one, default in pairs if default is None}
    known = {*names, *(one.arg for one in wanted.kwonlyargs)}
    has_room = len(call.args) <= len(names) or wanted.vararg is not None
    return has_room and needed <= {*given} and (wanted.kwarg is not None or {*given} <= known)


def faults(text: str) -> Iterator[str]:
    """The calls in a module's docstring that the module could not take."""
    module = ast.parse(text)
    defined = list(definitions(module))
    for call in calls(ast.get_docstring(module) or ""):
        is_method = isinstance(call.func, ast.Attribute)
        name = f".{call.func.attr}" if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
        same = [wanted for known, wanted in defined if known == name]
        # A method of that name may be another class's, which is imported.
        if same and not any(fits(call, wanted) for wanted in same) and not (is_method and len(same) > 1):
            yield ast.unparse(call)


def test_what_modules_show_can_be_called_so() -> None:
    wrong = {str(path.relative_to(ROOT)): list(faults(path.read_text())) for path in ROOT.rglob("*.py")}
    assert {path: found for path, found in wrong.items() if found} == {}


def test_a_call_that_lacks_something_is_found() -> None:
    module = '"""Shows.\n\n    f(1)    f(1, b=2)    g.h(1)    f(1, c=2)    f(…)\n"""\n'
    assert list(faults(f"{module}def f(a, b): pass\nclass G:\n    def h(self): pass\n")) == [
        "f(1)",
        "g.h(1)",
        "f(1, c=2)",
    ]
