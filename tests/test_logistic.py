"""Logistic regression against scikit-learn, SciPy and closed forms."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from absl.testing import parameterized
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from jaxdl import logistic, losses
from jaxdl.errors import InputError
from jaxdl.logistic import LOSSES, Linear

NAMES = sorted(LOSSES)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64():
        yield


def cancer(columns: int = 10):
    """Real; with 10 columns no plane separates the classes, with all 30 one does."""
    x, y = load_breast_cancer(return_X_y=True)
    x = x[:, :columns]
    return (x - x.mean(0)) / x.std(0), y


def drawn(seed: int, count: int = 60, width: int = 3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, width))
    y = (rng.random(count) < expit(2 * x[:, 0])).astype(float)
    y[:2] = 0, 1  # both classes, whatever was drawn
    return x, y


def value(loss, point, x, y, l2=0.0):
    """The objective in NumPy, at a flat point: weights, bias."""
    z = x @ point[:-1] + point[-1]
    errors = (expit(z) - y) ** 2
    each = errors if loss == "mse" else np.logaddexp(0, z) - y * z
    return each.mean() + l2 / 2 * point[:-1] @ point[:-1]


class LossesTest(chex.TestCase):
    """With and without jit."""

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(0.0, 1.0)
    def test_values_and_slopes_are_the_closed_forms(self, label):
        with jax.enable_x64():
            z = np.linspace(-12, 12, 49)
            sigma = expit(z)
            wanted = {
                "cross_entropy": (-np.log(expit((2 * label - 1) * z)), sigma - label),
                "mse": (
                    (sigma - label) ** 2,
                    2 * (sigma - label) * sigma * (1 - sigma),
                ),
            }
            for name, loss in LOSSES.items():
                both = self.variant(jax.vmap(jax.value_and_grad(loss), (0, None)))
                found = both(jnp.asarray(z), jnp.asarray(label))
                for one, other in zip(found, wanted[name], strict=True):
                    np.testing.assert_allclose(one, other, rtol=1e-9)


@given(z=st.floats(-8, 8), label=st.sampled_from([0.0, 1.0]))
@settings(max_examples=40, deadline=None)
def test_two_classes_of_the_training_losses_are_these(z, label):
    pair, index = jnp.array([[0.0, z]]), jnp.array([int(label)])
    for name, times in (("cross_entropy", 1), ("mse", 2)):
        one = LOSSES[name](jnp.asarray(z), jnp.asarray(label))
        other = losses.LOSSES[name](pair, index)[0]  # float32
        np.testing.assert_allclose(times * one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("p", [0.02, 0.3, 0.5, 0.9])
def test_both_are_proper_the_truth_is_the_best_prediction(name, p):
    def expected(z):
        one, zero = (LOSSES[name](jnp.asarray(z), jnp.asarray(y)) for y in (1.0, 0.0))
        return float(p * one + (1 - p) * zero)

    best = scipy.optimize.minimize_scalar(expected, bounds=(-8, 8), method="bounded")
    assert abs(expit(best.x) - p) < 1e-4


@pytest.mark.parametrize("l2", [0.0, 1e-3, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_has_the_coefficients_of_scikit_learn(l2, weighted):
    x, y = cancer()
    weights = np.random.default_rng(0).uniform(0.5, 2, len(y)) if weighted else None
    total = len(y) if weights is None else weights.sum()
    reference = LogisticRegression(
        C=np.inf if l2 == 0 else 1 / (total * l2),
        solver="newton-cholesky",
        tol=1e-12,
        max_iter=1000,
    ).fit(x, y, sample_weight=weights)
    found = logistic.fit(x, y, l2=l2, weights=weights)
    np.testing.assert_allclose(found.model.weights, reference.coef_[0], atol=1e-6)
    np.testing.assert_allclose(found.model.bias, reference.intercept_[0], atol=1e-6)
    assert found.slope < 1e-8 and found.curvature > 0
    assert found.model.weights.dtype == np.float64


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("l2", [0.0, 1e-3])
def test_optimum_is_that_of_scipy(name, l2):
    x, y = drawn(1)
    reference = scipy.optimize.minimize(
        lambda point: value(name, point, x, y, l2),
        np.zeros(4),
        method="BFGS",
        options={"gtol": 1e-9},
    )
    found = logistic.fit(x, y, name, l2=l2)
    np.testing.assert_allclose(found.value, reference.fun, rtol=1e-9)
    point = np.append(found.model.weights, found.model.bias)
    np.testing.assert_allclose(point, reference.x, atol=1e-6)


@functools.partial(jax.jit, static_argnums=0)
def ends(loss, starts, x, y, l2):
    """Where Newton's method ends from each of the starts."""
    return jax.vmap(lambda start: logistic.newton(loss, start, x, y, l2=l2))(starts)


