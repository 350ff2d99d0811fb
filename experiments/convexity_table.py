"""The table of `experiments.convexity`: losses with their verdicts and curvatures.

Import it late: it brings JAX.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from sklearn.datasets import load_breast_cancer

from jaxdl.convexity import Convex, NotConvex, Verdict, certify, hessian, landscape
from jaxdl.convexity.hessian import Loss, Tree
from jaxdl.convexity.problems import PROBLEMS
from jaxdl.plots_convexity import Segment, Slice

DATA = "scikit-learn's breast cancer table (569 patients, 30 features; embedded)"
POINTS = 10
"""Random points at which curvature is looked at, beside the start and the midpoint."""
ROUNDING = 1e-6
"""Part of the largest eigenvalue below which one counts as zero: some of the losses
compute in float32."""


class Curvature(NamedTuple):
    """The smallest eigenvalue of the Hessian that was seen."""

    smallest: float
    where: str
    largest: float
    """The largest, over all points."""
    points: int
    """How many were looked at."""

    @property
    def zero(self) -> bool:
        """Whether the smallest cannot be told from zero."""
        return abs(self.smallest) <= ROUNDING * self.largest


class Row(NamedTuple):
    """A loss and what was found out about it."""

    name: str
    parameters: int
    verdict: Verdict
    curvature: Curvature

    @property
    def word(self) -> str:
        """The verdict in a word or two."""
        if isinstance(self.verdict, Convex):
            return "convex"
        return "not convex" if isinstance(self.verdict, NotConvex) else "undecided"


def data() -> tuple[np.ndarray, np.ndarray]:
    """Features [569, 30] of mean zero and variance one; labels [569], 0 or 1."""
    table = load_breast_cancer()
    features = np.asarray(table.data, np.float64)
    features = (features - features.mean(0)) / features.std(0)
    return features.astype(np.float32), np.asarray(table.target, np.int32)


@functools.cache
def problem(name: str) -> tuple[Loss, Tree]:
    """The loss of a row on the data, and parameters to start from, all zero."""
    return PROBLEMS[name](*data())


@functools.cache
def dense(name: str) -> Callable[[jax.Array], jax.Array]:
    """The whole Hessian of a row's loss, compiled: float64 [n] -> [n, n], under x64."""
    loss, start = problem(name)
    _, unravel = ravel_pytree(jax.tree.map(_double, start))
    return jax.jit(lambda point: hessian.dense(loss, unravel(point)))


def row(name: str, key: jax.Array) -> Row:
    """Decides one loss, and looks at its curvature."""
    loss, start = problem(name)
    certify_key, points_key = jax.random.split(key)
    verdict = certify(loss, start, key=certify_key)
    found = curvature(name, verdict, points_key)
    return Row(name, ravel_pytree(start)[0].size, verdict, found)


def curvature(name: str, verdict: Verdict, key: jax.Array) -> Curvature:
    """The smallest eigenvalue at several points, from dense Hessians in float64."""
    _, start = problem(name)
    with jax.enable_x64():
        flat, _ = ravel_pytree(jax.tree.map(_double, start))
        drawn = jax.random.normal(key, (POINTS, flat.size), jnp.float64)
        points = {"all zero": flat}
        points |= {f"random point {i + 1}": point for i, point in enumerate(drawn)}
        if isinstance(verdict, NotConvex):
            points["the witness's midpoint"] = ravel_pytree(midpoint(verdict))[0]
        found = {
            where: np.linalg.eigvalsh(np.asarray(dense(name)(point)))
            for where, point in points.items()
        }
    least = min(found, key=lambda where: found[where][0])
    return Curvature(
        float(found[least][0]),
        least,
        float(max(values[-1] for values in found.values())),
        len(points),
    )


def segment(row: Row) -> Segment:
    """The loss between the two points of a row's witness."""
    assert isinstance(row.verdict, NotConvex)
    loss, _ = problem(row.name)
    witness = row.verdict.witness
    places = np.linspace(-0.15, 1.15, 131)
    with jax.enable_x64():
        losses = jax.jit(lambda a, b: landscape.along(loss, a, b, jnp.asarray(places)))(
            witness.a, witness.b
        )
        return Segment(row.name, places, np.asarray(losses))


def plane(row: Row) -> Slice:
    """The loss around the midpoint of its witness or, without one, around its start.

    The axes: half the witness, and the most curved direction orthogonal to it; without
    a witness, the two most curved directions, as far as a parabola would rise to thrice
    the loss at the start.
    """
    loss, start = problem(row.name)
    with jax.enable_x64():
        start = jax.tree.map(_double, start)
        flat, unravel = ravel_pytree(start)
        centre, first = flat, None
        if isinstance(row.verdict, NotConvex):
            centre = ravel_pytree(midpoint(row.verdict))[0]
            first = np.asarray(ravel_pytree(row.verdict.witness.b)[0] - centre)
        matrix = np.asarray(dense(row.name)(centre))
        if first is None:
            values, vectors = np.linalg.eigh(matrix)
            reach = np.sqrt(4 * float(loss(start)) / np.maximum(values, 1e-12))
            u, v = (reach[i] * vectors[:, i] for i in (-2, -1))
        else:
            length = np.linalg.norm(first)
            unit = first / length
            aside = np.eye(len(unit)) - np.outer(unit, unit)
            u, v = first, length * np.linalg.eigh(aside @ matrix @ aside)[1][:, -1]
        places = np.linspace(-1.6, 1.6, 61)
        losses = jax.jit(landscape.over, static_argnums=0)(
            loss,
            unravel(centre),
            (unravel(jnp.asarray(u)), unravel(jnp.asarray(v))),
            jnp.asarray(places),
            jnp.asarray(places),
        )
        return Slice(
            row.name,
            row.word,
            places,
            places,
            np.asarray(losses),
            first is not None,
        )


def midpoint(verdict: NotConvex) -> Tree:
    """Halfway between the two points of a witness, float64."""
    witness = verdict.witness
    return jax.tree.map(lambda a, b: (a + b) / 2, witness.a, witness.b)


def _double(leaf: Any) -> jax.Array:
    return jnp.asarray(leaf, jnp.float64)
