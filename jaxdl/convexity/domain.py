"""Which variables of a program are real numbers, whatever the parameters.

log, sqrt, a quotient and their like are not, where their operand leaves their domain;
nor is data with infinities. "x - x is 0", "x equals x" and "x is finite" are theorems
about those variables alone that always are real. Signs are followed as far as they
decide that: log(1 + exp(x)) is real, for exp(x) is positive.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxdl.convexity.program import Equation, Program

UNKNOWN, NONNEGATIVE, POSITIVE = 0, 1, 2


class Range(NamedTuple):
    """What is known of all entries of a variable."""

    real: bool
    """They are real numbers, or booleans, whatever the parameters."""
    sign: int = UNKNOWN
    """Of those that are real numbers."""


PARAMETER = Range(True)
_WHEREVER = {
    *("sub", "neg", "sign", "expm1", "tanh", "sinh", "sin", "cos", "atan", "asinh"),
    *("erf", "erfc", "lt", "le", "gt", "ge", "eq", "ne", "and", "or", "not"),
    "is_finite",
}
"""What is real wherever its operands are."""


def of_data(array: Any) -> Range:
    """Of known numbers; a random key is none."""
    if not isinstance(array, np.ndarray):
        return Range(False)
    if array.dtype == bool:
        return Range(True)
    real = array.dtype == object or bool(np.isfinite(array).all())
    if np.all(array > 0):
        return Range(real, POSITIVE)
    return Range(real, NONNEGATIVE if np.all(array >= 0) else UNKNOWN)


def of(
    e: Equation,
    known: Mapping[int, Range],
    shapes: Mapping[int, tuple[int, ...]],
    data: Mapping[int, np.ndarray],
) -> Range:
    """Of what an equation gives.

    Args:
        e: The equation.
        known: Of its inputs.
        shapes: Of its inputs.
        data: Its inputs, as far as their values are known.
    """
    real = all(known[v].real for v in e.inputs)
    signs = [known[v].sign for v in e.inputs]
    if any(0 in shapes[v] for v in e.inputs):  # a sum of no positive numbers is 0
        return Range(False)
    match e.primitive:
        case "move" | "mul" | "matmul" | "min":
            return Range(real, min(signs))
        case "reduce_sum" | "reduce_max" | "reduce_min" | "reduce_prod":
            return Range(real, signs[0])
        case "add":
            return Range(real, max(signs) if min(signs) else UNKNOWN)
        case "max":
            return Range(real, max(signs))
        case "select_n":
            return Range(real, min(signs[1:]))
        case "exp" | "exp2" | "logistic":
            return Range(real, POSITIVE)
        case "abs":
            return Range(real, max(NONNEGATIVE, signs[0]))
        case "integer_pow" if e.params["y"] >= 0:
            odd = e.params["y"] % 2
            return Range(real, signs[0] if odd else max(NONNEGATIVE, signs[0]))
        case "sqrt" | "log1p":
            return Range(real and signs[0] >= NONNEGATIVE, signs[0])
        case "log":
            return Range(real and signs[0] == POSITIVE)
        case "rsqrt" | "pow" | "integer_pow":
            return Range(real and signs[0] == POSITIVE, POSITIVE)
        case "div":
            by = e.inputs[1]
            apart = by in data and bool(np.all(data[by] != 0))
            return Range(real and (apart or signs[1] == POSITIVE), min(signs))
    return Range(real and e.primitive in _WHEREVER)


def real(program: Program) -> dict[int, bool]:
    """Of every variable, whether it is a real number whatever the parameters."""
    found = dict.fromkeys(program.inputs, PARAMETER)
    found |= {v: of_data(array) for v, array in program.data.items()}
    for e in program.equations:
        found[e.output] = of(e, found, program.shapes, program.data)
    return {v: known.real for v, known in found.items()}
