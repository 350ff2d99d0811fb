"""Figures of a comparison of networks: pure functions from numbers to a figure."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    PercentFormatter,
)

from jaxdl.plots import BLUE, GREY, ORANGE, plain

_COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", ":")
_MARKERS = ("o", "s", "^")


class Point(NamedTuple):
    """A network: what it scored, and what it cost."""

    name: str
    accuracy: float
    """In [0, 1]."""
    low: float
    """Lower end of its interval."""
    high: float
    flops: float
    """Of one image forward; above 0."""
    seconds: float
    """Of its training; above 0."""


class Curve(NamedTuple):
    """How a run went."""

    name: str
    epochs: Sequence[int]
    accuracy: Sequence[float]
    """On the validation set after each of `epochs`, in [0, 1]."""


def cost(points: Sequence[Point], title: str) -> Figure:
    """Error against arithmetic and against training time, all logarithmic.

    Args:
      points: at least one.
      title: of the figure; says which data.
    """
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(1, 2, sharey=True)
    _scatter(axes[0], points, [p.flops / 1e6 for p in points])
    axes[0].set_xlabel("MFLOPs of one image forward (a multiply-add is two)")
    axes[0].set_ylabel("test error, with 95% interval")
    _scatter(axes[1], points, [p.seconds / 60 for p in points])
    axes[1].set_xlabel("minutes of training, wall time")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", frameon=False, fontsize=9)
    return figure


def curves(found: Sequence[Curve], title: str) -> Figure:
    """Validation error by epoch, a line for each run.

    Args:
      found: at least one.
      title: of the figure; says which data.
    """
    figure = Figure(figsize=(8.5, 4.6), layout="constrained")
    ax = figure.subplots()
    ax.set_title(title)
    errors = [1 - a for curve in found for a in curve.accuracy]
    for i, curve in enumerate(found):
        ax.plot(
            curve.epochs,
            np.maximum(1 - np.array(curve.accuracy), 1e-4),
            color=_COLOURS[i % len(_COLOURS)],
            linestyle=_STYLES[i // len(_COLOURS) % len(_STYLES)],
            marker="." if len(curve.epochs) < 40 else None,
            label=curve.name,
        )
    ax.set_xlabel("epoch")
    ax.set_ylabel("validation error")
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    _percent_log(ax, errors)
    plain(ax, grid="both")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _scatter(ax: Axes, points: Sequence[Point], x: Sequence[float]) -> None:
    for i, (at, p) in enumerate(zip(x, points, strict=True)):
        error = max(1 - p.accuracy, 1e-4)
        below = min(max(0.0, p.high - p.accuracy), 0.9 * error)  # the axis has no 0
        above = max(0.0, p.accuracy - p.low)
        ax.errorbar(
            at,
            error,
            [[below], [above]],
            fmt=_MARKERS[i // len(_COLOURS) % len(_MARKERS)],
            color=_COLOURS[i % len(_COLOURS)],
            capsize=3,
            label=p.name,
        )
    ax.set_xscale("log")
    low, high = min(x) / 2, max(x) * 2  # room around a single point, too
    ax.set_xlim(low, high)
    numbers = FuncFormatter(lambda v, _: f"{v:g}")
    ax.xaxis.set_major_formatter(numbers)
    # Between decades there is room for numbers only where decades are few.
    ax.xaxis.set_minor_formatter(numbers if high < 10 * low else NullFormatter())
    _percent_log(ax, [1 - v for p in points for v in (p.low, p.accuracy, p.high)])
    plain(ax, grid="both")


def _percent_log(ax: Axes, errors: Sequence[float]) -> None:
    """A logarithmic axis of shares, with plain numbers where people expect them."""
    low, high = max(min(errors), 1e-4) * 0.85, min(1.0, max(errors) * 1.15)
    ax.set_yscale("log")
    ticks = [t for d in (1e-4, 1e-3, 1e-2, 0.1) for t in (d, 2 * d, 3 * d, 5 * d)]
    inside = [t for t in [*ticks, 0.07, 0.15, 1.0] if low <= t <= high]
    if len(inside) > 1:
        ax.set_yticks(inside)
        ax.yaxis.set_minor_locator(NullLocator())
    shares = FuncFormatter(lambda v, _: f"{100 * v:g}%")
    ax.yaxis.set_major_formatter(shares)
    ax.yaxis.set_minor_formatter(shares)
    ax.set_ylim(low, high)


def settings(
    named: Sequence[tuple[str, Sequence[float]]],
    rates: Sequence[tuple[float, Sequence[float]]],
    reported: float,
    chance: float,
    title: str,
) -> Figure:
    """Accuracy under each setting and at each learning rate, every seed a dot.

    Args:
      named: names of settings, and the accuracy of each seed, in [0, 1].
      rates: learning rates, ascending and above 0, and the same.
      reported: an accuracy to compare with.
      chance: the share of the commonest class.
      title: of the figure; says which data.
    """
    height = 1.6 + 0.32 * len(named)
    figure = Figure(figsize=(11.5, max(4.2, height)), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for y, (_, accuracies) in enumerate(named):
        left.plot(accuracies, [y] * len(accuracies), "o", color=BLUE, alpha=0.7)
    left.set_yticks(range(len(named)), [name for name, _ in named])
    left.invert_yaxis()
    left.set_xlabel("test accuracy")
    left.set_xlim(0, 1)
    left.xaxis.set_major_formatter(PercentFormatter(1.0))
    plain(left, grid="both")
    x = [rate for rate, _ in rates]
    right.plot(x, [np.mean(a) for _, a in rates], color=BLUE, linewidth=1.2)
    for rate, accuracies in rates:
        right.plot([rate] * len(accuracies), accuracies, "o", color=BLUE, alpha=0.7)
    right.set_xscale("log")
    right.set_xlabel("learning rate, without momentum")
    right.set_ylabel("test accuracy")
    right.set_ylim(0, 1)
    right.yaxis.set_major_formatter(PercentFormatter(1.0))
    plain(right, grid="both")
    for draw, text in ((left.axvline, True), (right.axhline, False)):
        for value, colour, what in (
            (reported, ORANGE, f"the assignment's {reported:.2%}"),
            (chance, GREY, f"the commonest digit: {chance:.2%}"),
        ):
            draw(
                value,
                color=colour,
                linestyle="--",
                linewidth=1.2,
                label=what if text else None,
            )
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure
