"""Arrays that are computed once, on the CPU.

XLA's CPU backend fuses an elementwise expression into each of its users, which compute
it again, though it must be written for a call into native code all the same. So what it
is computed from lives as long as the last of them: of a convolution, its bias and its
batch norm three maps are kept for the gradient in the place of two. What has gone
through here is opaque to XLA, and costs nothing: the native engine's call does nothing,
and its result is its operand, in the same place.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
from jax._src import dispatch  # no public name evaluates a primitive
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxdl.ops import engine

_TARGET = "jaxdl_materialise"
_materialise_p = Primitive(_TARGET)


def materialise(x: jax.Array) -> jax.Array:
    """`x`, of any shape and type, as an array that XLA does not compute twice."""
    return _materialise_p.bind(x)


def _jvp(primals: Sequence[jax.Array], tangents: Sequence[Any]) -> tuple[Any, Any]:
    return materialise(*primals), tangents[0]


def _batch(args: Sequence[Any], dims: Sequence[Any]) -> tuple[Any, Any]:
    return materialise(*args), dims[0]


def _lower(ctx: mlir.LoweringRuleContext, x: Any) -> Any:
    if engine.for_lowering(ctx) != "native":
        return [x]
    return jax.ffi.ffi_lowering(_TARGET, operand_output_aliases={0: 0})(ctx, x)


_materialise_p.def_impl(functools.partial(dispatch.apply_primitive, _materialise_p))
_materialise_p.def_abstract_eval(lambda x: x)
ad.primitive_jvps[_materialise_p] = _jvp
batching.primitive_batchers[_materialise_p] = _batch
mlir.register_lowering(_materialise_p, lambda ctx, x: [x])
mlir.register_lowering(_materialise_p, _lower, platform="cpu")
