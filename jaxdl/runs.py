"""Run directories: everything about a run in one folder.

A kill at any moment leaves each file as it was or as it should be.

    config.json     the settings, the data really used, the versions
    metrics.jsonl   one JSON object a line: "kind" is "train" or "validation"
    latest/ best/   Orbax checkpoints
    tensorboard/    events
    figures/        pictures
    result.json     what came out
"""

import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from jaxdl.errors import InputError

PACKAGES = ("jaxdl", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def create(directory: Path) -> None:
    """Makes a new run directory.

    Raises:
      InputError: it is there already, or cannot be made.
    """
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        raise InputError(
            f"the run {directory} is there already: go on with it by --resume, or "
            f"choose another --name"
        ) from None
    except OSError as error:
        raise InputError(
            f"cannot make the run folder {directory}: {error.strerror}; choose another "
            f"with --out"
        ) from error


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON file whole or not at all.

    Raises:
      InputError: the folder is read-only, the disk is full ...
    """
    text = json.dumps(value, indent=2) + "\n"
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror}") from error


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
            f"checkpoints/mnist/<run>"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} must hold a JSON object, not {type(value).__name__}")
    return value


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
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    scratch.replace(path)
    return entries


def append_metrics(directory: Path, entry: Mapping[str, Any]) -> None:
    """Adds one line to metrics.jsonl, at once on disk."""
    with (directory / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(entry) + "\n")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's numbers."""
    found = {package: metadata.version(package) for package in PACKAGES}
    return {"python": platform.python_version(), **found}


def device_name() -> str:
    """The devices in words, for instance "8 x NVIDIA H100" or "1 x cpu (AMD EPYC)"."""
    import jax

    devices = jax.devices()
    kind = devices[0].device_kind
    if devices[0].platform == "cpu":
        kind = f"cpu ({_processor()}, {os.cpu_count()} cores)"
    return f"{len(devices)} x {kind}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()
