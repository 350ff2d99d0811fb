"""The figures about convexity; in the manner of `jaxdl.plots`."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from jaxdl.plots import BLUE, GREY, ORANGE, plain

_GREEN = "#009E73"
_COLOURS = {"convex": BLUE, "not convex": ORANGE}


class Segment(NamedTuple):
    """A loss between the two points of a witness."""

    title: str
    places: np.ndarray
    """float [t], from 0 at one point to 1 at the other."""
    losses: np.ndarray
    """float [t]."""


class Slice(NamedTuple):
    """A loss over a plane."""

    title: str
    verdict: str
    """"convex", "not convex" or "undecided"."""
    first: np.ndarray
    """float [s]: places along the horizontal axis."""
    second: np.ndarray
    """float [t]: along the vertical one."""
    losses: np.ndarray
    """float [t, s]."""
    witness: bool
    """Whether a witness lies at (-1, 0) and (1, 0)."""


class Density(NamedTuple):
    """The spectra of a Hessian and of its Gauss-Newton part."""

    title: str
    grid: np.ndarray
    """float [g]: eigenvalues."""
    hessian: np.ndarray
    """float [g]: the density of the Hessian's."""
    gauss_newton: np.ndarray
    """float [g]: that of the Gauss-Newton matrix."""
    smallest: float
    """The Hessian's smallest eigenvalue."""
    largest: float
    """Its largest."""


def segments(shown: Sequence[Segment], title: str) -> Figure:
    """Each loss along its witness, the chord, and the midpoint above it."""
    figure, axes = _grid(len(shown), 3, (3.6, 2.9))
    figure.suptitle(title)
    for ax, one in zip(axes, shown, strict=True):
        ax.set_title(one.title, fontsize="medium")
        ax.plot(one.places, one.losses, color=BLUE, label="loss")
        start, end = (np.interp(t, one.places, one.losses) for t in (0, 1))
        middle = np.interp(0.5, one.places, one.losses)
        ax.plot([0, 1], [start, end], "--", color=GREY, label="chord")
        ax.plot([0.5, 0.5], [(start + end) / 2, middle], color=ORANGE, linewidth=2)
        ax.plot(0.5, middle, "o", color=ORANGE, label="midpoint, above the chord")
        ax.plot([0, 1], [start, end], "o", color=GREY, markersize=5)
        ax.set_xticks([0, 0.5, 1], ["a", "midpoint", "b"])
        plain(ax, grid="y")
    if shown:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=3, frameon=False
        )
        axes[0].set_ylabel("loss")
    return figure


def slices(shown: Sequence[Slice], title: str) -> Figure:
    """Contours of each loss; sets below a level are convex where the loss is."""
    figure, axes = _grid(len(shown), 3, (3.7, 3.4))
    figure.suptitle(title)
    for ax, one in zip(axes, shown, strict=True):
        ax.set_title(
            f"{one.title}: {one.verdict}",
            fontsize="medium",
            color=_COLOURS.get(one.verdict, GREY),
        )
        low, high = one.losses.min(), np.quantile(one.losses, 0.97)
        # Closer levels near the bottom, where they would be far apart.
        levels = low + (high - low) * np.linspace(0, 1, 14) ** 1.7
        if high > low:
            drawn = ax.contourf(
                one.first, one.second, one.losses, levels, cmap="viridis", extend="max"
            )
            ax.contour(drawn, colors="white", linewidths=0.4)
            beside = ax.inset_axes((1.03, 0, 0.05, 1))  # as high as the plane
            bar = figure.colorbar(drawn, cax=beside, format="%.2g", ticks=levels[::4])
            bar.outline.set_visible(False)
        if one.witness:
            ax.plot([-1, 0, 1], [0, 0, 0], color="white", linewidth=1, linestyle="--")
            ax.plot([-1, 1], [0, 0], "o", color="white", markeredgecolor="black")
            ax.plot(0, 0, "o", color=ORANGE, markeredgecolor="black")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_box_aspect(1)
    return figure


def densities(shown: Sequence[Density], title: str) -> Figure:
    """The spectra, on a logarithmic scale: a Hessian's bulk is narrow and at zero."""
    figure, axes = _grid(len(shown), 2, (5.2, 3.6))
    figure.suptitle(title)
    floor = 1e-6
    for ax, one in zip(axes, shown, strict=True):
        ends_said = f"{one.smallest:.3g} to {one.largest:.3g}"
        ax.set_title(f"{one.title}\n{ends_said}", fontsize="medium")
        ax.fill_between(
            one.grid,
            floor,
            np.maximum(one.hessian, floor),
            color=BLUE,
            alpha=0.35,
            linewidth=0,
        )
        ax.plot(one.grid, np.maximum(one.hessian, floor), color=BLUE, label="Hessian")
        ax.plot(
            one.grid,
            np.maximum(one.gauss_newton, floor),
            color=_GREEN,
            linewidth=1.2,
            label="Gauss-Newton part",
        )
        ax.axvline(0, color=GREY, linewidth=0.8)
        ends = [one.smallest, one.largest]
        ax.plot(
            ends,
            [floor * 1.4] * 2,
            "^",
            color=ORANGE,
            label="smallest and largest eigenvalue",
        )
        ax.set_yscale("log")
        ax.set_ylim(bottom=floor)
        ax.set_xlabel("eigenvalue")
        plain(ax, grid="y")
    if shown:
        axes[0].set_ylabel("density")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=3, frameon=False
        )
    return figure


def gaps(runs: Mapping[str, Sequence[np.ndarray]], title: str) -> Figure:
    """How far above the least possible loss each run is, step by step.

    Args:
      runs: by network, for each start a float [steps]; no more than rounding below 0.
      title: of the figure.
    """
    figure, axes = _grid(len(runs), 2, (5.2, 3.4))
    figure.suptitle(title)
    for ax, (name, starts) in zip(axes, runs.items(), strict=True):
        ax.set_title(name, fontsize="medium")
        for i, gap in enumerate(starts):
            label = "a start" if not i else None
            ax.plot(np.maximum(gap, 1e-17), color=BLUE, alpha=0.6, label=label)
        ax.set_yscale("log")
        ax.set_ylim(bottom=1e-16)
        ax.set_xlabel("step of gradient descent")
        plain(ax, grid="both")
    if runs:
        axes[0].set_ylabel("loss - global minimum")
    return figure


def _grid(
    count: int, columns: int, size: tuple[float, float]
) -> tuple[Figure, Sequence]:
    """A figure with that many axes, in rows."""
    columns = max(1, min(columns, count))
    rows = max(1, -(-count // columns))
    figure = Figure(
        figsize=(size[0] * columns, 0.7 + size[1] * rows), layout="constrained"
    )
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[count:]:
        ax.set_axis_off()
    return figure, list(axes[:count])
