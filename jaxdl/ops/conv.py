"""Convolutions on the CPU: what XLA computes badly there, in a form it computes well.

XLA's CPU backend has fast convolutions for one layout only: images [N, *space, C],
kernels [*space, C, O]. Its pass that brings others to it looks at a program's top level
and not into loops (`lax.scan`, `fori_loop`): there the gradients of a convolution run
in a plain loop nest, some ten times slower. And for results of a few pixels with many
channels, as deep in a VGG, even the fast layout reaches one percent of the machine.

`enable` mends both, wherever a convolution stands, at the moment when JAX hands it to
XLA: it transposes to the fast layout, and turns small convolutions into one matrix
product. Differentiation, `vmap` and the rest of JAX happen before and know nothing.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# No public name leads to the rule that ours falls back on.
from jax._src.lax.convolution import _conv_general_dilated_lower as _xla_lowering
from jax.interpreters import mlir

MOST_PIXELS = 4
"""Up to 2x2 pixels of result, a convolution is computed as a matrix product. Measured
on Zen 4: XLA reaches 1 GFLOP/s there, the product 70; from 3x3 on XLA is ahead."""
MOST_TAPS = 25
"""Up to 5x5 pixels of kernel; a larger one makes too large a matrix."""


def enable() -> None:
    """Makes every convolution compiled for the CPU from now on run in its fast form.

    GPU and TPU are untouched, and so is what was compiled before. Calling it again
    changes nothing.
    """
    mlir.register_lowering(lax.conv_general_dilated_p, _lower, platform="cpu")


def disable() -> None:
    """Gives convolutions on the CPU back to JAX's own lowering."""
    mlir.register_lowering(lax.conv_general_dilated_p, _xla_lowering, platform="cpu")


def fast_layout(rank: int) -> lax.ConvDimensionNumbers:
    """Dimension numbers of the layout that XLA's CPU convolutions are fast in.

    Args:
      rank: dimensions of the images: batch, channels and those of space.
    """
    space = tuple(range(1, rank - 1))
    images = (0, rank - 1, *space)
    return lax.ConvDimensionNumbers(
        images, (rank - 1, rank - 2, *range(rank - 2)), images
    )


def _in_fast_layout(
    images: jax.Array,
    kernel: jax.Array,
    *,
    dimension_numbers: lax.ConvDimensionNumbers,
    **params: Any,
) -> jax.Array:
    """The same convolution, between transpositions."""
    batch, channels, *space = dimension_numbers.lhs_spec
    images = lax.transpose(images, (batch, *space, channels))
    outputs, inputs, *space = dimension_numbers.rhs_spec
    kernel = lax.transpose(kernel, (*space, inputs, outputs))
    result = lax.conv_general_dilated_p.bind(
        images, kernel, dimension_numbers=fast_layout(images.ndim), **params
    )
    batch, channels, *space = dimension_numbers.out_spec
    places = (batch, *space, channels)
    return lax.transpose(result, [places.index(i) for i in range(result.ndim)])


def _as_product(
    images: jax.Array,
    kernel: jax.Array,
    *,
    window_strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    precision: Any,
    preferred_element_type: Any,
    **params: Any,
) -> jax.Array:
    """The same convolution, from the fast layout, as one matrix product.

    Each window becomes a row of pixels x channels, laid side by side as in the kernel
    ("im2col", Chellapilla et al. 2006).
    """
    del params
    count, *_, channels = images.shape
    height, width, _, outputs = kernel.shape
    padded = lax.pad(
        images,
        jnp.zeros((), images.dtype),
        ((0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)),
    )
    down, across = window_strides
    rows, columns = result_size(images.shape, kernel.shape, window_strides, padding)
    taps = [
        lax.slice(
            padded,
            (0, i, j, 0),
            (
                count,
                i + (rows - 1) * down + 1,
                j + (columns - 1) * across + 1,
                channels,
            ),
            (1, down, across, 1),
        )
        for i in range(height)
        for j in range(width)
    ]
    windows = lax.concatenate(taps, 3).reshape(count * rows * columns, -1)
    result = lax.dot_general(
        windows,
        kernel.reshape(-1, outputs),
        (((1,), (0,)), ((), ())),
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
    return result.reshape(count, rows, columns, outputs)


def result_size(
    images: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
) -> tuple[int, int]:
    """Rows and columns of the result, for shapes in the fast layout."""
    rows, columns = (
        max(0, (size + low + high - reach) // stride + 1)
        for size, reach, stride, (low, high) in zip(
            images[1:3], kernel[:2], strides, padding, strict=True
        )
    )
    return rows, columns


def _is_better_as_product(
    images: tuple[int, ...], kernel: tuple[int, ...], params: dict[str, Any]
) -> bool:
    """Whether XLA's own convolution is the slower one; for shapes in the fast layout.

    Decided by static shapes alone, so that the same program gives the same bits.
    """
    plain = (
        len(images) == 4
        and params["feature_group_count"] == params["batch_group_count"] == 1
        and set(params["lhs_dilation"]) == set(params["rhs_dilation"]) == {1}
        # The windows of a weight gradient are as large as its images.
        and kernel[0] * kernel[1] <= MOST_TAPS
        and min(images) > 0
        and min(itertools.chain(*params["padding"])) >= 0
    )
    if not plain:
        return False
    rows, columns = result_size(
        images, kernel, params["window_strides"], params["padding"]
    )
    return 0 < rows * columns <= MOST_PIXELS


_lower_as_product = mlir.lower_fun(_as_product, multiple_results=False)
_lower_in_fast_layout = mlir.lower_fun(_in_fast_layout, multiple_results=False)


def _lower(
    ctx: mlir.LoweringRuleContext, images: Any, kernel: Any, **params: Any
) -> Any:
    rank = len(params["dimension_numbers"].lhs_spec)
    ready = tuple(params["dimension_numbers"]) == tuple(fast_layout(rank))
    if not ready:
        return _lower_in_fast_layout(ctx, images, kernel, **params)
    shapes: list[Any] = [getattr(aval, "shape", ()) for aval in ctx.avals_in]
    better = _is_better_as_product(shapes[0], shapes[1], params)
    lower = _lower_as_product if better else _xla_lowering
    return lower(ctx, images, kernel, **params)
