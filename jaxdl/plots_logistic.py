"""Figures of the study of logistic regression: cross-entropy beside squared error.

Pure functions from numbers to a Matplotlib figure, as in `jaxdl.plots`, whose `save`
writes them. Cross-entropy is blue throughout, squared error orange.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from jaxdl.calibration import Reliability
from jaxdl.config import Loss
from jaxdl.logistic import Linear
from jaxdl.plots import BLUE, ORANGE, plain

_COLOURS: Mapping[Loss, str] = {"cross_entropy": BLUE, "mse": ORANGE}
_NAMES: Mapping[Loss, str] = {"cross_entropy": "cross-entropy", "mse": "squared error"}
_MARKS: Mapping[Loss, str] = {"cross_entropy": "o", "mse": "s"}


def reliability(panels: Mapping[str, Mapping[Loss, Reliability]]) -> Figure:
    """What came true over what was predicted; a panel for each set of data."""
    figure, axes = _grid(len(panels), columns=3, size=(3.4, 3.3))
    for ax, (name, found) in zip(axes, panels.items(), strict=True):
        ax.set_title(name, fontsize="medium")
        ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
        for loss, points in found.items():
            ax.plot(points.predicted, points.observed, markersize=4, **_style(loss))
        ax.set_xlabel("predicted P(1|x)")
        ax.set_ylabel("what came true")
        ax.set_aspect("equal")
    return _legend(figure, axes[0])


def distances(sizes: Sequence[int], found: Mapping[Loss, np.ndarray]) -> Figure:
    """Distance of the fitted law to the true one over the number of examples.

    Args:
      sizes: T numbers of examples.
      found: by loss, Kullback-Leibler divergences [T, S] of S seeds.
    """
    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    ax = figure.subplots()
    for loss, values in found.items():
        _band(ax, sizes, np.log(values), loss, back=np.exp)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.minorticks_off()
    ax.set_xlabel("training examples")
    ax.set_ylabel("KL divergence from the truth, nats")
    plain(ax, grid="both")
    ax.legend(frameon=False)
    return figure


def slopes(logits: np.ndarray, found: Mapping[Loss, np.ndarray]) -> Figure:
    """Size of the gradient by the logit, for label 1, over the logit."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    ax = figure.subplots()
    for loss, values in found.items():
        ax.plot(logits, np.abs(values), linewidth=1.8, **_style(loss, mark=False))
    ax.set_yscale("log")
    ax.set_ylim(1e-8, 3)
    ax.axvspan(logits.min(), -4, color="0.94", zorder=0)
    ax.text(logits.min() + 0.4, 2e-8, "confident and wrong", color="0.35")
    ax.set_xlabel("logit z of an example of class 1")
    ax.set_ylabel("|derivative of the loss by z|")
    plain(ax, grid="both")
    ax.legend(frameon=False, loc="lower center")
    return figure


def rates(
    rates: np.ndarray,
    panels: Mapping[str, Mapping[str, Mapping[Loss, np.ndarray]]],
    limit: int,
) -> Figure:
    """Steps to the target over the learning rate.

    Args:
      rates: R multiples of the unit rate.
      panels: by data (a row) and start (a column), and loss: steps [R, S].
      limit: where a run ends that has not reached it.
    """
    columns = len(next(iter(panels.values())))
    figure = Figure(figsize=(3.4 * columns, 2.7 * len(panels)), layout="constrained")
    grid = figure.subplots(
        len(panels), columns, sharex=True, sharey=True, squeeze=False
    )
    for row, (name, starts) in zip(grid, panels.items(), strict=True):
        for ax, (start, found) in zip(row, starts.items(), strict=True):
            ax.set_title(f"{name}: {start} start", fontsize="small")
            for loss, steps in found.items():
                median = np.maximum(
                    np.median(steps, 1), 1
                )  # 0 has no place on the axis
                ax.plot(rates, median, markersize=3, **_style(loss))
            ax.axhline(limit, color="0.6", linewidth=1, linestyle=":")
            ax.set_xscale("log", base=2)
            ax.set_yscale("log")
            plain(ax, grid="both")
        row[0].set_ylabel("steps (median)")
    for ax in grid[-1]:
        ax.set_xlabel("learning rate, times 1/λ")
    return _legend(figure, grid[0, 0])


