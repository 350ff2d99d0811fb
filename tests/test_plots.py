"""Figures: what they show, for greyscale and RGB; files are whole or absent."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.figure import Figure
from PIL import Image

from jaxdl import plots

DIGITS = tuple("0123456789")


def matrix_10(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 30, (10, 10)) + 1000 * np.eye(10, dtype=int)


def metrics() -> list[dict]:
    train = [
        {
            "kind": "train",
            "epoch": 1,
            "batch": step,
            "step": step,
            "loss": 2 / step,
            "accuracy": 1 - 1 / step,
            "learning_rate": 0.1 / step,
        }
        for step in range(1, 9)
    ]
    validation = [
        {"kind": "validation", "step": 4 * i, "loss": 1 / i, "accuracy": 0.9}
        for i in (1, 2)
    ]
    return [*train[:4], validation[0], *train[4:], validation[1]]


def predictions(channels: int, count: int = 40, seed: int = 0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 16, 16, channels)).astype(np.uint8)
    probabilities = rng.dirichlet(np.ones(10), count)
    labels = rng.integers(0, 10, count)
    return images, labels, probabilities.argmax(1), probabilities


def texts(figure: Figure) -> list[str]:
    """All text inside the axes."""
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def assert_png(path, figure) -> None:
    plots.save(figure, path)
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert min(image.size) > 200
        grey = np.asarray(image.convert("L"))
    assert grey.std() > 5  # not blank
    # Nothing is cut off: the outermost pixels are all background.
    for edge in (grey[0], grey[-1], grey[:, 0], grey[:, -1]):
        assert (edge == 255).all()


def test_every_figure_is_a_png_with_nothing_cut_off(tmp_path):
    title = "vgg16 on synthetic_svhn, test (26,032)"
    figures = {
        "curves": plots.curves(metrics(), title),
        "confusion": plots.confusion(matrix_10(), DIGITS, title),
        "per_class": plots.per_class(matrix_10(), DIGITS, title),
        "grey": plots.mistakes(*predictions(1), DIGITS, title),
        "rgb": plots.mistakes(*predictions(3), DIGITS, title),
    }
    for name, figure in figures.items():
        shown = [figure.get_suptitle(), *(ax.get_title() for ax in figure.axes)]
        assert any(title in text for text in shown)
        assert_png(tmp_path / f"{name}.png", figure)


def test_curves_draw_the_metrics_as_they_are():
    loss, accuracy, rate = plots.curves(metrics(), "run").axes
    train, validation = loss.get_lines()
    np.testing.assert_array_equal(train.get_xdata(), range(1, 9))
    np.testing.assert_array_equal(train.get_ydata(), 2 / np.arange(1, 9))
    np.testing.assert_array_equal(validation.get_xydata(), [[4, 1], [8, 0.5]])
    np.testing.assert_array_equal(accuracy.get_lines()[1].get_ydata(), [0.9, 0.9])
    (line,) = rate.get_lines()
    np.testing.assert_array_equal(line.get_ydata(), 0.1 / np.arange(1, 9))


def test_curves_of_a_resumed_run_take_the_later_line_of_a_step():
    again = [{**metrics()[2], "loss": 7.0}]
    train = plots.curves(metrics() + again, "run").axes[0].get_lines()[0]
    np.testing.assert_array_equal(train.get_xdata(), range(1, 9))
    assert train.get_ydata()[2] == 7.0


@pytest.mark.parametrize("kinds", [(), ("train",), ("validation",)])
def test_curves_with_some_or_no_metrics(kinds, tmp_path):
    some = [line for line in metrics() if line["kind"] in kinds]
    figure = plots.curves(some, "run")
    assert len(figure.axes[0].get_lines()) == len(kinds)
    assert_png(tmp_path / "curves.png", figure)


@settings(max_examples=10, deadline=None)
@given(
    matrix=hnp.arrays(
        np.int64,
        st.integers(1, 6).map(lambda k: (k, k)),
        elements=st.integers(0, 30_000),
    )
)
def test_confusion_shows_every_count_and_colours_rows_as_shares(matrix):
    names = [f"class {i}" for i in range(len(matrix))]
    figure = plots.confusion(matrix, names, "any")
    assert sum(map(int, texts(figure))) == matrix.sum()
    assert len(texts(figure)) == np.count_nonzero(matrix)
    shares = np.asarray(figure.axes[0].get_images()[0].get_array())
    sums = shares.sum(1)
    np.testing.assert_allclose(sums, (matrix.sum(1) > 0).astype(float))


def test_confusion_numbers_fit_their_cells():
    matrix = np.full((10, 10), 88_888)
    figure = plots.confusion(matrix, DIGITS, "wide")
    figure.draw_without_rendering()
    ax = figure.axes[0]
    cell = ax.get_window_extent().width / 10
    assert max(text.get_window_extent().width for text in ax.texts) < cell


@pytest.mark.parametrize("channels", [1, 3])
def test_mistakes_are_wrong_and_surest_first(channels):
    images, labels, predicted, probabilities = predictions(channels)
    figure = plots.mistakes(
        images, labels, predicted, probabilities, DIGITS, "run", count=7
    )
    wrong = np.flatnonzero(labels != predicted)
    order = wrong[np.argsort(-probabilities.max(1)[wrong])][:7]
    shown = [ax.get_images()[0].get_array() for ax in figure.axes if ax.get_images()]
    assert len(shown) == 7
    for image, i, ax in zip(shown, order, figure.axes, strict=False):
        np.testing.assert_array_equal(image, images[i].squeeze())
        first, second = ax.get_title().splitlines()
        assert first.startswith(f"taken for {predicted[i]}: ")
        assert second.startswith(f"really {labels[i]}: ")
    assert f"the 7 surest of {len(wrong)} mistakes" in figure.get_suptitle()


def test_a_dark_greyscale_image_stays_dark():
    images = np.zeros((1, 8, 8, 1), np.uint8)
    images[0, 0, 0] = 3
    figure = plots.mistakes(
        images, np.array([1]), np.array([0]), np.eye(10)[:1], DIGITS, "dark"
    )
    assert figure.axes[0].get_images()[0].get_clim() == (0, 255)


def test_without_mistakes_it_says_so(tmp_path):
    images, _, predicted, probabilities = predictions(1)
    figure = plots.mistakes(images, predicted, predicted, probabilities, DIGITS, "run")
    assert texts(figure) == ["no mistakes"]
    assert_png(tmp_path / "none.png", figure)


def test_per_class_shows_accuracies_with_wilson_intervals():
    matrix = np.array([[8, 2, 0], [0, 50, 0], [0, 0, 0]])
    ax = plots.per_class(matrix, ("a", "b", "never"), "run").axes[0]
    points, _, (bars,) = ax.containers[0]
    np.testing.assert_array_equal(points.get_xydata(), [[0, 0.8], [1, 1.0]])
    z = scipy.stats.norm.ppf(0.975)
    segments = bars.get_segments()
    for segment, hits, total in zip(segments, (8, 50), (10, 50), strict=True):
        # The ends solve (p - share)^2 = z^2 p (1 - p) / n.
        share = hits / total
        ends = np.roots([1 + z**2 / total, -(2 * share + z**2 / total), share**2])
        np.testing.assert_allclose(sorted(segment[:, 1]), sorted(ends), rtol=1e-6)
    assert ax.get_xticklabels()[2].get_text() == "never\n0"


def test_save_replaces_a_file_whole_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    plots.save(plots.per_class(matrix_10(), DIGITS, "run"), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["figure.png"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    figure = Figure()
    figure.text(0.5, 0.5, "$\\nonsense$")  # fails only when it is rendered
    with pytest.raises(ValueError, match="nonsense"):
        plots.save(figure, path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["figure.png"]
    with pytest.raises(OSError, match="missing"):
        plots.save(figure, tmp_path / "missing" / "figure.png")


def test_no_pyplot_and_no_display_are_needed():
    program = "import sys, jaxdl.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
