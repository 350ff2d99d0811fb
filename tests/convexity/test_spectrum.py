"""Spectra against dense eigenvalues, closed forms and the Marchenko-Pastur law."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from jaxdl.convexity import hessian, spectrum
from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy
from jaxdl.models import registry

KEY = jax.random.key(0)


def with_eigenvalues(values, seed: int = 0) -> np.ndarray:
    """A symmetric matrix with these eigenvalues and random eigenvectors."""
    rng = np.random.default_rng(seed)
    vectors = scipy.linalg.qr(rng.standard_normal((len(values), len(values))))[0]
    return (vectors * np.asarray(values)) @ vectors.T


def times(matrix):
    matrix = jnp.asarray(matrix)
    return lambda vector: matrix @ vector


class Eigenpairs(chex.TestCase):
    @chex.variants(with_jit=True)
    def test_ends_of_a_spectrum(self):
        """Far fewer steps than dimensions; the ends stand apart."""
        exact = np.sort(np.r_[-3, -1.5, np.linspace(-0.5, 0.5, 296), 4, 9])
        matrix = jnp.asarray(with_eigenvalues(exact), jnp.float32)

        @self.variant
        def find(matrix):
            return spectrum.eigenpairs(
                times(matrix), matrix[0], key=KEY, steps=40, smallest=2, largest=2
            )

        values, vectors, residuals = find(matrix)
        np.testing.assert_allclose(values, [-3, -1.5, 4, 9], atol=2e-5)
        assert (residuals < 1e-4).all()
        np.testing.assert_allclose(vectors @ vectors.T, np.eye(4), atol=1e-5)

    @chex.variants(with_jit=True)
    def test_of_a_network_are_those_of_its_dense_hessian(self):
        model = registry.build("fnn", num_classes=4, hidden=(5,))
        images = jax.random.normal(KEY, (30, 2, 2, 1))
        labels = jnp.arange(30) % 4
        params = jax.jit(model.init)(KEY, images)["params"]

        def loss(params):
            logits = model.apply({"params": params}, images)
            return cross_entropy(logits, labels).mean()

        @self.variant
        def find(params):
            product = hessian.product(loss, params)
            return spectrum.eigenpairs(product, params, key=KEY, steps=50, largest=2)

        values, vectors, residuals = find(params)
        matrix = jax.jit(lambda params: hessian.dense(loss, params))(params)
        dense = np.linalg.eigvalsh(np.asarray(matrix, np.float64))
        norm = abs(dense).max()
        np.testing.assert_allclose(values, dense[[0, -2, -1]], atol=1e-4 * norm)
        assert (residuals < 1e-3 * norm).all()
        chex.assert_trees_all_equal_structs(vectors, params)
        for i, value in enumerate(values):
            vector = ravel_pytree(jax.tree.map(lambda x, i=i: x[i], vectors))[0]
            np.testing.assert_allclose(
                np.linalg.norm(matrix @ vector - value * vector),
                residuals[i],
                atol=1e-5 * norm,
            )


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def pairs(matrix, steps, smallest, largest):
    """Compiled once for many matrices of a size."""
    return spectrum.eigenpairs(
        times(matrix),
        matrix[0],
        key=KEY,
        steps=steps,
        smallest=smallest,
        largest=largest,
    )


EIGENVALUES = st.one_of(st.sampled_from([0.0, 1.0, -1.0]), st.floats(-10, 10))


@given(st.lists(EIGENVALUES, min_size=9, max_size=9), st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_all_eigenvalues_with_their_multiplicities(exact, seed):
    """As many steps as dimensions find the whole spectrum, however degenerate."""
    with jax.enable_x64():
        found = pairs(jnp.asarray(with_eigenvalues(exact, seed)), 50, 9, 0)
        np.testing.assert_allclose(np.sort(found.values), np.sort(exact), atol=1e-9)
        assert (found.residuals < 1e-9).all()


@given(st.sampled_from([1, 7, 30]), st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_an_eigenvalue_lies_within_each_residual(steps, seed):
    """Also far from convergence; and no value leaves the range of the spectrum."""
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((30, 30))
    matrix = matrix + matrix.T
    exact = np.linalg.eigvalsh(matrix)
    with jax.enable_x64():
        found = pairs(jnp.asarray(matrix), steps, 1, int(steps > 1))
        values, residuals = np.asarray(found.values), np.asarray(found.residuals)
    distances = abs(values[:, None] - exact).min(1)
    assert (distances <= residuals + 1e-10).all()
    assert (exact[0] - 1e-10 <= values).all()
    assert (values <= exact[-1] + 1e-10).all()


def test_residuals_are_those_that_lanczos_predicts():
    with jax.enable_x64():
        product = times(with_eigenvalues(np.linspace(-1, 2, 100)))
        start = jax.random.normal(jax.random.split(KEY)[0], 100, jnp.float64)
        found = spectrum.eigenpairs(product, start, key=KEY, steps=20)
        seen = spectrum.tridiagonalise(product, start, steps=20, key=KEY)
        _, vectors = scipy.linalg.eigh_tridiagonal(seen.diagonal, seen.off_diagonal)
    predicted = float(seen.residual) * abs(vectors[-1, [0, -1]])
    np.testing.assert_allclose(found.residuals, predicted, rtol=1e-6)


@jax.jit
def pairs_of_multiple(value, like):
    """Of the identity over a pytree."""
    return spectrum.eigenpairs(
        lambda v: jax.tree.map(lambda x: value * x, v), like, key=KEY, steps=10
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [3.0, 0.0, -1e-9])
def test_a_multiple_of_the_identity_has_one_eigenvalue(value, dtype):
    """The Krylov space is exhausted at once; matfree 0.6.3 finds 19.8 for 3."""
    with jax.enable_x64():
        like = {"a": jnp.zeros((4, 5), dtype), "b": [jnp.zeros(7, dtype)]}
        found = pairs_of_multiple(np.asarray(value, dtype), like)
        np.testing.assert_allclose(found.values, value, rtol=1e-5)
        assert (found.residuals <= 1e-5 * abs(value)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_basis_stays_orthonormal(dtype):
    exact = np.r_[np.zeros(150), np.geomspace(1e-6, 1e4, 50)]
    with jax.enable_x64():
        matrix = jnp.asarray(with_eigenvalues(exact), dtype)
        seen = spectrum.tridiagonalise(
            times(matrix), jnp.ones(200, dtype), steps=200, key=KEY
        )
        basis, eps = np.asarray(seen.basis), np.finfo(dtype).eps
        np.testing.assert_allclose(basis @ basis.T, np.eye(200), atol=50 * eps)
        np.testing.assert_allclose(
            basis @ np.asarray(matrix) @ basis.T, seen.matrix, atol=100 * 1e4 * eps
        )


def marchenko_pastur(grid: np.ndarray, ratio: float) -> np.ndarray:
    """Density of the eigenvalues of X^T X / n, ratio = d / n < 1 (1967)."""
    low, high = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2
    inside = np.clip((high - grid) * (grid - low), 0, None)
    return np.sqrt(inside) / (2 * np.pi * ratio * grid)


def test_density_of_a_linear_regression_is_marchenko_pastur():
    rows, columns = 2000, 500
    x = np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)

    def loss(weights):
        return jnp.mean((x @ weights - 1.0) ** 2) / 2

    like = jnp.zeros(columns)
    product = hessian.product(loss, like)  # X^T X / rows
    found = spectrum.quadrature(product, like, key=KEY, steps=60, probes=8)
    width = 0.05
    grid = np.linspace(0.05, 3, 400)
    fine = np.linspace(0.25, 2.25, 4001)
    bell = np.exp(-(((grid[:, None] - fine) / width) ** 2) / 2)
    bell /= width * np.sqrt(2 * np.pi)
    exact = (bell * marchenko_pastur(fine, 0.25)).sum(1) * (fine[1] - fine[0])
    drawn = spectrum.density(found, jnp.asarray(grid), width=width)
    assert np.trapezoid(abs(drawn - exact), grid) < 0.06
    assert np.trapezoid(drawn, grid) == pytest.approx(1, abs=0.01)
    value, error = spectrum.trace(found, columns)
    assert abs(value - np.sum(x**2) / rows) < 4 * error < 0.1 * value


@pytest.mark.parametrize("jit", [True, False])
def test_quadrature_is_exact_for_the_vector_it_has_seen(jit):
    """Moments up to degree 2m - 1, by Gauss; a diagonal matrix tells all trace exactly.

    With sign vectors v every v_i^2 is 1, so v^T D^k v is the trace of D^k.
    """
    values = jnp.asarray([-2.0, 0.0, 0.0, 0.5, 1.0, 1.0, 3.0])

    def find(key):
        product = lambda v: values * v  # noqa: E731
        return spectrum.quadrature(product, values, key=key, steps=4, probes=3)

    nodes, weights = (jax.jit(find) if jit else find)(KEY)
    chex.assert_shape([nodes, weights], (3, 4))
    for power in range(8):
        moment = (weights * nodes**power).sum(1)
        exact = float((values**power).mean())
        np.testing.assert_allclose(moment, exact, rtol=1e-3, atol=1e-5)


def test_shares_count_eigenvalues():
    values = jnp.asarray([-2.0] * 3 + [0.0] * 5 + [1.0] * 2)
    found = spectrum.quadrature(lambda v: values * v, values, key=KEY, steps=10)
    share = spectrum.share_below(found, -1.0)
    assert share.value == pytest.approx(0.3, abs=1e-5)
    assert share.standard_error == pytest.approx(0, abs=1e-5)
    alone = spectrum.Quadrature(found.nodes[:1], found.weights[:1])
    assert np.isnan(spectrum.share_below(alone, -1.0).standard_error)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"smallest": -1}, "none negative; they are -1 and 1"),
        ({"smallest": 0, "largest": 0}, r"must be 1 to 5 \(steps\)"),
        ({"steps": 2, "largest": 2}, r"must be 1 to 2 \(steps\)"),
    ],
)
def test_counts_out_of_range(options, said):
    with pytest.raises(InputError, match=said):
        spectrum.eigenpairs(lambda v: v, jnp.zeros(5), key=KEY, **options)


def test_nan_is_refused_and_under_jit_shown():
    def find(v):
        return spectrum.eigenpairs(lambda v: v * jnp.nan, v, key=KEY, steps=3)

    with pytest.raises(InputError, match="hold NaN or infinity"):
        find(jnp.ones(5))
    assert np.isnan(jax.jit(find)(jnp.ones(5)).values).all()


def test_widths_and_probes_out_of_range():
    found = spectrum.Quadrature(jnp.zeros((1, 1)), jnp.ones((1, 1)))
    with pytest.raises(InputError, match="width must be positive, not 0"):
        spectrum.density(found, jnp.zeros(3), width=0.0)
    with pytest.raises(InputError, match="probes must be at least 1, not 0"):
        spectrum.quadrature(lambda v: v, jnp.ones(5), key=KEY, probes=0)
