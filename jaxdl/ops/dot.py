"""Matrix products on the CPU by oneDNN, which is faster than XLA at those of a network.

`enable` replaces `lax.dot_general` at the moment when JAX hands it to XLA, where it is
a plain product of two matrices, large enough for a call to pay.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# No public name leads to the rule that ours falls back on.
from jax._src.lax.lax import _dot_general_lower
from jax.interpreters import mlir

from jaxdl.ops import conv, engine, native
from jaxdl.ops.geometry import DIRECTIONS, Direction

LEAST_WORK = 2**17
"""Multiply-adds below which XLA's own product is kept: a microsecond of work."""

_xla_lowering = functools.partial(_dot_general_lower, platform="cpu")


def enable() -> None:
    """Makes large matrix products compiled for the CPU from now on run in oneDNN."""
    # Not cached: equal layers would share a lowering, which knows the name of none.
    mlir.register_lowering(lax.dot_general_p, _lower, platform="cpu", cacheable=False)


def disable() -> None:
    """Gives matrix products on the CPU back to JAX's own lowering."""
    mlir.register_lowering(lax.dot_general_p, _xla_lowering, platform="cpu")


class Product(NamedTuple):
    """A matrix product, as a convolution of `images` pixels by a 1x1 kernel."""

    direction: Direction
    images: int
    channels: int
    outputs: int
    swapped: bool


def recognise(
    left: Any, right: Any, result: Any, params: dict[str, Any]
) -> Product | None:
    """Reads a `lax.dot_general`; None for what oneDNN does not take as it is.

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
    if rows * columns * depth < LEAST_WORK or min(rows, columns, depth) < 2:
        return None
    if left_axis == left.ndim - 1:
        return Product("forward", rows, depth, columns, swapped=right_axis == 1)
    if left_axis == 0 and left.ndim == 2 and right_axis == 0:
        return Product("weight gradient", depth, columns, rows, swapped=False)
    return None


def _native(
    product: Product,
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
    product = recognise(a, b, result, params)
    if product is None or engine.for_lowering(ctx) != "native":
        return _xla_lowering(ctx, left, right, **params)
    bf16 = [aval.dtype == jnp.bfloat16 for aval in (a, result)]
    geometry = native.Geometry(
        algorithm=native.ALGORITHMS.index("product"),
        direction=DIRECTIONS.index(product.direction),
        operand_bf16=bf16[0],
        result_bf16=bf16[1],
        images=product.images,
        height=1,
        width=1,
        channels=product.channels,
        rows=1,
        columns=1,
        outputs=product.outputs,
        kernel_height=1,
        kernel_width=1,
        stride_h=1,
        stride_w=1,
        dilation_h=1,
        dilation_w=1,
        top=0,
        bottom=0,
        left=0,
        right=0,
        swapped=product.swapped,
    )
    plan = native.plan(geometry)
    if isinstance(plan, str):
        return _xla_lowering(ctx, left, right, **params)
    compute = functools.partial(
        _native,
        product,
        geometry,
        plan,
        str(ctx.name_stack),
        result.shape,
        result.dtype,
    )
    return mlir.lower_fun(compute, multiple_results=False)(ctx, left, right)
