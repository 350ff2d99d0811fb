"""Choices and conditions: what is known of them, and those that are maxima."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxdl.convexity.program import as_rationals
from jaxdl.convexity.writer import Rewrite, Writer, indices


def select(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int] | None:
    """Of a known choice: a move. Of a > b ? a : b and such: a maximum or minimum."""
    which, *cases = inputs
    shape = writer.shapes[cases[0]]
    if which in writer.data:
        choice = np.broadcast_to(writer.data[which].astype(np.int64), shape)
        return [writer.move(cases, choice * math.prod(shape) + indices(shape))]
    e = writer.defined.get(which)
    if e is None or e.primitive not in ("gt", "ge", "lt", "le") or len(cases) != 2:
        return None
    if eqn.outvars[0].aval.dtype == np.dtype(bool):  # no numbers
        return None
    a, b = e.inputs if e.primitive in ("gt", "ge") else e.inputs[::-1]
    for name, (no, yes) in (("max", (b, a)), ("min", (a, b))):  # a > b ? yes : no
        if _same(writer, cases[1], yes) and _same(writer, cases[0], no):
            return [writer.write(name, [yes, no], shape)]
    (v, lower), (w, upper) = (_multiple(writer, case) for case in cases)
    # u > 0 ? above u : below u
    ways = (a, b, upper, lower), (b, a, lower, upper)
    for u, zero, above, below in ways:
        if v == w == u and zero in writer.data and np.all(writer.data[zero] == 0):
            return [writer.write("max" if above >= below else "min", cases, shape)]
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


def compare(function: Callable[[Any, Any], Any], itself: bool) -> Rewrite:
    """Of what compares two known arrays, or a variable with itself."""

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
        if a == b and writer.real(a):  # x != x asks for NaN, which is not real
            return [writer.know(np.full(writer.shapes[a], itself))]
        return None

    return rewrite


def is_finite(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int] | None:
    """Of real numbers: true."""
    (v,) = inputs
    if writer.real(v):
        return [writer.know(np.ones(writer.shapes[v], bool))]
    return [writer.know(np.isfinite(writer.data[v]))] if v in writer.data else None


def either(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int] | None:
    """Of x or False: x."""
    for v, other in (inputs, inputs[::-1]):
        if eqn.outvars[0].aval.dtype != np.dtype(bool) or v not in writer.data:
            continue
        if not writer.data[v].any() and writer.shapes[v] == writer.shapes[other]:
            return [other]
    return None
