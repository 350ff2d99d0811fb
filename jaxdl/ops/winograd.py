"""Convolutions by 3x3 kernels in fewer multiplications: F(2x2, 3x3), in pure JAX.

Winograd's (1980), as Lavin and Gray (2016, "Fast Algorithms for Convolutional Neural
Networks") use it. A tile of 2x2 results takes 36 multiplications for each pair of
channels. Of its 4x4 pixels d and the kernel g, transformed, it takes 16:

    A' [(G g G') * (B' d B)] A

Each of the 16 places of all tiles together is a matrix product. The transforms add and
subtract, and halve twice: whole numbers stay exact. Where a pixel is infinite, its tile
is NaN. The native engine has the same, for 5x5 kernels too.

Images are [N, H, W, C], kernels [3, 3, C, O], results [N, rows, columns, O], strides
and dilations 1; sums and what is returned are float32, or float64 where the operands
are.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.ops.geometry import Convolution
from jaxdl.ops.taps import product

Lines = Sequence[jax.Array]
Transform = Callable[..., Lines]


def tiles(conv: Convolution, kernel: tuple[int, int] = (3, 3)) -> int:
    """How many tiles a convolution has; 0 where it is none by `kernel` at each pixel.

    Maps below 4x4 count as none: most of their tiles would be padding.
    """
    steps = (*conv.strides, *conv.dilation)
    if conv.kernel != kernel or steps != (1, 1, 1, 1):
        return 0
    if min(*conv.size, *conv.result) < 4:
        return 0
    return conv.images * math.prod((side + 1) // 2 for side in conv.result)


def forward(conv: Convolution, images: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution itself."""
    weights = _in_places(_of_kernel, [list(row) for row in kernel])
    return _convolve(images, weights, 0, _lows(conv), conv.result)


def input_gradient(
    conv: Convolution, gradient: jax.Array, kernel: jax.Array
) -> jax.Array:
    """The gradient of the images: a convolution by the kernel turned round."""
    weights = _in_places(_of_kernel, [list(row) for row in kernel[::-1, ::-1]])
    top, left = _lows(conv)
    return _convolve(gradient, weights, 1, (2 - top, 2 - left), conv.size)


def _lows(conv: Convolution) -> tuple[int, int]:
    """The padding above and to the left."""
    (top, _), (left, _) = conv.padding
    return top, left


def _convolve(
    images: jax.Array,
    weights: Lines,
    over: int,
    lows: tuple[int, int],
    result: tuple[int, int],
) -> jax.Array:
    """Of images with `lows` of padding, by products over axis `over` of the weights."""
    pixels = _in_places(_of_pixels, _tiles(images, lows, result))
    places = [product(d, g, (-1, over)) for d, g in zip(pixels, weights, strict=True)]
    square = [places[i : i + 4] for i in range(0, 16, 4)]
    upper_left, upper_right, *lower = _in_places(_to_results, square)
    pairs = [jnp.stack((upper_left, upper_right), 3), jnp.stack(lower, 3)]
    tiled = jnp.stack(pairs, 2)  # [N, tiles, 2, tiles, 2, O]
    count, down, _, across, _, outputs = tiled.shape
    whole = tiled.reshape(count, 2 * down, 2 * across, outputs)
    return whole[:, : result[0], : result[1]]


def _tiles(
    images: jax.Array, lows: tuple[int, int], result: tuple[int, int]
) -> list[list[jax.Array]]:
    """[i][j] is pixel (i, j) of what each tile sees, [N, tiles down, across, C]."""
    counts = [-(-side // 2) for side in result]
    pads = [
        (low, 2 * count + 2 - side - low, 0)
        for low, count, side in zip(lows, counts, images.shape[1:3], strict=True)
    ]
    padded = lax.pad(images, jnp.zeros((), images.dtype), ((0, 0, 0), *pads, (0, 0, 0)))
    down, across = (2 * count - 1 for count in counts)
    return [
        [padded[:, i : i + down : 2, j : j + across : 2] for j in range(4)]
        for i in range(4)
    ]


def _in_places(transform: Transform, square: Sequence[Lines]) -> list[jax.Array]:
    """The transform of all rows, and then of all columns: row by row."""
    columns = [transform(*column) for column in zip(*square, strict=True)]
    return [out for row in zip(*columns, strict=True) for out in transform(*row)]


def _of_pixels(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> Lines:
    return a - c, b + c, c - b, b - d  # B'


def _of_kernel(a: jax.Array, b: jax.Array, c: jax.Array) -> Lines:
    outer, inner = (a + c) * 0.5, b * 0.5
    return a, outer + inner, outer - inner, c  # G


def _to_results(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> Lines:
    return a + b + c, b - c - d  # A'
