"""The data sets, from wherever they can be had, as arrays ready for a device.

`load` takes MNIST and SVHN (cropped digits, Netzer et al. 2011) from, in this order:
the official raw files in a folder that the user names; this library's own cache; what
TensorFlow Datasets has prepared on this machine; a download through TensorFlow
Datasets. Whatever the way, the raw content was verified by SHA-256, the examples stand
in the order of the official files, and TensorFlow is never imported.

Two sets need neither files nor a network: `mnist_embedded`, a class-balanced part of
MNIST (see MNIST_EMBEDDED.md), and `synthetic_svhn`, a generator. They stand in, with a
notice, where the real set was not asked for by name and cannot be had.
"""

import dataclasses
import difflib
import hashlib
import io
import lzma
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from jaxdl.data import cache, raw
from jaxdl.errors import InputError

NAMES = (
    "auto",
    "mnist",
    "mnist_embedded",
    "svhn_cropped",
    "svhn_cropped_extra",
    "synthetic_svhn",
)
"""What `load` takes. "svhn_cropped_extra" trains on the extra split as well, of 1.3 GB,
which nothing else downloads."""

_REAL = {"mnist": "mnist", "svhn": "svhn_cropped"}
_STAND_IN = {"mnist": "mnist_embedded", "svhn_cropped": "synthetic_svhn"}
_TITLE = {"mnist": "MNIST", "svhn_cropped": "SVHN", "svhn_cropped_extra": "SVHN"}
_FILES = {
    "mnist": raw.MNIST,
    "svhn_cropped": raw.SVHN,
    "svhn_cropped_extra": {**raw.SVHN, **raw.SVHN_EXTRA},
}
_HOME = {
    "mnist": "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "svhn_cropped": "http://ufldl.stanford.edu/housenumbers/",
    "svhn_cropped_extra": "http://ufldl.stanford.edu/housenumbers/",
}


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples: `images` uint8 [N, H, W, C], `labels` int32 [N]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set in three disjoint splits."""

    name: str
    """The set really used; never "auto"."""
    train: Split
    validation: Split
    """Carved from the official training set; every choice of a run is made on it."""
    test: Split
    """The official test set, to be read once."""
    classes: tuple[str, ...]
    """Their names, by label."""
    notice: str | None
    """What the user must be told, several lines: that a stand-in is used, why, and how
    to hand over the real files; or that the cache cannot be written."""


class NotToBeHadError(InputError):
    """A real data set is neither on this machine nor within its reach."""


def load(
    name: str,
    *,
    raw_dir: Path | None,
    cache_dir: Path,
    validation: int,
    seed: int,
    default_for: Literal["mnist", "svhn"] = "mnist",
) -> Dataset:
    """Loads a data set and carves the validation split from its training set.

    Args:
      name: one of `NAMES`. "auto" is the real set of `default_for` or, where that
        cannot be had, its embedded stand-in, with a notice.
      raw_dir: folder with the official raw files, used instead of a download. A damaged
        or missing file is an error even for "auto"; only a folder that holds another
        set's files, and none of this one, counts as not given.
      cache_dir: folder for prepared arrays and downloads. Where it cannot be written,
        everything but a download works without it, and the notice says so.
      validation: number of examples to carve, 1 to one less than there are.
      seed: decides which ones, and nothing else does.
      default_for: what "auto" means.

    Returns:
      The data set. Its arrays are read-only.

    Raises:
      InputError: an unknown name, a number out of range, a raw file that is missing,
        damaged or not the official one.
      NotToBeHadError: a set named explicitly cannot be had.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.4)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(
            f"unknown dataset {name!r}{hint}; choose one of {', '.join(NAMES)}"
        )
    used = _REAL[default_for] if name == "auto" else name
    notices: list[str] = []
    try:
        train, test = _examples(used, name == "auto", raw_dir, cache_dir, notices)
    except NotToBeHadError as error:
        if name != "auto":
            raise
        notices.append(_stand_in_notice(used, error))
        used = _STAND_IN[used]
        train, test = _examples(used, True, raw_dir, cache_dir, notices)
    total = len(train[1])
    if not 1 <= validation < total:
        raise InputError(
            f"--validation={validation} is out of range: {used} has {total} training "
            f"examples, so 1 to {total - 1} are allowed"
        )
    kept, carved = carve(train[1], validation, seed)
    return Dataset(
        name=used,
        train=_split(train[0][kept], train[1][kept]),
        validation=_split(train[0][carved], train[1][carved]),
        test=_split(*test),
        classes=tuple("0123456789"),
        notice=_banner(notices) if notices else None,
    )


