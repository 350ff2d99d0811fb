import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.data import mnist_colour, sources
from jaxdl.data.official import UnavailableError
from jaxdl.errors import InputError

RNG = np.random.default_rng(0)


def luma(pixels):
    return pixels @ [0.299, 0.587, 0.114]


def test_bytes_and_labels_are_fixed(tmp_path):
    (_, labels), (_, test_labels) = sources.mnist_embedded()
    for _ in range(2):  # drawn, then from the cache
        data = sources.load(
            "mnist_embedded_colour",
            raw_dir=None,
            cache_dir=tmp_path,
            validation=1000,
            seed=0,
        )
        kept, carved = sources.carve(labels, 1000, 0)
        np.testing.assert_array_equal(data.train.labels, labels[kept])
        np.testing.assert_array_equal(data.validation.labels, labels[carved])
        np.testing.assert_array_equal(data.test.labels, test_labels)
        assert data.name == "mnist_embedded_colour" and data.notice is None
        assert data.train.images.shape == (9000, 32, 32, 3)
        digests = [
            hashlib.sha256(np.ascontiguousarray(split.images)).hexdigest()[:16]
            for split in (data.train, data.test)
        ]
        assert digests == ["0460f4ee7c8507c6", "00a8192333c0fb57"]


def test_the_pixels_mix_ink_and_ground_by_the_grey():
    """The documented formula, in float64 and pixel by pixel."""
    (images, _), _ = sources.mnist_embedded()
    images = images[:40]
    found = mnist_colour.colour(images, "train")
    inks, grounds, slopes = (
        x.astype(float) for x in mnist_colour.colours(len(images), "train")
    )
    for n in range(len(images)):
        for row, column in RNG.integers(32, size=(50, 2)):
            inside = 2 <= row < 30 and 2 <= column < 30
            grey = images[n, row - 2, column - 2, 0] / 255 if inside else 0.0
            down, across = (2 * row - 31) / 31, (2 * column - 31) / 31
            ground = np.clip(
                grounds[n] + down * slopes[n, 0] + across * slopes[n, 1], 0, 1
            )
            mixed = 255 * (ground + grey * (inks[n] - ground))
            assert np.abs(found[n, row, column] - mixed).max() < 0.501


def test_colours_know_nothing_of_the_digits():
    digits = RNG.integers(256, size=(300, 28, 28, 1), dtype=np.uint8)
    digits[:, :10] = 0
    blank = np.zeros_like(digits)
    some, none = (mnist_colour.colour(x, "train") for x in (digits, blank))
    empty = np.pad(digits, ((0, 0), (2, 2), (2, 2), (0, 0)))[..., 0] == 0
    np.testing.assert_array_equal(some[empty], none[empty])
    assert (some[~empty] != none[~empty]).any()


def test_no_classifier_reads_the_label_off_the_colours():
    from sklearn.linear_model import LogisticRegression

    (images, labels), _ = sources.mnist_embedded()
    coloured = mnist_colour.colour(images, "train").astype(float)
    corners = coloured[:, ::31, ::31].reshape(len(labels), -1)
    inks = mnist_colour.colours(len(labels), "train")[0]
    seen = np.c_[corners / 255, inks]
    model = LogisticRegression(max_iter=1000).fit(seen[:5000], labels[:5000])
    # By chance 10 %; 4 standard deviations of 5,000 draws.
    assert model.score(seen[5000:], labels[5000:]) < 0.1 + 4 * np.sqrt(0.09 / 5000)


