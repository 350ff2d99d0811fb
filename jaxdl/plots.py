"""Every figure the project draws: pure functions from numbers to a Matplotlib figure.

No pyplot and no global state: a figure belongs to whoever asked for it, and `save`
renders it with the Agg canvas, so no display is needed. The colours are Okabe's and
Ito's, which people with any colour vision can tell apart ("Color Universal Design",
2008).
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.stats import binomtest

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#595959"
"""The colours of all figures; see above."""


def curves(metrics: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Loss, accuracy and learning rate over the steps of a run.

    Args:
      metrics: the objects of `metrics.jsonl`, of kind "train" ("step", "loss",
        "accuracy", "learning_rate") and "validation" ("step", "loss", "accuracy"); of
        either, none will do. Accuracies lie in [0, 1]. Of two with the same kind and
        step, which a resumed run may have written, the later counts.
      title: of the figure.
    """
    train = _by_step(metrics, "train")
    validation = _by_step(metrics, "validation")
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(1, 3)
    for ax, name in zip(axes, ("loss", "accuracy", "learning_rate"), strict=True):
        ax.set_title(name.replace("_", " "), fontsize="medium", color=GREY)
        ax.set_xlabel("step")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        plain(ax, grid="both")
        _line(ax, train, name, "train", color=BLUE, linewidth=1.3)
        if name != "learning_rate":
            _line(
                ax,
                validation,
                name,
                "validation",
                color=ORANGE,
                linewidth=1.6,
                marker="o",
                markersize=4,
            )
            if ax.get_lines():
                ax.legend(frameon=False)
    axes[1].yaxis.set_major_formatter(PercentFormatter(1.0))
    axes[2].set_ylim(bottom=0)
    return figure


