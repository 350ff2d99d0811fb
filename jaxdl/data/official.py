"""How the real data sets are had: raw files, cache, TFDS's folder, download.

Whatever the way, the raw content was verified by SHA-256 (by this library, or by TFDS
as it was downloaded), and the examples stand in the order of the official files.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jaxdl.data import cache, network, raw
from jaxdl.errors import InputError

_log = logging.getLogger(__name__)
_REMEMBER_SECONDS = 600.0


class UnavailableError(InputError):
    """A real data set is neither on this machine nor within its reach."""


@dataclasses.dataclass(frozen=True)
class Unit:
    """Part of a data set that is had, and cached, as a whole."""

    entry: str
    """Name of its cache entry."""
    parts: raw.Parts
    """Its files by split."""
    home: str
    """URL of the folder with the files."""
    builder: tuple[str, str]
    """Name and version of TFDS's builder."""
    checksums: Mapping[str, Any] | None = None
    """TFDS's `UrlInfo` by URL; None for those that TFDS itself has on record."""

    def file_names(self) -> list[str]:
        """The official files, as their home has them."""
        files = [file.name for part in self.parts.values() for file in part]
        return [f if f.endswith(".mat") else f"{f}.gz" for f in files]

    def urls(self) -> dict[str, tuple[str, ...]]:
        """Where each split's files are downloaded from."""
        names = iter(self.file_names())
        return {
            split: tuple(self.home + next(names) for _ in files)
            for split, files in self.parts.items()
        }


_SVHN_HOME = "http://ufldl.stanford.edu/housenumbers/"
_MNIST = Unit(
    "mnist",
    raw.MNIST,
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ("mnist", "3.0.1"),
)
_SVHN = Unit("svhn_cropped", raw.SVHN, _SVHN_HOME, ("svhn_cropped", "3.1.0"))
_EXTRA = Unit("svhn_extra", raw.SVHN_EXTRA, _SVHN_HOME, ("svhn_cropped", "3.1.0"))

UNITS: Mapping[str, tuple[Unit, ...]] = {
    "mnist": (_MNIST,),
    "svhn_cropped": (_SVHN,),
    "svhn_cropped_extra": (_SVHN, _EXTRA),
}
"""What each real set consists of."""


def examples(
    name: str,
    *,
    raw_dir: Path | None,
    cache_dir: Path,
    auto: bool,
    notices: list[str],
    units: Mapping[str, tuple[Unit, ...]] = UNITS,
) -> dict[str, raw.Examples]:
    """The examples of a real data set, by split ("train", "test", "extra").

    Args:
      name: a key of `units`.
      raw_dir: folder with its official files, or None. A folder that holds another
        set's files and none of this one's counts as None with `auto`, and where this
        one is in the cache, as it is where a run is evaluated or resumed.
      cache_dir: where prepared data lie and downloads go.
      auto: the set was not asked for by name.
      notices: gets a line where the cache cannot be written, and with `auto` where
        `raw_dir` is of another set.
      units: what each set consists of.

    Raises:
      InputError: raw_dir is not a folder, lacks a file, or has one that is damaged or
        not the official one.
      UnavailableError: there is no way to the data.
    """
    if raw_dir is not None and not _meant(raw_dir, name, cache_dir, auto, units):
        if auto:
            notices.append(
                f"--raw-dir={raw_dir} holds files of another set, and none of {name}."
            )
        raw_dir = None
    found: cache.Arrays = {}
    for unit in units[name]:
        if raw_dir is not None:
            found |= _from_raw(unit, raw_dir, cache_dir, notices)
        else:
            found |= _from_elsewhere(unit, cache_dir, auto, notices)
    return unflat(found)


def how(name: str, units: Mapping[str, tuple[Unit, ...]] = UNITS) -> str:
    """How to hand over the files of a set, as half a sentence."""
    names = [file for unit in units[name] for file in unit.file_names()]
    return (
        f"put {', '.join(names)} (from {units[name][0].home}) into a folder DIR and "
        "pass --raw-dir=DIR or set JAXDL_RAW_DIR=DIR"
    )


def keep(entry: Path, arrays: cache.Arrays, notices: list[str]) -> cache.Arrays:
    """Caches prepared arrays where that is possible, else says so in the notices."""
    try:
        cache.store(entry, arrays)
    except OSError as error:
        notices.append(
            f"The prepared data cannot be kept in {entry.parent} "
            f"({error.strerror or error}): every start\nprepares them again. "
            "--cache-dir=DIR or JAXDL_CACHE_DIR=DIR names another folder."
        )
    return arrays


def flat(parts: Mapping[str, raw.Examples]) -> cache.Arrays:
    """Arrays named {split}_images and {split}_labels, as the cache keeps them."""
    arrays: cache.Arrays = {}
    for split, (images, labels) in parts.items():
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    return arrays


def unflat(arrays: cache.Arrays) -> dict[str, raw.Examples]:
    """Inverse of `flat`."""
    splits = [n.removesuffix("_images") for n in arrays if n.endswith("_images")]
    return {s: (arrays[f"{s}_images"], arrays[f"{s}_labels"]) for s in splits}


