"""What JAX's primitives are in terms of a few: moves, matrix products, sums, maxima.

Which entry goes where is found by moving indices: NumPy does so where it has the same
notion, else JAX's own primitives do.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl.convexity.program import as_rationals
from jaxdl.convexity.writer import Writer

Rewrite: TypeAlias = Callable[[Writer, Any, Sequence[int]], list[int] | None]
"""Of the equation of a jaxpr, with these variables for its inputs; returns its outputs,
or None where the equation is to stay as it is."""


def known(value: Any) -> Any:
    """A known array as the program has it: NumPy's, floats as float64; typed keys."""
    if hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.extended):
        return value
    array = np.asarray(value)
    return (
        array.astype(np.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array
    )


def _indices(shape: Sequence[int]) -> np.ndarray:
    return np.arange(math.prod(shape)).reshape(shape)


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
            args[k] = jnp.asarray(start + _indices(shape))
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
        at = move(_indices(writer.shapes[inputs[0]]), eqn.params, shape)
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


def _select(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int] | None:
    which, *cases = inputs
    shape = writer.shapes[cases[0]]
    if which in writer.data:
        choice = np.broadcast_to(writer.data[which].astype(np.int64), shape)
        return [writer.move(cases, choice * math.prod(shape) + _indices(shape))]
    e = writer.defined.get(which)
    if e is None or e.primitive not in ("gt", "ge", "lt", "le") or len(cases) != 2:
        return None
    a, b = e.inputs if e.primitive in ("gt", "ge") else e.inputs[::-1]
    for name, (no, yes) in (("max", (b, a)), ("min", (a, b))):  # a > b ? yes : no
        if _same(writer, cases[1], yes) and _same(writer, cases[0], no):
            return [writer.write(name, [yes, no], shape)]
    (v, no), (w, yes) = (_multiple(writer, case) for case in cases)
    for u, zero, more, less in (
        (a, b, yes, no),
        (b, a, no, yes),
    ):  # u > 0 ? more : less
        if v == w == u and zero in writer.data and np.all(writer.data[zero] == 0):
            return [writer.write("max" if more >= less else "min", cases, shape)]
    return None


def _multiple(writer: Writer, v: int) -> tuple[int, float]:
    """Of which variable v is a known multiple, and which; at least 1 times itself."""
    e = writer.defined.get(v)
    if e is not None and e.primitive == "neg":
        return e.inputs[0], -1.0
    if e is not None and e.primitive == "mul":
        for by, u in (e.inputs, e.inputs[::-1]):
            x = writer.data.get(by)
            same = writer.shapes[u] == writer.shapes[v]
            if x is not None and x.dtype == np.float64 and same and x.size:
                factor = float(x.reshape(-1)[0])
                if np.all(x == factor):
                    return u, factor
    return v, 1.0


def _same(writer: Writer, u: int, v: int) -> bool:
    """Whether two variables hold the same numbers, as far as can be seen."""
    if not writer.knows([u, v]):
        return u == v
    x, y = writer.data[u], writer.data[v]
    return x.dtype != object and y.dtype != object and bool(np.all(x == y))


# Known conditions


def _compare(function: Callable[[Any, Any], Any], itself: bool) -> Rewrite:
    def rewrite(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int] | None:
        a, b = inputs
        if writer.knows(inputs):
            x, y = writer.data[a], writer.data[b]
            if object in (x.dtype, y.dtype):
                try:
                    x, y = as_rationals(x), as_rationals(y)
                except ArithmeticError:
                    return None
            return [writer.know(np.asarray(function(x, y), bool))]
        if a == b:  # x != x asks for NaN, which no real number is
            return [writer.know(np.full(writer.shapes[a], itself))]
        return None

    return rewrite


def _is_finite(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int]:
    (v,) = inputs
    array = writer.data.get(v)
    if array is None or array.dtype == object:  # every real number is
        return [writer.know(np.ones(writer.shapes[v], bool))]
    return [writer.know(np.isfinite(array))]


def _or(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int] | None:
    """Of x or False: x."""
    for v, other in (inputs, inputs[::-1]):
        if eqn.outvars[0].aval.dtype != np.dtype(bool) or v not in writer.data:
            continue
        if not writer.data[v].any() and writer.shapes[v] == writer.shapes[other]:
            return [other]
    return None


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


# Arithmetic


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
    at = np.moveaxis(_indices(shape), axis, -1)[..., None, :]  # [..., out, in]
    seen = np.tri(n, dtype=bool)
    at = np.where(seen.T if eqn.params["reverse"] else seen, at, size)
    moved = writer.move([v, writer.know(np.asarray(0.0))], at)
    total = writer.write("reduce_sum", [moved], at.shape[:-1], axes=(at.ndim - 1,))
    return [writer.move([total], np.moveaxis(_indices(at.shape[:-1]), -1, axis))]


# Products


def _dot_general(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int]:
    (contract_a, contract_b), (batch_a, batch_b) = eqn.params["dimension_numbers"]
    a, b = inputs
    alike = (contract_a, batch_a) == (contract_b, batch_b)
    if a == b and alike and len(contract_a) + len(batch_a) == len(writer.shapes[a]):
        square = writer.write("integer_pow", [a], writer.shapes[a], y=2)
        kept = [d for d in range(len(writer.shapes[a])) if d not in contract_a]
        shape = [writer.shapes[a][d] for d in kept]
        total = writer.write("reduce_sum", [square], shape, axes=tuple(contract_a))
        order = [kept.index(d) for d in batch_a]
        return [writer.move([total], _indices(shape).transpose(order))]
    left, free_a = _matrices(writer, a, batch_a, contract_a, last=True)
    right, free_b = _matrices(writer, b, batch_b, contract_b, last=False)
    (n, rows, _), (_, _, columns) = writer.shapes[left], writer.shapes[right]
    product = writer.write("matmul", [left, right], (n, rows, columns))
    shape = [writer.shapes[a][d] for d in batch_a] + free_a + free_b
    return [writer.move([product], _indices(shape))]


def _matrices(
    writer: Writer, v: int, batch: Sequence[int], contract: Sequence[int], *, last: bool
) -> tuple[int, list[int]]:
    """As [batch, free, contracted], or with these two swapped; and the free sizes."""
    shape = writer.shapes[v]
    free = [d for d in range(len(shape)) if d not in (*batch, *contract)]
    groups = (batch, free, contract) if last else (batch, contract, free)
    at = _indices(shape).transpose([d for group in groups for d in group])
    at = at.reshape([math.prod(shape[d] for d in group) for group in groups])
    return writer.move([v], at), [shape[d] for d in free]


def _conv(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int] | None:
    """Each output is the product of a patch with the kernel."""
    p, (image, kernel) = eqn.params, inputs
    if p["feature_group_count"] != 1 or p["batch_group_count"] != 1:
        return None
    numbers, shape = p["dimension_numbers"], writer.shapes[kernel]

    def patches(x: jax.Array) -> np.ndarray:  # -> [1, N * positions, C * window]
        found = lax.conv_general_dilated_patches(
            jnp.transpose(x, numbers.lhs_spec),
            [shape[d] for d in numbers.rhs_spec[2:]],
            p["window_strides"],
            p["padding"],
            lhs_dilation=p["lhs_dilation"],
            rhs_dilation=p["rhs_dilation"],
            precision=lax.Precision.HIGHEST,
        )
        found = jnp.moveaxis(found, 1, -1)
        return np.asarray(found).reshape(1, -1, found.shape[-1])

    left = _windows(writer, image, patches, 0.0)
    at = _indices(shape).transpose(numbers.rhs_spec)
    at = at.reshape(1, at.shape[0], -1).swapaxes(1, 2)
    right = writer.move([kernel], at)
    rows, columns = writer.shapes[left][1], at.shape[-1]
    product = writer.write("matmul", [left, right], (1, rows, columns))
    out = [eqn.outvars[0].aval.shape[d] for d in numbers.out_spec]  # [N, K, *positions]
    order = np.moveaxis(_indices([out[0], *out[2:], out[1]]), -1, 1)
    return [writer.move([product], order.transpose(np.argsort(numbers.out_spec)))]


def _windows(
    writer: Writer, v: int, patches: Callable[[Any], np.ndarray], padding: float
) -> int:
    """`patches` of v, in which an index of 0 stands for padding."""
    shape = writer.shapes[v]
    at = patches(jnp.asarray(1.0 + _indices(shape))).astype(np.int64) - 1
    if (at >= 0).all():
        return writer.move([v], at)
    pad = writer.know(np.asarray(padding))
    return writer.move([v, pad], np.where(at < 0, math.prod(shape), at))


def _window(name: str) -> Rewrite:
    """Of reduce_window_sum and its like: a move, and a sum or so over the windows."""

    def rewrite(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int] | None:
        p = eqn.params
        if any(d != 1 for d in (*p["base_dilation"], *p["window_dilation"])):
            return None
        size, stride = p["window_dimensions"], p["window_strides"]

        def patches(x: jax.Array) -> np.ndarray:  # -> [*out, window]
            padded = np.pad(np.asarray(x), p["padding"])
            found = np.lib.stride_tricks.sliding_window_view(padded, size)
            found = found[tuple(slice(None, None, s) for s in stride)]
            found = found.reshape(*found.shape[: padded.ndim], -1)
            if name == "reduce_sum":
                return found
            return np.where(found == 0, found.max(-1, keepdims=True), found)  # again

        inside = patches(np.ones(writer.shapes[inputs[0]]))
        if name != "reduce_sum" and not inside.all():
            return None  # a window of nothing but padding, whose maximum is infinite
        moved = _windows(writer, inputs[0], patches, 0.0)
        shape = writer.shapes[moved][:-1]
        return [writer.write(name, [moved], shape, axes=(len(shape),))]

    return rewrite


REWRITES: Mapping[str, Rewrite] = {
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
    "select_n": _select,
    "eq": _compare(np.equal, True),
    "ne": _compare(np.not_equal, False),
    "lt": _compare(np.less, False),
    "le": _compare(np.less_equal, True),
    "gt": _compare(np.greater, False),
    "ge": _compare(np.greater_equal, True),
    "is_finite": _is_finite,
    "or": _or,
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
    "dot_general": _dot_general,
    "conv_general_dilated": _conv,
    "reduce_window_sum": _window("reduce_sum"),
    "reduce_window_max": _window("reduce_max"),
    "reduce_window_min": _window("reduce_min"),
}
