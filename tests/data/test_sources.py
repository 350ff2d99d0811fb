import os
import subprocess
import sys
import textwrap
import time
from collections import Counter
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.data import make_mnist_embedded, official, raw, sources, synthetic_svhn
from jaxdl.errors import InputError

needs_mnist = pytest.mark.skipif(
    "JAXDL_RAW_DIR" not in os.environ, reason="needs $JAXDL_RAW_DIR"
)


def load(name, cache_dir, **options):
    settings = {"raw_dir": None, "validation": 100, "seed": 0} | options
    return sources.load(name, cache_dir=cache_dir, **settings)


@pytest.fixture
def few_synthetic(monkeypatch):
    """synthetic_svhn, cut to a few hundred images; counts how often it is drawn."""
    calls = []
    generate = synthetic_svhn.generate

    def few(split, **options):
        calls.append(split)
        return generate(split, count=300, **options)

    monkeypatch.setattr(synthetic_svhn, "generate", few)
    return calls


def check(dataset, validation):
    shape = dataset.train.images.shape[1:]
    for split in (dataset.train, dataset.validation, dataset.test):
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int32
        assert split.images.shape == (len(split.labels), *shape)
        assert split.labels.min() >= 0 and split.labels.max() <= 9
        assert not split.images.flags.writeable and not split.labels.flags.writeable
    assert len(dataset.validation.labels) == validation
    assert dataset.classes == tuple("0123456789")


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=300),
    st.integers(0, 2**32),
    st.data(),
)
def test_carve_is_a_proportional_partition(labels, seed, data):
    labels = np.array(labels, np.int32)
    count = data.draw(st.integers(0, len(labels)))
    kept, carved = sources.carve(labels, count, seed)
    assert len(carved) == count
    np.testing.assert_array_equal(
        np.sort(np.r_[kept, carved]), np.arange(len(labels))
    )  # disjoint, and they cover
    assert (np.diff(kept) > 0).all() and (np.diff(carved) > 0).all()
    sizes, parts = Counter(labels.tolist()), Counter(labels[carved].tolist())
    for label, size in sizes.items():
        exact = size * count / len(labels)
        assert abs(parts[label] - exact) < 1, (label, parts[label], exact)


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_carve_depends_on_the_seed_alone(seed):
    labels = np.arange(200, dtype=np.int32) % 10
    first, again = (sources.carve(labels, 50, seed)[1] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, sources.carve(labels, 50, seed + 1)[1])


def test_carve_draws_every_example_alike():
    labels = np.repeat(np.arange(10, dtype=np.int32), 10)
    drawn = sum(
        np.bincount(sources.carve(labels, 30, seed)[1], minlength=100)
        for seed in range(1000)
    )
    # Each is carved with probability 0.3: 300 times, within 5 standard deviations.
    assert np.abs(drawn - 300).max() < 5 * np.sqrt(1000 * 0.3 * 0.7)


def test_carve_gives_the_same_bits_for_ever():
    labels = np.arange(1000, dtype=np.int32) % 10
    assert sources.carve(labels, 5, 0)[1].tolist() == [92, 403, 504, 850, 921]


def test_mnist_embedded(tmp_path):
    start = time.monotonic()
    dataset = load("mnist_embedded", tmp_path, validation=2000)
    assert time.monotonic() - start < 2
    check(dataset, 2000)
    assert dataset.name == "mnist_embedded" and dataset.notice is None
    assert dataset.train.images.shape == (8000, 28, 28, 1)
    for split, each in ((dataset.train, 800), (dataset.test, 200)):
        assert np.bincount(split.labels).tolist() == [each] * 10
    folder = resources.files("jaxdl.data")
    assert len(folder.joinpath("mnist_embedded.npz").read_bytes()) < 2_000_000
    assert "by-sa/3.0" in folder.joinpath("MNIST_EMBEDDED.md").read_text()


