"""synthetic_svhn: SVHN's sizes and frequencies, exact repetition, and no toy."""

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import features

from jaxdl.data import house_numbers, make_glyphs, synthetic_svhn
from jaxdl.data.synthetic_svhn import COUNTS, generate, typefaces
from jaxdl.errors import InputError

# Of the first 256 images of seed 0. They change with VERSION, and with nothing else.
DIGESTS = {"train": "66a25b1ea7ed045d", "test": "7ea565a6bc5ef34c"}


def digest(images: np.ndarray, labels: np.ndarray) -> str:
    together = images.tobytes() + labels.astype("<i4").tobytes()
    return hashlib.sha256(together).hexdigest()[:16]


@pytest.fixture(scope="module")
def train() -> tuple[np.ndarray, np.ndarray]:
    return generate("train", count=4000)


@pytest.mark.parametrize("split", ["train", "test"])
def test_sizes_and_types(split):
    images, labels = generate(split, count=130)
    assert images.shape == (130, 32, 32, 3) and images.dtype == np.uint8
    assert labels.shape == (130,) and labels.dtype == np.int32


def test_class_frequencies_are_svhns():
    assert sum(COUNTS["train"]) == 73257 and sum(COUNTS["test"]) == 26032
    for split, counts in COUNTS.items():
        labels = synthetic_svhn._labels(split, seed=0)
        np.testing.assert_array_equal(np.bincount(labels), counts)
        # Shuffled: the first tenth holds its share of every class.
        tenth = np.bincount(labels[: len(labels) // 10], minlength=10) * 10
        np.testing.assert_allclose(tenth, counts, rtol=0.2)


def test_last_partial_block_is_rendered():
    size = sum(COUNTS["test"])
    last = size // synthetic_svhn._BLOCK
    labels = synthetic_svhn._labels("test", 0)[last * synthetic_svhn._BLOCK :]
    assert 0 < len(labels) < synthetic_svhn._BLOCK
    digits = np.resize(labels, synthetic_svhn._BLOCK)
    assert synthetic_svhn._block("test", 0, last, digits).std() > 20


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 1000])
def test_a_prefix_equals_the_prefix_of_the_whole(train, count):
    images, labels = generate("train", count=count)
    np.testing.assert_array_equal(images, train[0][:count])
    np.testing.assert_array_equal(labels, train[1][:count])