@pytest.mark.parametrize("split", ["train", "test"])
def test_ink_stands_out_from_the_ground_at_every_pixel(split):
    count = 2000
    blank, full = (
        mnist_colour.colour(np.full((count, 28, 28, 1), grey, np.uint8), split)[
            :, 2:30, 2:30
        ]
        / 255
        for grey in (0, 255)
    )
    contrast = luma(full) - luma(blank)
    assert np.abs(contrast).min() > mnist_colour.CONTRAST - 1 / 255
    brighter = (contrast[:, 0, 0] > 0).mean()
    assert 0.45 < brighter < 0.55  # 2,000 coins: 4.5 standard deviations
    # All of the cube of colours is used, for both.
    for colours in (blank[:, 14, 14], full[:, 14, 14]):
        assert colours.min() < 0.03 and colours.max() > 0.97
        assert (np.abs(colours.mean(0) - 0.5) < 0.05).all()
    # The ground changes across the frame, and smoothly.
    assert np.abs(np.diff(blank, axis=1)).max() < 2.5 / 255
    spread = blank.max((1, 2)) - blank.min((1, 2))
    assert spread.max() <= 2 * mnist_colour.SLOPE + 1 / 255
    assert spread.mean() > mnist_colour.SLOPE / 3


def test_splits_differ_and_a_prefix_is_a_prefix():
    some = mnist_colour.colours(50, "train")
    more = mnist_colour.colours(200, "train")
    other = mnist_colour.colours(50, "test")
    for a, b, c in zip(some, more, other, strict=True):
        np.testing.assert_array_equal(a, b[:50])
        assert not np.array_equal(a, c)
        assert a.dtype == np.float32
    inks, grounds, _ = more
    assert min(inks.min(), grounds.min()) >= 0 and max(inks.max(), grounds.max()) <= 1
    assert len(np.unique(grounds, axis=0)) == len(np.unique(inks, axis=0)) == 200


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 30))
def test_balanced_draws_are_balanced_and_nested(seed, few, many):
    few, many = sorted((few, many))
    labels = RNG.permutation(np.repeat(np.arange(10, dtype=np.int32), 40))
    small, large = (sources.balanced(labels, 10 * n, seed) for n in (few, many))
    for drawn, each in ((small, few), (large, many)):
        assert len(set(drawn.tolist())) == 10 * each
        assert np.bincount(labels[drawn]).tolist() == [each] * 10
    np.testing.assert_array_equal(small, large[: len(small)])
    np.testing.assert_array_equal(small, sources.balanced(labels, 10 * few, seed))


def test_balanced_draws_differ_by_seed_and_refuse_the_impossible():
    labels = np.repeat(np.arange(10, dtype=np.int32), 40)
    first, second = (sources.balanced(labels, 100, seed) for seed in (0, 1))
    assert not np.array_equal(first, second)
    for count in (0, 15, 410):
        with pytest.raises(InputError, match=rf"{count} examples .* up to 400"):
            sources.balanced(labels, count, 0)


def test_without_mnist_the_name_is_an_error_and_auto_a_banner(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    monkeypatch.setattr("jaxdl.data.network.unreachable", lambda url: "no network")
    options = {"raw_dir": None, "cache_dir": tmp_path, "validation": 100, "seed": 0}
    with pytest.raises(UnavailableError, match=r"mnist_colour .*train-images-idx3"):
        sources.load("mnist_colour", **options)
    data = sources.load("auto", default_for="mnist_colour", **options)
    assert data.name == "mnist_embedded_colour"
    assert "NOT THE WHOLE OF mnist_colour" in data.notice
    assert "train-images-idx3-ubyte.gz" in data.notice


@pytest.mark.skipif("JAXDL_RAW_DIR" not in os.environ, reason="needs $JAXDL_RAW_DIR")
def test_the_whole_of_it(tmp_path):
    data, grey = (
        sources.load(
            name,
            raw_dir=Path(os.environ["JAXDL_RAW_DIR"]),
            cache_dir=tmp_path,
            validation=5000,
            seed=0,
        )
        for name in ("mnist_colour", "mnist")
    )
    assert data.name == "mnist_colour"
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(
            getattr(data, split).labels, getattr(grey, split).labels
        )
    assert len(data.train.labels) == 55_000 and len(data.test.labels) == 10_000
    digest = hashlib.sha256(np.ascontiguousarray(data.test.images)).hexdigest()
    assert digest.startswith("e8dac571f2274e92")
