"""From measurements to a table, a JSON file and a picture."""

import dataclasses
import datetime
import json
import math
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic

from benchmarks import cases
from benchmarks.measure import C, Measured
from jaxdl import runtime

OURS = ("jaxdl", "jaxdl pure", "jaxdl spread", "jaxdl vmap", "products alone")
AGAINST = {"best torch": "torch", "best flax": "flax", "keras": "keras"}


@dataclasses.dataclass(frozen=True)
class Report(Generic[C]):
    """The outcome of a command."""

    command: str
    """Its name."""
    data: str
    """What the rivals computed with: real or synthetic."""
    unit: str
    """Of the figures."""
    figures: Callable[[Measured[C]], list[float]]
    """The figure of each round."""
    measured: Sequence[Measured[C]]
    """Every case and rival."""
    more_is_better: bool = True
    """Whether a larger figure wins."""
    notes: Sequence[str] = ()
    """Lines below the table."""
    against: Mapping[str, str | tuple[str, ...]] = dataclasses.field(
        default_factory=lambda: AGAINST
    )
    """With whom ours are compared: title of a column, and how the names of the rivals
    begin of whom the best counts."""
    columns: Mapping[str, Callable[[Measured[C]], str]] = dataclasses.field(
        default_factory=dict
    )
    """Further columns, of the first rival of a case."""

    def median(self, one: Measured[C]) -> float:
        """Of the rounds; NaN where it failed."""
        return statistics.median(self.figures(one)) if one.seconds else math.nan

    def best(self, row: Sequence[Measured[C]]) -> Measured[C] | None:
        """The best of those that have a figure."""
        done = [one for one in row if one.seconds]
        pick: Any = max if self.more_is_better else min
        return pick(done, key=self.median) if done else None

    def ratios(self, ours: Measured[C], rival: Measured[C]) -> list[float]:
        """By round, how many times better ours is."""
        pairs = zip(self.figures(ours), self.figures(rival), strict=False)
        return [a / b if self.more_is_better else b / a for a, b in pairs]

    def rows(self) -> list[list[Measured[C]]]:
        """The measurements by case."""
        grouped: dict[C, list[Measured[C]]] = {}
        for one in self.measured:
            grouped.setdefault(one.case, []).append(one)
        return list(grouped.values())


def machine() -> dict[str, str]:
    """Where and when it was measured."""
    models = [line for line in runtime.cpu_info() if line.startswith("model name")]
    model = models[0].partition(":")[2].strip() if models else platform.processor()
    flags = runtime.cpu_flags()
    sets = [s for s in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if s in flags]
    return {
        "cpu": f"{model} ({', '.join(sets)})" if sets else model,
        "cores": f"{runtime.cores()} of {os.cpu_count()}",
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def header(report: Report[Any]) -> dict[str, str]:
    """Where, when and with what it was measured."""
    versions: dict[str, str] = {"python": platform.python_version()}
    for one in report.measured:
        versions.update(one.versions)
    return {
        **machine(),
        "versions": ", ".join(f"{name} {v}" for name, v in versions.items()),
        "data": report.data,
    }


def table(report: Report[Any]) -> str:
    """Markdown: the figures; how many times better ours are; what failed, and why."""
    parts = [f"{report.command}: {report.unit}, median of the rounds [least, most]"]
    parts[0] += "; more is better" if report.more_is_better else "; less is better"
    parts += [f"{name}: {value}" for name, value in header(report).items()]
    parts += ["", *_figures(report), "", *_ratios(report), ""]
    for one in report.measured:
        if one.failed is not None:
            parts.append(f"{one.case.title}, {one.rival}: {one.failed}")
    return "\n".join([*parts, *report.notes])


def _figures(report: Report[Any]) -> list[str]:
    lines = [["case", *_rivals(report)]]
    for row in report.rows():
        cells = [
            _spread(report.figures(one)) if one.seconds else "failed" for one in row
        ]
        lines.append([row[0].case.title, *cells])
    return _markdown(lines)


def _ratios(report: Report[Any]) -> list[str]:
    rivals = _rivals(report)
    pairs = [
        (ours, title, start)
        for ours in OURS
        for title, start in report.against.items()
        if ours in rivals and any(name.startswith(start) for name in rivals)
    ]
    head = [f"{ours} : {title}" for ours, title, _ in pairs]
    lines = [["times better", *head, *report.columns]]
    for row in report.rows():
        cells = [row[0].case.title]
        for name, _, start in pairs:
            ours = report.best([one for one in row if one.rival == name])
            rival = report.best([one for one in row if one.rival.startswith(start)])
            cells.append(_spread(report.ratios(ours, rival)) if ours and rival else "-")
        cells += [column(row[0]) for column in report.columns.values()]
        lines.append(cells)
    return _markdown(lines)


def _markdown(lines: list[list[str]]) -> list[str]:
    lines.insert(1, ["---"] + ["---:"] * (len(lines[0]) - 1))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]


