"""Eigenvalues of a symmetric matrix that is known only by its products with vectors.

Lanczos' method with full reorthogonalisation for both ends of the spectrum, and
stochastic Lanczos quadrature for its density. Both go on when the Krylov space is
exhausted, as it soon is for a matrix of low rank or with few distinct eigenvalues,
which Hessians of losses often are: a step then begins anew with a random vector
orthogonal to all before. (matfree 0.6.3 divides by the rounding error that is left, and
finds eigenvalues of -13.8 and 19.8 for three times the identity; hence code of our
own.)

Every function is pure and can be called under `jit`, in float32 and float64.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxdl.convexity.hessian import Product, Tree
from jaxdl.errors import InputError


class Tridiagonal(NamedTuple):
    """The matrix seen in a Krylov space: `basis @ A @ basis.T` is tridiagonal."""

    diagonal: jax.Array
    """float [m]."""
    off_diagonal: jax.Array
    """float [m - 1]; a zero stands where a space was exhausted."""
    residual: jax.Array
    """float []: what couples the space to the rest of the matrix; zero if nothing."""
    basis: jax.Array
    """float [m, n]; orthonormal rows, the first along the starting vector."""

    @property
    def matrix(self) -> jax.Array:
        """The same as a dense matrix, [m, m]."""
        return (
            jnp.diag(self.diagonal)
            + jnp.diag(self.off_diagonal, 1)
            + jnp.diag(self.off_diagonal, -1)
        )


class Eigenpairs(NamedTuple):
    """Eigenvalues from the ends of a spectrum, ascending but for rounding."""

    values: jax.Array
    """float [k]; each is a Rayleigh quotient, hence never below the smallest
    eigenvalue nor above the largest, but for rounding."""
    vectors: Tree
    """Shaped as the parameters, with a first axis of k; of norm one."""
    residuals: jax.Array
    r"""float [k]: :math:`\|A v - \lambda v\|`, measured by a product of its own. An
    eigenvalue of the matrix lies within this distance (Parlett 1998, "The Symmetric
    Eigenvalue Problem", theorem 4.5.1). In exact arithmetic it is
    :math:`|\beta_m s_m|`, from the last entry of the tridiagonal eigenvector."""


class Quadrature(NamedTuple):
    """The spectrum as seen by random vectors: nodes with weights, a row for each."""

    nodes: jax.Array
    """float [probes, m]."""
    weights: jax.Array
    """float [probes, m], not negative; each row sums to one."""


class Estimate(NamedTuple):
    """A mean over random vectors."""

    value: jax.Array
    """float []."""
    standard_error: jax.Array
    """float []; NaN for one vector alone."""


def tridiagonalise(
    product: Product, start: Tree, *, steps: int, key: jax.Array
) -> Tridiagonal:
    """Lanczos' method, reorthogonalised in full at every step, twice.

    Twice, because once does not suffice in floating point and a third time adds nothing
    (Giraud, Langou, Rozloznik 2005).

    Args:
      product: a symmetric matrix over pytrees such as `start`, n numbers in all.
      start: first vector, not zero.
      steps: m; cut to n, after which nothing is left to find. The basis takes m x n
        numbers.
      key: draws the vectors that go on where a space is exhausted.

    Raises:
      InputError: steps below 1.
    """
    first, multiply = _flattened(product, start)
    steps = _steps(steps, first.size)
    # Below it, what is left of an image is rounding.
    tolerance = 10 * float(jnp.finfo(first.dtype).eps)

    def orthogonal(vector: jax.Array, basis: jax.Array) -> jax.Array:
        for _ in range(2):
            vector = vector - (basis @ vector) @ basis
        return vector

    def fresh(i: jax.Array, basis: jax.Array) -> jax.Array:
        drawn = jax.random.normal(jax.random.fold_in(key, i), first.shape, first.dtype)
        return orthogonal(drawn, basis)

    def step(i: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        basis, vector, scale, diagonal, off_diagonal = carry
        basis = basis.at[i].set(vector)
        image = multiply(vector)
        scale = jnp.maximum(scale, jnp.linalg.norm(image))
        rest = orthogonal(image, basis)
        coupling = jnp.linalg.norm(rest)
        exhausted = coupling <= tolerance * scale
        following = jax.lax.cond(exhausted, lambda: fresh(i, basis), lambda: rest)
        return (
            basis,
            _unit(following),
            scale,
            diagonal.at[i].set(vector @ image),
            off_diagonal.at[i].set(jnp.where(exhausted, 0, coupling)),
        )

    nothing = jnp.zeros(steps, first.dtype)
    basis, _, _, diagonal, off_diagonal = jax.lax.fori_loop(
        0,
        steps,
        step,
        (
            jnp.zeros((steps, first.size), first.dtype),
            _unit(first),
            jnp.zeros((), first.dtype),
            nothing,
            nothing,
        ),
    )
    return Tridiagonal(diagonal, off_diagonal[:-1], off_diagonal[-1], basis)


def eigenpairs(
    product: Product,
    like: Tree,
    *,
    key: jax.Array,
    steps: int = 80,
    smallest: int = 1,
    largest: int = 1,
) -> Eigenpairs:
    """The smallest and the largest eigenvalues, with vectors and error bounds.

    Of a multiple eigenvalue it finds one copy, or more only where the space is
    exhausted. That no eigenvalue lies further out is certain when `steps` is n; before,
    it is as good as the chance that the random starting vector has a share in it.

    Args:
      product: a symmetric matrix over pytrees such as `like`, n numbers in all; from
        `hessian.product`, for instance.
      like: a pytree of these shapes and dtypes; its values do not matter.
      key: draws the starting vector.
      steps: products to spend, and as many vectors to keep; at most n are used. More
        steps, smaller residuals.
      smallest: how many from the lower end.
      largest: how many from the upper end.

    Returns:
      `smallest + largest` pairs; all n where that is more.

    Raises:
      InputError: a count is out of range; or a product is not finite, which under `jit`
        shows as NaN in the result.
    """
    flat, multiply = _flattened(product, like)
    steps = _steps(steps, flat.size)
    count = min(smallest + largest, flat.size)
    if min(smallest, largest) < 0 or not 1 <= count <= steps:
        raise InputError(
            f"smallest + largest must be 1 to {steps} (steps), none negative; they are "
            f"{smallest} and {largest}"
        )
    start_key, step_key = jax.random.split(key)
    start = jax.random.normal(start_key, flat.shape, flat.dtype)
    seen = tridiagonalise(multiply, start, steps=steps, key=step_key)
    values, small_vectors = jnp.linalg.eigh(seen.matrix)
    lower = min(smallest, count)
    wanted = np.r_[:lower, steps - (count - lower) : steps]
    vectors = jax.vmap(_unit)(small_vectors[:, wanted].T @ seen.basis)
    images = jax.lax.map(multiply, vectors)
    values = jnp.einsum("ij,ij->i", vectors, images)
    residuals = jnp.linalg.norm(images - values[:, None] * vectors, axis=1)
    _refuse_nan(values)
    _, unravel = ravel_pytree(like)
    return Eigenpairs(values, jax.vmap(unravel)(vectors), residuals)


def quadrature(
    product: Product, like: Tree, *, key: jax.Array, steps: int = 80, probes: int = 8
) -> Quadrature:
    """Stochastic Lanczos quadrature: the spectral density as weighted nodes.

    For each of several random sign vectors, the Gauss quadrature (Golub and Welsch
    1969) of the spectrum weighted by that vector's shares in it; their mean estimates
    the density (Ubaru, Chen, Saad 2017; for neural networks Ghorbani, Krishnan, Xiao
    2019).

    Args:
      product: as for `eigenpairs`.
      like: as for `eigenpairs`.
      key: draws the vectors.
      steps: nodes for each vector; at most n are used.
      probes: vectors.

    Raises:
      InputError: as `eigenpairs`, or fewer than one probe.
    """
    flat, multiply = _flattened(product, like)
    steps = _steps(steps, flat.size)
    if probes < 1:
        raise InputError(f"probes must be at least 1, not {probes}")

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        start_key, step_key = jax.random.split(key)
        start = jax.random.rademacher(start_key, flat.shape, flat.dtype)
        seen = tridiagonalise(multiply, start, steps=steps, key=step_key)
        nodes, vectors = jnp.linalg.eigh(seen.matrix)
        return nodes, vectors[0] ** 2

    # One after the other: `vmap` over vectors means `vmap` over a network's weights.
    nodes, weights = jax.lax.map(one, jax.random.split(key, probes))
    _refuse_nan(nodes)
    return Quadrature(nodes, weights)


def density(found: Quadrature, grid: jax.Array, *, width: float) -> jax.Array:
    """The density of eigenvalues, each node widened to a Gaussian.

    Args:
      found: from `quadrature`.
      grid: float [g]: where to take it.
      width: standard deviation of the Gaussians, in the units of the eigenvalues.

    Returns:
      float [g]; it integrates to one over the whole line.

    Raises:
      InputError: the width is not positive.
    """
    if not width > 0:
        raise InputError(f"width must be positive, not {width:g}")
    distances = (grid[:, None, None] - found.nodes) / width
    bells = jnp.exp(-(distances**2) / 2) / (width * (2 * jnp.pi) ** 0.5)
    return (bells * found.weights).sum(-1).mean(-1)


def share_below(found: Quadrature, bound: float) -> Estimate:
    """The part of all eigenvalues below a bound, in [0, 1]."""
    return _mean(jnp.where(found.nodes < bound, found.weights, 0).sum(-1))


def trace(found: Quadrature, size: int) -> Estimate:
    """The trace of the matrix, by Hutchinson's (1989) estimator.

    Args:
      found: from `quadrature`.
      size: n, rows of the matrix.
    """
    return _mean(size * (found.nodes * found.weights).sum(-1))


def _mean(samples: jax.Array) -> Estimate:
    count = samples.size
    spread = jnp.std(samples, ddof=1) if count > 1 else jnp.full((), jnp.nan)
    return Estimate(samples.mean(), spread / count**0.5)


def _flattened(product: Product, like: Tree) -> tuple[jax.Array, Product]:
    """The pytree as one vector, and the product as a function of such."""
    flat, unravel = ravel_pytree(like)
    return flat, lambda vector: ravel_pytree(product(unravel(vector)))[0]


def _unit(vector: jax.Array) -> jax.Array:
    """The vector with norm one; zero, where nothing is left of it, stays zero."""
    norm = jnp.linalg.norm(vector)
    return vector / jnp.where(norm > 0, norm, 1)


def _steps(steps: int, size: int) -> int:
    if steps < 1:
        raise InputError(f"steps must be at least 1, not {steps}")
    return min(steps, size)


def _refuse_nan(values: jax.Array) -> None:
    """Raises where there are values to look at; under `jit` there are none yet."""
    if not isinstance(values, jax.core.Tracer) and not jnp.isfinite(values).all():
        raise InputError(
            "the products of the matrix are not finite: the data or the parameters "
            "hold NaN or infinity, or the loss overflows; mend or scale them"
        )
