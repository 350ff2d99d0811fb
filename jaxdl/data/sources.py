"""The data sets, from wherever they can be had, as arrays ready for a device.

`load` takes MNIST and SVHN (cropped digits, Netzer et al. 2011) from, in this order:
the official raw files in a folder that the user names; this library's own cache; what
TensorFlow Datasets has prepared on this machine; a download through TensorFlow
Datasets. Whatever the way, the raw content was verified by SHA-256, the examples stand
in the order of the official files, and TensorFlow is never imported.

Two sets need neither files nor a network: `mnist_embedded`, a class-balanced part of
MNIST (see MNIST_EMBEDDED.md), and `synthetic_svhn`, a generator. They stand in, with a
notice, where the real set was not asked for by name and cannot be had.

`mnist_colour` is derived from MNIST, and `mnist_embedded_colour` from the embedded part
(`jaxdl.data.mnist_colour`).
"""

import dataclasses
import difflib
import io
import logging
import lzma
import textwrap
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from jaxdl.data import cache, official, raw
from jaxdl.data.official import UnavailableError
from jaxdl.errors import InputError

_log = logging.getLogger(__name__)

NAMES = (
    "auto",
    "mnist",
    "mnist_embedded",
    "mnist_colour",
    "mnist_embedded_colour",
    "svhn_cropped",
    "svhn_cropped_extra",
    "synthetic_svhn",
)
"""What `load` takes. "svhn_cropped_extra" trains on the extra split as well, of 1.3 GB,
which nothing else downloads."""

