"""The page's plots, drawn from stored results: small SVG files, the same bytes from the same results.

`files(results)` gives them by name; `draw` writes them.  Needs matplotlib, the
optional dependency group `bench`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from bench.results import Row, Table, over_seeds, select, sizes_of

Results = Mapping[str, Table]
_FLAVOURS = {"acl": "#0969da", "fw": "#cf222e", "ipc": "#1a7f37"}
_PEERS = ("#6e7781", "#8250df", "#bf8700", "#0a7ea4", "#e85aad", "#57606a", "#953800", "#116329", "#4d2d00")
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "penstock",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d8dee4",
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
_GOALS = ((100, 40), (1_000, 65), (10_000, 100), (100_000, 320))


def draw(results: Results, folder: Path) -> None:
    """Write every plot for which there are results."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files(results).items():
        (folder / f"{name}.svg").write_text(text)


def files(results: Results) -> dict[str, str]:
    """The SVG by name, of what was measured."""
    makers = {
        "rules": ("scale", _rules),
        "building": ("scale", _building),
        "memory": ("scale", _memory),
        "exact": ("exact", _exact),
        "wire": ("wire", _wire),
    }
    with mpl.rc_context(_STYLE):
        return {name: _svg(make(results)) for name, (table, make) in makers.items() if table in results}


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    plt.close(figure)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(7.2, 4.2))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axis.set_minor_formatter(NullFormatter())
        axis.set_major_locator(LogLocator(base=10, numticks=12))
    return figure, axes


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def _series(
    results: Results, name: str, traffic: str, program: str, **wanted: object
) -> tuple[list[int], list[float]]:
    """Sizes, and the median over the seeds at each; what is not above zero cannot be shown on this scale."""
    table = results.get(name)
    points = [
        (size, over_seeds(select(table, rules=size, **wanted), traffic, program)) for size in sizes_of(table)
    ]
    shown = [(size, median(found)) for size, found in points if found and median(found) > 0]
    return [size for size, _ in shown], [value for _, value in shown]


def _rules(results: Results) -> Figure:
    figure, axes = _axes("rules", "ns a packet above empty")
    for flavour, colour in _FLAVOURS.items():
        uniform = _series(results, "scale", "uniform", "penstock", set=flavour)
        axes.plot(*uniform, color=colour, marker="o", markersize=4, label=f"penstock, {flavour}")
        zipf = _series(results, "scale", "zipf", "penstock", set=flavour)
        axes.plot(*zipf, color=colour, linestyle=":", linewidth=1.2)
        linear = _series(results, "scale", "uniform", "linear", set=flavour)
        axes.plot(*linear, color=colour, linestyle="--", alpha=0.55, linewidth=1.2)
    axes.plot(
        *zip(*_GOALS, strict=True), color="#24292f", marker="_", markersize=16, linestyle="none", label="goal"
    )
    axes.plot([], [], color="#57606a", linestyle=":", label="the same, Zipf traffic")
    axes.plot([], [], color="#57606a", linestyle="--", label="loop over a rule table in C")
    _legend(axes)
    return figure


def _exact(results: Results) -> Figure:
    figure, axes = _axes("exact five-tuple rules", "ns a packet above empty")
    programs = {"penstock": "#0969da", "hash": "#8250df", "linear": "#6e7781", "chain": "#bf8700"}
    names = {"hash": "BPF hash in C", "linear": "loop in C", "chain": "ifs in C"}
    for program, colour in programs.items():
        points = _series(results, "exact", "uniform", program)
        axes.plot(*points, color=colour, marker="o", markersize=4, label=names.get(program, program))
    _legend(axes)
    return figure


def _wire(results: Results) -> Figure:
    figure, axes = _axes("rules of an access list", "ns a packet, sent and received")
    rows = sorted(select(results.get("wire"), set="access list"), key=lambda row: row["rules"])
    peers = sorted({peer for row in rows for peer in row["ns"]}, key=lambda peer: (peer != "penstock", peer))
    for number, peer in enumerate(peers):
        points = [(row["rules"], row["ns"][peer]) for row in rows if peer in row["ns"]]
        ours = peer == "penstock"
        colour, width = ("#0969da", 2.4) if ours else (_PEERS[number % len(_PEERS)], 1.4)
        x, y = zip(*points, strict=True)
        axes.plot(x, y, marker="o", markersize=3.5, label=peer, color=colour, linewidth=width)
    _legend(axes)
    return figure


def _building(results: Results) -> Figure:
    figure, axes = _axes("rules", "seconds from text to object")
    for flavour, colour in _FLAVOURS.items():
        points = _medians(results, flavour, lambda row: sum(row["build_ms"].values()) / 1000)
        axes.plot(*points, color=colour, marker="o", markersize=4, label=flavour)
        clang = _medians(results, flavour, lambda row: row["build_ms"]["clang"] / 1000)
        axes.plot(*clang, color=colour, linestyle=":", linewidth=1.2)
    axes.plot([], [], color="#57606a", linestyle=":", label="of that, clang")
    _legend(axes)
    return figure


def _memory(results: Results) -> Figure:
    figure, axes = _axes("rules", "MiB")
    for flavour, colour in _FLAVOURS.items():
        tables = _medians(results, flavour, lambda row: row["table_bytes"] / 2**20)
        axes.plot(*tables, color=colour, marker="o", markersize=4, label=f"tables, {flavour}")
        peak = _medians(results, flavour, lambda row: row.get("build_peak_mib", 0))
        axes.plot(*peak, color=colour, linestyle="--", linewidth=1.2, alpha=0.7)
    axes.plot([], [], color="#57606a", linestyle="--", label="the compiling process at its largest")
    _legend(axes)
    return figure


def _medians(results: Results, flavour: str, value: Callable[[Row], float]) -> tuple[list[int], list[float]]:
    table = results.get("scale")
    points = [(size, select(table, set=flavour, rules=size)) for size in sizes_of(table)]
    shown = [(size, median(map(value, rows))) for size, rows in points if rows]
    shown = [(size, figure) for size, figure in shown if figure > 0]
    return [size for size, _ in shown], [figure for _, figure in shown]