def confusion(matrix: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Which class was taken for which.

    Colours are shares of the true class (the row), so that rare classes show as well,
    on a square-root scale, so that one mistake in a hundred shows too. The numbers are
    counts; a zero is left blank.

    Args:
      matrix: int [K, K]; [i, j] counts the examples of class i predicted to be j.
      classes: K names.
      title: of the figure.
    """
    count = len(classes)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = max(4.5, 2.4 + 0.52 * count)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    ax = figure.subplots()
    ax.set_title(title)
    image = ax.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    beside = ax.inset_axes((1.03, 0, 0.04, 1))  # exactly as high as the matrix
    bar = figure.colorbar(image, cax=beside, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1])
    beside.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    beside.minorticks_off()
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    long_names = max(map(len, classes)) > 3
    ax.set_xticks(range(count), classes, rotation=90 if long_names else 0)
    ax.set_yticks(range(count), classes)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    # Five digits, SVHN's largest count, just fit a cell.
    for (i, j), number in np.ndenumerate(matrix):
        if number:
            colour = "white" if shares[i, j] > 0.3 else "black"
            text = str(int(number))
            ax.text(j, i, text, ha="center", va="center", color=colour, fontsize=8)
    return figure


def mistakes(
    images: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    title: str,
    count: int = 25,
) -> Figure:
    """The wrong predictions that the model was surest of, the surest first.

    Args:
      images: uint8 [N, H, W, C], C 1 or 3.
      labels: int [N].
      predictions: int [N].
      probabilities: float [N, K].
      classes: K names.
      title: of the figure.
      count: at most this many are shown.
    """
    wrong = np.flatnonzero(predictions != labels)
    sureness = probabilities[wrong, predictions[wrong]]
    shown = wrong[np.argsort(-sureness, kind="stable")][:count]
    columns = max(1, min(5, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    figure = Figure(
        figsize=(max(6.0, 1.5 * columns), 0.7 + 1.75 * rows), layout="constrained"
    )
    which = "all" if len(shown) == len(wrong) else f"the {len(shown)} surest of"
    subtitle = f"\n{which} {len(wrong):,} mistakes" if len(wrong) else ""
    figure.suptitle(title + subtitle, fontsize=11)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()
    for ax, i in zip(axes, shown, strict=False):
        image = images[i].squeeze(-1) if images.shape[-1] == 1 else images[i]
        ax.imshow(image, cmap="gray", vmin=0, vmax=255)
        predicted, true = predictions[i], labels[i]
        ax.set_title(
            f"taken for {classes[predicted]}: {_percent(probabilities[i, predicted])}\n"
            f"really {classes[true]}: {_percent(probabilities[i, true])}",
            fontsize=8,
        )
    if not len(shown):
        axes[0].text(0.5, 0.5, "no mistakes", ha="center", va="center")
    return figure


def per_class(matrix: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Accuracy in each class, with 95 % intervals.

    The intervals are Wilson's (1927), which hold for few examples and near 100 % too.

    Args:
      matrix: int [K, K]; [i, j] counts the examples of class i predicted to be j.
      classes: K names.
      title: of the figure.
    """
    totals, hits = matrix.sum(axis=1), np.diagonal(matrix)
    present = np.flatnonzero(totals)  # a class without examples has no accuracy
    accuracy = hits[present] / totals[present]
    intervals = [
        binomtest(int(hits[i]), int(totals[i])).proportion_ci(0.95, "wilson")
        for i in present
    ]
    low, high = np.reshape(intervals, (-1, 2)).T
    overall = hits.sum() / max(totals.sum(), 1)
    width = max(5.5, 2.5 + 0.6 * len(classes))
    figure = Figure(figsize=(width, 4.2), layout="constrained")
    ax = figure.subplots()
    ax.set_title(title)
    ax.errorbar(
        present,
        accuracy,
        np.maximum([accuracy - low, high - accuracy], 0),  # rounding may cross zero
        fmt="o",
        color=BLUE,
        ecolor=BLUE,
        capsize=4,
        label="each class, with 95% interval",
    )
    ax.axhline(
        overall,
        color=ORANGE,
        linewidth=1.2,
        linestyle="--",
        label=f"all classes together: {overall:.2%}",
    )
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    ax.set_xticks(
        range(len(classes)),
        [f"{name}\n{total:,}" for name, total in zip(classes, totals, strict=True)],
    )
    ax.set_xlim(-0.6, len(classes) - 0.4)
    ax.set_xlabel("class, number of examples")
    ax.set_ylabel("accuracy")
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    plain(ax, grid="y")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG, whole or not at all: a reader never sees half of it.

    Args:
      figure: from one of the functions above.
      path: file to write or replace; its folder must exist.

    Raises:
      OSError: the folder is missing, read-only or full; what was at `path` remains.
    """
    descriptor, temporary = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"
    )
    try:
        with os.fdopen(descriptor, "wb") as file:
            FigureCanvasAgg(figure).print_figure(
                file, format="png", dpi=150, bbox_inches="tight"
            )
        Path(temporary).chmod(0o644)  # mkstemp's files are for their owner alone
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _by_step(
    metrics: Sequence[Mapping[str, Any]], kind: str
) -> list[Mapping[str, Any]]:
    """The objects of a kind, by ascending step, the last one of each step."""
    of_kind = {line["step"]: line for line in metrics if line["kind"] == kind}
    return [of_kind[step] for step in sorted(of_kind)]


def _line(
    ax: Axes, lines: Sequence[Mapping[str, Any]], name: str, label: str, **style: Any
) -> None:
    """Draws one metric over the steps, if there is any."""
    if lines:
        steps = [line["step"] for line in lines]
        if len(steps) == 1:  # a line of one point does not show
            style.setdefault("marker", "o")
        ax.plot(steps, [line[name] for line in lines], label=label, **style)


def plain(ax: Axes, grid: str) -> None:
    """Takes away the frame and adds a faint grid behind the data."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, color="0.9")  # type: ignore[arg-type]
    ax.set_axisbelow(True)


def _percent(share: float) -> str:
    """A share to one decimal; never a 100% or a 0% that is not quite."""
    if share < 0.0005:
        return "< 0.1%"
    return f"{share:.1%}" if share < 0.9995 else "> 99.9%"
