import numpy as np
import pytest
from scipy import stats

from jaxdl import plots_transfer

LABELS = [100, 300, 1000]
RNG = np.random.default_rng(0)
SHARES = {
    "from scratch": np.array([[0.5], [0.8], [0.9]]) + 0.02 * RNG.random((3, 5)),
    "fine-tuned": np.array([[0.9], [0.95], [0.97]]) + 0.01 * RNG.random((3, 5)),
}


def test_errors_has_means_with_students_intervals():
    figure = plots_transfer.errors(LABELS, SHARES, 0.84, "title")
    (ax,) = figure.axes
    assert ax.get_xscale() == ax.get_yscale() == "log"
    for container, values in zip(ax.containers, SHARES.values(), strict=True):
        line, _, (bars,) = container.lines
        np.testing.assert_allclose(line.get_ydata(), 1 - values.mean(1))
        for segment, of in zip(bars.get_segments(), values, strict=True):
            expected = stats.ttest_1samp(1 - of, 0).confidence_interval(0.95)
            np.testing.assert_allclose(segment[:, 1], expected)
    across = [line for line in ax.lines if line.get_label().startswith("the source")]
    assert [line.get_label() for line in across] == ["the source as it is: 16.0%"]
    assert across[0].get_ydata()[0] == pytest.approx(0.16)
    low, high = ax.get_ylim()
    assert low < 0.02 and high > 0.5
    assert len(
        plots_transfer.errors(LABELS, SHARES, None, "title").axes[0].lines
    ) < len(ax.lines)


def test_errors_shows_an_untouched_source_that_is_better_than_all():
    (ax,) = plots_transfer.errors(LABELS, SHARES, 0.999, "title").axes
    assert ax.get_ylim()[0] < 0.001


def test_errors_bears_a_perfect_arm():
    perfect = {"a": np.ones((3, 5)), "b": SHARES["fine-tuned"]}
    figure = plots_transfer.errors(LABELS, perfect, None, "title")
    assert figure.axes[0].get_ylim()[0] > 0


def test_curves_has_a_panel_for_each_number_of_labels():
    steps = [80, 160, 240]
    values = {name: RNG.random((3, 5, 3)) for name in SHARES}
    figure = plots_transfer.curves(LABELS, steps, values, "title")
    assert [ax.get_title() for ax in figure.axes] == [
        "100 labels",
        "300 labels",
        "1,000 labels",
    ]
    for panel, ax in enumerate(figure.axes):
        for line, some in zip(ax.lines, values.values(), strict=True):
            np.testing.assert_allclose(line.get_ydata(), some[panel].mean(0))
        for band, some in zip(ax.collections, values.values(), strict=True):
            points = band.get_paths()[0].vertices[:, 1]
            assert points.min() == some[panel].min()
            assert points.max() == some[panel].max()


def test_examples_shows_each_image_whole_and_in_order():
    images = RNG.integers(255, size=(30, 32, 32, 3), dtype=np.uint8)
    figure = plots_transfer.examples({"one": images[:25], "two": images})
    for ax, rows in zip(figure.axes, (2, 2), strict=True):
        sheet = np.asarray(ax.images[0].get_array())
        assert sheet.shape == (33 * rows, 33 * 12, 3)
        np.testing.assert_array_equal(sheet[33:65, 66:98], images[14])
        assert (sheet[32] == 255).all() and (sheet[:, 32] == 255).all()
