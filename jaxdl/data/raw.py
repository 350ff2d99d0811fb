"""The official raw files of MNIST and SVHN: read, and verified before use.

MNIST is four IDX files (LeCun, Cortes, Burges), gzipped or not: a big-endian header
and then the bytes. SVHN's cropped digits (Netzer et al. 2011) are MATLAB 5 files with
`X` uint8 [32, 32, 3, N] and `y` [N, 1], in which the digit 0 is written as 10.

A file is used only when its SHA-256 is the official one. The digests of MNIST are
those of the uncompressed content, because the gzip wrapper differs from mirror to
mirror; those of SVHN are of the file, and the ones TensorFlow Datasets insists upon.
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxdl.errors import InputError

Examples = tuple[NDArray[np.uint8], NDArray[np.int32]]
"""Images uint8 [N, H, W, C] and labels int32 [N]."""


class RawFile(NamedTuple):
    """One official file: its name (without .gz), number of examples and SHA-256."""

    name: str
    size: int
    sha256: str


Parts = Mapping[str, tuple[RawFile, ...]]
"""Files by split: images and labels for IDX, a single file for MATLAB."""

MNIST: Parts = {
    "train": (
        RawFile(
            "train-images-idx3-ubyte",
            60000,
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        RawFile(
            "train-labels-idx1-ubyte",
            60000,
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
    ),
    "test": (
        RawFile(
            "t10k-images-idx3-ubyte",
            10000,
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        RawFile(
            "t10k-labels-idx1-ubyte",
            10000,
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
}
SVHN: Parts = {
    "train": (
        RawFile(
            "train_32x32.mat",
            73257,
            "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
        ),
    ),
    "test": (
        RawFile(
            "test_32x32.mat",
            26032,
            "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
        ),
    ),
}
SVHN_EXTRA: Parts = {
    "extra": (
        RawFile(
            "extra_32x32.mat",
            531131,
            "a133a4beb38a00fcdda90c9489e0c04f900b660ce8a316a5e854838379a71eb3",
        ),
    ),
}

_IDX_LIMIT = 16 + 60_000 * 28 * 28  # bytes of the largest, uncompressed


def find(folder: Path, file: RawFile) -> Path | None:
    """Where the file lies in the folder, gzipped or (preferred) not; None if absent."""
    for path in (folder / file.name, folder / f"{file.name}.gz"):
        if path.is_file():
            return path
    return None


def read(folder: Path, parts: Parts) -> dict[str, Examples]:
    """Reads and verifies all files of the parts.

    Args:
      folder: where they lie.
      parts: what they are, with the digests that they must have.

    Returns:
      The examples of each part, in the order of the files.

    Raises:
      InputError: a file is missing, unreadable, damaged or not the official one.
    """
    examples = {}
    for part, files in parts.items():
        paths = []
        for file in files:
            path = find(folder, file)
            if path is None:
                kinds = "" if file.name.endswith(".mat") else " (or the same with .gz)"
                raise InputError(f"no file {folder / file.name}{kinds}")
            paths.append(path)
        if files[0].name.endswith(".mat"):
            _verify(paths[0], _file_digest(paths[0]), files[0])
            found = parse_mat(paths[0])
        else:
            contents = [content(path) for path in paths]
            for path, data, file in zip(paths, contents, files, strict=True):
                _verify(path, hashlib.sha256(data).hexdigest(), file)
            found = examples_of_idx(contents, paths)
        if len(found[1]) != files[0].size:
            raise InputError(
                f"{paths[0]} holds {len(found[1])} examples, not {files[0].size}; "
                "fetch the official file again"
            )
        examples[part] = found
    return examples


def content(path: Path) -> bytes:
    """The bytes of a file, uncompressed when its name ends in .gz.

    Raises:
      InputError: it cannot be read, is larger than any of MNIST's, or the gzip stream
        is damaged or cut short.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as stream:
            data: bytes = stream.read(_IDX_LIMIT + 1)
    except (OSError, EOFError, zlib.error) as error:  # BadGzipFile is an OSError
        raise InputError(f"cannot read {path}: {error}; fetch it again") from error
    if len(data) > _IDX_LIMIT:  # its digest could be asked only once it is all there
        raise InputError(
            f"{path} holds more than the {_IDX_LIMIT:,} bytes of MNIST's largest file; "
            "fetch it again"
        )
    return data