def carve(
    labels: NDArray[np.int32], count: int, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Splits examples at random, with each class represented in proportion.

    Of a class with n of all N examples, n * count / N are carved, rounded down, or up
    for as many classes as it takes to reach `count` (those of the largest remainder;
    among equals, the smaller label). The draw uses the raw stream of NumPy's PCG64,
    which NumPy promises never to change (NEP 19), as the rank of each example.

    Args:
      labels: int [N].
      count: number of examples to carve, 0 to N.
      seed: not negative.

    Returns:
      Indices of the kept and of the carved examples, each in ascending order.

    Raises:
      InputError: the seed is negative.
    """
    if seed < 0:
        raise InputError(f"--seed={seed} is negative; choose 0 or more")
    classes, sizes = np.unique(labels, return_counts=True)
    quotas, remainders = np.divmod(sizes * count, max(len(labels), 1))
    up = np.argsort(-remainders, kind="stable")[: count - int(quotas.sum())]
    quotas[up] += 1
    ranks = np.random.PCG64(seed).random_raw(len(labels))
    order = np.argsort(ranks, kind="stable")
    carved = np.zeros(len(labels), bool)
    for label, quota in zip(classes, quotas, strict=True):
        carved[order[labels[order] == label][:quota]] = True
    return np.flatnonzero(~carved), np.flatnonzero(carved)


def _split(images: NDArray[np.uint8], labels: NDArray[np.int32]) -> Split:
    images.setflags(write=False)
    labels.setflags(write=False)
    return Split(images, labels)


def _examples(
    name: str, auto: bool, raw_dir: Path | None, cache_dir: Path, notices: list[str]
) -> tuple[raw.Examples, raw.Examples]:
    """Training and test examples of a set; adds to the notices."""
    if name == "mnist_embedded":
        return mnist_embedded()
    if name == "synthetic_svhn":
        from jaxdl.data import synthetic_svhn

        return _pair(
            _through_cache(
                cache_dir / "data" / f"synthetic_svhn-{synthetic_svhn.VERSION}",
                lambda: {s: synthetic_svhn.generate(s) for s in ("train", "test")},
                notices,
            )
        )
    return _real_examples(name, auto, raw_dir, cache_dir, notices)


def _pair(arrays: cache.Arrays) -> tuple[raw.Examples, raw.Examples]:
    return (
        (arrays["train_images"], arrays["train_labels"]),
        (arrays["test_images"], arrays["test_labels"]),
    )


def _real_examples(
    name: str, auto: bool, raw_dir: Path | None, cache_dir: Path, notices: list[str]
) -> tuple[raw.Examples, raw.Examples]:
    files = _FILES[name]
    entry = cache_dir / "data" / name
    if raw_dir is not None and _handed_over(raw_dir, name, auto):
        verified = cache_dir / "data" / "verified" / _stamp(raw_dir, files)
        if verified.exists() and (arrays := cache.fetch(entry)) is not None:
            return _pair(arrays)
        arrays = _flat(raw.read(raw_dir, files))
        if _stored(entry, arrays, notices):
            verified.parent.mkdir(exist_ok=True)
            verified.touch()
        return _pair(arrays)
    if (arrays := cache.fetch(entry)) is not None:
        return _pair(arrays)
    raise NotToBeHadError(f"{name} cannot be had")


def _handed_over(raw_dir: Path, name: str, auto: bool) -> bool:
    """Whether the folder is meant for this set; InputError if it cannot be for any."""
    if not raw_dir.is_dir():
        raise InputError(f"--raw-dir={raw_dir} is not a folder; {_how(name)}")
    present = {
        other: any(raw.find(raw_dir, f) for part in files.values() for f in part)
        for other, files in _FILES.items()
    }
    if present[name]:
        return True
    if auto and any(present.values()):
        return False
    raise InputError(f"--raw-dir={raw_dir} holds no file of {name}; {_how(name)}")


def _how(name: str) -> str:
    files = [f.name for part in _FILES[name].values() for f in part]
    names = [f if f.endswith(".mat") else f"{f}.gz" for f in files]
    return (
        f"put {', '.join(names)} from {_HOME[name]} into a folder DIR and pass "
        "--raw-dir=DIR or set JAXDL_RAW_DIR=DIR"
    )


def _stamp(raw_dir: Path, files: raw.Parts) -> str:
    return hashlib.sha256("".join(raw.stamps(raw_dir, files)).encode()).hexdigest()


def _flat(parts: dict[str, raw.Examples]) -> cache.Arrays:
    return {
        f"{part}_{what}": array
        for part, examples in parts.items()
        for what, array in zip(("images", "labels"), examples, strict=True)
    }


def _through_cache(
    entry: Path, make: Callable[[], dict[str, raw.Examples]], notices: list[str]
) -> cache.Arrays:
    arrays = cache.fetch(entry)
    if arrays is None:
        arrays = _flat(make())
        _stored(entry, arrays, notices)
    return arrays


def _stored(entry: Path, arrays: cache.Arrays, notices: list[str]) -> bool:
    try:
        cache.store(entry, arrays)
    except OSError as error:
        notices.append(
            f"The prepared data could not be kept in {entry.parent}: {error.strerror}."
            "\nEvery start prepares them again. --cache-dir=DIR or JAXDL_CACHE_DIR=DIR "
            "names another folder."
        )
        return False
    return True


def mnist_embedded() -> tuple[raw.Examples, raw.Examples]:
    """The embedded part of MNIST: 1,000 training and 200 test images of each digit."""
    stored = resources.files("jaxdl.data").joinpath("mnist_embedded.npz").read_bytes()
    with np.load(io.BytesIO(stored), allow_pickle=False) as arrays:
        pixels = lzma.decompress(arrays["images_xz"].tobytes())
        labels = arrays["labels"].astype(np.int32)
        train = int(arrays["train"])
    images = np.frombuffer(pixels, np.uint8).reshape(len(labels), 28, 28, 1)
    return (images[:train], labels[:train]), (images[train:], labels[train:])


def _stand_in_notice(name: str, error: NotToBeHadError) -> str:
    return (
        f"THIS IS NOT {_TITLE[name]}. {_STAND_IN[name]} stands in for it, and its "
        f"figures are not figures on {_TITLE[name]}.\nWhy: {error}"
    )


def _banner(notices: list[str]) -> str:
    rule = "*" * 88
    return "\n".join([rule, *notices, rule])
