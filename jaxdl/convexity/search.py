"""Looks for two points that show a loss not to be convex, in float64.

What is found here are candidates; `witness.verify` decides. Three ways: directions of
negative curvature (the whole Hessian where it is small, else LOBPCG with Hessian-vector
products), at points of several sizes; then chords between random points, which also see
kinks, where there is no curvature to see; and descent on the curvature itself.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.sparse.linalg
from jax.scipy.special import erf, erfc

from jaxdl.convexity.program import Program, floats

DENSE = 600
"""Parameters up to which the whole Hessian is computed."""
STEPS = 12
"""Of LOBPCG beyond that: a direction of negative curvature need not be the lowest."""
SCALES = (0.0, 1.0, 0.1, 10.0, 0.01, 100.0)
"""Sizes of the points at which curvature is looked at, after the example itself."""
POINTS = 1 + len(SCALES)
LENGTHS = (1.0, 0.1, 0.01, 1e-3, 10.0, 100.0, 1e-4, 1e3, 1e-5)
"""Half lengths of the segments that are tried along a direction of length 1."""


def as_function(program: Program) -> Callable[[jax.Array], jax.Array]:
    """The program as a function of a float64 vector [n], to be used under x64.

    Its derivatives are those of the function over the reals: where the loss has
    stop_gradient, this has not.

    Raises:
        UnknownPrimitiveError: When called, if the program has a primitive not known.
    """

    def function(vector: jax.Array) -> jax.Array:
        env: dict[int, Any] = {
            v: jnp.asarray(d if d.dtype == bool else floats(d))
            for v, d in program.data.items()
        }
        start = 0
        for v in program.inputs:
            size = int(np.prod(program.shapes[v], dtype=int))
            env[v] = vector[start : start + size].reshape(program.shapes[v])
            start += size
        for e in program.equations:
            env[e.output] = _FLOATS[e.primitive](e, *(env[v] for v in e.inputs))
        return env[program.output]

    return function


def candidates(
    program: Program, start: np.ndarray, key: jax.Array
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of points between which the loss seems to rise above its chord.

    Args:
        program: The loss.
        start: A point to begin with, float64 [n].
        key: For the random points and directions.

    Yields:
        Two vectors, float64 [n] each.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
    with jax.enable_x64(True):
        f = jax.jit(as_function(program))
        points = [start, *(scale * rng.standard_normal(start.size) for scale in SCALES)]
        for point in points:
            for direction in _curved(f, point, rng):
                yield from _along(f, point, direction)
        for scale in SCALES[1:]:
            yield from _chords(f, start.size, scale, rng)
        if start.size <= DENSE:
            for point in points[2:]:
                found, direction = _descend(f, point, rng)
                yield from _along(f, found, direction)


def _curved(
    f: Callable[[Any], Any], point: np.ndarray, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Unit directions of negative curvature at a point, the most curved first."""
    n = point.size
    if n <= DENSE:
        hessian = np.asarray(_hessian(f, point))
        if np.isfinite(hessian).all():
            values, vectors = np.linalg.eigh(hessian)
            yield from (vectors[:, k] for k in range(min(3, n)) if values[k] < 0)
        return

    def product(v: np.ndarray) -> np.ndarray:
        return np.asarray(_hvp(f, point, v.reshape(-1)))

    operator = scipy.sparse.linalg.LinearOperator((n, n), product, dtype=np.float64)
    with warnings.catch_warnings():  # that it has not converged: any direction will do
        warnings.simplefilter("ignore", UserWarning)
        values, vectors = scipy.sparse.linalg.lobpcg(
            operator, rng.standard_normal((n, 2)), largest=False, maxiter=STEPS
        )
    yield from (v for v, value in zip(vectors.T, values, strict=True) if value < 0)


@jax.jit(static_argnums=0)
def _hessian(f: Callable[[Any], Any], point: Any) -> Any:
    return jax.hessian(f)(point)


@jax.jit(static_argnums=0)
def _hvp(f: Callable[[Any], Any], point: Any, direction: Any) -> Any:
    return jax.jvp(jax.grad(f), (point,), (direction,))[1]