@given(seed=st.integers(0, 10**6), l2=st.sampled_from([1e-4, 1e-2, 1.0]))
@settings(max_examples=25, deadline=None)
def test_penalised_cross_entropy_has_one_optimum_from_any_start(seed, l2):
    x, y = map(jnp.asarray, drawn(seed, count=20))
    weights = 8 * np.random.default_rng(seed).normal(size=(4, 3))
    starts = Linear(jnp.asarray(weights), jnp.zeros(4))

    found = ends("cross_entropy", starts, x, y, l2)
    assert found.slope.max() < 1e-9
    assert np.ptp(found.model.weights, axis=0).max() < 1e-5
    slope = jax.grad(logistic.objective, argnums=1)(
        "cross_entropy", jax.tree.map(lambda leaf: leaf[0], found.model), x, y, l2=l2
    )
    chex.assert_trees_all_close(slope, jax.tree.map(jnp.zeros_like, slope), atol=1e-8)


def two_valleys():
    """Eight of ten examples at 1 want a positive weight, five at 10 a negative one.

    Mirrored, so that the bias is 0 at the minima.
    """
    x = np.repeat([1.0, 10.0], [10, 5])
    y = np.repeat([1.0, 0.0, 0.0], [8, 2, 5])
    return np.append(x, -x)[:, None], np.append(y, 1 - y)


def test_squared_error_has_two_minima_where_cross_entropy_has_one():
    x, y = two_valleys()

    @functools.partial(jax.jit, static_argnums=0)
    def slope(loss, w):
        return jax.grad(
            lambda w: logistic.objective(loss, Linear(w[None], jnp.zeros(())), x, y)
        )(jnp.asarray(w, float))

    minima = {
        "mse": [
            scipy.optimize.brentq(lambda w: slope("mse", w), *between, xtol=1e-13)
            for between in ((-0.5, -0.05), (1, 2))
        ],
        "cross_entropy": [
            scipy.optimize.brentq(
                lambda w: slope("cross_entropy", w), -0.5, 2, xtol=1e-13
            )
        ],
    }
    # At the right one those at 10 are given up: all that is left says sigma(w) = 8/10.
    assert abs(minima["mse"][1] - np.log(4)) < 1e-3
    starts = Linear(jnp.array([[-1.0], [-0.2], [1.0], [1.6]]), jnp.zeros(4))
    for loss, points in minima.items():
        found = ends(loss, starts, jnp.asarray(x), jnp.asarray(y), 0.0)
        assert found.slope.max() < 1e-9 and found.curvature.min() > 0
        distances = np.abs(np.array(points) - found.model.weights)
        assert distances.min(1).max() < 1e-6
        assert set(distances.argmin(1)) == set(range(len(points)))


def test_newton_computes_in_the_precision_it_is_given():
    x, y = drawn(2)
    single = jnp.asarray(x, jnp.float32)
    start = logistic.zeros(single)
    newton = jax.jit(logistic.newton, static_argnums=0)
    found = newton(
        "cross_entropy", start, single, jnp.asarray(y), l2=0.01, tolerance=1e-5
    )
    assert found.model.weights.dtype == jnp.float32
    exact = logistic.fit(x, y, l2=0.01)
    np.testing.assert_allclose(found.model.weights, exact.model.weights, atol=1e-4)


