"""Convolutions of small maps, as sums of matrix products over the taps of the kernel.

A tap is a pixel of the kernel. What it sees of the map is one matrix, and its weights
are another; what it would see of the padding is never computed: a 3x3 kernel on 2x2
pixels takes 4/9 of the arithmetic, on one pixel 1/9. The native engine has the same.

Images are [N, H, W, C], kernels [h, w, C, O], results [N, rows, columns, O]; sums
and what is returned are float32, or float64 where the operands are.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.ops import sums
from jaxdl.ops.geometry import Convolution


def forward(conv: Convolution, images: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution itself."""
    total = jnp.zeros((conv.images, *conv.result, conv.outputs), sums.wide(conv.dtype))
    for tap in _taps(conv):
        seen = cut(images, tap.inputs, tap.size, conv.strides)
        total += put(product(seen, kernel[tap.place]), tap.outputs, conv.result)
    return total


def input_gradient(
    conv: Convolution, gradient: jax.Array, kernel: jax.Array
) -> jax.Array:
    """The gradient of the images, from that of the results."""
    total = jnp.zeros((conv.images, *conv.size, conv.channels), sums.wide(conv.dtype))
    for tap in _taps(conv):
        given = cut(gradient, tap.outputs, tap.size)
        part = product(given, kernel[tap.place], over=(-1, 1))
        total += put(part, tap.inputs, conv.size, conv.strides)
    return total


def weight_gradient(
    conv: Convolution, images: jax.Array, gradient: jax.Array
) -> jax.Array:
    """The gradient of the kernel; zeros where a tap sees nothing but padding."""
    parts = dict.fromkeys(
        itertools.product(*map(range, conv.kernel)),
        jnp.zeros((conv.channels, conv.outputs), sums.wide(conv.dtype)),
    )
    for tap in _taps(conv):
        seen = cut(images, tap.inputs, tap.size, conv.strides)
        given = cut(gradient, tap.outputs, tap.size)
        parts[tap.place] = product(
            seen.reshape(-1, conv.channels), given.reshape(-1, conv.outputs), (0, 0)
        )
    shape = (*conv.kernel, conv.channels, conv.outputs)
    return jnp.stack(list(parts.values())).reshape(shape)


def forward_of_pixel(
    conv: Convolution, images: jax.Array, kernel: jax.Array
) -> jax.Array:
    """For one pixel of result: one product with what the kernel sees of the map."""
    axes = [list(_live(conv, axis)) for axis in (0, 1)]
    if not all(axes):
        return jnp.zeros((conv.images, 1, 1, conv.outputs), sums.wide(conv.dtype))
    places, pixels = (
        tuple(slice(live[0][i], live[-1][i] + 1, step) for live, step in steps)
        for i, steps in (
            (0, zip(axes, (1, 1), strict=True)),
            (2, zip(axes, conv.dilation, strict=True)),
        )
    )
    seen, live = images[:, *pixels], kernel[places]
    result = product(seen.reshape(conv.images, -1), live.reshape(-1, conv.outputs))
    return result.reshape(conv.images, 1, 1, conv.outputs)


def forward_by_windows(
    conv: Convolution, images: jax.Array, kernel: jax.Array
) -> jax.Array:
    """All taps side by side in one product, those that see padding too ("im2col")."""
    pads = tuple((low, high, 0) for low, high in conv.padding)
    zero = jnp.zeros((), images.dtype)
    padded = lax.pad(images, zero, ((0, 0, 0), *pads, (0, 0, 0)))
    starts = itertools.product(
        *(range(0, k * d, d) for k, d in zip(conv.kernel, conv.dilation, strict=True))
    )
    windows = lax.concatenate(
        [cut(padded, start, conv.result, conv.strides) for start in starts], 3
    )
    return product(windows, kernel.reshape(-1, conv.outputs))


class _Tap(NamedTuple):
    """A pixel of the kernel, and the part of the map that it sees; rows, columns."""

    place: tuple[int, int]
    outputs: tuple[int, int]
    """The first pixel of the results that it adds to."""
    inputs: tuple[int, int]
    """The pixel that it sees for that one."""
    size: tuple[int, int]


def _taps(conv: Convolution) -> Iterator[_Tap]:
    """The pixels of the kernel that see anything but padding."""
    for rows, columns in itertools.product(_live(conv, 0), _live(conv, 1)):
        yield _Tap(*zip(rows, columns, strict=True))


def _live(conv: Convolution, axis: int) -> Iterator[tuple[int, int, int, int]]:
    """The same along one axis: tap, first output, its input, number of outputs."""
    stride, dilation, low = (
        conv.strides[axis],
        conv.dilation[axis],
        conv.padding[axis][0],
    )
    for tap in range(conv.kernel[axis]):
        first = tap * dilation - low
        outputs = [
            y
            for y in range(conv.result[axis])
            if 0 <= first + y * stride < conv.size[axis]
        ]
        if outputs:
            yield tap, outputs[0], first + outputs[0] * stride, len(outputs)


def product(
    left: jax.Array, right: jax.Array, over: tuple[int, int] = (-1, 0)
) -> jax.Array:
    """The sum of products over one axis of each, in float32 or wider."""
    axes = ((over[0] % left.ndim,), (over[1],))
    return lax.dot_general(
        left, right, (axes, ((), ())), preferred_element_type=sums.wide(left.dtype)
    )


def cut(
    images: jax.Array,
    start: tuple[int, ...],
    size: tuple[int, int],
    strides: tuple[int, int] = (1, 1),
) -> jax.Array:
    """Every `strides`-th pixel from `start` on, `size` of them."""
    ends = (f + (n - 1) * s + 1 for f, n, s in zip(start, size, strides, strict=True))
    return lax.slice(
        images,
        (0, *start, 0),
        (images.shape[0], *ends, images.shape[3]),
        (1, *strides, 1),
    )


def put(
    part: jax.Array,
    start: tuple[int, int],
    size: tuple[int, int],
    strides: tuple[int, int] = (1, 1),
) -> jax.Array:
    """Zeros of `size` around and between the pixels: the transpose of `cut`."""
    pads = (
        (first, whole - first - (n - 1) * s - 1, s - 1)
        for first, whole, n, s in zip(
            start, size, part.shape[1:3], strides, strict=True
        )
    )
    zero = jnp.zeros((), part.dtype)
    return lax.pad(part, zero, ((0, 0, 0), *pads, (0, 0, 0)))
