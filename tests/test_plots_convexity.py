"""Figures about convexity: whole, not blank, and with what they are to show."""

import numpy as np
import pytest
from PIL import Image

from jaxdl import plots
from jaxdl import plots_convexity as drawn


def segment(title="a loss"):
    places = np.linspace(-0.15, 1.15, 40)
    return drawn.Segment(title, places, 1 - (places - 0.5) ** 2)


def plane(verdict, witness, flat=False):
    places = np.linspace(-1.6, 1.6, 21)
    s, t = np.meshgrid(places, places)
    losses = np.zeros_like(s) if flat else s**2 + t**2
    return drawn.Slice("a loss", verdict, places, places, losses, witness)


def density(title):
    grid = np.linspace(-1, 5, 200)
    bell = np.exp(-(grid**2) * 50)
    return drawn.Density(title, grid, bell, bell / 2, -0.5, 4.5)


FIGURES = {
    "segments": lambda: drawn.segments([segment() for _ in range(4)], "title"),
    "slices": lambda: drawn.slices(
        [plane("convex", False), plane("not convex", True), plane("undecided", False)],
        "title",
    ),
    "a flat slice": lambda: drawn.slices([plane("convex", False, flat=True)], "title"),
    "densities": lambda: drawn.densities([density("at first"), density("x")], "title"),
    "gaps": lambda: drawn.gaps(
        {"2 layers": [np.geomspace(1, 1e-15, 50), np.zeros(50)]}, "title"
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_whole(name, tmp_path):
    plots.save(FIGURES[name](), tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        grey = np.asarray(image.convert("L"))
    assert grey.std() > 5
    for edge in (grey[0], grey[-1], grey[:, 0], grey[:, -1]):
        assert (edge == 255).all()


def test_a_midpoint_is_drawn_where_the_loss_is():
    [ax] = drawn.segments([segment()], "title").axes
    marks = {line.get_label(): line.get_xydata() for line in ax.lines}
    chord = marks["chord"]
    np.testing.assert_allclose(chord, [[0, 0.75], [1, 0.75]], atol=1e-3)
    [(x, y)] = marks["midpoint, above the chord"]
    assert (x, y) == pytest.approx((0.5, 1), abs=1e-3)


def test_titles_tell_verdicts_and_ends():
    figure = drawn.slices([plane(v, False) for v in ("convex", "undecided")], "t")
    titles = {ax.get_title() for ax in figure.axes}
    assert {"a loss: convex", "a loss: undecided"} <= titles
    [ax] = drawn.densities([density("at first")], "t").axes
    assert ax.get_title() == "at first\n-0.5 to 4.5"


def test_nothing_to_draw_is_an_empty_figure():
    for draw in (drawn.segments, drawn.slices, drawn.densities):
        assert not any(ax.lines for ax in draw([], "title").axes)
