"""MNIST and SVHN through TensorFlow Datasets, without TensorFlow.

TFDS reads array_record files without TensorFlow, but its builders of these two sets
import it to open files and to encode PNG. The builders here are the official ones in
all but that: the same names, versions, features, keys (and hence the same order of
examples), URLs and checksums; only the raw files are parsed by `jaxdl.data.raw` and
the images encoded by Pillow. What they write, TFDS reads with or without TensorFlow.

Importing this module imports TFDS (half a second), so only a first start does.
"""

import contextlib
import dataclasses
import io
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import hashing, registered
from tensorflow_datasets.core.download import download_manager
from tensorflow_datasets.core.utils import tqdm_utils
from tensorflow_datasets.image_classification import mnist

from jaxdl.data import cache, raw
from jaxdl.errors import InputError

with registered.skip_registration():
    from tensorflow_datasets.datasets.svhn_cropped import svhn_cropped_dataset_builder

_OFFICIAL = {"mnist": mnist.MNIST, "svhn_cropped": svhn_cropped_dataset_builder.Builder}


@dataclasses.dataclass(frozen=True)
class Source:
    """What a builder downloads: the URLs of each split's files, and their checksums."""

    urls: Mapping[str, tuple[str, ...]]
    checksums: Mapping[str, tfds.download.checksums.UrlInfo]


def source(
    name: str,
    urls: Mapping[str, tuple[str, ...]],
    checksums: Mapping[str, Any] | None = None,
) -> Source:
    """Those URLs of a data set; by default with the checksums TFDS has on record."""
    return Source(urls, _OFFICIAL[name].url_infos if checksums is None else checksums)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """No progress bars and no advice from TFDS: a library does not print."""
    logger = logging.getLogger("absl")
    level, active = logger.level, tqdm_utils._active
    logger.setLevel(logging.ERROR)
    tqdm_utils.display_progress_bar(False)
    try:
        yield
    finally:
        logger.setLevel(level)
        tqdm_utils.display_progress_bar(active)


with registered.skip_registration():

    class _WithoutTensorFlow(tfds.core.GeneratorBasedBuilder):
        """Mixed into an official builder: its files are parsed by `jaxdl.data.raw`."""

        def __init__(self, source: Source, data_dir: Path):
            self._source = source
            super().__init__(data_dir=os.fspath(data_dir))

        @property
        def url_infos(self) -> dict[str, Any]:
            return dict(self._source.checksums)

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
            # One after the other, so that nothing is still under way when one fails.
            return {
                split: self._generate_examples(
                    split, [Path(dl_manager.download(url)) for url in urls]
                )
                for split, urls in self._source.urls.items()
            }

        def _generate_examples(
            self, split: str, paths: list[Path]
        ) -> Iterator[tuple[int, dict[str, Any]]]:
            images, labels = raw.parse(paths)
            with_id = "id" in self.info.features
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                png = io.BytesIO()
                Image.fromarray(image.squeeze()).save(png, format="PNG")
                png.seek(0)
                identity = {"id": f"{split}_{i:06d}"} if with_id else {}
                yield i, {"image": png, "label": int(label), **identity}

        def _log_download_bytes(self) -> None:
            pass  # TFDS prints here, and a library does not

        def _log_download_done(self) -> None:
            pass

    class _Mnist(_WithoutTensorFlow, mnist.MNIST):
        name = "mnist"

    class _SvhnCropped(_WithoutTensorFlow, svhn_cropped_dataset_builder.Builder):
        name = "svhn_cropped"
        pkg_dir_path = svhn_cropped_dataset_builder.Builder._get_pkg_dir_path()


@_silence()
def prepare(name: str, source: Source, data_dir: Path) -> Path:
    """Downloads a data set and prepares it in array_record format, unless it is there.

    Args:
      name: "mnist" or "svhn_cropped".
      source: what to download; a file without a registered checksum is refused.
      data_dir: TFDS's folder of data sets. The downloads lie in it only until they are
        prepared.

    Returns:
      The folder of the prepared data set.

    Raises:
      InputError: a downloaded file is not the official one.
      Exception: whatever else TFDS raises. Nothing half-written is left behind.
    """
    builder = (_Mnist if name == "mnist" else _SvhnCropped)(source, data_dir)
    data_dir.mkdir(parents=True, exist_ok=True)
    cache.sweep(data_dir, ".downloads-*")
    cache.sweep(data_dir / name, "incomplete.*")  # as TFDS calls its own
    downloads = tempfile.mkdtemp(prefix=".downloads-", dir=data_dir)
    try:
        builder.download_and_prepare(
            download_dir=downloads,
            download_config=tfds.download.DownloadConfig(
                force_checksums_validation=True, try_download_gcs=False
            ),
            file_format="array_record",
        )
    except download_manager.NonMatchingChecksumError as error:
        url = str(error).partition(",")[0].removeprefix("Artifact ")
        raise InputError(f"{url} is not the official file: wrong checksum") from error
    except Exception:
        if not builder.is_prepared():  # by another process in the meantime
            raise
    finally:
        shutil.rmtree(downloads, ignore_errors=True)
    return Path(builder.data_dir)


@_silence()
def read(folder: Path, splits: tuple[str, ...]) -> dict[str, raw.Examples]:
    """Reads what TFDS has prepared in array_record format.

    Args:
      folder: a version's folder, such as ~/tensorflow_datasets/mnist/3.0.1.
      splits: the splits to read.

    Returns:
      The examples of each split, in the order of the official raw files, which TFDS
      shuffles: SVHN's examples carry their place as "id"; MNIST's do not, but their
      order follows from a hash of it.

    Raises:
      InputError: the examples' ids are not those of the official set.
      Exception: whatever TFDS raises for a damaged folder.
    """
    builder = tfds.builder_from_directory(os.fspath(folder))
    examples = {}
    for split in splits:
        source = builder.as_data_source(split)
        shape = builder.info.features["image"].shape
        images = np.empty((len(source), *shape), np.uint8)
        labels = np.empty(len(source), np.int32)
        filled = np.zeros(len(source), bool)
        places = _hashed_order(split, len(source))
        for place, example in zip(places, source, strict=True):
            if "id" in example:
                place = int(example["id"].decode().rpartition("_")[2])
            images[place], labels[place] = example["image"], example["label"]
            filled[place] = True
        if not filled.all():
            raise InputError(f"{folder}: split {split} has two examples of one id")
        examples[split] = (images, labels)
    return examples


def _hashed_order(split: str, count: int) -> list[int]:
    hasher = hashing.Hasher(split)
    return sorted(range(count), key=hasher.hash_key)
