"""Matrix products on the CPU by the native engine, the faster at those of a network.

`enable` replaces `lax.dot_general` at the moment when JAX hands it to XLA, where it is
a plain product of two matrices, large enough for a call to pay.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# No public name leads to the rule that ours falls back on.
from jax._src.lax.lax import _dot_general_lower
from jax.interpreters import mlir

from jaxdl.ops import conv, engine, native
from jaxdl.ops.geometry import Convolution

LEAST_WORK = 2**17
"""Multiply-adds below which XLA's own product is kept: a microsecond of work."""

LEAST_WORK_OF_VECTOR = 2**20
"""The same for a vector and a matrix, which XLA does not spread over the cores."""

_IN_PLACE = (0, 1, 2, 3)

_xla_lowering = functools.partial(_dot_general_lower, platform="cpu")


def enable() -> None:
    """Has large products compiled for the CPU from now on run in the native engine."""
    # Not cached: equal layers would share a lowering, which knows the name of none.
    mlir.register_lowering(lax.dot_general_p, _lower, platform="cpu", cacheable=False)


def disable() -> None:
    """Gives matrix products on the CPU back to JAX's own lowering."""
    mlir.register_lowering(lax.dot_general_p, _xla_lowering, platform="cpu")


def recognise(
    left: Any, right: Any, result: Any, params: dict[str, Any]
) -> Convolution | None:
    """Reads a `lax.dot_general`; None for what oneDNN does not take as it is.

    A product is a convolution of single pixels, as many as there are rows, by a 1x1
    kernel.

    Args:
      left: abstract first operand.
      right: abstract second operand.
      result: abstract result.
      params: the parameters of the primitive.
    """
    (left_axes, right_axes), batch = params["dimension_numbers"]
    if (
        batch != ((), ())
        or len(left_axes) != 1
        or right.ndim != 2
        or left.dtype != right.dtype
        or left.dtype not in (jnp.float32, jnp.bfloat16)
        or result.dtype not in (left.dtype, jnp.float32)
        or isinstance(params["precision"], lax.DotAlgorithm | lax.DotAlgorithmPreset)
    ):
        return None
    (left_axis,), (right_axis,) = left_axes, right_axes
    depth = left.shape[left_axis]
    rows, columns = left.size // max(depth, 1), right.shape[1 - right_axis]
    least = LEAST_WORK if rows > 1 else LEAST_WORK_OF_VECTOR
    if rows * columns * depth < least or min(columns, depth) < 2:
        return None
    pixels = functools.partial(
        Convolution,
        size=(1, 1),
        kernel=(1, 1),
        result=(1, 1),
        strides=(1, 1),
        dilation=(1, 1),
        padding=((0, 0), (0, 0)),
        left=_IN_PLACE,
        out=_IN_PLACE,
        dtype=left.dtype,
        result_dtype=result.dtype,
    )
    if left_axis == left.ndim - 1:
        return pixels(
            "forward",
            images=rows,
            channels=depth,
            outputs=columns,
            right=(0, 1, 3, 2) if right_axis == 1 else _IN_PLACE,
        )
    if left_axis == 0 and left.ndim == 2 and right_axis == 0:
        return pixels(
            "weight gradient",
            images=depth,
            channels=columns,
            outputs=rows,
            right=_IN_PLACE,
        )
    return None


def _native(
    product: Convolution,
    geometry: native.Geometry,
    plan: native.Plan,
    layer: str,
    shape: tuple[int, ...],
    dtype: Any,
    left: jax.Array,
    right: jax.Array,
) -> jax.Array:
    if product.direction == "forward":
        left = left.reshape(-1, left.shape[-1])
        result = jax.ShapeDtypeStruct((product.images, product.outputs), dtype)
        return conv.call(geometry, plan, layer, left, right, result).reshape(shape)
    # JAX writes a weight gradient as (gradient, input) and transposes the product. XLA
    # drops the two transpositions.
    result = jax.ShapeDtypeStruct((product.channels, product.outputs), dtype)
    return conv.call(geometry, plan, layer, right, left, result).T


def _lower(ctx: mlir.LoweringRuleContext, left: Any, right: Any, **params: Any) -> Any:
    result: Any = ctx.avals_out[0]
    a: Any
    a, b = ctx.avals_in
    product = planned = None
    if engine.for_lowering(ctx) == "native":
        product = recognise(a, b, result, params)
    if product is not None:
        planned = conv.planned(product)
    if product is None or planned is None:
        return _xla_lowering(ctx, left, right, **params)
    compute = functools.partial(
        _native,
        product,
        *planned,
        str(ctx.name_stack),
        result.shape,
        result.dtype,
    )
    return mlir.lower_fun(compute, multiple_results=False)(ctx, left, right)