def _rivals(report: Report[Any]) -> list[str]:
    return list(dict.fromkeys(one.rival for one in report.measured))


def save(report: Report[Any], folder: Path, name: str) -> list[Path]:
    """Writes the JSON and the picture, of that name, into a folder that is there.

    Returns:
      Their paths.
    """
    paths = [folder / f"{name}.{kind}" for kind in ("json", "png")]
    results = [
        {
            "case": cases.to_record(one.case),
            "title": one.case.title,
            **{k: v for k, v in vars(one).items() if k != "case"},
            "figures": report.figures(one),
        }
        for one in report.measured
    ]
    said = {"command": report.command, "unit": report.unit, **header(report)}
    whole = {**said, "notes": list(report.notes), "results": results}
    paths[0].write_text(json.dumps(whole, indent=1) + "\n")
    _draw(report, paths[1])
    return paths


def _draw(report: Report[Any], path: Path) -> None:
    """Medians with their spread, a mark for each case and rival, as a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    from jaxdl import plots

    rivals, rows = _rivals(report), report.rows()
    figure = Figure(figsize=(8, 1.8 + 0.6 * len(rows)), layout="constrained")
    ax = figure.subplots()
    for i, name in enumerate(rivals):
        found = [
            (place + 0.8 * (i + 0.5) / len(rivals) - 0.4, report.figures(one))
            for place, row in enumerate(rows)
            for one in row
            if one.rival == name and one.seconds
        ]
        middles = [statistics.median(figures) for _, figures in found]
        ends = [(min(figures), max(figures)) for _, figures in found]
        ax.errorbar(
            middles,
            [place for place, _ in found],
            xerr=[
                [m - low for m, (low, _) in zip(middles, ends, strict=True)],
                [high - m for m, (_, high) in zip(middles, ends, strict=True)],
            ],
            fmt="o" if name in OURS else "s",
            markersize=5,
            color=colour(name),
            label=name,
        )
    medians = [report.median(one) for one in report.measured if one.seconds]
    if medians and max(medians) > 30 * min(medians):
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        ax.xaxis.set_major_formatter(lambda x, _: number(x))
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.set_xlim(left=0)
    ax.set_yticks(range(len(rows)), [row[0].case.title for row in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    for place in range(1, len(rows)):
        ax.axhline(place - 0.5, color="0.85", linewidth=0.8)
    ax.grid(axis="x", color="0.9")
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlabel(report.unit + ("" if report.more_is_better else " (less is better)"))
    said = header(report)
    ax.set_title(
        f"{report.command}: {said['cpu']}, {said['cores']} cores\n{said['data']}",
        fontsize="small",
    )
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize="small")
    plots.save(figure, path)


_FAMILIES = {
    # jaxdl's own: blues.
    "#0072B2": ("jaxdl", "jaxdl spread"),
    "#56B4E9": ("jaxdl pure", "jaxdl vmap"),
    "#003B5C": ("jaxdl without input",),
    # PyTorch, and what is built on it: oranges and browns.
    "#E69F00": ("torch", "torch nchw", "torch memory nchw", "torch func"),
    "#D55E00": (
        "torch fused",
        "torch nhwc",
        "torch memory nhwc",
        "torch double backward",
    ),
    "#8C2D04": (
        "torch 1 thread",
        "torch compile",
        "torch loader 0",
        "torch func compiled",
    ),
    "#F3C98B": ("torch loader 2", "curvlinops"),
    "#4D1A00": ("torchvision loader 0", "pyhessian"),
    "#B58863": ("torchvision loader 2",),
    # Flax: greens. Keras.
    "#009E73": ("flax",),
    "#7BCCB0": ("flax+cure",),
    "#CC79A7": ("keras",),
    "#595959": ("products alone",),  # nobody's: a bound
}
_COLOURS = {name: colour for colour, names in _FAMILIES.items() for name in names}


def colour(rival: str) -> str:
    """Of a rival, the same in all figures; grey if it is not known.

    Okabe's and Ito's, as in `jaxdl.plots`, with other shades of them.
    """
    return _COLOURS.get(rival, "#999999")


def _spread(values: Sequence[float]) -> str:
    middle = number(statistics.median(values))
    return f"{middle} [{number(min(values))}, {number(max(values))}]"


def of_products(precision: cases.Precision, rate: float) -> str:
    """The line about the rate of matrix products, from `measure.product_rate`."""
    if math.isnan(rate):
        return f"matrix product, {precision}: no rival has computed it"
    return f"matrix product, {precision}: {number(rate / 1e9)} GFLOP/s"


def number(value: float) -> str:
    """Three digits or so; a dash for NaN."""
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
