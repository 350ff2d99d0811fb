"""Files of weights, read and written without torch, and never executed.

    state = weights.read(Path("resnet18-f37072fd.pth"))  # arrays by torch's names
    weights.write(Path("mine.safetensors"), state)

`jaxdl.models.pretrained` turns such arrays into Flax variables and back; `published`
finds or fetches the files that torchvision has published.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl import runs
from jaxdl.errors import InputError
from jaxdl.weights import torch_read, torch_write

__all__ = ["SUFFIXES", "read", "write"]

SUFFIXES = (".safetensors", ".pth", ".pt")
"""How the names of files end that `write` can write."""

_HEADER_LIMIT = 1 << 20  # of safetensors itself: 100 MB, which become some 300
_WRAPPERS = ("state_dict", "model")
_INTEGERS = ("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64")
_FORMATS = (*_INTEGERS, "F16", "BF16", "F32", "F64", "C64")
"""Number formats of safetensors that NumPy has; bfloat16 by ml_dtypes."""


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a weight file by name, whatever the file is called.

    Args:
      path: a safetensors file; or one of `torch.save`, zipped or of before torch 1.6,
        with a state dict or a checkpoint that has one as "state_dict" or "model", and
        besides it nothing but numbers, strings, lists, dictionaries and other tensors.

    Returns:
      Arrays as they were saved, in the file's order. Those of torch are read-only views
      of the mapped file, which the caller copies; it must not change meanwhile.

    Raises:
      InputError: the file cannot be read, is damaged, or holds something else. Nothing
        of it was executed.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
        if not head:
            raise InputError("is empty")
        if head[8:] == b"{":
            return _read_safetensors(path, struct.unpack("<Q", head[:8])[0])
        saved = torch_read.read(path)
        if type(saved) is not dict:
            raise InputError(f"holds a {type(saved).__name__}, not a state dict")
        saved = next((saved[k] for k in _WRAPPERS if type(saved.get(k)) is dict), saved)
        for name, value in saved.items():
            if type(name) is not str or not isinstance(value, np.ndarray):
                raise InputError(
                    f"holds {type(value).__name__} {str(name)[:99]!r} beside arrays; "
                    "save the state_dict() of the network alone"
                )
    except InputError as error:
        raise InputError(f"{path} {str(error)[:999]}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return saved


def _read_safetensors(path: Path, header: int) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    if header > _HEADER_LIMIT:
        raise InputError(f"has a header of {header} bytes; {_HEADER_LIMIT} are allowed")
    try:
        with safe_open(path, "np") as file:
            arrays = {name: _array(file, name) for name in file.offset_keys()}
    except SafetensorError as error:
        raise InputError(f"is damaged: {error}") from error
    # The format forbids it, but of the library's checks it is the one that lacks.
    with path.open("rb") as file:
        json.loads(file.read(8 + header)[8:], object_pairs_hook=_unique)
    return arrays


def _array(file: Any, name: str) -> np.ndarray:
    """One array of an open file of safetensors."""
    number = file.get_slice(name).get_dtype()
    if number not in _FORMATS:
        raise InputError(
            f"has {name[:99]!r} in the number format {number}; {', '.join(_FORMATS)} "
            "are allowed"
        )
    try:
        return file.get_tensor(name)
    except ValueError as error:  # an empty one can be of any shape in the file
        raise InputError(
            f"has {name[:99]!r} in a shape that NumPy cannot hold: {error}"
        ) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InputError("names an array twice")
    return found


def write(path: Path, state: Mapping[str, np.ndarray]) -> None:
    """Writes arrays to a safetensors file, or to one that `torch.load` reads.

    Args:
      path: its name ends in one of `SUFFIXES` and decides the format. What is there
        is replaced, whole or not at all.
      state: arrays by name.

    Raises:
      InputError: another name, a number format that the file cannot hold, or the place
        cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"cannot write {path}: its name must end in {' or '.join(SUFFIXES)}"
        )
    with runs.replacing(path) as scratch:
        if path.suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.numpy import save

            contiguous = {k: np.asarray(v, order="C") for k, v in state.items()}
            try:
                data = save(contiguous)
            except SafetensorError as error:
                raise InputError(f"cannot write {path}: {error}") from error
            scratch.write_bytes(data)  # its own `save_file` lets no one else read it
        else:
            torch_write.write(scratch, state)
