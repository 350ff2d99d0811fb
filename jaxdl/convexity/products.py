"""Products, convolutions and windows as matrix products, sums and maxima."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl.convexity.writer import Rewrite, Writer, indices


def dot_general(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int]:
    """Of a contraction: a product of matrices, or a sum of squares."""
    (contract_a, contract_b), (batch_a, batch_b) = eqn.params["dimension_numbers"]
    a, b = inputs
    alike = (contract_a, batch_a) == (contract_b, batch_b)
    if a == b and alike and len(contract_a) + len(batch_a) == len(writer.shapes[a]):
        square = writer.write("integer_pow", [a], writer.shapes[a], y=2)
        kept = [d for d in range(len(writer.shapes[a])) if d not in contract_a]
        shape = [writer.shapes[a][d] for d in kept]
        total = writer.write("reduce_sum", [square], shape, axes=tuple(contract_a))
        order = [kept.index(d) for d in batch_a]
        return [writer.move([total], indices(shape).transpose(order))]
    left, free_a = _matrices(writer, a, batch_a, contract_a, last=True)
    right, free_b = _matrices(writer, b, batch_b, contract_b, last=False)
    (n, rows, _), (_, _, columns) = writer.shapes[left], writer.shapes[right]
    product = writer.write("matmul", [left, right], (n, rows, columns))
    shape = [writer.shapes[a][d] for d in batch_a] + free_a + free_b
    return [writer.move([product], indices(shape))]


def _matrices(
    writer: Writer, v: int, batch: Sequence[int], contract: Sequence[int], *, last: bool
) -> tuple[int, list[int]]:
    """As [batch, free, contracted], or with these two swapped; and the free sizes."""
    shape = writer.shapes[v]
    free = [d for d in range(len(shape)) if d not in (*batch, *contract)]
    groups = (batch, free, contract) if last else (batch, contract, free)
    at = indices(shape).transpose([d for group in groups for d in group])
    at = at.reshape([math.prod(shape[d] for d in group) for group in groups])
    return writer.move([v], at), [shape[d] for d in free]


def conv(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int] | None:
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
    at = indices(shape).transpose(numbers.rhs_spec)
    at = at.reshape(1, at.shape[0], -1).swapaxes(1, 2)
    right = writer.move([kernel], at)
    rows, columns = writer.shapes[left][1], at.shape[-1]
    product = writer.write("matmul", [left, right], (1, rows, columns))
    out = [eqn.outvars[0].aval.shape[d] for d in numbers.out_spec]  # [N, K, *positions]
    order = np.moveaxis(indices([out[0], *out[2:], out[1]]), -1, 1)
    return [writer.move([product], order.transpose(np.argsort(numbers.out_spec)))]


def _windows(
    writer: Writer, v: int, patches: Callable[[Any], np.ndarray], padding: float
) -> int:
    """`patches` of v, in which an index of 0 stands for padding."""
    shape = writer.shapes[v]
    at = patches(jnp.asarray(1.0 + indices(shape))).astype(np.int64) - 1
    if (at >= 0).all():
        return writer.move([v], at)
    pad = writer.know(np.asarray(padding))
    return writer.move([v, pad], np.where(at < 0, math.prod(shape), at))


def window(name: str) -> Rewrite:
    """Of reduce_window_sum and its like: a move, and a sum or so over the windows."""

    def rewrite(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int] | None:
        p = eqn.params
        if any(d != 1 for d in (*p["base_dilation"], *p["window_dilation"])):
            return None
        if any(side < 0 for sides in p["padding"] for side in sides):
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

        inside = patches(jnp.ones(writer.shapes[inputs[0]]))
        if name != "reduce_sum" and not inside.all():
            return None  # a window of nothing but padding, whose maximum is infinite
        moved = _windows(writer, inputs[0], patches, 0.0)
        shape = writer.shapes[moved][:-1]
        return [writer.write(name, [moved], shape, axes=(len(shape),))]

    return rewrite
