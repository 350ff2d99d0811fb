"""Convolutions on the CPU: one layout, so that they are fast inside loops too.

XLA's CPU backend has fast convolutions for one layout only: images [N, *space, C],
kernels [*space, C, O]. Its pass that brings others to it looks at a program's top level
and not into loops (`lax.scan`, `fori_loop`): there the gradients of a convolution run
in a plain loop nest, some ten times slower. `enable` does what the pass does, wherever
the convolution stands, when JAX hands it to XLA; values and derivatives are JAX's own.
"""

from typing import Any

import jax
from jax import lax

# No public name leads to the rule that ours falls back on.
from jax._src.lax.convolution import _conv_general_dilated_lower as _xla_lowering
from jax.interpreters import mlir


def enable() -> None:
    """Makes every convolution compiled for the CPU from now on use the fast layout.

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


_lower_in_fast_layout = mlir.lower_fun(_in_fast_layout, multiple_results=False)


def _lower(
    ctx: mlir.LoweringRuleContext, images: Any, kernel: Any, **params: Any
) -> Any:
    rank = len(params["dimension_numbers"].lhs_spec)
    ready = tuple(params["dimension_numbers"]) == tuple(fast_layout(rank))
    lower = _xla_lowering if ready else _lower_in_fast_layout
    return lower(ctx, images, kernel, **params)