def surfaces(
    axis: np.ndarray,
    values: Mapping[Loss, np.ndarray],
    minima: Mapping[Loss, np.ndarray],
) -> Figure:
    """Contours of both objectives over two weights, with their minima.

    Args:
      axis: T values of either weight.
      values: by loss, the objective [T, T] at (second weight, first weight).
      minima: by loss, weights [M, 2].
    """
    figure = Figure(figsize=(9, 4.3), layout="constrained")
    for ax, (loss, heights) in zip(figure.subplots(1, 2), values.items(), strict=True):
        # Equal areas between the contours: shallow valleys show beside steep slopes.
        levels = np.quantile(heights, np.linspace(0, 1, 31))
        drawn = ax.contourf(axis, axis, heights, levels=levels, cmap="viridis")
        ax.contour(axis, axis, heights, levels=levels, colors="white", linewidths=0.4)
        ticks = levels[::5]
        bar = figure.colorbar(
            drawn, ax=ax, shrink=0.85, label="mean loss", spacing="uniform", ticks=ticks
        )
        bar.ax.set_yticklabels([f"{tick:.2f}" for tick in ticks])
        ax.plot(*minima[loss].T, "*", color="white", markersize=13, markeredgecolor="k")
        count = len(minima[loss])
        ax.set_title(f"{_NAMES[loss]}: {count} minim{'um' if count == 1 else 'a'}")
        ax.set_xlabel("first weight")
        ax.set_ylabel("second weight")
        ax.set_aspect("equal")
    return figure


def divergence(
    steps: np.ndarray,
    panels: Mapping[str, Mapping[Loss, tuple[np.ndarray, np.ndarray, float]]],
) -> Figure:
    """Length of the weights, and angle to the maximum margin, along gradient descent.

    Args:
      steps: T numbers of steps.
      panels: by data and loss: lengths [S, T]; angles in degrees [S, T]; and the slope
        of the length over ln(steps) that theory gives in the limit.
    """
    figure = Figure(figsize=(9, 3.2 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), 2, squeeze=False)
    for (left, right), (name, found) in zip(grid, panels.items(), strict=True):
        for loss, (length, angle, slope) in found.items():
            _band(left, steps, length.T, loss)
            last = steps > steps[-1] / 30
            line = length.mean(0)[-1] + slope * np.log(steps[last] / steps[-1])
            left.plot(steps[last], line, color="k", linewidth=1, linestyle="--")
            _band(right, steps, angle.T, loss)
        left.set_title(f"{name}: length", fontsize="medium")
        right.set_title(f"{name}: angle to the margin", fontsize="medium")
        left.set_ylabel("|(weights, bias)|")
        right.set_ylabel("degrees")
        right.set_ylim(bottom=0)
        for ax in (left, right):
            ax.set_xscale("log")
            ax.set_xlabel("steps of gradient descent")
            plain(ax, grid="both")
    grid[0, 0].plot([], [], "k--", linewidth=1, label="slope in the limit (theory)")
    return _legend(figure, grid[0, 0])


