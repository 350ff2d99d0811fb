"""Sums over all axes but the last on the CPU: gradients of biases, batch statistics.

XLA's CPU backend adds such columns up at a tenth of the memory's speed; in a VGG that
is an eighth of a training step. `enable` replaces `lax.reduce_sum` there, at the moment
when JAX hands it to XLA, by the native engine's sum or by a product with ones.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# No public name leads to the rule that ours falls back on.
from jax._src.lax.lax import _get_sum_identity, _unary_reduce_lower
from jax._src.lib.mlir.dialects import hlo
from jax.interpreters import mlir

from jaxdl.ops import engine, sums

LEAST_ROWS = 64
LEAST_SIZE = 2**15
"""Below either, XLA's own sum is kept: a call would cost more than it saves."""

_xla_lowering = functools.partial(_unary_reduce_lower, hlo.AddOp, _get_sum_identity)


def enable() -> None:
    """Makes sums over rows that are compiled for the CPU from now on fast."""
    mlir.register_lowering(lax.reduce_sum_p, _lower, platform="cpu")


def disable() -> None:
    """Gives sums on the CPU back to JAX's own lowering."""
    mlir.register_lowering(lax.reduce_sum_p, _xla_lowering, platform="cpu")


def is_columns(x: Any, axes: tuple[int, ...]) -> bool:
    """Whether a sum over `axes` of the abstract array adds up long columns."""
    return (
        x.dtype in (jnp.float32, jnp.bfloat16)
        and x.ndim >= 2
        and sorted(axes) == list(range(x.ndim - 1))
        and x.size >= max(LEAST_SIZE, LEAST_ROWS * x.shape[-1])
    )


def _native(x: jax.Array) -> jax.Array:
    result = jax.ShapeDtypeStruct(x.shape[-1:], jnp.float32)
    return jax.ffi.ffi_call("jaxdl_sum", result)(x).astype(x.dtype)


def _pure(x: jax.Array) -> jax.Array:
    return sums.product_sum(x.astype(jnp.float32), 0).astype(x.dtype)


def _lower(
    ctx: mlir.LoweringRuleContext, x: Any, *, axes: tuple[int, ...], **params: Any
) -> Any:
    chosen = engine.for_lowering(ctx)
    if chosen == "xla" or not is_columns(ctx.avals_in[0], axes):
        return _xla_lowering(ctx, x, axes=axes, **params)
    compute = _native if chosen == "native" else _pure
    return mlir.lower_fun(compute, multiple_results=False)(ctx, x)
