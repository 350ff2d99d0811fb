"""`synthetic_svhn`: house-number crops in the manner of SVHN, from a seed.

The real Street View House Numbers set (Netzer et al., "Reading Digits in Natural
Images with Unsupervised Feature Learning", NIPS workshop 2011) cannot be embedded, and
is often out of reach. This generator renders a stand-in with its sizes (73,257 training
and 26,032 test images, 32x32x3 uint8) and its class frequencies: a digit in the middle,
its neighbours cut by the frame, on brick, boards, stucco, wood or a plate, seen at an
angle through a small, noisy, badly lit camera that writes JPEG. The typefaces of the
test images never draw a training image. Figures on it are not figures on SVHN.

An image depends on (VERSION, split, seed, index) and on nothing else: not on the
count, the number of threads or the processor. The scene is rendered with the
operations that IEEE 754 rounds exactly (+ - * / sqrt) on Philox's raw bits, so it is
the same on every machine; the camera ends in Pillow's JPEG, so the final bytes are the
same wherever Pillow carries libjpeg-turbo, as its wheels do.

The drawing is in `jaxdl.data.house_numbers`; here are the order, the random numbers
and the camera.
"""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jaxdl.data import house_numbers
from jaxdl.data.house_numbers import DIFFICULTY
from jaxdl.data.house_walls import SIDE, Array
from jaxdl.errors import InputError

VERSION = 1
"""Changes whenever the images do; a cache of them keeps it beside them."""

COUNTS = {
    # SVHN's own number of images of the digits 0 to 9.
    "train": (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659),
    "test": (1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595),
}

_BLOCK = 64  # images drawn together: their planes stay in the processor's cache
_CAMERAS = 8  # different ones in a block


def typefaces(split: Literal["train", "test"]) -> tuple[str, ...]:
    """Returns the names of the typefaces that draw a split's images."""
    _check_split(split)
    return house_numbers.typefaces(split == "test")


