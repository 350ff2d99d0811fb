"""Figures of a hyper-parameter search: pure functions from results to a figure."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from jaxdl.plots import BLUE, GREY, ORANGE, plain
from jaxdl.search.importance import Importance, position
from jaxdl.search.space import Choice, Settings, Space, written


def parallel_coordinates(
    space: Space,
    settings: Sequence[Settings],
    scores: Sequence[float],
    best: int,
    title: str,
) -> Figure:
    """A line for each configuration through the values of its fields to its score.

    Args:
      space: what varied; fields of a single value are left out.
      settings: of each configuration.
      scores: of each, in [0, 1].
      best: which one is drawn on top, in another colour.
      title: of the figure.
    """
    fields = [
        name
        for name, domain in space.items()
        if not isinstance(domain, Choice) or len(domain.values) > 1
    ]
    figure = Figure(figsize=(1.8 + 1.5 * (len(fields) + 1), 4.6), layout="constrained")
    figure.suptitle(title)
    ax = figure.subplots()
    # The worst configurations would squeeze the others into a stroke.
    low, high = float(np.quantile(scores, 0.25)), max(scores)
    low = max(0.0, low - 0.1 * (high - low) - 1e-3)
    high = max(high, low + 1e-3)  # all may have got nothing right
    heights = np.clip((np.array(scores) - low) / (high - low), 0, 1)
    colours = matplotlib.colormaps["viridis_r"]
    spread = np.random.default_rng(0).uniform(-0.02, 0.02, (len(scores), len(fields)))
    for i in [*np.argsort(scores, kind="stable"), best]:
        places = [position(space[f], settings[i][f]) for f in fields]
        discrete = [isinstance(space[f], Choice) for f in fields]
        at = np.array(places) + spread[i] * discrete
        is_best = i == best
        ax.plot(
            range(len(fields) + 1),
            [*at, heights[i]],
            color=ORANGE if is_best else colours(heights[i]),
            linewidth=2.6 if is_best else 1.1,
            alpha=1 if is_best else 0.75,
        )
    for x, name in enumerate(fields):
        for y, label in _ticks(space, name):
            ax.text(x + 0.04, y, label, fontsize=8, va="center", bbox=_HALO)
    for y in np.linspace(0, 1, 5):
        under = "≤ " if y == 0 and min(scores) < low else ""
        label = f"{under}{low + y * (high - low):.2%}"
        ax.text(len(fields) + 0.04, y, label, fontsize=8, va="center", bbox=_HALO)
    for x in range(len(fields) + 1):
        ax.axvline(x, color=GREY, linewidth=0.8, zorder=0)
    names = [*(f.replace("_", "\n") for f in fields), "validation\naccuracy"]
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks([])
    ax.set_xlim(-0.2, len(fields) + 0.5)
    ax.set_ylim(-0.06, 1.06)  # lines of one height alone would leave the labels outside
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    scale = ScalarMappable(Normalize(low, high), colours)
    bar = figure.colorbar(scale, ax=ax, shrink=0.8, pad=0.01)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    bar.outline.set_visible(False)
    ax.plot([], [], color=ORANGE, linewidth=2.6, label="the best of the last rung")
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.14), frameon=False)
    return figure


_HALO = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.8}


def importance(found: Sequence[Importance], title: str) -> Figure:
    """A bar for each field, with the spread over shuffles.

    Args:
      found: from `jaxdl.search.importance`, the most important first.
      title: of the figure.
    """
    figure = Figure(figsize=(7, 1.4 + 0.42 * len(found)), layout="constrained")
    ax = figure.subplots()
    ax.set_title(title)
    means = [one.mean for one in found]
    errors = [
        [max(0.0, one.mean - one.low) for one in found],
        [max(0.0, one.high - one.mean) for one in found],
    ]
    ax.barh(range(len(found)), means, xerr=errors, color=BLUE, ecolor=GREY, capsize=3)
    ax.set_yticks(range(len(found)), [one.field for one in found])
    ax.invert_yaxis()
    ax.axvline(0, color=GREY, linewidth=0.8)
    ax.set_xlabel(
        "share of the variance of the ranks that shuffling the field takes away"
    )
    plain(ax, grid="x")
    return figure


def rungs(
    curves: Sequence[Sequence[Sequence[float]]], best: Sequence[float], title: str
) -> Figure:
    """Validation error by epoch, a panel for each rung.

    Args:
      curves: by rung and trial, accuracy in [0, 1] after each epoch.
      best: the best trial's curve in the last rung.
      title: of the figure.
    """
    count = len(curves)
    figure = Figure(figsize=(1.5 + 3.4 * count, 3.8), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    errors = [1 - accuracy for some in curves for curve in some for accuracy in curve]
    floor = 0.5 * min([e for e in errors if e > 0], default=1e-4)  # for no mistakes
    # One that learns nothing would squeeze all others.
    ceiling = min(1.0, 3 * float(np.median(errors)))
    for rung, (ax, some) in enumerate(zip(axes, curves, strict=True)):
        for curve in some:
            shown = [max(1 - accuracy, floor) for accuracy in curve]
            epochs = range(1, len(curve) + 1)
            ax.plot(epochs, shown, color=BLUE, linewidth=0.9, alpha=0.6)
            ax.plot(epochs[-1], shown[-1], ".", color=BLUE, markersize=5)
        if rung == count - 1:
            shown = [max(1 - accuracy, floor) for accuracy in best]
            epochs = range(1, len(best) + 1)
            ax.plot(
                epochs,
                shown,
                color=ORANGE,
                linewidth=2,
                marker="o",  # one epoch makes no line
                markersize=5,
                markevery=[-1],
                label="the best",
            )
            ax.legend(frameon=False)
        ax.set_title(
            f"rung {rung + 1}: {len(some)} trials, {max(map(len, some))} epochs",
            fontsize="medium",
            color=GREY,
        )
        beyond = sum(
            min(1 - accuracy for accuracy in curve) > ceiling for curve in some
        )
        if beyond:
            ax.text(0.03, 0.97, f"{beyond} above", transform=ax.transAxes, va="top")
        ax.set_xlabel("epoch")
        ax.set_xlim(0.5, max(map(len, some)) + 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        ax.set_yscale("log")
        ax.set_ylim(0.8 * max(min(errors), floor), ceiling)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        ax.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.3g}%")
        ax.yaxis.set_minor_locator(NullLocator())
        plain(ax, grid="both")
    axes[0].set_ylabel("validation error (logarithmic)")
    return figure


def ablation(cells: Mapping[str, Mapping[str, np.ndarray]], title: str) -> Figure:
    """Training accuracy, test accuracy and their gap in each cell, every seed a dot.

    Args:
      cells: by the cell's name, float [seeds] of "train", "test" and "gap", in [0, 1].
      title: of the figure.
    """
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(1, 3)
    names = list(cells)
    titles = {
        "train": "training accuracy",
        "test": "test accuracy",
        "gap": "gap: training - test",
    }
    for ax, (measure, said) in zip(axes, titles.items(), strict=True):
        for x, name in enumerate(names):
            values = cells[name][measure]
            shift = np.linspace(-0.12, 0.12, len(values))
            ax.plot(x + shift, values, ".", color=BLUE, markersize=6)
            ax.plot([x - 0.25, x + 0.25], [values.mean()] * 2, color=ORANGE)
        ax.set_xticks(range(len(names)), [n.replace(", ", "\n") for n in names])
        ax.tick_params(axis="x", labelsize=8)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=2))
        ax.set_title(said, fontsize="medium", color=GREY)
        plain(ax, grid="y")
    return figure


def _ticks(space: Space, name: str) -> list[tuple[float, str]]:
    domain = space[name]
    if isinstance(domain, Choice):
        return [(position(domain, v), written(v)) for v in domain.values]
    values = [domain.at(part) for part in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return [(domain.position(v), written(v)) for v in values]
