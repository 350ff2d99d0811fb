"""State dicts into torch's zip format, which `torch.load` reads, without torch.

The layout is that of `torch.save` since 1.6: a member `data.pkl` that describes the
tensors, and one member for each one's numbers, uncompressed and aligned. The pickle is
put together instruction by instruction, because Python's would want to import torch.
"""

import pickle
import struct
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxdl.errors import InputError
from jaxdl.weights import unpickle

_NAMES = {dtype: name for name, dtype in unpickle.DTYPES.items()}
_ALIGNMENT = 64
_CREATED = (1980, 1, 1, 0, 0, 0)  # so that equal weights are equal files


def write(path: Path, state: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as the state dict of that name; equal arrays give equal bytes.

    Raises:
      InputError: an array of a number format that torch's storages have not.
      OSError: the place cannot be written.
    """
    items = [_item(str(n), key, state[key]) for n, key in enumerate(state)]
    described = pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + b"".join(items)
    with zipfile.ZipFile(path, "w") as archive:
        _add(archive, "data.pkl", memoryview(described + pickle.STOP))
        _add(archive, "byteorder", memoryview(sys.byteorder.encode()))
        for number, array in enumerate(state.values()):
            flat = np.ascontiguousarray(array).reshape(-1)
            _add(archive, f"data/{number}", flat.view(np.uint8).data)
        _add(archive, "version", memoryview(b"3\n"))


def _add(archive: zipfile.ZipFile, name: str, data: memoryview) -> None:
    member = zipfile.ZipInfo(f"archive/{name}", _CREATED)
    assert archive.fp is not None
    # A field that says nothing, but moves what follows to an aligned place.
    padding = -(archive.fp.tell() + 30 + len(member.filename) + 4) % _ALIGNMENT
    member.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    archive.writestr(member, data)


def _item(storage: str, key: str, array: np.ndarray) -> bytes:
    if array.dtype not in _NAMES:
        raise InputError(
            f"{key} is {array.dtype}, which torch has not; allowed are "
            f"{', '.join(map(str, _NAMES))}"
        )
    strides = np.cumprod((1, *array.shape[:0:-1]), dtype=np.int64)[::-1][: array.ndim]
    return b"".join(
        (
            _plain(key),
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            pickle.MARK,
            pickle.MARK + _plain("storage"),
            b"ctorch\n" + _NAMES[array.dtype].encode() + b"\n",
            _plain(storage) + _plain("cpu") + _plain(array.size),
            pickle.TUPLE + pickle.BINPERSID,
            _plain(0),
            pickle.MARK + b"".join(map(_plain, array.shape)) + pickle.TUPLE,
            pickle.MARK + b"".join(map(_plain, strides.tolist())) + pickle.TUPLE,
            pickle.NEWFALSE,
            b"ccollections\nOrderedDict\n" + pickle.EMPTY_TUPLE + pickle.REDUCE,
            pickle.TUPLE + pickle.REDUCE + pickle.SETITEM,
        )
    )


def _plain(value: str | int) -> bytes:
    if isinstance(value, str):
        text = value.encode()
        return pickle.BINUNICODE + struct.pack("<I", len(text)) + text
    number = pickle.encode_long(value)
    return pickle.LONG1 + bytes([len(number)]) + number
