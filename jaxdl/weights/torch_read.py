"""State dicts out of the two formats of `torch.save`, without torch.

Both hold a pickle that describes the tensors, and their numbers in *storages*. Since
torch 1.6 they are members of a zip archive that is not compressed; before, as in the
older of torchvision's files, pickles and storages follow each other in a plain stream.
Either way the file is mapped, and an array is a view of it: no number is read before
it is used, and nothing is believed that the file says of its own sizes.
"""

import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxdl.errors import InputError
from jaxdl.weights import unpickle

Bytes = NDArray[np.uint8]

MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
"""How the older format begins: a pickle of one number."""

_DIRECTORY_LIMIT = 4 << 20  # a member takes some 80 bytes there, and 600 in Python


def read(path: Path) -> Any:
    """What a file of `torch.save` holds, each tensor as an array.

    Returns:
      The object as it was saved, dictionaries as dict; of its values only those of the
      outermost dictionary and of dictionaries in it are arrays: read-only views of the
      mapped file, unless it was written on a big-endian machine.

    Raises:
      InputError: it is not such a file, is damaged, or holds more than tensors,
        dictionaries and plain values. The message lacks its subject, the file.
    """
    data = np.asarray(np.memmap(path, np.uint8, "r"))
    if data[:4].tobytes() == b"PK\x03\x04":
        described, storages, swap = _from_zip(path, data)
    elif data[: len(MAGIC)].tobytes() == MAGIC:
        described, storages, swap = *_from_stream(data), False
    else:
        raise InputError("is not a file of torch.save")
    return _arrays(described, storages, swap)


def _from_zip(path: Path, data: Bytes) -> tuple[Any, Mapping[str, Bytes], bool]:
    members = _members(path, data)
    roots = [name[: -len("data.pkl")] for name in members if _is_pickle(name)]
    if len(roots) != 1:
        raise InputError(f"is not a file of torch.save: it has {len(roots)} data.pkl")
    root = roots[0]
    if f"{root}constants.pkl" in members:
        raise InputError(
            "holds a TorchScript program; save the state_dict() of the network instead"
        )
    byteorder = f"{root}byteorder"  # older versions of torch do not tell it
    order = members[byteorder].tobytes() if byteorder in members else b"little"
    if order not in (b"little", b"big"):
        raise InputError(f"has the byte order {order[:20]!r}, not little or big")
    pickled = members[f"{root}data.pkl"]
    if pickled.size > unpickle.LIMIT:
        raise InputError(
            f"describes its tensors in {pickled.size} bytes; {unpickle.LIMIT} are "
            "allowed"
        )
    described, _ = unpickle.load(_pickle(pickled))
    folder = f"{root}data/"
    storages = {
        name.removeprefix(folder): member
        for name, member in members.items()
        if name.startswith(folder)
    }
    return described, storages, order == b"big"


def _is_pickle(name: str) -> bool:
    return name.count("/") <= 1 and name.rpartition("/")[2] == "data.pkl"


class _DirectoryOnly(io.FileIO):
    """A file of which `zipfile` can read a reasonable directory, and no more."""

    def read(self, size: int | None = -1) -> bytes:
        left = max(os.fstat(self.fileno()).st_size - self.tell(), 0)
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > _DIRECTORY_LIMIT:
            raise zipfile.BadZipFile(f"a directory of {wanted} bytes")
        return super().read(wanted) or b""


def _members(path: Path, data: Bytes) -> dict[str, Bytes]:
    """The members of a zip archive: stored as they are, and none within another."""
    try:
        with _DirectoryOnly(path) as file, zipfile.ZipFile(file) as archive:
            directory = sorted(archive.infolist(), key=lambda m: m.header_offset)
            end = archive.start_dir
    except MemoryError:
        raise
    except Exception as error:  # zipfile has no list of what it raises on damage
        raise InputError(f"is damaged or cut short: {error}") from error
    members: dict[str, Bytes] = {}
    taken = 0
    for member in directory:
        name, start = member.filename, member.header_offset
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise InputError(
                f"has {name!r} compressed or encrypted, as torch never has"
            )
        if name in members:
            raise InputError(f"has {name!r} twice")
        header = data[start : start + 30].tobytes()
        if start < taken or header[:4] != b"PK\x03\x04" or len(header) < 30:
            raise InputError(f"is damaged: {name!r} does not begin where it should")
        start += 30 + sum(struct.unpack("<HH", header[26:]))
        taken = start + member.file_size
        if taken > end or member.file_size != member.compress_size:
            raise InputError(f"is damaged: {name!r} ends where it should not")
        members[name] = data[start:taken]
        # Zero where torch was told not to compute it.
        if member.CRC and zlib.crc32(members[name].data) != member.CRC:
            raise InputError(f"is damaged: {name!r} has another checksum (CRC-32)")
    return members


