"""Figures of the study of logistic regression show the numbers that they are given."""

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from jaxdl import calibration, plots, plots_logistic
from jaxdl.logistic import Linear

LOSSES = ("cross_entropy", "mse")


def numbers(*shape: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {loss: rng.uniform(0.1, 1, shape) for loss in LOSSES}


def by_label(ax, label):
    [line] = [line for line in ax.get_lines() if line.get_label() == label]
    return line


def figure(name):
    steps = np.array([1, 10, 100])
    match name:
        case "reliability":
            p = np.linspace(0, 1, 50)
            points = calibration.reliability(p**2, p)
            return plots_logistic.reliability(
                {n: dict.fromkeys(LOSSES, points) for n in "abcd"}
            )
        case "distances":
            return plots_logistic.distances([10, 20, 40], numbers(3, 5))
        case "slopes":
            return plots_logistic.slopes(np.linspace(-9, 9, 19), numbers(19))
        case "rates":
            rates = 2.0 ** np.arange(4)
            steps = {loss: 40 * v - 22 for loss, v in numbers(4, 5).items()}
            panels = {n: {"zero": steps, "good": steps} for n in "ab"}
            return plots_logistic.rates(rates, panels, limit=100)
        case "surfaces":
            minima = {"cross_entropy": np.zeros((1, 2)), "mse": np.eye(2)}
            return plots_logistic.surfaces(np.linspace(-1, 1, 9), numbers(9, 9), minima)
        case "divergence":
            panel = {k: (v, 90 * v, 2.0) for k, v in numbers(5, 3).items()}
            return plots_logistic.divergence(steps, {"a": panel, "b": panel})
        case "boundaries":
            x = np.random.default_rng(1).normal(size=(20, 2))
            model = Linear(np.array([1.0, 2.0]), np.array(0.5))
            models = {loss: {1: model, 1000: model} for loss in LOSSES}
            return plots_logistic.boundaries(x, (x[:, 0] > 0) * 1.0, models, model)
        case "imbalance":
            panel = {"recall": numbers(3, 5), "AUC, weighted": numbers(3, 5)}
            return plots_logistic.imbalance([1, 10, 100], {"a": panel, "b": panel})


NAMES = (
    "reliability",
    "distances",
    "slopes",
    "rates",
    "surfaces",
    "divergence",
    "boundaries",
    "imbalance",
)


@pytest.mark.parametrize("name", NAMES)
def test_is_drawn_whole_and_tells_the_losses_apart(name, tmp_path):
    drawn = figure(name)
    plots.save(drawn, tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        grey = np.asarray(image.convert("L"))
    assert min(grey.shape) > 200 and grey.std() > 5
    for edge in (grey[0], grey[-1], grey[:, 0], grey[:, -1]):
        assert (edge == 255).all()  # nothing is cut off
    said = [text.get_text() for legend in drawn.legends for text in legend.get_texts()]
    for ax in drawn.axes:
        said.append(ax.get_title())
        if legend := ax.get_legend():
            said += [text.get_text() for text in legend.get_texts()]
    assert any("cross-entropy" in one for one in said)
    assert any("squared error" in one for one in said)


def test_bands_are_means_with_their_intervals():
    ax = figure("imbalance").axes[0]
    values = numbers(3, 5)["mse"]
    line = by_label(ax, "squared error")
    np.testing.assert_allclose(line.get_ydata(), values.mean(1))
    (_, band) = ax.collections
    low, high = scipy.stats.t.interval(
        0.95, 4, values.mean(1), scipy.stats.sem(values, axis=1)
    )
    heights = band.get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([heights.min(), heights.max()], [low.min(), high.max()])


def test_imbalance_says_what_its_ratios_are_of():
    axes = figure("imbalance").axes
    assert [ax.get_xlabel() for ax in axes] == ["", ""] + ["rare : common examples"] * 2
    assert [t.get_text() for t in axes[2].get_xticklabels()] == ["1:1", "1:10", "1:100"]


def test_distances_are_geometric_means():
    ax = figure("distances").axes[0]
    wanted = scipy.stats.gmean(numbers(3, 5)["cross_entropy"], axis=1)
    np.testing.assert_allclose(by_label(ax, "cross-entropy").get_ydata(), wanted)


def test_rates_are_medians_and_empty_panels_are_hidden():
    ax = figure("rates").axes[0]
    wanted = np.median(40 * numbers(4, 5)["mse"] - 22, axis=1)
    assert wanted.min() < 1  # no step at all stands at 1, on a logarithmic axis
    wanted = np.maximum(wanted, 1)
    np.testing.assert_allclose(by_label(ax, "squared error").get_ydata(), wanted)
    shown = [ax.axison for ax in figure("reliability").axes]
    assert shown == [True] * 4 + [False] * 2


def test_surfaces_count_and_mark_the_minima():
    drawn = figure("surfaces")
    titles = [ax.get_title() for ax in drawn.axes if ax.get_title()]
    assert titles == ["cross-entropy: 1 minimum", "squared error: 2 minima"]
    stars = drawn.axes[1].get_lines()[0].get_xydata()
    np.testing.assert_array_equal(stars, np.eye(2))


def test_boundary_is_where_the_logit_is_0():
    for line in figure("boundaries").axes[0].get_lines():
        x, y = line.get_xydata().T
        np.testing.assert_allclose(x + 2 * y + 0.5, 0, atol=1e-12)
