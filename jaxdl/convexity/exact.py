"""Interprets a program with exact numbers, or with balls that enclose them.

The numbers are object arrays of python-flint's: `arb`, balls of real numbers with
rigorous error bounds (Johansson 2017, "Arb: efficient arbitrary-precision
midpoint-radius interval arithmetic"), or polynomials with rational coefficients. What
the interpreter does not know raises `UnknownPrimitiveError`; nothing is guessed.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flint
import numpy as np
from flint import arb, arb_mat, fmpq

from jaxdl.convexity.program import Equation, Program, objects


class UnknownPrimitiveError(Exception):
    """The program has a primitive whose meaning over these numbers is not known."""


def enclose(program: Program, leaves: Iterable[np.ndarray], bits: int) -> arb:
    """A ball that holds the exact value of the program at a point.

    Args:
        program: What to evaluate.
        leaves: The parameters, as float64 arrays or object arrays of `arb`.
        bits: Working precision.

    Raises:
        UnknownPrimitiveError: A primitive's meaning over balls is not known.
    """
    with flint.ctx.workprec(bits):
        values = [
            leaf if leaf.dtype == object else balls(leaf)
            for leaf in map(np.asarray, leaves)
        ]
        return evaluate(program, values).item()


def evaluate(program: Program, leaves: Iterable[np.ndarray]) -> np.ndarray:
    """The output over object arrays of `arb`, at the working precision that is set."""
    last = _last_use(program)
    env: dict[int, np.ndarray] = dict(program.data)
    env.update(zip(program.inputs, leaves, strict=True))
    for k, equation in enumerate(program.equations):
        env[equation.output] = _compute(equation, [env[v] for v in equation.inputs])
        for v in equation.inputs:
            if last[v] == k and v != program.output:
                env.pop(v, None)
    return balls(env[program.output])


def constants(program: Program, bits: int = 256) -> dict[int, np.ndarray]:
    """What is known, and balls of what follows from it without the parameters.

    A variable whose primitive is unknown is left out.
    """
    env: dict[int, np.ndarray] = dict(program.data)
    with flint.ctx.workprec(bits):
        for e in program.equations:
            if all(v in env for v in e.inputs) and e.primitive in PRIMITIVES:
                env[e.output] = _compute(e, [env[v] for v in e.inputs])
    return env


def finite(array: np.ndarray) -> np.ndarray:
    """Where known numbers are finite, as booleans; a None is not even known."""
    if array.dtype != object:
        return np.isfinite(array)
    flags = [
        x.is_finite() if isinstance(x, arb) else x is not None
        for x in array.reshape(-1)
    ]
    return np.array(flags, bool).reshape(array.shape)


def _last_use(program: Program) -> dict[int, int]:
    return {v: k for k, e in enumerate(program.equations) for v in e.inputs}


def balls(array: np.ndarray) -> np.ndarray:
    """Known numbers as an object array of `arb`; other objects stay as they are."""
    if array.dtype == object:
        if array.size and isinstance(array.flat[0], fmpq):
            return _map(arb, array)
        return array
    return _map(arb, array.astype(np.float64) if array.dtype == bool else array)


def _map(function: Callable[..., Any], *arrays: np.ndarray) -> np.ndarray:
    """Elementwise, to an object array, whatever the dtypes (0-d included)."""
    arrays = tuple(np.broadcast_arrays(*arrays))
    rows = zip(*(a.reshape(-1).tolist() for a in arrays), strict=True)
    return objects([function(*row) for row in rows], arrays[0].shape)


def _elementwise(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    def compute(*arrays: np.ndarray) -> np.ndarray:
        return _map(function, *map(balls, arrays))

    return compute


def _compute(equation: Equation, inputs: list[np.ndarray]) -> np.ndarray:
    if equation.primitive not in PRIMITIVES:
        raise UnknownPrimitiveError(equation.primitive)
    return PRIMITIVES[equation.primitive](*inputs, **_params(equation))


def _params(equation: Equation) -> dict[str, Any]:
    taken = _TAKEN.get(equation.primitive, ())
    return {key: equation.params[key] for key in taken}


def _move(*operands: np.ndarray, at: np.ndarray) -> np.ndarray:
    if len(operands) > 1:
        operands = tuple(o if o.dtype in (object, bool) else balls(o) for o in operands)
    return np.concatenate([o.reshape(-1) for o in operands])[at.reshape(-1)].reshape(
        at.shape
    )


def _reduce(function: Callable[[Any, Any], Any]) -> Callable[..., np.ndarray]:
    def compute(x: np.ndarray, *, axes: tuple[int, ...]) -> np.ndarray:
        kept = [d for d in range(x.ndim) if d not in axes]
        rows = balls(x).transpose(*kept, *axes)
        rows = rows.reshape(*(x.shape[d] for d in kept), -1)
        total = rows[..., 0]
        for k in range(1, rows.shape[-1]):
            total = _map(function, total, rows[..., k])
        return np.asarray(total, object)

    return compute


def _reduce_sum(x: np.ndarray, *, axes: tuple[int, ...]) -> np.ndarray:
    return np.asarray(balls(x).sum(axis=axes), object)


def _matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    left, right = balls(a), balls(b)
    n, rows, inner = left.shape
    columns = right.shape[2]
    entries: list[arb] = []
    for x, y in zip(left, right, strict=True):
        product = arb_mat(rows, inner, x.reshape(-1).tolist())
        product *= arb_mat(inner, columns, y.reshape(-1).tolist())
        entries += product.entries()
    return objects(entries, (n, rows, columns))


def _integer_pow(x: np.ndarray, *, y: int) -> np.ndarray:
    return _map(lambda v: v**y, balls(x))


def _compare(
    true: Callable[[Any, Any], bool], false: Callable[[Any, Any], bool]
) -> Any:
    """True, False, or None where the balls do not tell, or an operand is a None."""

    def decide(a: Any, b: Any) -> bool | None:
        if a is None or b is None:  # to Python None == None, and it differs from True
            return None
        return True if true(a, b) else (False if false(a, b) else None)

    return _elementwise(decide)


def _select(which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    if len(cases) != 2:
        raise UnknownPrimitiveError("select_n of more than two cases")

    def choose(condition: bool | None, no: Any, yes: Any) -> Any:
        if condition is None:  # either may be meant
            if isinstance(no, arb):
                return no.union(yes)  # a ball that holds both
            return no if no is yes else None
        return yes if condition else no

    # Booleans stay what they are: `and`, `or` and `not` know True, False and None.
    return _map(choose, which, *(c if c.dtype == bool else balls(c) for c in cases))


def _and(a: bool | None, b: bool | None) -> bool | None:
    return False if a is False or b is False else (None if None in (a, b) else True)


def _or(a: bool | None, b: bool | None) -> bool | None:
    return True if a is True or b is True else (None if None in (a, b) else False)


def _logistic(x: arb) -> arb:
    return 1 / (1 + (-x).exp())


PRIMITIVES: Mapping[str, Callable[..., np.ndarray]] = {
    "move": _move,
    "matmul": _matmul,
    "reduce_sum": _reduce_sum,
    "reduce_max": _reduce(lambda a, b: a.max(b)),
    "reduce_min": _reduce(lambda a, b: a.min(b)),
    "reduce_prod": _reduce(lambda a, b: a * b),
    "integer_pow": _integer_pow,
    "add": _elementwise(lambda a, b: a + b),
    "sub": _elementwise(lambda a, b: a - b),
    "mul": _elementwise(lambda a, b: a * b),
    "div": _elementwise(lambda a, b: a / b),
    "neg": _elementwise(lambda a: -a),
    "max": _elementwise(lambda a, b: a.max(b)),
    "min": _elementwise(lambda a, b: a.min(b)),
    "abs": _elementwise(abs),
    "sign": _elementwise(lambda a: a.sgn()),
    "exp": _elementwise(lambda a: a.exp()),
    "exp2": _elementwise(lambda a: arb(2) ** a),
    "expm1": _elementwise(lambda a: a.expm1()),
    "log": _elementwise(lambda a: a.log()),
    "log1p": _elementwise(lambda a: a.log1p()),
    "sqrt": _elementwise(lambda a: a.sqrt()),
    "rsqrt": _elementwise(lambda a: a.rsqrt()),
    "pow": _elementwise(lambda a, b: a**b),
    "tanh": _elementwise(lambda a: a.tanh()),
    "sinh": _elementwise(lambda a: a.sinh()),
    "cosh": _elementwise(lambda a: a.cosh()),
    "logistic": _elementwise(_logistic),
    "sin": _elementwise(lambda a: a.sin()),
    "cos": _elementwise(lambda a: a.cos()),
    "tan": _elementwise(lambda a: a.tan()),
    "atan": _elementwise(lambda a: a.atan()),
    "asinh": _elementwise(lambda a: a.asinh()),
    "erf": _elementwise(lambda a: a.erf()),
    "erfc": _elementwise(lambda a: a.erfc()),
    "lt": _compare(lambda a, b: a < b, lambda a, b: a >= b),
    "le": _compare(lambda a, b: a <= b, lambda a, b: a > b),
    "gt": _compare(lambda a, b: a > b, lambda a, b: a <= b),
    "ge": _compare(lambda a, b: a >= b, lambda a, b: a < b),
    "eq": _compare(lambda a, b: a == b, lambda a, b: a != b),
    "ne": _compare(lambda a, b: a != b, lambda a, b: a == b),
    "is_finite": _elementwise(lambda a: True if a.is_finite() else None),
    "and": lambda a, b: _map(_and, a, b),
    "or": lambda a, b: _map(_or, a, b),
    "not": lambda a: _map(lambda v: None if v is None else not v, a),
    "select_n": _select,
}
"""What each primitive of a program means over balls."""
_TAKEN: Mapping[str, tuple[str, ...]] = {
    "move": ("at",),
    "integer_pow": ("y",),
    **{f"reduce_{name}": ("axes",) for name in ("sum", "max", "min", "prod")},
}