def _along(
    f: Callable[[Any], Any], point: np.ndarray, direction: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Segments around a point, those where float64 sees the loss rise first."""
    ends = [(point - h * direction, point + h * direction) for h in LENGTHS]
    gaps = [_gap(f, a, b) for a, b in ends]
    order = np.argsort([-gap if np.isfinite(gap) else np.inf for gap in gaps])
    for k in order[:4]:
        if gaps[k] > -1e-8:
            yield ends[k]


def _gap(f: Callable[[Any], Any], a: np.ndarray, b: np.ndarray) -> float:
    """How far the loss rises above its chord at the midpoint, relative to its size."""
    at_a, at_b, middle = (float(f(x)) for x in (a, b, (a + b) / 2))
    size = abs(at_a) + abs(at_b) + abs(middle)
    return (middle - (at_a + at_b) / 2) / size if size else 0.0


def _chords(
    f: Callable[[Any], Any], n: int, scale: float, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for length in (scale, 1e-2 * scale):
        for _ in range(16):
            a = scale * rng.standard_normal(n)
            b = a + length * rng.standard_normal(n)
            if _gap(f, a, b) > 0:
                yield a, b


def _descend(
    f: Callable[[Any], Any], point: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Point and unit direction of least curvature near by, by L-BFGS on both."""
    n = point.size
    start = np.concatenate([point, rng.standard_normal(n)])

    def objective(both: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = _curvature(f, both)
        if not np.isfinite(value) or not np.isfinite(gradient).all():
            return np.inf, np.zeros_like(both)
        return float(value), np.asarray(gradient)

    result = scipy.optimize.minimize(
        objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 100}
    )
    found, direction = result.x[:n], result.x[n:]
    return found, direction / (np.linalg.norm(direction) or 1.0)


@jax.jit(static_argnums=0)
def _curvature(f: Callable[[Any], Any], both: Any) -> Any:
    def curvature(both: Any) -> Any:
        point, direction = jnp.split(both, 2)
        product = jax.jvp(jax.grad(f), (point,), (direction,))[1]
        return direction @ product / (direction @ direction)

    return jax.value_and_grad(curvature)(both)


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda e, *xs: function(*xs)


_FLOATS: dict[str, Callable[..., Any]] = {
    "move": lambda e, *xs: jnp.concatenate([x.reshape(-1) for x in xs])[e.params["at"]],
    "matmul": _plain(jnp.matmul),
    "reduce_sum": lambda e, x: x.sum(axis=e.params["axes"]),
    "reduce_max": lambda e, x: x.max(axis=e.params["axes"]),
    "reduce_min": lambda e, x: x.min(axis=e.params["axes"]),
    "reduce_prod": lambda e, x: x.prod(axis=e.params["axes"]),
    "integer_pow": lambda e, x: jax.lax.integer_pow(x, e.params["y"]),
    "add": _plain(jnp.add),
    "sub": _plain(jnp.subtract),
    "mul": _plain(jnp.multiply),
    "div": _plain(jnp.divide),
    "neg": _plain(jnp.negative),
    "max": _plain(jnp.maximum),
    "min": _plain(jnp.minimum),
    "abs": _plain(jnp.abs),
    "sign": _plain(jnp.sign),
    "exp": _plain(jnp.exp),
    "exp2": _plain(jnp.exp2),
    "expm1": _plain(jnp.expm1),
    "log": _plain(jnp.log),
    "log1p": _plain(jnp.log1p),
    "sqrt": _plain(jnp.sqrt),
    "rsqrt": _plain(jax.lax.rsqrt),
    "pow": _plain(jnp.power),
    "tanh": _plain(jnp.tanh),
    "sinh": _plain(jnp.sinh),
    "cosh": _plain(jnp.cosh),
    "logistic": _plain(jax.nn.sigmoid),
    "sin": _plain(jnp.sin),
    "cos": _plain(jnp.cos),
    "tan": _plain(jnp.tan),
    "atan": _plain(jnp.arctan),
    "asinh": _plain(jnp.arcsinh),
    "erf": _plain(erf),
    "erfc": _plain(erfc),
    "lt": _plain(jnp.less),
    "le": _plain(jnp.less_equal),
    "gt": _plain(jnp.greater),
    "ge": _plain(jnp.greater_equal),
    "eq": _plain(jnp.equal),
    "ne": _plain(jnp.not_equal),
    "is_finite": _plain(jnp.isfinite),
    "and": _plain(jnp.logical_and),
    "or": _plain(jnp.logical_or),
    "not": _plain(jnp.logical_not),
    "select_n": lambda e, which, no, yes: jnp.where(which, yes, no),
}
