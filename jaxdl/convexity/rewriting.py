"""What JAX's primitives are in terms of a few: moves, matrix products, sums, maxima.

Which entry goes where is found by moving indices: NumPy does so where it has the same
notion, else JAX's own primitives do.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.convexity import conditions, products
from jaxdl.convexity.program import as_rationals
from jaxdl.convexity.writer import Rewrite, Writer, indices


def known(value: Any) -> Any:
    """A known array as the program has it: NumPy's, floats as float64; typed keys."""
    if hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.extended):
        return value
    array = np.asarray(value)
    return (
        array.astype(np.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array
    )


# Data movement


def _movement(moved: Callable[[Sequence[int]], Sequence[int]]) -> Rewrite:
    """Of a primitive that moves some of its operands as the others, known, say."""

    def rewrite(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int] | None:
        moving = moved(range(len(inputs)))
        rest = [v for k, v in enumerate(inputs) if k not in moving]
        if not writer.knows(rest):
            return None
        args, start = [jnp.asarray(writer.data.get(v, 0)) for v in inputs], 1
        for k in moving:
            shape = writer.shapes[inputs[k]]
            args[k] = jnp.asarray(start + indices(shape))
            start += math.prod(shape)
        params = dict(eqn.params)
        params |= {key: None for key in ("sharding", "out_sharding") if key in params}
        if "fill_value" in params:
            params["fill_value"] = 0  # what lies outside, else NaN
        out = eqn.primitive.bind(*args, **params)
        results = out if eqn.primitive.multiple_results else [out]
        ats = [np.asarray(result) - 1 for result in results]
        if any((at < 0).any() for at in ats):
            outside = f"{eqn.primitive.name} outside of its operand"
            return [writer.write(outside, inputs, at.shape) for at in ats]
        return [writer.move([inputs[k] for k in moving], at) for at in ats]

    return rewrite


def _by_numpy(move: Callable[[np.ndarray, Any, Any], np.ndarray]) -> Rewrite:
    """Of what NumPy moves alike: it need not be compiled for each shape, as by JAX."""

    def rewrite(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int]:
        shape = eqn.outvars[0].aval.shape
        at = move(indices(writer.shapes[inputs[0]]), eqn.params, shape)
        return [writer.move(inputs[:1], at)]

    return rewrite


def _broadcast(at: np.ndarray, params: Any, shape: Sequence[int]) -> np.ndarray:
    sizes = [1] * len(shape)
    for size, d in zip(at.shape, params["broadcast_dimensions"], strict=True):
        sizes[d] = size
    return np.broadcast_to(at.reshape(sizes), shape)


def _slice(at: np.ndarray, params: Any, shape: Sequence[int]) -> np.ndarray:
    ends = (params["start_indices"], params["limit_indices"])
    strides = params["strides"] or [1] * at.ndim
    return at[tuple(slice(*each) for each in zip(*ends, strides, strict=True))]


# Arithmetic


def _convert(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int] | None:
    (v,), old, new = inputs, eqn.invars[0].aval.dtype, eqn.params["new_dtype"]
    if not jnp.issubdtype(new, jnp.floating):
        return None
    if jnp.issubdtype(old, jnp.floating):
        return [v]
    if v not in writer.data:
        if old != np.dtype(bool):
            return None
        none, one = (writer.know(np.full(writer.shapes[v], x)) for x in (0.0, 1.0))
        return [writer.write("select_n", [v, none, one], writer.shapes[v])]
    array = writer.data[v]
    floats = array.astype(np.float64)
    same = array.dtype == bool or (floats.astype(array.dtype) == array).all()
    return [writer.know(floats if same else as_rationals(array))]


def _without(neutral: float) -> Rewrite:
    """Of max and min: the other operand, if one is nothing but the neutral element."""

    def rewrite(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int] | None:
        for v, other in (inputs, inputs[::-1]):
            array = writer.data.get(v)
            wide = writer.shapes[other] == eqn.outvars[0].aval.shape
            if array is None or array.dtype == object or not wide:
                continue
            if (array == neutral).all():
                return [other]
        return None

    return rewrite


def _no_zero(*, either: bool) -> Rewrite:
    """Of x + 0 and x - 0: x."""

    def rewrite(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int] | None:
        for v, other in (inputs[::-1], inputs) if either else (inputs[::-1],):
            array = writer.data.get(v)
            wide = writer.shapes[other] == eqn.outvars[0].aval.shape
            if array is not None and wide and np.all(array == 0):
                return [other]
        return None

    return rewrite


def _unless_empty(neutral: float | None) -> Rewrite:
    """Of reductions: the neutral element, if there is one and nothing to reduce."""

    def rewrite(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int] | None:
        if 0 not in writer.shapes[inputs[0]]:
            return None
        shape = eqn.outvars[0].aval.shape
        if neutral is None:
            return [writer.write(f"{eqn.primitive.name} of nothing", inputs, shape)]
        return [writer.know(np.full(shape, neutral))]

    return rewrite


def _mul(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int] | None:
    a, b = inputs
    if a != b or a in writer.data:
        return None
    return [writer.write("integer_pow", [a], writer.shapes[a], y=2)]


def _square(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int]:
    return [writer.write("integer_pow", inputs, writer.shapes[inputs[0]], y=2)]


def _pow(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int] | None:
    base, power = inputs
    array = writer.data.get(power)
    if array is None or array.dtype == object or not array.size:
        return None
    y = float(array.reshape(-1)[0])
    if not (array == y).all() or not y.is_integer() or abs(y) > 1000:
        return None
    return [writer.write("integer_pow", [base], writer.shapes[base], y=int(y))]


def _clamp(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int]:
    low, x, high = inputs
    shape = writer.shapes[x]
    return [writer.write("min", [writer.write("max", [x, low], shape), high], shape)]


def _cosh(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int]:
    (v,) = inputs
    shape = writer.shapes[v]
    minus = writer.write("neg", [v], shape)
    both = [writer.write("exp", [u], shape) for u in (v, minus)]
    twice = writer.write("add", both, shape)
    return [writer.write("mul", [twice, writer.know(np.asarray(0.5))], shape)]


def _cumsum(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int]:
    (v,), axis = inputs, eqn.params["axis"]
    shape = writer.shapes[v]
    n, size = shape[axis], math.prod(shape)
    at = np.moveaxis(indices(shape), axis, -1)[..., None, :]  # [..., out, in]
    seen = np.tri(n, dtype=bool)
    at = np.where(seen.T if eqn.params["reverse"] else seen, at, size)
    moved = writer.move([v, writer.know(np.asarray(0.0))], at)
    total = writer.write("reduce_sum", [moved], at.shape[:-1], axes=(at.ndim - 1,))
    return [writer.move([total], np.moveaxis(indices(at.shape[:-1]), -1, axis))]


MOVES: Mapping[str, Rewrite] = {
    **dict.fromkeys(
        ("reshape", "squeeze", "expand_dims"),
        _by_numpy(lambda at, params, shape: at.reshape(shape)),
    ),
    "transpose": _by_numpy(
        lambda at, params, shape: at.transpose(params["permutation"])
    ),
    "broadcast_in_dim": _by_numpy(_broadcast),
    "slice": _by_numpy(_slice),
    **dict.fromkeys(
        (
            "rev",
            "tile",
            "split",
            "unstack",
            "dynamic_slice",
            "gather",
        ),
        _movement(lambda operands: operands[:1]),
    ),
    **dict.fromkeys(("pad", "dynamic_update_slice"), _movement(lambda o: o[:2])),
    **dict.fromkeys(("concatenate", "stack"), _movement(lambda operands: operands)),
    "scatter": _movement(lambda operands: operands[::2]),
}
"""Data movement: it does not ask what the entries are."""
REWRITES: Mapping[str, Rewrite] = {
    **MOVES,
    "select_n": conditions.select,
    "eq": conditions.compare(np.equal, True),
    "ne": conditions.compare(np.not_equal, False),
    "lt": conditions.compare(np.less, False),
    "le": conditions.compare(np.less_equal, True),
    "gt": conditions.compare(np.greater, False),
    "ge": conditions.compare(np.greater_equal, True),
    "is_finite": conditions.is_finite,
    "or": conditions.either,
    "convert_element_type": _convert,
    "max": _without(-np.inf),
    "min": _without(np.inf),
    "add": _no_zero(either=True),
    "add_any": _no_zero(either=True),
    "sub": _no_zero(either=False),
    "mul": _mul,
    "square": _square,
    "pow": _pow,
    "clamp": _clamp,
    "cosh": _cosh,
    "cumsum": _cumsum,
    "dot_general": products.dot_general,
    "conv_general_dilated": products.conv,
    "reduce_sum": _unless_empty(0.0),
    "reduce_prod": _unless_empty(1.0),
    "reduce_max": _unless_empty(None),
    "reduce_min": _unless_empty(None),
    "reduce_window_sum": products.window("reduce_sum"),
    "reduce_window_max": products.window("reduce_max"),
    "reduce_window_min": products.window("reduce_min"),
}