class DescendTest(chex.TestCase):
    """With and without jit."""

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(*NAMES)
    def test_equals_steps_by_finite_differences(self, name):
        with jax.enable_x64():
            x, y = drawn(3)
            point, path = np.zeros(4), []
            for _ in range(7):
                slope = scipy.optimize.approx_fprime(
                    point, lambda p: value(name, p, x, y, 0.1), 1e-7
                )
                point = point - 0.5 * slope
                path.append(point)
            found = self.variant(
                lambda rate: logistic.descend(
                    name,
                    logistic.zeros(jnp.asarray(x)),
                    jnp.asarray(x),
                    jnp.asarray(y),
                    learning_rate=rate,
                    steps=(0, 1, 2, 5, 7),
                    l2=0.1,
                )
            )(0.5)
            wanted = np.stack([np.zeros(4), *(path[n - 1] for n in (1, 2, 5, 7))])
            found = np.column_stack([found.weights, found.bias])
            np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_many_at_once_equal_each_alone():
    sets = [drawn(seed) for seed in range(3)]
    x, y = (jnp.asarray(np.stack(part)) for part in zip(*sets, strict=True))
    rates = jnp.array([0.1, 1.0])

    @jax.jit
    def run(x, y, rate):
        start = logistic.zeros(x)
        return logistic.descend("mse", start, x, y, learning_rate=rate, steps=(3, 20))

    over_rates = jax.vmap(run, in_axes=(None, None, 0))
    together = jax.jit(jax.vmap(over_rates, in_axes=(0, 0, None)))(x, y, rates)
    chex.assert_shape(together.weights, (3, 2, 2, 3))
    for i in range(3):
        for j in range(2):
            alone = run(x[i], y[i], rates[j])
            part = jax.tree.map(lambda leaf, i=i, j=j: leaf[i, j], together)
            chex.assert_trees_all_close(alone, part, rtol=1e-12)


def changed(name):
    """Good input for `fit`, with one fault."""
    x, y = drawn(4)
    options = {}
    match name:
        case "nan":
            x[5, 1] = np.nan
        case "infinite":
            x[0, 0] = np.inf
        case "label":
            y[3] = 2
        case "nan label":
            y[3] = np.nan
        case "one class":
            y[:] = 1
        case "shapes":
            y = y[:-1]
        case "flat":
            x = x[:, 0]
        case "loss":
            options["loss"] = "hinge"
        case "l2":
            options["l2"] = -1.0
        case "nan l2":
            options["l2"] = float("nan")
        case "weights":
            options["weights"] = np.zeros(len(y))
        case "separable":
            x[:, 0] = np.abs(x[:, 0]) * (2 * y - 1) + (2 * y - 1)
    return x, y, options


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("nan", ["nan", "row 5", "column 1", "drop"]),
        ("infinite", ["inf", "row 0"]),
        ("label", ["0 or 1", "2"]),
        ("nan label", ["0 or 1", "nan"]),
        ("one class", ["both classes", "60"]),
        ("shapes", ["[60, 3]", "[59]"]),
        ("flat", ["[N, D]", "[60]"]),
        ("loss", ["'hinge'", "cross_entropy", "mse"]),
        ("l2", ["l2", "-1"]),
        ("nan l2", ["l2", "nan"]),
        ("weights", ["weights", "60 positive"]),
        ("separable", ["plane", "l2 > 0"]),
    ],
)
def test_bad_input_is_one_line(name, parts):
    x, y, options = changed(name)
    with pytest.raises(InputError) as error:
        logistic.fit(x, y, **options)
    line = str(error.value)
    assert "\n" not in line and all(part in line for part in parts), line


def test_separable_classes_can_be_fitted_with_a_penalty():
    x, y = cancer(30)
    with pytest.raises(InputError, match="plane separates"):
        logistic.fit(x, y)
    found = logistic.fit(x, y, l2=0.01)
    reference = LogisticRegression(
        C=1 / (len(y) * 0.01), solver="newton-cholesky", tol=1e-12
    ).fit(x, y)
    np.testing.assert_allclose(found.model.weights, reference.coef_[0], atol=1e-6)


def test_a_loss_that_falls_for_ever_has_no_minimum():
    """No plane separates these, and yet longer weights give less squared error."""
    x = np.array([-1.0] * 10 + [1.0] * 10 + [10.0])[:, None]
    y = np.array([0] * 10 + [1] * 10 + [0])
    with pytest.raises(InputError, match=r"no minimum was found: .* is flat"):
        logistic.fit(x, y, "mse")
    assert logistic.fit(x, y, "mse", l2=0.01).curvature > 1e-9
    assert logistic.fit(x, y, "cross_entropy").slope < 1e-9
