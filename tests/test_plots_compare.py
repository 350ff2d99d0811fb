import numpy as np
import pytest
from PIL import Image

from jaxdl import plots, plots_compare
from jaxdl.plots_compare import Curve, Point

POINTS = [
    Point("LeNet-5", 0.88, 0.87, 0.89, 1.3e6, 200),
    Point("VGG-16-BN (small)", 0.96, 0.955, 0.965, 6.3e8, 4000),
    Point("perfect", 1.0, 0.999, 1.0, 1e9, 100),
]
CURVES = [Curve("LeNet-5", [1, 2, 3], [0.5, 0.8, 0.88]), Curve("VGG", [1, 2], [1, 1])]
FIGURES = {
    "cost": lambda: plots_compare.cost(POINTS, "title"),
    "cost of one": lambda: plots_compare.cost(POINTS[:1], "title"),
    "curves": lambda: plots_compare.curves(CURVES, "title"),
    "settings": lambda: plots_compare.settings(
        [("recipe", [0.9, 0.91]), ("fault", [0.1, 0.4])],
        [(0.01, [0.3, 0.4]), (0.1, [0.8, 0.9])],
        0.3467,
        0.19,
        "title",
    ),
}


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_whole_and_not_blank(name, tmp_path):
    plots.save(FIGURES[name](), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("L"))
    assert pixels.shape[0] > 300 and (pixels < 128).mean() > 0.001


def test_cost_shows_each_error_at_its_cost():
    figure = plots_compare.cost(POINTS, "title")
    left, right = figure.axes
    assert left.get_xscale() == right.get_xscale() == left.get_yscale() == "log"
    drawn = [bars.lines[0].get_xydata()[0] for bars in left.containers]
    np.testing.assert_allclose(drawn, [(1.3, 0.12), (630, 0.04), (1000, 1e-4)])
    minutes = [bars.lines[0].get_xdata()[0] for bars in right.containers]
    np.testing.assert_allclose(minutes, [200 / 60, 4000 / 60, 100 / 60])
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == [p.name for p in POINTS]


def test_settings_mark_the_figure_and_chance():
    figure = FIGURES["settings"]()
    (legend,) = figure.legends
    said = [text.get_text() for text in legend.get_texts()]
    assert said == ["the assignment's 34.67%", "the commonest digit: 19.00%"]
