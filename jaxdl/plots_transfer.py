"""Figures of transfer with few labels: pure functions from results to a figure."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    NullLocator,
    PercentFormatter,
)

from jaxdl.plots import BLUE, GREY, ORANGE, plain
from jaxdl.search import ablation

COLOURS = (GREY, BLUE, ORANGE, "#009E73", "#CC79A7")
"""Of the arms; the last two are of the same palette as `jaxdl.plots`."""
_MARKS = "osD^v"
_TICKS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)


def errors(
    labels: Sequence[int],
    accuracies: Mapping[str, np.ndarray],
    untouched: float | None,
    title: str,
) -> Figure:
    """Test error against the number of labels, with Student's 95 % intervals.

    Args:
      labels: ascending numbers of labelled images.
      accuracies: by arm, float [labels, seeds] in [0, 1].
      untouched: accuracy of the source as it is, for a line across; None for none.
      title: of the figure.
    """
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    ax = figure.subplots()
    ax.set_title(title)
    lows, highs = [], []
    for i, (name, values) in enumerate(accuracies.items()):
        found = [ablation.mean(1 - of) for of in values]
        means = np.array([effect.mean for effect in found])
        # A log axis has no place for what is not above 0.
        low = np.array([e.low if e.low > 0 else e.mean / 4 for e in found])
        high = np.array([effect.high for effect in found])
        ax.errorbar(
            # Side by side, so that no interval hides another.
            np.array(labels) * 1.035 ** (i - (len(accuracies) - 1) / 2),
            means,
            [means - low, high - means],
            color=COLOURS[i],
            marker=_MARKS[i],
            markersize=5,
            capsize=4,
            linewidth=1.4,
            label=name,
        )
        lows.append(low.min())
        highs.append(high.max())
    if untouched is not None:
        ax.axhline(
            1 - untouched,
            color="black",
            linestyle=":",
            linewidth=1.2,
            label=f"the source as it is: {1 - untouched:.1%}",
        )
        lows.append(1 - untouched)
        highs.append(1 - untouched)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(0.9 * max(min(lows), 1e-4), 1.1 * max(highs))
    ax.yaxis.set_major_locator(FixedLocator(_TICKS))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(
        FuncFormatter(
            lambda share, _: f"{share:.0%}" if share >= 0.01 else f"{share:.1%}"
        )
    )
    ax.set_xticks(labels, [f"{count:,}" for count in labels])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("labelled images to train on")
    ax.set_ylabel("error on the test set")
    plain(ax, grid="y")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def curves(
    labels: Sequence[int],
    steps: Sequence[int],
    accuracies: Mapping[str, np.ndarray],
    title: str,
) -> Figure:
    """Validation accuracy along training: means, within the range over the seeds.

    Args:
      labels: numbers of labelled images, a panel each.
      steps: where it was measured.
      accuracies: by arm, float [labels, seeds, steps] in [0, 1].
      title: of the figure.
    """
    figure = Figure(figsize=(1.2 + 3.3 * len(labels), 3.9), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(1, len(labels), sharey=True, squeeze=False)[0]
    for panel, (ax, count) in enumerate(zip(axes, labels, strict=True)):
        ax.set_title(f"{count:,} labels", fontsize="medium", color=GREY)
        for i, (name, values) in enumerate(accuracies.items()):
            some = values[panel]
            ax.fill_between(
                steps, some.min(0), some.max(0), color=COLOURS[i], alpha=0.15, lw=0
            )
            ax.plot(
                steps,
                some.mean(0),
                color=COLOURS[i],
                marker=_MARKS[i],
                markersize=4,
                label=name if panel == 0 else None,
            )
        ax.set_xlabel("step")
        ax.set_xlim(left=0)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        plain(ax, grid="y")
    axes[0].set_ylabel("accuracy on the validation set")
    axes[0].yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def examples(sets: Mapping[str, np.ndarray], columns: int = 12) -> Figure:
    """Images of several sets, below each other.

    Args:
      sets: uint8 [N, H, W, 3] by title; whole rows of them are shown.
      columns: images in a row.
    """
    rows = [len(images) // columns for images in sets.values()]
    heights = [0.66 * count + 0.35 for count in rows]
    figure = Figure(figsize=(0.66 * columns, sum(heights)), layout="constrained")
    axes = figure.subplots(len(sets), 1, height_ratios=heights, squeeze=False)[:, 0]
    for ax, count, (title, images) in zip(axes, rows, sets.items(), strict=True):
        _, height, width, channels = images.shape
        tiles = images[: count * columns].reshape(
            count, columns, height, width, channels
        )
        # A pixel of white between them.
        tiles = np.pad(
            tiles, ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)), constant_values=255
        )
        height, width = height + 1, width + 1
        sheet = tiles.transpose(0, 2, 1, 3, 4).reshape(
            count * height, columns * width, channels
        )
        ax.imshow(sheet)
        ax.set_title(title, fontsize=10, loc="left")
        ax.set_axis_off()
    return figure
