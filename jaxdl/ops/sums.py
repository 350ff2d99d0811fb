"""Sums over all axes but stack and channels: their meaning, and how the CPU sums.

XLA's own sums over rows reach a tenth of the memory's speed on the CPU. `lower_on_cpu`
has the native engine's kernels read each array once instead; where there is none, and
in programs that XLA partitions, the sums become products with rows of ones.

Arrays are [*stack, *axes, channels], vectors [*stack, channels]; `stacked` is the
number of leading axes, those of the stack.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import mlir
from jax.typing import DTypeLike

from jaxdl.ops import engine

TARGETS = ("jaxdl_moments", "jaxdl_channel_sums")
"""Names of the kernels, and of the primitives that they compute."""
_LONGEST_SUM = 512
"""Terms of one product with ones; as fast as longer ones, and more exact."""
_SHORTEST_SUM = 16
"""Shorter products are slower than cutting off what does not divide."""

Pair = tuple[jax.Array, jax.Array]
Sum = Callable[[jax.Array, int], jax.Array]
"""(x [*stack, *axes, channels], length of the stack) -> sums [*stack, channels]."""


def wide(*dtypes: DTypeLike) -> Any:
    """Number format of a computation: float32 or the wider one."""
    return jnp.result_type(*dtypes, jnp.float32)


def count_of(x: Any, stacked: int) -> int:
    """Number of terms of each sum."""
    return math.prod(x.shape[stacked:-1])


def _spread(v: jax.Array, x: jax.Array, stacked: int) -> jax.Array:
    """The vector [*stack, channels] with axes of size 1 in between, to go with `x`."""
    return v.reshape(*v.shape[:stacked], *(1,) * (x.ndim - stacked - 1), v.shape[-1])


def affine(
    x: jax.Array,
    centre: jax.Array,
    factor: jax.Array,
    offset: jax.Array,
    *,
    stacked: int,
    dtype: Any,
) -> jax.Array:
    """`(x - centre) * factor + offset`, then rounded to `dtype`."""
    centre, factor, offset = (_spread(v, x, stacked) for v in (centre, factor, offset))
    return ((x.astype(centre.dtype) - centre) * factor + offset).astype(dtype)


def plain_sum(x: jax.Array, stacked: int) -> jax.Array:
    """As XLA does it, which is right on GPU and TPU."""
    return x.sum(range(stacked, x.ndim - 1))


def product_sum(x: jax.Array, stacked: int) -> jax.Array:
    """As products with rows of ones, ten times faster on the CPU.

    Sums of sums of a few hundred each: one long sum in float32 would lose digits. A
    number of terms that `jax.export` is not to know cannot be cut, nor can terms whose
    types say that they are spread over a mesh; these are left to XLA.
    """
    count = count_of(x, stacked)
    spread = jax.typeof(x).sharding.spec[stacked:-1]
    if not isinstance(count, int) or any(axis is not None for axis in spread):
        return plain_sum(x, stacked)
    x = x.reshape(*x.shape[:stacked], count, x.shape[-1])
    if count > _LONGEST_SUM:
        length = max(i for i in range(1, _LONGEST_SUM + 1) if count % i == 0)
        if length < _SHORTEST_SUM:
            rest = count % _LONGEST_SUM
            parts = (
                lax.slice_in_dim(x, *ends, axis=stacked)
                for ends in ((0, count - rest), (count - rest, count))
            )
            head, tail = (product_sum(part, stacked) for part in parts)
            return head + tail
        shape = (*x.shape[:stacked], count // length, length, x.shape[-1])
        return product_sum(_row_of_ones(x.reshape(shape), stacked + 1), stacked)
    return _row_of_ones(x, stacked)


def _row_of_ones(x: jax.Array, stacked: int) -> jax.Array:
    """Product of ones [*stack, rows] and `x` [*stack, rows, channels]."""
    ones = jnp.ones(x.shape[:-1], x.dtype)
    stack = tuple(range(stacked))
    return lax.dot_general(ones, x, (((stacked,), (stacked,)), (stack, stack)))


def channel_sums(
    g: jax.Array, x: jax.Array, centre: jax.Array, *, total: Sum, stacked: int
) -> Pair:
    """Sums of `g` and of `g * (x - centre)`."""
    g = g.astype(centre.dtype)
    products = g * (x.astype(centre.dtype) - _spread(centre, x, stacked))
    return total(g, stacked), total(products, stacked)


def moments(x: jax.Array, *, total: Sum, stacked: int) -> Pair:
    """Mean and biased variance, in two passes."""
    x = x.astype(wide(x.dtype))
    count = count_of(x, stacked)
    mean = total(x, stacked) / count
    return mean, total(jnp.square(x - _spread(mean, x, stacked)), stacked) / count


def lower_on_cpu(
    target: str,
    pure: Callable[..., Any],
    ctx: mlir.LoweringRuleContext,
    *args: Any,
    **params: Any,
) -> Any:
    """Calls the kernel, or has XLA compute the pure form."""
    arrays: list[Any] = list(ctx.avals_in)
    if engine.for_lowering(ctx) == "native" and all(
        a.dtype in (jnp.float32, jnp.bfloat16) and a.size for a in arrays
    ):
        return jax.ffi.ffi_lowering(target)(ctx, *args, **params)
    return mlir.lower_fun(pure, multiple_results=True)(ctx, *args, **params)