_REAL = {"mnist": "mnist", "mnist_colour": "mnist_colour", "svhn": "svhn_cropped"}
_STAND_IN = {
    "mnist": "mnist_embedded",
    "mnist_colour": "mnist_embedded_colour",
    "svhn_cropped": "synthetic_svhn",
}
_GREY = {"mnist_colour": "mnist", "mnist_embedded_colour": "mnist_embedded"}
_WARNING = {
    "mnist": "THIS IS NOT THE WHOLE OF MNIST, but mnist_embedded, a sixth of it. Its "
    "figures do not compare with MNIST's.",
    "mnist_colour": "THIS IS NOT THE WHOLE OF mnist_colour, but "
    "mnist_embedded_colour, a sixth of it. Its figures do not compare with those of "
    "the whole.",
    "svhn_cropped": "THIS IS NOT SVHN, but synthetic_svhn, drawn by a generator. Its "
    "figures do not compare with SVHN's.",
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


def load(
    name: str,
    *,
    raw_dir: Path | None,
    cache_dir: Path,
    validation: int | None,
    seed: int,
    default_for: Literal["mnist", "mnist_colour", "svhn"] = "mnist",
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
      validation: number of examples to carve, 1 to one less than there are; by default
        5,000, or a tenth of a smaller set.
      seed: decides which ones, and nothing else does.
      default_for: what "auto" means.

    Returns:
      The data set. Its arrays are read-only.

    Raises:
      InputError: an unknown name, a number out of range, a raw file that is missing,
        damaged or not the official one.
      UnavailableError: a set named explicitly cannot be had.
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
    except UnavailableError as error:
        if name != "auto":
            raise UnavailableError(
                f"{name} cannot be had: {error}; {_how(name)}"
            ) from error
        notices.append(_stand_in_notice(used, error))
        used = _STAND_IN[used]
        train, test = _examples(used, True, raw_dir, cache_dir, notices)
    total = len(train[1])
    if validation is None:
        validation = min(5000, total // 10)
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


def balanced(labels: NDArray[np.int32], count: int, seed: int) -> NDArray[np.intp]:
    """Draws as many examples of each class.

    Of one seed, a smaller draw is part of a larger one. The stream is that of `carve`.

    Args:
      labels: int [N].
      count: how many in all; a multiple of the number of classes.
      seed: not negative.

    Returns:
      Indices, in the order of their draw: any first 10 k of 10 classes are balanced.

    Raises:
      InputError: not a multiple, or more than the rarest class has.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    most = len(classes) * int(sizes.min())
    if count % len(classes) or not 0 < count <= most:
        raise InputError(
            f"{count} examples cannot be drawn evenly from {len(classes)} classes; "
            f"take a multiple of {len(classes)} up to {most}"
        )
    order = np.argsort(np.random.PCG64(seed).random_raw(len(labels)), kind="stable")
    by_class = [order[labels[order] == label] for label in classes]
    each = count // len(classes)
    return np.stack([some[:each] for some in by_class], 1).ravel()


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
    if name in _GREY:
        return _coloured(name, auto, raw_dir, cache_dir, notices)
    if name == "synthetic_svhn":
        parts = _synthetic_svhn(cache_dir, notices)
    else:
        parts = official.examples(
            name, raw_dir=raw_dir, cache_dir=cache_dir, auto=auto, notices=notices
        )
    train = parts["train"]
    if "extra" in parts:
        images, labels = parts["extra"]
        train = np.concatenate([train[0], images]), np.concatenate([train[1], labels])
    return train, parts["test"]


def _synthetic_svhn(cache_dir: Path, notices: list[str]) -> dict[str, raw.Examples]:
    from jaxdl.data import synthetic_svhn  # reads its glyphs

    entry = cache_dir / "data" / f"synthetic_svhn-{synthetic_svhn.VERSION}"
    arrays = cache.fetch(entry)
    if arrays is None:
        _log.info(
            "drawing synthetic_svhn, once; some 15 seconds, and 300 MB in the cache"
        )
        parts: dict[str, raw.Examples] = {
            "train": synthetic_svhn.generate("train"),
            "test": synthetic_svhn.generate("test"),
        }
        arrays = official.keep(entry, official.flat(parts), notices)
    return official.unflat(arrays)


def _coloured(
    name: str, auto: bool, raw_dir: Path | None, cache_dir: Path, notices: list[str]
) -> tuple[raw.Examples, raw.Examples]:
    from jaxdl.data import mnist_colour

    # First, since it is what says whether the digits are the official ones.
    train, test = _examples(_GREY[name], auto, raw_dir, cache_dir, notices)
    entry = cache_dir / "data" / f"{name}-{mnist_colour.VERSION}"
    arrays = cache.fetch(entry)
    if arrays is None:
        _log.info("colouring %s, once", _GREY[name])
        parts: dict[str, raw.Examples] = {
            "train": (mnist_colour.colour(train[0], "train"), train[1]),
            "test": (mnist_colour.colour(test[0], "test"), test[1]),
        }
        arrays = official.keep(entry, official.flat(parts), notices)
    parts = official.unflat(arrays)
    return parts["train"], parts["test"]


def _how(name: str) -> str:
    """How to hand over the files that a set is made from."""
    return official.how(_GREY.get(name, name))


def mnist_embedded(stored: bytes | None = None) -> tuple[raw.Examples, raw.Examples]:
    """The embedded part of MNIST: 1,000 training and 200 test images of each digit.

    Args:
      stored: what `make_mnist_embedded` wrote; by default the file of this package.

    Returns:
      Training and test examples, images uint8 [N, 28, 28, 1], read-only.
    """
    if stored is None:
        packaged = resources.files("jaxdl.data").joinpath("mnist_embedded.npz")
        stored = packaged.read_bytes()
    with np.load(io.BytesIO(stored), allow_pickle=False) as arrays:
        pixels = lzma.decompress(arrays["images_xz"].tobytes())
        labels = arrays["labels"].astype(np.int32)
        train = int(arrays["train"])
    images = np.frombuffer(pixels, np.uint8).reshape(len(labels), 28, 28, 1)
    return (images[:train], labels[:train]), (images[train:], labels[train:])


def _stand_in_notice(name: str, error: UnavailableError) -> str:
    lines = (
        _WARNING[name],
        f"Why: {error}.",
        f"For the real data, connect this machine to the network, or {_how(name)}.",
    )
    return "\n".join(textwrap.fill(line, 88, break_on_hyphens=False) for line in lines)


def _banner(notices: list[str]) -> str:
    rule = "*" * 88
    return "\n".join([rule, *notices, rule])