def test_another_process_with_one_thread_draws_the_same():
    code = (
        "import os; os.cpu_count = lambda: 1\n"
        "import hashlib, json\n"
        "from jaxdl.data.synthetic_svhn import generate\n"
        "images, labels = generate('test', count=200, seed=3)\n"
        "print(json.dumps([hashlib.sha256(images.tobytes()).hexdigest(),"
        " labels.tolist()]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    theirs, their_labels = json.loads(done.stdout)
    images, labels = generate("test", count=200, seed=3)
    assert hashlib.sha256(images.tobytes()).hexdigest() == theirs
    assert labels.tolist() == their_labels


@pytest.mark.parametrize("split", ["train", "test"])
def test_known_images(split):
    if not features.check_feature("libjpeg_turbo"):
        pytest.skip("Pillow without libjpeg-turbo writes other JPEG")
    assert digest(*generate(split, count=256)) == DIGESTS[split]


def test_seeds_and_splits_differ(train):
    other, other_labels = generate("train", count=256, seed=1)
    test, _ = generate("test", count=256)
    assert (train[1][:256] != other_labels).any()
    for images in other, test:
        same = (images == train[0][:256]).all(axis=(1, 2, 3))
        assert not same.any()


def test_every_image_is_another(train):
    images, _ = train
    assert len({image.tobytes() for image in images}) == len(images)


def test_typefaces_are_many_and_the_splits_share_none():
    assert len(set(typefaces("train"))) >= 40
    assert len(set(typefaces("test"))) >= 20
    assert not set(typefaces("train")) & set(typefaces("test"))


def test_every_typeface_draws_its_share():
    glyphs = house_numbers._glyphs()
    for test, split in enumerate(("train", "test")):
        first, styles = house_numbers._styles(bool(test))
        names = [glyphs.families[glyphs.family[face]] for face in first]
        assert tuple(names) == typefaces(split)
        # Families are drawn with equal chance: none can dominate a digit.
        assert 1 / len(first) < 0.05
        for face, count in zip(first, styles, strict=True):
            assert len(set(glyphs.family[face : face + count])) == 1
        assert (
            sum(styles) == np.isin(glyphs.family, np.unique(glyphs.family[first])).sum()
        )


def test_typefaces_are_distinct():
    fields = house_numbers._glyphs().fields.reshape(
        len(house_numbers._glyphs().family), -1
    )
    assert len({field.tobytes() for field in fields}) == len(fields)


def test_attribution_names_every_typeface():
    folder = Path(house_numbers.__file__).parent
    page = (folder / "GLYPHS.md").read_text()
    licences = (folder / "GLYPHS-LICENSES.txt").read_text()
    rows = {
        cells[1].strip(): [cell.strip() for cell in cells[2:6]]
        for cells in (line.split("|") for line in page.splitlines())
        if len(cells) == 7
    }
    for split in COUNTS:
        for name in typefaces(split):
            draws, licence, package, owner = rows[name]
            assert draws == split and package and owner
            assert f"==== {licence} ====" in licences


def test_glyphs_are_small():
    path = Path(house_numbers.__file__).with_name("glyphs.npz")
    assert path.stat().st_size < 1.5e6
    with zipfile.ZipFile(path) as archive:  # no time stamps: the same bytes each time
        assert {entry.date_time for entry in archive.infolist()} == {
            (1980, 1, 1, 0, 0, 0)
        }


def test_pixels_are_as_broad_as_photographs(train):
    images = train[0].astype(np.float32) / 255
    # SVHN's own: mean 0.44-0.47, standard deviation 0.20 over the training set.
    assert np.all(np.abs(images.mean(axis=(0, 1, 2)) - 0.46) < 0.06)
    assert np.all(np.abs(images.std(axis=(0, 1, 2)) - 0.22) < 0.05)
    contrast = images.std(axis=(1, 2, 3))
    low, high = np.quantile(contrast, [0.05, 0.95])
    assert low < 0.12 and high > 0.2
    brightness = images.mean(axis=(1, 2, 3))
    assert np.quantile(brightness, 0.05) < 0.3 and np.quantile(brightness, 0.95) > 0.7
    assert 0.02 < np.abs(images.max(axis=3) - images.min(axis=3)).mean() < 0.3


def test_digits_are_lighter_or_darker_than_their_ground(train):
    """Brightness of the middle against the rim has either sign about as often."""
    grey = train[0].mean(axis=3)[train[1] == 1]  # a one is ink in the middle
    difference = grey[:, 10:22, 14:18].mean(axis=(1, 2)) - grey.mean(axis=(1, 2))
    assert 0.35 < (difference > 0).mean() < 0.65


def test_glyph_script_says_which_fonts_to_fetch(tmp_path):
    with pytest.raises(InputError, match="unpack Debian fonts-allerta into one"):
        make_glyphs.make([tmp_path], tmp_path)
    with pytest.raises(InputError, match="nowhere is not a folder"):
        make_glyphs.make([tmp_path / "nowhere"], tmp_path)
    assert not list(tmp_path.iterdir())


def test_glyph_catalogue_is_what_is_stored():
    names = {"train": [], "test": []}
    for entry in make_glyphs.CATALOGUE:
        names[entry.split].append(entry.name)
    assert {split: tuple(found) for split, found in names.items()} == {
        split: typefaces(split) for split in names
    }


@pytest.mark.parametrize("split", ["extra", "Train", ""])
def test_unknown_split(split):
    with pytest.raises(InputError, match="train, test"):
        generate(split)
    with pytest.raises(InputError, match="train, test"):
        typefaces(split)


@pytest.mark.parametrize("count", [-1, 26033])
def test_count_out_of_range(count):
    with pytest.raises(InputError, match=rf"26032 test images, not {count}"):
        generate("test", count=count)


def test_seed_out_of_range():
    with pytest.raises(InputError, match="seed -1"):
        generate("test", count=1, seed=-1)


@pytest.mark.long
def test_a_linear_classifier_fails():
    """Logistic regression on pixels, grey and standardised by image, or raw: < 40 %."""
    from sklearn.linear_model import LogisticRegression

    images, labels = generate("train", count=30_000)
    test_images, test_labels = generate("test", count=10_000)

    def raw(pixels):
        return pixels.reshape(len(pixels), -1).astype(np.float32) / 255 - 0.46

    def grey(pixels):
        flat = pixels.mean(axis=3, dtype=np.float32).reshape(len(pixels), -1)
        return (flat - flat.mean(1, keepdims=True)) / (flat.std(1, keepdims=True) + 1)

    for view in raw, grey:
        model = LogisticRegression(max_iter=60, C=0.01).fit(view(images), labels)
        assert model.score(view(test_images), test_labels) < 0.40


@pytest.mark.long
def test_the_whole_has_svhns_class_frequencies():
    for split, counts in COUNTS.items():
        images, labels = generate(split)
        assert len(images) == len(labels) == sum(counts)
        np.testing.assert_array_equal(np.bincount(labels), counts)
        assert images[-1].std() > 2
