"""The journal of a study: one JSON object a line, only ever added to.

The first line describes the study; "proposed" lines have the settings of each
configuration, "result" lines what a trial has come to in a rung. Nothing else is kept:
a study goes on from its journal alone, so the journal is all there is of its sampler's
state. Lines are on the disk before the study goes on; one that a kill has cut short is
cut off when the journal is read.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxdl.errors import InputError

Line = dict[str, Any]


def create(path: Path, header: Mapping[str, Any]) -> None:
    """Begins a journal.

    Raises:
      InputError: there is one, or it cannot be written.
    """
    try:
        with path.open("x"):
            pass
    except FileExistsError:
        raise InputError(
            f"the study {path.parent} is there already: go on with it by --resume, or "
            f"choose another --name"
        ) from None
    except OSError as error:
        raise _unwritable(path, error) from error
    append(path, [{"kind": "study", **header}])


def append(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Adds lines, on the disk when it returns.

    Raises:
      InputError: the disk is full, the folder gone ...
    """
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            view = memoryview(text.encode())
            while view:
                view = view[os.write(file, view) :]
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        raise _unwritable(path, error) from error


def read(path: Path) -> list[Line]:
    """The lines of a journal, but for one at the end that a kill cut short.

    Raises:
      InputError: there is none, or a line before the last is damaged.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path.parent} is not a study: cannot read {path.name}: {error.strerror}"
        ) from error
    whole = text[: text.rfind(b"\n") + 1]
    lines = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            lines.append(json.loads(line))
        except ValueError as error:
            raise InputError(
                f"{path} is damaged at line {number}; delete the file from there on, "
                f"and what is missing is computed again with --resume"
            ) from error
    if not lines or lines[0].get("kind") != "study":
        raise InputError(f"{path} does not describe a study; start one anew")
    return lines


def mend(path: Path) -> None:
    """Cuts off what a kill has left half written at the end.

    Raises:
      InputError: the file cannot be written.
    """
    try:
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"cannot write {path}: {error.strerror}; make room and go on with --resume, or "
        f"choose another folder with --out"
    )
