"""A step of SGD with momentum, in one pass over its arrays on the CPU.

XLA's CPU backend gives each result a loop of its own, and each loop reads everything
again. It also copies parameters that it cannot prove to be read before they are
overwritten. For a small network that is a quarter of a training step. The native
engine's kernel takes all arrays at once, when all gradients are there, reads and writes
each once, and leaves the results in their place.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax._src import dispatch  # no public name evaluates a primitive
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxdl.ops import engine, varying

Number = float | jax.Array
"""A number, known or traced."""

_sgd_p = Primitive("jaxdl_sgd")
_sgd_p.multiple_results = True


def sgd(
    parameters: Sequence[jax.Array],
    traces: Sequence[jax.Array],
    gradients: Sequence[jax.Array],
    rate: Number,
    *,
    momentum: Number,
    decays: Sequence[Number],
    nesterov: bool,
    decoupled: bool,
) -> tuple[list[jax.Array], list[jax.Array]]:
    """One step of SGD, as `torch.optim.SGD` without dampening does it.

    Args:
      parameters: arrays of any shapes, floating point.
      traces: the running sum of the gradients of each.
      gradients: of each.
      rate: learning rate; this and all other numbers may be traced.
      momentum: what is kept of the traces.
      decays: for each array, the part of it that is added to its gradient.
      nesterov: whether the step looks ahead by one more momentum.
      decoupled: whether decays are added past the momentum.

    Returns:
      New parameters and traces.
    """
    dtype = jnp.result_type(jnp.float32, *parameters)
    numbers = jnp.stack([jnp.asarray(x, dtype) for x in (rate, momentum, *decays)])
    # Else a result would be of its parameter's type, whatever its gradient varies over.
    triples = [
        varying.alike(numbers, *triple)[1:]
        for triple in zip(parameters, traces, gradients, strict=True)
    ]
    results = _sgd_p.bind(
        numbers,
        *itertools.chain.from_iterable(zip(*triples, strict=True)),
        nesterov=bool(nesterov),
        decoupled=bool(decoupled),
    )
    return results[: len(parameters)], results[len(parameters) :]


def _parts(arrays: Sequence[Any]) -> tuple[Sequence[Any], ...]:
    """Parameters, traces and gradients."""
    size = len(arrays) // 3
    return arrays[:size], arrays[size : 2 * size], arrays[2 * size :]


def _meaning(
    numbers: jax.Array, *arrays: jax.Array, nesterov: bool, decoupled: bool
) -> list[jax.Array]:
    rate, momentum, *decays = numbers
    parameters, traces = [], []
    for p, t, g, decay in zip(*_parts(arrays), decays, strict=True):
        slope = g if decoupled else g + decay * p
        moved = (slope + momentum * t).astype(t.dtype)
        along = slope + momentum * moved if nesterov else moved
        if decoupled:
            along += decay * p
        parameters.append((p - rate * along).astype(p.dtype))
        traces.append(moved)
    return parameters + traces


def _type(numbers: Any, *arrays: Any, **params: Any) -> list[Any]:
    del numbers, params
    parameters, traces, gradients = _parts(arrays)
    for p, t, g in zip(parameters, traces, gradients, strict=True):
        if not p.shape == t.shape == g.shape:
            raise ValueError(f"sgd: shapes {p.shape}, {t.shape}, {g.shape} differ")
    return [a.update(weak_type=False) for a in (*parameters, *traces)]


def _jvp(
    primals: Sequence[jax.Array], tangents: Sequence[Any], **params: Any
) -> tuple[list[jax.Array], list[jax.Array]]:
    """That of `_meaning`, by those operands alone that have a tangent."""
    moved = [i for i, t in enumerate(tangents) if not isinstance(t, ad.Zero)]

    def meaning(*some: jax.Array) -> list[jax.Array]:
        given = dict(zip(moved, some, strict=True))
        return _meaning(*(given.get(i, x) for i, x in enumerate(primals)), **params)

    _, derivative = jax.jvp(
        meaning, [primals[i] for i in moved], [tangents[i] for i in moved]
    )
    return _sgd_p.bind(*primals, **params), derivative


def _batch(args: Sequence[Any], dims: Sequence[Any], **params: Any) -> tuple[Any, Any]:
    results = jax.vmap(functools.partial(_meaning, **params), dims)(*args)
    return results, [0] * len(results)


def _lower(ctx: mlir.LoweringRuleContext, *args: Any, **params: Any) -> Any:
    operands: list[Any] = list(ctx.avals_in)
    if engine.for_lowering(ctx) != "native" or any(
        a.dtype != jnp.float32 for a in operands
    ):
        return mlir.lower_fun(_meaning, multiple_results=True)(ctx, *args, **params)
    in_place = {1 + i: i for i in range(len(ctx.avals_out))}
    call = jax.ffi.ffi_lowering("jaxdl_sgd", operand_output_aliases=in_place)
    return call(ctx, *args, **params)


_sgd_p.def_impl(functools.partial(dispatch.apply_primitive, _sgd_p))
_sgd_p.def_abstract_eval(_type)
ad.primitive_jvps[_sgd_p] = _jvp
batching.primitive_batchers[_sgd_p] = _batch
mlir.register_lowering(_sgd_p, mlir.lower_fun(_meaning, multiple_results=True))
mlir.register_lowering(_sgd_p, _lower, platform="cpu")
