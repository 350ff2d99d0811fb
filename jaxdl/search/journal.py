"""The journal of a study: one JSON object a line, only ever added to.

"proposed" lines have the settings of a configuration and the state of the sampler that
made them, "result" lines what a trial has come to in a rung, epoch by epoch. Nothing
else is kept: a study goes on from its journal. Lines are on the disk before the study
goes on; one that a kill has cut short is cut off by `mend`.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxdl.errors import InputError

Line = dict[str, Any]


def append(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Adds lines, on the disk when it returns.

    Raises:
      InputError: the disk is full, the folder gone ...
    """
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            view = memoryview(text.encode())
            while view:
                view = view[os.write(file, view) :]
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        raise _unwritable(path, error) from error


def mend(path: Path) -> list[Line]:
    """Cuts off what a kill has left half written, and reads the rest.

    Returns:
      The lines; none where there is no journal yet.

    Raises:
      InputError: the file cannot be read or written, or a whole line is damaged.
    """
    if not path.exists():
        return []
    try:
        with path.open("rb+") as file:
            text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            if len(whole) < len(text):
                file.truncate(len(whole))
    except OSError as error:
        raise _unwritable(path, error) from error
    lines = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            found = json.loads(line)
            if type(found) is not dict or not found:
                raise ValueError("no object, or an empty one")
            lines.append(found)
        except ValueError as error:
            raise InputError(
                f"{path} is damaged at line {number}: delete it from there on, and "
                f"--resume computes again what is missing"
            ) from error
    return lines


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"cannot write {path}: {error.strerror}; make room and go on with --resume, or "
        f"choose another folder with --out"
    )