def _meant(
    raw_dir: Path,
    name: str,
    cache_dir: Path,
    auto: bool,
    units: Mapping[str, tuple[Unit, ...]],
) -> bool:
    """Whether a folder is meant for this set; InputError if it is in no fit state."""
    try:
        next(raw_dir.iterdir(), None)
    except OSError as error:
        raise InputError(
            f"--raw-dir={raw_dir} cannot be read: {error.strerror}; {how(name, units)}"
        ) from error
    lacks = {
        other: [
            file.name
            for unit in parts
            for files in unit.parts.values()
            for file in files
            if raw.find(raw_dir, file) is None
        ]
        for other, parts in units.items()
    }
    if not lacks[name]:
        return True
    of_another_set = any(
        len(lacks[other]) < sum(len(unit.file_names()) for unit in units[other])
        for other in units
    )
    none_of_this = len(lacks[name]) == sum(len(u.file_names()) for u in units[name])
    if none_of_this and of_another_set and (auto or _cached(name, cache_dir, units)):
        return False
    raise InputError(
        f"--raw-dir={raw_dir} lacks {', '.join(lacks[name])} of {name}; "
        f"{how(name, units)}"
    )


def _cached(name: str, cache_dir: Path, units: Mapping[str, tuple[Unit, ...]]) -> bool:
    entries = (cache_dir / "data" / unit.entry for unit in units[name])
    return all(cache.fetch(entry) is not None for entry in entries)


def _from_raw(
    unit: Unit, raw_dir: Path, cache_dir: Path, notices: list[str]
) -> cache.Arrays:
    # The cache stands for the raw files only while they are those that were verified:
    # an empty file named by a digest of their paths, sizes and times says so.
    stamp = hashlib.sha256("".join(raw.stamps(raw_dir, unit.parts)).encode())
    verified = cache_dir / "data" / "verified" / stamp.hexdigest()
    entry = cache_dir / "data" / unit.entry
    if verified.exists() and (arrays := cache.fetch(entry)) is not None:
        return arrays
    try:
        arrays = flat(raw.read(raw_dir, unit.parts))
    except InputError as error:
        raise InputError(f"{error} from {unit.home}") from error
    told = len(notices)
    keep(entry, arrays, notices)
    if len(notices) == told:
        with contextlib.suppress(OSError):  # it only saves the next start some work
            verified.parent.mkdir(exist_ok=True)
            verified.touch()
    return arrays


def _from_elsewhere(
    unit: Unit, cache_dir: Path, auto: bool, notices: list[str]
) -> cache.Arrays:
    entry = cache_dir / "data" / unit.entry
    if (arrays := cache.fetch(entry)) is not None:
        return arrays
    ours = cache_dir / "tfds" / unit.entry
    standard = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    reasons: list[str] = []
    damaged = False
    for data_dir in (ours, Path(standard).expanduser()):
        prepared = data_dir.joinpath(*unit.builder)
        if _readable(prepared, unit, reasons):
            try:
                return keep(entry, _read(unit, prepared), notices)
            except (MemoryError, ImportError):
                raise  # not the fault of what was read
            except Exception as error:  # TFDS has no list of what it raises on damage
                reasons.append(f"{prepared} cannot be used: {_line(error)}")
                damaged |= data_dir == ours
    url = next(iter(unit.urls().values()))[0]
    reason = _unreachable(url, cache_dir / "data", auto)
    if reason is not None:
        reasons.append(f"{url} cannot be reached: {reason}")
    else:
        if damaged:  # made anew; other people's folders are let be
            shutil.rmtree(ours.joinpath(*unit.builder), ignore_errors=True)
        try:
            return keep(entry, _download(unit, ours), notices)
        except Exception as error:  # likewise
            reasons.append(f"the download from {unit.home} failed: {_line(error)}")
    raise UnavailableError("; ".join(reasons))


def _readable(prepared: Path, unit: Unit, reasons: list[str]) -> bool:
    """Whether TFDS has prepared these splits there, readable without TensorFlow."""
    try:
        info = json.loads((prepared / "dataset_info.json").read_bytes())
        splits = {split["name"] for split in info["splits"]}
        kind = info.get("fileFormat", "tfrecord")
    except (OSError, ValueError, LookupError, TypeError):
        return False
    if kind != "array_record":
        reasons.append(f"{prepared} is in {kind} format, which needs TensorFlow")
        return False
    return splits >= unit.parts.keys()


def _read(unit: Unit, prepared: Path) -> cache.Arrays:
    from jaxdl.data import tfds_builders

    parts = tfds_builders.read(prepared, tuple(unit.parts))
    raw.verify_examples(parts, unit.parts, prepared)
    return flat(parts)


def _download(unit: Unit, data_dir: Path) -> cache.Arrays:
    from jaxdl.data import tfds_builders

    name = unit.builder[0]
    _log.info("downloading and preparing %s from %s, once", name, unit.home)
    source = tfds_builders.source(name, unit.urls(), unit.checksums)
    return _read(unit, tfds_builders.prepare(name, source, data_dir))


def _unreachable(url: str, folder: Path, auto: bool) -> str | None:
    """Why a host cannot be reached; a long wait for it is not repeated for ten minutes.

    Only a set that was asked for by name is always tried anew.
    """
    memory = folder / f"unreachable-{urlsplit(url).hostname}"
    if auto:
        try:
            if time.time() - memory.stat().st_mtime < _REMEMBER_SECONDS:
                return f"{memory.read_text()} (minutes ago; not asked again)"
        except (OSError, UnicodeDecodeError):
            pass  # nothing remembered
    start = time.monotonic()
    reason = network.unreachable(url)
    try:
        if reason is None:
            memory.unlink(missing_ok=True)
        elif time.monotonic() - start > 1.0:
            memory.parent.mkdir(parents=True, exist_ok=True)
            memory.write_text(reason)
    except OSError:
        pass  # a cache that cannot be written only costs the wait
    return reason


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
