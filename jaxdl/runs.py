"""Run directories: everything about a run in one folder.

A kill at any moment leaves each file as it was or as it should be.

    config.json     the settings, the data really used, the versions
    metrics.jsonl   one JSON object a line: "kind" is "train" or "validation"
    latest/ best/   Orbax checkpoints
    tensorboard/    events
    figures/        pictures
    result.json     what came out
    .lock           held by the process at work on the run
"""

import contextlib
import errno
import itertools
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from jaxdl import runtime
from jaxdl.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PACKAGES = ("jaxdl", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class ClaimedError(InputError):
    """Another process is at work on a run."""


def create(directory: Path, description: Mapping[str, Any]) -> None:
    """Makes a new run directory with its config.json, whole or not at all.

    Raises:
      InputError: it is there already, or cannot be made.
    """
    check_free(directory)
    scratch = directory.with_name(f".{directory.name}.{os.getpid()}")
    try:
        scratch.mkdir(parents=True)
        write_json(scratch / "config.json", description)
        scratch.rename(directory)
    except OSError as error:
        check_free(directory)
        raise InputError(
            f"cannot make the run folder {directory}: {error.strerror}; choose another "
            f"with --out"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check_free(directory: Path) -> None:
    """Raises InputError if the directory of a new run is there already."""
    if directory.exists():
        raise InputError(
            f"the run {directory} is there already: go on with it by --resume, or "
            f"choose another --name"
        )


def stamped(folder: Path, prefix: str = "") -> str:
    """A name, of the time, that nothing in the folder has yet."""
    name = f"{prefix}{time.strftime('%Y%m%d-%H%M%S')}"
    names = itertools.chain([name], (f"{name}-{n}" for n in itertools.count(2)))
    return next(one for one in names if not (folder / one).exists())


def check_name(name: str | None) -> None:
    """Checks that a run's name, if it has one, is that of a folder in its place.

    Raises:
      InputError: it leads elsewhere.
    """
    if name in ("", ".", "..") or set(name or "") & set("/\\\0"):
        raise InputError(f"--name must be a plain folder name, not {name!r}")


def check_seed(option: str, seed: int) -> None:
    """Raises InputError unless a seed has 32 bits at most, as JAX's keys take it."""
    if not 0 <= seed < 2**32:
        raise InputError(f"{option} must be at least 0 and below 2**32, not {seed}")


def make_folder(folder: Path) -> None:
    """Makes a folder, and those above it, where they are missing.

    Raises:
      InputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder {folder}: {error.strerror}; choose another "
            f"with --out"
        ) from error


@contextlib.contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """While entered, the run is this process's own; a kill gives it back as well.

    Raises:
      ClaimedError: another process is at work on it.
    """
    file = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        if fcntl is not None and not _locked(file):
            raise ClaimedError(
                f"another process is at work on the run {directory}: wait for it, or "
                f"stop it, or choose another --name"
            )
        yield
    finally:
        os.close(file)


def is_claimed(directory: Path) -> bool:
    """Whether another process is at work on the run, which must be there."""
    try:
        with claimed(directory):
            return False
    except ClaimedError:
        return True


def _locked(file: int) -> bool:
    """Whether the lock could be had; a file system without locks counts as well."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True


def sweep(directory: Path) -> None:
    """Deletes what a killed process has left half written: Orbax does not, for good."""
    for unfinished in directory.glob("*/*.orbax-checkpoint-tmp"):
        shutil.rmtree(unfinished, ignore_errors=True)
    for pattern in (".*.json*.*", "figures/.*.png.*.tmp"):
        for scratch in directory.glob(pattern):
            scratch.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON file whole or not at all.

    Raises:
      InputError: the folder is read-only, the disk is full ...
    """
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all.

    Raises:
      InputError: the folder is read-only, the disk is full ...
    """
    with replacing(path) as scratch:
        scratch.write_text(text)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; once it is on the disk it is renamed there.

    Raises:
      InputError: the folder is read-only, the disk is full ...
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield scratch
        with scratch.open("rb+") as file:
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      InputError: the file is missing or holds something else.
    """
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(
            f"{path.parent} is not a run: it has no {path.name}; give a folder such as "
            f"checkpoints/<experiment>/<run>"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} must hold a JSON object, not {type(value).__name__}")
    return value


def read_description(directory: Path) -> dict[str, Any]:
    """What config.json says, at least with objects "config" and "dataset".

    Raises:
      InputError: the file is missing or holds something else.
    """
    path = directory / "config.json"
    stored = read_json(path)
    for name in ("config", "dataset"):
        if not isinstance(stored.get(name), dict):
            raise InputError(
                f"{path} is not the description of a run: it has no object {name!r}"
            )
    return stored


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, but for one at the end that a kill cut short."""
    path = directory / "metrics.jsonl"
    if not path.exists():
        return []
    entries = []
    for line in path.read_text().splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
    return entries


def rewind_metrics(directory: Path, step: int) -> list[dict[str, Any]]:
    """Drops the lines after `step`, which a resumed run writes again."""
    entries = [entry for entry in read_metrics(directory) if entry["step"] <= step]
    path = directory / "metrics.jsonl"
    write_text(path, "".join(json.dumps(entry) + "\n" for entry in entries))
    return entries


def append_metrics(directory: Path, entry: Mapping[str, Any]) -> None:
    """Adds one line to metrics.jsonl, at once on disk."""
    with (directory / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(entry) + "\n")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's numbers."""
    found = {package: metadata.version(package) for package in PACKAGES}
    return {"python": platform.python_version(), **found}


def device_name(count: int | None = None) -> str:
    """The devices in words: "8 x NVIDIA H100", "1 x cpu (AMD EPYC, 2 cores, AVX2)".

    Args:
      count: how many of them; by default all.
    """
    import jax

    devices = jax.devices()
    kind = devices[0].device_kind
    if devices[0].platform == "cpu":
        kind = f"cpu ({_processor()}, {os.cpu_count()} cores{_vectors()})"
    return f"{count or len(devices)} x {kind}"


def _vectors() -> str:
    """The widest vectors, which tell apart processors that virtual machines name alike.

    Nothing where Linux does not say.
    """
    sets, flags = {"avx512f": ", AVX-512", "avx2": ", AVX2"}, runtime.cpu_flags()
    return next((name for flag, name in sets.items() if flag in flags), "")


def _processor() -> str:
    lines = runtime.cpu_info()
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()
