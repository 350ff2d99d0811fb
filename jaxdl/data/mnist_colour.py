"""`mnist_colour`: MNIST's digits on coloured grounds, 32x32 RGB, by a seeded rule.

A set of this project, not one of the literature: as small and easy as MNIST, but in
the format of SVHN, so that a network of one can be tried on the other. An image is the
digit's grey levels, padded by two pixels, taken as the opacity of an ink on a ground:

    pixel = ground + grey / 255 * (ink - ground)

The ground is a random colour with a random slope across the frame; the ink is another
random colour, darker or brighter. Their luma (Rec. 601) differs by `CONTRAST` or more
at every pixel. So no digit is hidden, and neither being bright nor being dark tells
digit from ground.

The colours of image i derive from (VERSION, split, i): they know nothing of its label,
so no colour is a short cut to it. The bytes are the same on every machine, since only
operations that IEEE 754 rounds exactly are used, on Philox's raw bits.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from numpy.typing import NDArray

VERSION = 1
"""Changes whenever the images do; a cache of them keeps it beside them."""
SIDE = 32
CONTRAST = 0.25
"""Least difference of luma between ink and ground at a pixel; white has 1."""
SLOPE = 0.1
"""Most by which a channel of the ground departs from its mean within the frame."""

_BLOCK = 1000  # images drawn together: their planes stay in the processor's cache
_DRAWS = 12  # random numbers to an image

Array = NDArray[np.float32]


def colour(
    images: NDArray[np.uint8], split: Literal["train", "test"]
) -> NDArray[np.uint8]:
    """Puts grey digits in colour.

    Args:
      images: uint8 [N, 28, 28, 1], in the order of their official files, of which the
        colours are a function.
      split: which one it is; the colours of the two are drawn apart.

    Returns:
      uint8 [N, 32, 32, 3].
    """
    coloured = np.empty((len(images), SIDE, SIDE, 3), np.uint8)
    inks, grounds, slopes = colours(len(images), split)

    def fill(start: int) -> None:
        some = slice(start, start + _BLOCK)
        coloured[some] = _paint(images[some], inks[some], grounds[some], slopes[some])

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(fill, range(0, len(images), _BLOCK)):
            pass  # raises what a block raised
    return coloured


def colours(count: int, split: Literal["train", "test"]) -> tuple[Array, Array, Array]:
    """Draws the colours of the first `count` images of a split.

    Args:
      count: how many.
      split: which split.

    Returns:
      Inks and mean grounds, float32 [count, 3], in [0, 1]; and the slopes of the
      grounds down and across, float32 [count, 2, 3]: the change of each channel from
      the middle of the frame to its edge.
    """
    key = np.array([VERSION, split == "test"], np.uint64)
    words = np.random.Philox(key=key).random_raw(count * _DRAWS).reshape(count, _DRAWS)
    draws = (words >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
    grounds, hues = draws[:, :3], draws[:, 3:6]
    # Of the lumas far enough from the ground's, each is as likely as any other.
    away = np.float32(CONTRAST + SLOPE)
    middle = luma(grounds)
    below = np.maximum(middle - away, 0)
    above = np.maximum(1 - away - middle, 0)
    place = draws[:, 6] * (below + above)
    target = np.where(place < below, place, middle + away + (place - below))
    inks = _of_luma(hues, target)
    direction = 2 * draws[:, 7:9] - 1
    direction /= np.maximum(np.abs(direction).sum(1, keepdims=True), np.float32(1e-3))
    tints = np.float32(SLOPE) * (2 * draws[:, 9:] - 1)
    return inks, grounds, direction[:, :, None] * tints[:, None]


def luma(rgb: Array) -> Array:
    """Brightness by Rec. 601, [..., 3] -> [...]; of white 1."""
    weighted = rgb * np.array([0.299, 0.587, 0.114], np.float32)
    return weighted[..., 0] + weighted[..., 1] + weighted[..., 2]


def _of_luma(rgb: Array, target: Array) -> Array:
    """Mixes each colour with black or white until it has that luma."""
    now = luma(rgb)
    darker = rgb * (target / np.maximum(now, np.float32(1e-6)))[:, None]
    share = (1 - target) / np.maximum(1 - now, np.float32(1e-6))
    lighter = 1 - (1 - rgb) * share[:, None]
    return np.where((target < now)[:, None], darker, lighter)


def _paint(
    images: NDArray[np.uint8], inks: Array, grounds: Array, slopes: Array
) -> NDArray[np.uint8]:
    edge = (SIDE - images.shape[1]) // 2
    padded = np.pad(images, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    opacity = padded.astype(np.float32) * np.float32(1 / 255)
    place = (np.arange(SIDE, dtype=np.float32) * 2 + 1 - SIDE) / np.float32(SIDE - 1)
    ground = grounds[:, None, None] + (
        place[:, None, None] * slopes[:, None, None, 0]
        + place[:, None] * slopes[:, None, None, 1]
    )
    ground = np.clip(ground, 0, 1)
    pixels = ground + opacity * (inks[:, None, None] - ground)
    return (pixels * 255 + np.float32(0.5)).astype(np.uint8)
