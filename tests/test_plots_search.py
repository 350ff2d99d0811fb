import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from jaxdl import plots, plots_search
from jaxdl.search import space
from jaxdl.search.importance import Importance

SPACE = space.parse(
    ["learning_rate=log:0.01:1", "hidden=8|16", "dropout=0:0.5", "augment=none"]
)
SETTINGS = [space.draw(SPACE, 0, index) for index in range(12)]
SCORES = [0.0, *np.linspace(0.9, 0.98, 11)]


def texts(ax):
    return {text.get_text() for text in ax.texts}


def test_parallel_coordinates_has_a_line_for_each_and_the_best_on_top():
    figure = plots_search.parallel_coordinates(SPACE, SETTINGS, SCORES, 11, "title")
    ax = figure.axes[0]
    lines = [line for line in ax.lines if len(line.get_xdata()) == 4]
    assert len(lines) == 13  # the best once more
    top = lines[-1]
    assert top.get_linewidth() > 2 and top.get_ydata()[-1] == 1.0
    rate = SPACE["learning_rate"].position(SETTINGS[11]["learning_rate"])
    assert top.get_ydata()[0] == pytest.approx(rate)
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels == ["learning\nrate", "hidden", "dropout", "validation\naccuracy"]
    assert {"8", "16", "0.01", "1", "98.00%"} <= texts(ax)
    assert any(text.startswith("≤ ") for text in texts(ax))


@pytest.mark.parametrize("scores", [[0.5], [0.0], [1.0], [0.5, 0.5], [0.0, 0.0]])
@pytest.mark.parametrize("field", ["hidden=8|16", "learning_rate=log:0.01:1"])
def test_parallel_coordinates_of_equal_scores_has_its_size(field, scores, tmp_path):
    one = space.parse([field])
    settings = [space.draw(one, 0, index) for index in range(len(scores))]
    figure = plots_search.parallel_coordinates(one, settings, scores, 0, "equal")
    heights = [line.get_ydata() for line in figure.axes[0].lines]
    assert all(np.isfinite(y).all() for y in heights)
    plots.save(figure, tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        assert image.height < 150 * (4.6 + 0.5)


def test_no_accuracy_on_the_axis_is_negative():
    scores = [0.934, *[0.0] * 11]
    figure = plots_search.parallel_coordinates(SPACE, SETTINGS, scores, 0, "diverged")
    assert {"0.00%", "93.40%"} <= texts(figure.axes[0])
    assert not any(text.startswith("-") for text in texts(figure.axes[0]))


def test_ticks_of_ranges_are_plain_numbers():
    wide = space.parse(["batch_size=32:256", "clip_norm=log:1:256"])
    settings = [space.draw(wide, 0, index) for index in range(3)]
    figure = plots_search.parallel_coordinates(wide, settings, [0.1, 0.2, 0.3], 2, "t")
    ticks = texts(figure.axes[0])
    assert {"32", "256", "1", "4", "16", "64"} <= ticks
    assert not any("e+" in tick for tick in ticks)


def test_importance_has_a_bar_for_each():
    found = [Importance("dropout", 0.5, 0.4, 0.7), Importance("hidden", 0.1, -0.1, 0.2)]
    ax = plots_search.importance(found, "title").axes[0]
    assert [bar.get_width() for bar in ax.patches] == [0.5, 0.1]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["dropout", "hidden"]


def test_rungs_has_a_panel_for_each_and_says_what_it_leaves_out():
    curves = [[[0.9, 0.95], [0.91, 0.94], [0.0, 0.0]], [[0.95, 0.96, 1.0]]]
    figure = plots_search.rungs(curves, curves[1][0], "title")
    assert [ax.get_title() for ax in figure.axes] == [
        "rung 1: 3 trials, 2 epochs",
        "rung 2: 1 trials, 3 epochs",
    ]
    assert texts(figure.axes[0]) == {"1 above"} and not texts(figure.axes[1])
    (line,) = (x for x in figure.axes[1].lines if x.get_label() == "the best")
    assert np.all(line.get_ydata() > 0)  # no mistakes at all have a place too


def test_a_rung_of_one_epoch_has_its_place_and_the_best_a_mark():
    (ax,) = plots_search.rungs([[[0.9], [0.8]]], [0.9], "title").axes
    assert ax.get_xlim() == (0.5, 1.5)
    assert {1} == {tick for tick in ax.get_xticks() if 0.5 <= tick <= 1.5}
    assert ax.lines[-1].get_label() == "the best" and ax.lines[-1].get_marker() == "o"


def test_ablation_has_every_seed():
    random = np.random.default_rng(0)
    names = ("neither", "dropout", "batch norm", "dropout, batch norm")
    cells = {
        name: {m: random.random(5) for m in ("train", "test", "gap")} for name in names
    }
    figure = plots_search.ablation(cells, "title")
    for ax, measure in zip(figure.axes, ("train", "test", "gap"), strict=True):
        dots = [line.get_ydata() for line in ax.lines if line.get_marker() == "."]
        np.testing.assert_array_equal(dots, [cells[n][measure] for n in names])


def test_all_can_be_saved(tmp_path):
    figure = plots_search.rungs([[[0.5]]], [0.5], "one epoch of one trial")
    assert isinstance(figure, Figure)
    plots.save(figure, tmp_path / "figure.png")
    same = plots_search.parallel_coordinates(SPACE, SETTINGS, [0.5] * 12, 0, "equal")
    plots.save(same, tmp_path / "same.png")