def parse_idx(data: bytes, path: Path) -> NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes.

    Args:
      data: two zero bytes, 8 (for uint8), the number of dimensions, each of them as a
        big-endian 32-bit number, and the elements in C order.
      path: named in errors.

    Returns:
      uint8, of the shape that the header states; read-only.

    Raises:
      InputError: another magic number, or not as many bytes as the header says.
    """
    rank = data[3] if len(data) > 3 else 0
    if data[:3] != b"\0\0\x08" or not 1 <= rank <= 4 or len(data) < 4 + 4 * rank:
        raise InputError(
            f"{path} is not an IDX file of bytes: it begins with "
            f"0x{data[:4].hex()}, not 0x000008 and the number of dimensions"
        )
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", rank, offset=4))
    size = 1
    for n in shape:
        size *= n
    if len(data) != 4 + 4 * rank + size:
        raise InputError(
            f"{path} is damaged: its header says {size} elements {shape}, but "
            f"{len(data) - 4 - 4 * rank} bytes follow; fetch it again"
        )
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def parse(paths: list[Path]) -> Examples:
    """The examples in one .mat file or in two IDX files, whatever their digests.

    Raises:
      InputError: see `parse_mat`, `content`, `parse_idx` and `examples_of_idx`.
    """
    if len(paths) == 1:
        return parse_mat(paths[0])
    return examples_of_idx([content(path) for path in paths], paths)


def examples_of_idx(contents: list[bytes], paths: list[Path]) -> Examples:
    """The examples in an IDX file of images [N, H, W] and one of labels [N].

    Returns:
      Images uint8 [N, H, W, 1] and labels int32 [N].

    Raises:
      InputError: not IDX files, other shapes, or a label above 9.
    """
    images, labels = (parse_idx(*pair) for pair in zip(contents, paths, strict=True))
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise InputError(
            f"{paths[0]} and {paths[1]} do not belong together: shapes "
            f"{images.shape} and {labels.shape}, not [N, 28, 28] and [N]"
        )
    if labels.size and labels.max() > 9:
        raise InputError(f"{paths[1]} has the label {labels.max()}; allowed are 0 to 9")
    return images[..., None], labels.astype(np.int32)


def parse_mat(path: Path) -> Examples:
    """The examples in one of SVHN's MATLAB files.

    Returns:
      Images uint8 [N, 32, 32, 3] and labels int32 [N], 0 to 9.

    Raises:
      InputError: not a MATLAB file, `X` or `y` is missing or has another shape or type,
        or a label is outside 1 to 10.
    """
    import scipy.io  # 0.1 s that a warm start does not need

    try:
        values = scipy.io.loadmat(path, variable_names=("X", "y"))
    except Exception as error:  # on damage SciPy raises whatever its parser stumbles on
        raise InputError(f"cannot read {path} as a MATLAB file: {error}") from error
    if "X" not in values or "y" not in values:
        raise InputError(f"{path} does not hold SVHN's variables X and y")
    images, labels = values["X"], values["y"].reshape(-1)
    if images.dtype != np.uint8 or images.shape != (32, 32, 3, labels.size):
        raise InputError(
            f"{path}: X is {images.dtype} {images.shape}, not uint8 "
            f"(32, 32, 3, {labels.size}) as the {labels.size} labels ask for"
        )
    if labels.size and not (labels.min() >= 1 and labels.max() <= 10):
        raise InputError(
            f"{path} has labels from {labels.min()} to {labels.max()}; "
            "allowed are 1 to 10 (10 is the digit 0)"
        )
    nhwc = np.ascontiguousarray(images.transpose(3, 0, 1, 2))
    return nhwc, (labels % 10).astype(np.int32)


def to_idx(array: NDArray[np.uint8]) -> bytes:
    """The IDX file of an array of bytes; `parse_idx` is its inverse."""
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()


def verify_examples(
    examples: Mapping[str, Examples], parts: Parts, source: Path
) -> None:
    """Verifies examples that came by another way than the raw files.

    The content of IDX files follows from the examples, so its digest can be compared;
    of MATLAB files only the number of examples and the range of the labels.

    Raises:
      InputError: they are not those of the official files; `source` is named.
    """
    for part, files in parts.items():
        images, labels = examples[part]
        if len(labels) != files[0].size or labels.min() < 0 or labels.max() > 9:
            raise InputError(
                f"{source}: split {part} has {len(labels)} examples with labels from "
                f"{labels.min()} to {labels.max()}, not {files[0].size} with 0 to 9"
            )
        if len(files) == 2:
            for file, array in zip(
                files, (images[..., 0], labels.astype(np.uint8)), strict=True
            ):
                digest = hashlib.sha256(to_idx(array)).hexdigest()
                if digest != file.sha256:
                    raise InputError(
                        f"{source}: {part} is not the official {file.name}"
                    )


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}") from error


def _verify(path: Path, digest: str, file: RawFile) -> None:
    if digest != file.sha256:
        which = "uncompressed content" if "idx" in file.name else "file"
        raise InputError(
            f"{path} is not the official {file.name}: the SHA-256 of the {which} is "
            f"{digest}, not {file.sha256}; fetch it again"
        )


def stamps(folder: Path, parts: Parts) -> Iterator[str]:
    """What changes when a file of the parts does: path, size and times of each."""
    for files in parts.values():
        for file in files:
            path = find(folder, file)
            if path is not None:
                stat = path.stat()
                yield f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns} "
                yield f"{stat.st_ctime_ns} {file.sha256}\n"