def test_mnist_embedded_are_digits():
    """Learnable, and test is no copy of train."""
    from sklearn.linear_model import SGDClassifier

    (images, labels), (test_images, test_labels) = sources.mnist_embedded()
    train, test = (x.reshape(len(x), -1) / 255 for x in (images, test_images))
    model = SGDClassifier(random_state=0, max_iter=3, tol=None).fit(train, labels)
    assert 0.83 < model.score(test, test_labels) < 0.95
    seen = {image.tobytes() for image in images}
    assert len(seen) == 10000
    assert not any(image.tobytes() in seen for image in test_images)


@needs_mnist
def test_mnist_embedded_is_what_the_script_makes():
    parts = raw.read(Path(os.environ["JAXDL_RAW_DIR"]), raw.MNIST)
    for found, split, each in zip(
        sources.mnist_embedded(), ("train", "test"), (1000, 200), strict=True
    ):
        images, labels = make_mnist_embedded.choose(parts[split], each)
        np.testing.assert_array_equal(found[0], images)
        np.testing.assert_array_equal(found[1], labels)


def test_the_script_writes_what_load_reads(tmp_path, mnist, monkeypatch):
    monkeypatch.setattr(raw, "MNIST", mnist.unit.parts)
    make_mnist_embedded.write(mnist.folder, tmp_path / "a.npz")
    found = sources.mnist_embedded((tmp_path / "a.npz").read_bytes())
    for (images, labels), split in zip(found, ("train", "test"), strict=True):
        # Fewer than asked for: all of them, in their order.
        np.testing.assert_array_equal(images, mnist.examples[split][0])
        np.testing.assert_array_equal(labels, mnist.examples[split][1])


@needs_mnist
def test_the_real_mnist(tmp_path):
    raw_dir = Path(os.environ["JAXDL_RAW_DIR"])
    for name in ("auto", "mnist"):
        dataset = load(name, tmp_path, raw_dir=raw_dir, validation=5000)
        check(dataset, 5000)
        assert (dataset.name, dataset.notice) == ("mnist", None)
        assert len(dataset.train.labels) == 55000 and len(dataset.test.labels) == 10000