def generate(
    split: Literal["train", "test"], *, count: int | None = None, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Renders a split, or the first `count` images of it.

    Args:
        split: "train" (73,257 images) or "test" (26,032).
        count: how many; None for all, whose class frequencies are exactly SVHN's.
        seed: another seed, another set. At least 0.

    Returns:
        images uint8 [count, 32, 32, 3] and labels int32 [count]; a label is the digit.

    Raises:
        InputError: for a split, count or seed that there is not.
    """
    _check_split(split)
    size = sum(COUNTS[split])
    count = size if count is None else count
    if not 0 <= count <= size:
        raise InputError(
            f"synthetic_svhn has {size} {split} images, not {count}; "
            f"ask for 0 to {size}, or None for all"
        )
    if not 0 <= seed < 2**63:
        raise InputError(f"seed {seed} is not in 0 ... 2**63 - 1; give such a one")
    labels = _labels(split, seed)
    images = np.empty((count, SIDE, SIDE, 3), np.uint8)

    def fill(block: int) -> None:
        start = block * _BLOCK
        digits = np.resize(labels[start : start + _BLOCK], _BLOCK)
        rendered = _block(split, seed, block, digits)
        images[start : start + _BLOCK] = rendered[: count - start]

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for _ in pool.map(fill, range(-(-count // _BLOCK))):
            pass  # raises what a block raised
    return images, labels[:count].copy()


def _check_split(split: str) -> None:
    if split not in COUNTS:
        raise InputError(
            f"synthetic_svhn has no split {split!r}; choose one of {', '.join(COUNTS)}"
        )


def _bits(split: str, seed: int, block: int) -> np.random.Philox:
    """Returns the stream of one block; block -1 is the order of the labels."""
    stream = 2 * (block + 1) + (split == "test")
    return np.random.Philox(key=np.array([seed, stream], np.uint64))


def _labels(split: str, seed: int) -> NDArray[np.int32]:
    digits = np.repeat(np.arange(10, dtype=np.int32), COUNTS[split])
    order = np.argsort(_bits(split, seed, -1).random_raw(digits.size), kind="stable")
    return digits[order]


def _block(
    split: str, seed: int, block: int, digits: NDArray[np.int32]
) -> NDArray[np.uint8]:
    bits = _bits(split, seed, block)

    def uniform(*shape: int) -> Array:
        """The next numbers in [0, 1): 24 bits each, two to a word."""
        size = int(np.prod(shape))
        words = bits.random_raw(-(-size // 2)).astype("<u8").view("<u4")[:size]
        return ((words >> 8).astype(np.float32) * np.float32(2**-24)).reshape(shape)

    # A few cameras share the block, dealt at random: a JPEG per film, not per image.
    camera = np.argsort(uniform(_BLOCK), kind="stable") % _CAMERAS
    least, most = DIFFICULTY.native
    sides = np.minimum(least + np.float32(most - least) * uniform(_CAMERAS), SIDE)
    worst, best = DIFFICULTY.quality
    quality = worst + (best - worst) * uniform(_CAMERAS)
    faint = 2 - sides[camera] / np.float32(SIDE)
    share = np.array(COUNTS[split], np.float32) / np.float32(sum(COUNTS[split]))
    scene = house_numbers.scene(split == "test", digits, share, faint, uniform)
    # The sum of four bytes is nearly normal, its standard deviation 147.8.
    noise = bits.random_raw(scene.size // 2).astype("<u8").view("<u4")
    noise = (noise & 0xFF00FF) + ((noise >> 8) & 0xFF00FF)
    noise = ((noise & 0xFFFF) + (noise >> 16)).astype(np.float32) - 510
    sigma = uniform(_BLOCK, 1, 1, 1)
    sigma = sigma * sigma * np.float32(DIFFICULTY.noise / 147.8)
    scene += noise.reshape(scene.shape) * sigma
    exposed = np.clip(scene * 255 + np.float32(0.5), 0, 255).astype(np.uint8)
    exposed = np.ascontiguousarray(exposed.transpose(0, 2, 3, 1))
    images = np.empty_like(exposed)
    for film, (side, setting) in enumerate(zip(sides, quality, strict=True)):
        on_film = camera == film
        images[on_film] = _develop(exposed[on_film], int(side), int(setting))
    return images


def _develop(images: NDArray[np.uint8], side: int, quality: int) -> NDArray[np.uint8]:
    """Takes images at `side` pixels, writes them as JPEG, and enlarges what is read.

    uint8 [B, S, S, 3] to the same. The images lie one below the other in the JPEG,
    each padded to whole 16-pixel blocks, so that none leaks into another.
    """
    small = _resize(images, side, Image.Resampling.BILINEAR)
    pad = -side % 16
    film = np.pad(small, ((0, 0), (0, pad), (0, pad), (0, 0)), mode="edge")
    buffer = io.BytesIO()
    picture = Image.fromarray(film.reshape(-1, side + pad, 3))
    picture.save(buffer, "JPEG", quality=quality)
    read = np.asarray(Image.open(buffer)).reshape(film.shape)
    return _resize(read[:, :side, :side], SIDE, Image.Resampling.BICUBIC)


def _resize(
    images: NDArray[np.uint8], side: int, filter: Image.Resampling
) -> NDArray[np.uint8]:
    """Resizes uint8 [B, S, S, 3] to [B, side, side, 3], all images at once.

    Twice along the axis at right angles to the strip in which they lie.
    """
    if side == images.shape[1]:
        return images
    for _ in range(2):
        count, height, width, _channels = images.shape
        strip = Image.fromarray(images.reshape(count * height, width, 3))
        strip = strip.resize((side, count * height), filter)
        images = np.asarray(strip).reshape(count, height, side, 3)
        images = np.ascontiguousarray(images.transpose(0, 2, 1, 3))
    return images