def boundaries(
    features: np.ndarray,
    labels: np.ndarray,
    models: Mapping[Loss, Mapping[int, Linear]],
    margin: Linear,
) -> Figure:
    """Where the models divide the plane after some numbers of steps.

    Args:
      features: [N, 2].
      labels: 0 or 1, [N].
      models: by loss and number of steps.
      margin: the model of the maximum margin.
    """
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    for ax, (loss, by_step) in zip(figure.subplots(1, 2), models.items(), strict=True):
        for label, mark in ((0.0, "x"), (1.0, "o")):
            points = features[labels == label]
            ax.scatter(*points.T, marker=mark, s=18, color="0.45")
        lower, upper = features.min(0) - 0.3, features.max(0) + 0.3
        ax.set(xlim=(lower[0], upper[0]), ylim=(lower[1], upper[1]))
        for shade, (step, model) in zip(
            np.linspace(0.35, 1, len(by_step)), by_step.items(), strict=True
        ):
            _boundary(
                ax, model, color=_COLOURS[loss], alpha=shade, label=f"{step:,} steps"
            )
        _boundary(ax, margin, color="k", linestyle="--", label="maximum margin")
        ax.set_title(_NAMES[loss])
        ax.set_xlabel("first feature")
        ax.set_ylabel("second feature")
        ax.legend(
            frameon=False,
            fontsize="small",
            ncols=2,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.14),
        )
    return figure


def imbalance(
    ratios: Sequence[int],
    panels: Mapping[str, Mapping[str, Mapping[Loss, np.ndarray]]],
) -> Figure:
    """Measures over the ratio of the classes.

    Args:
      ratios: T ratios, common over rare.
      panels: by data (a row), measure (a column) and loss: values [T, S].
    """
    columns = len(next(iter(panels.values())))
    figure = Figure(figsize=(2.9 * columns, 3 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), columns, squeeze=False, sharey="col")
    for row, (name, measures) in zip(grid, panels.items(), strict=True):
        for ax, (measure, found) in zip(row, measures.items(), strict=True):
            for loss, values in found.items():
                _band(ax, ratios, values, loss)
            ax.set_title(measure.replace(", ", ",\n"), fontsize="medium")
            ax.set_xscale("log")
            ax.set_xticks(ratios, [f"1:{ratio}" for ratio in ratios], fontsize="small")
            ax.minorticks_off()
            plain(ax, grid="both")
        row[0].set_ylabel(name)
    for ax in grid[-1]:
        ax.set_xlabel("rare : common examples")
    return _legend(figure, grid[0, 0])


def _grid(
    count: int, columns: int, size: tuple[float, float]
) -> tuple[Figure, list[Axes]]:
    rows = -(-count // columns)
    figure = Figure(
        figsize=(size[0] * columns, size[1] * rows + 0.4), layout="constrained"
    )
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[count:]:
        ax.set_axis_off()
    for ax in axes[:count]:
        plain(ax, grid="both")
    return figure, list(axes[:count])


def _band(
    ax: Axes,
    at: Sequence[int] | np.ndarray,
    values: np.ndarray,
    loss: Loss,
    back: np.ufunc | None = None,
) -> None:
    """The mean over the seeds of values [T, S], with its 95 % interval."""
    mean = values.mean(1)
    count = values.shape[1]
    reach = stats.t.ppf(0.975, count - 1) * values.std(1, ddof=1) / np.sqrt(count)
    low, high = mean - reach, mean + reach
    if back is not None:
        mean, low, high = back(mean), back(low), back(high)
    few = len(mean) < 12
    ax.plot(at, mean, linewidth=1.6, markersize=4, **_style(loss, mark=few))
    ax.fill_between(at, low, high, color=_COLOURS[loss], alpha=0.18, linewidth=0)


def _boundary(ax: Axes, model: Linear, **style: Any) -> None:
    (first, second), bias = np.asarray(model.weights), float(model.bias)
    x = np.array(ax.get_xlim())
    ax.plot(x, -(first * x + bias) / second, **style)


def _style(loss: Loss, mark: bool = True) -> dict[str, Any]:
    style = {"color": _COLOURS[loss], "label": _NAMES[loss]}
    return style | {"marker": _MARKS[loss]} if mark else style


def _legend(figure: Figure, ax: Axes) -> Figure:
    """One legend below for all panels, of what the first one shows."""
    handles, names = ax.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=len(names), frameon=False
    )
    return figure