@needs_mnist
def test_a_warm_start_is_quick_and_imports_nothing_heavy(tmp_path):
    program = """
        import sys, time
        from pathlib import Path
        from jaxdl.data import sources
        start = time.perf_counter()
        sources.load("mnist", raw_dir=Path(sys.argv[1]), cache_dir=Path(sys.argv[2]),
                     validation=5000, seed=0)
        print(time.perf_counter() - start)
        heavy = {"tensorflow_datasets", "scipy", "jax", "tensorflow", "PIL"}
        print(*(heavy & sys.modules.keys()))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    command += [os.environ["JAXDL_RAW_DIR"], tmp_path]
    runs = [subprocess.check_output(command, text=True).splitlines() for _ in range(4)]
    assert all(run[1] == "" for run in runs)
    assert min(float(run[0]) for run in runs[1:]) < 0.15


def test_auto_falls_back_to_the_embedded_mnist(tmp_path, offline):
    dataset = load("auto", tmp_path)
    check(dataset, 100)
    assert dataset.name == "mnist_embedded"
    lines = dataset.notice.splitlines()
    assert lines[0] == lines[-1] == "*" * 88
    text = " ".join(lines)
    for part in ("NOT THE WHOLE OF MNIST", "cannot be reached", "--raw-dir=DIR"):
        assert part in text
    assert all(file in text for file in ("train-images-idx3-ubyte.gz", "JAXDL_RAW_DIR"))


def test_auto_falls_back_to_synthetic_svhn(tmp_path, offline, few_synthetic):
    dataset = load("auto", tmp_path, default_for="svhn")
    check(dataset, 100)
    assert dataset.name == "synthetic_svhn"
    assert dataset.train.images.shape == (200, 32, 32, 3)
    assert "NOT SVHN" in dataset.notice and "train_32x32.mat" in dataset.notice
    # Named, it needs no notice; and it was cached.
    again = load("synthetic_svhn", tmp_path)
    assert again.notice is None
    np.testing.assert_array_equal(again.train.images, dataset.train.images)
    assert few_synthetic == ["train", "test"]


def test_synthetic_svhn_of_another_version_is_drawn_anew(
    tmp_path, few_synthetic, monkeypatch
):
    load("synthetic_svhn", tmp_path)
    monkeypatch.setattr(synthetic_svhn, "VERSION", synthetic_svhn.VERSION + 1)
    load("synthetic_svhn", tmp_path)
    assert few_synthetic == ["train", "test"] * 2


def test_a_cache_that_cannot_be_written_is_noticed(tmp_path, few_synthetic):
    (tmp_path / "cache").write_text("not a folder")
    dataset = load("synthetic_svhn", tmp_path / "cache")
    check(dataset, 100)
    assert "cannot be kept" in dataset.notice


@pytest.mark.parametrize("name", ["mnist", "svhn_cropped", "svhn_cropped_extra"])
def test_a_named_set_is_never_replaced(name, tmp_path, offline):
    with pytest.raises(
        official.UnavailableError, match=f"{name} cannot be had"
    ) as info:
        load(name, tmp_path)
    message = str(info.value)
    assert "\n" not in message and "--raw-dir=DIR" in message
    assert ("extra_32x32.mat" in message) == (name == "svhn_cropped_extra")


@pytest.mark.parametrize("name", ["auto", "mnist"])
def test_a_damaged_raw_dir_is_an_error_even_by_default(name, mnist, tmp_path, offline):
    # Made-up files are not the official ones.
    with pytest.raises(InputError, match="is not the official train-images") as info:
        load(name, tmp_path, raw_dir=mnist.folder)
    assert raw.MNIST["train"][0].sha256 in str(info.value)
    assert not isinstance(info.value, official.UnavailableError)


def test_extra_joins_train(svhn, tmp_path, monkeypatch, offline):
    (extra,) = raw.SVHN_EXTRA["extra"]
    test = svhn.folder / "test_32x32.mat"
    (svhn.folder / extra.name).write_bytes(test.read_bytes())
    extra = extra._replace(size=7, sha256=svhn.unit.parts["test"][0].sha256)
    home, builder = svhn.unit.home, svhn.unit.builder
    more = official.Unit("svhn_extra", {"extra": (extra,)}, home, builder)
    units = {"svhn_cropped": (svhn.unit,), "svhn_cropped_extra": (svhn.unit, more)}
    monkeypatch.setitem(official.UNITS, "svhn_cropped", units["svhn_cropped"])
    monkeypatch.setitem(official.UNITS, "svhn_cropped_extra", (svhn.unit, more))
    small = load("svhn_cropped", tmp_path, raw_dir=svhn.folder, validation=3)
    assert len(small.train.labels) == 20
    large = load("svhn_cropped_extra", tmp_path, raw_dir=svhn.folder, validation=3)
    check(large, 3)
    assert large.name == "svhn_cropped_extra"
    joined = np.r_[large.train.labels, large.validation.labels]
    wanted = np.r_[svhn.examples["train"][1], svhn.examples["test"][1]]
    np.testing.assert_array_equal(np.sort(joined), np.sort(wanted))
    np.testing.assert_array_equal(large.test.images, svhn.examples["test"][0])


def test_unknown_names_are_answered_with_the_nearest(tmp_path):
    for wrong, near in (("minst", "mnist"), ("svhn", "svhn_cropped"), ("zzz", None)):
        with pytest.raises(InputError, match=f"unknown dataset '{wrong}'") as info:
            load(wrong, tmp_path)
        assert all(name in str(info.value) for name in sources.NAMES)
        assert (f"did you mean {near}?" in str(info.value)) == (near is not None)


@pytest.mark.parametrize("validation", [-1, 0, 10000, 70000])
def test_validation_out_of_range(validation, tmp_path):
    with pytest.raises(InputError, match=f"{validation} is out of .* 1 to 9999 are"):
        load("mnist_embedded", tmp_path, validation=validation)


def test_negative_seed(tmp_path):
    with pytest.raises(InputError, match="--seed=-1 is negative"):
        load("mnist_embedded", tmp_path, seed=-1)