def _pickle(data: Bytes) -> io.BytesIO:
    return io.BytesIO(data[: unpickle.LIMIT].tobytes())


def _from_stream(data: Bytes) -> tuple[Any, dict[str, Bytes]]:
    stream = _pickle(data)
    unpickle.load(stream)  # the magic number
    if unpickle.load(stream)[0] != 1001:
        raise InputError("has another version of torch's format than 1001")
    unpickle.load(stream)  # sizes of the machine's integers; storages are little-endian
    described, declared = unpickle.load(stream)
    keys, _ = unpickle.load(stream)
    if type(keys) is not list:
        raise InputError("is damaged: it has no list of storages")
    storages: dict[str, Bytes] = {}
    place = stream.tell()
    for key in keys:
        if type(key) is not str or key not in declared or key in storages:
            raise InputError("is damaged: it lists a storage twice, or an unknown one")
        count = int.from_bytes(data[place : place + 8].tobytes(), "little", signed=True)
        start = place + 8
        place = start + count * declared[key].dtype.itemsize
        if count < 0 or place > len(data):
            raise InputError(
                f"is cut short or damaged: storage {key!r} of {count} elements would "
                f"end at byte {place} of {len(data)}"
            )
        storages[key] = data[start:place]
    return described, storages


def _arrays(described: Any, storages: Mapping[str, Bytes], swap: bool) -> Any:
    """The object with arrays for its tensors, and for those in an inner dictionary."""
    if type(described) is not dict:
        return described
    # By identity: a pickle can name one dictionary any number of times.
    inner = {id(node): node for node in described.values() if type(node) is dict}
    tensors = [
        value
        for node in (described, *inner.values())
        for value in node.values()
        if type(value) is unpickle.Tensor
    ]
    used = {tensor.storage.key: tensor.storage for tensor in tensors}
    numbers = {
        key: _numbers(storage, storages.get(key), swap) for key, storage in used.items()
    }
    # Each is a view, but whoever copies them should need no more than the file's size.
    total = sum(math.prod(t.shape) * t.storage.dtype.itemsize for t in tensors)
    if total > sum(array.nbytes for array in numbers.values()):
        raise InputError(
            f"describes tensors of {total} bytes in all, more than it holds: they "
            "overlap, or a shape is wrong; save copies of them (tensor.clone())"
        )

    def convert(node: dict[Any, Any]) -> dict[Any, Any]:
        return {
            key: _view(value, numbers[value.storage.key])
            if type(value) is unpickle.Tensor
            else value
            for key, value in node.items()
        }

    made = {key: convert(node) for key, node in inner.items()}
    return convert({k: made.get(id(v), v) for k, v in described.items()})


def _numbers(storage: unpickle.Storage, raw: Bytes | None, swap: bool) -> Bytes:
    """The bytes of a storage, in this machine's order."""
    width = storage.dtype.itemsize
    if raw is None:
        raise InputError(f"lacks storage {storage.key!r}")
    if raw.size != storage.size * width:
        raise InputError(
            f"is damaged: storage {storage.key!r} has {raw.size} bytes, not "
            f"{storage.size} elements of {storage.dtype}"
        )
    if storage.dtype == np.bool_ and raw.size and raw.max() > 1:
        raise InputError(f"is damaged: storage {storage.key!r} holds no booleans")
    return raw.view(f"u{width}").byteswap().view(np.uint8) if swap else raw


def _view(tensor: unpickle.Tensor, raw: Bytes) -> np.ndarray:
    storage, offset, shape, strides = tensor
    width = storage.dtype.itemsize
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if min((offset, *shape, *strides)) < 0 or (0 not in shape and last >= storage.size):
        raise InputError(
            f"describes a tensor of shape {shape}, offset {offset} and strides "
            f"{strides}, which does not lie within the {storage.size} elements of "
            f"storage {storage.key!r}"
        )
    try:
        if 0 in shape:
            return np.empty(shape, storage.dtype)
        # What is one element long may have any stride, and more than NumPy can take.
        steps = tuple(s * width * (n > 1) for n, s in zip(shape, strides, strict=True))
        return np.ndarray(shape, storage.dtype, raw, offset * width, steps)
    except (ValueError, OverflowError) as error:
        raise InputError(f"describes a tensor of shape {shape}: {error}") from error
