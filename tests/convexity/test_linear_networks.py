"""The optimum of deep linear networks against scikit-learn, SciPy and descents."""

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from jaxdl.convexity import linear_networks, problems
from jaxdl.errors import InputError


def draw(seed: int, n: int = 40, d: int = 5, k: int = 3):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * rng.uniform(0.1, 3, d) + 2
    y = x @ rng.standard_normal((d, k)) + rng.standard_normal((n, k)) - 4
    return x, y


@given(st.integers(0, 100), st.integers(3, 9))
@settings(deadline=None, max_examples=20)
def test_wide_enough_it_is_least_squares(seed, width):
    x, y = draw(seed)
    found = linear_networks.optimum(x, y, width=width)
    residuals = y - LinearRegression().fit(x, y).predict(x)
    loss = np.mean(np.sum(residuals**2, axis=1))
    assert found.loss == pytest.approx(loss, rel=1e-9)
    assert found.loss == found.unrestricted
    assert found.features == found.features_rank == 5
    assert 0 < found.gap <= 1


@pytest.mark.parametrize("width", [1, 2])
def test_narrow_it_is_the_best_of_many_descents(width):
    """Over all pairs of narrow matrices, by SciPy's BFGS from many starts."""
    x, y = draw(1)

    def loss(flat):
        left, right, bias = np.split(flat, [5 * width, 8 * width])
        out = x @ left.reshape(5, width) @ right.reshape(width, 3) + bias
        return np.mean(np.sum((out - y) ** 2, axis=1))

    rng = np.random.default_rng(0)
    reached = [
        scipy.optimize.minimize(loss, rng.standard_normal(8 * width + 3)).fun
        for _ in range(4)
    ]
    found = linear_networks.optimum(x, y, width=width)
    assert min(reached) == pytest.approx(found.loss, rel=1e-6)
    assert min(reached) >= found.loss * (1 - 1e-9)
    assert found.loss > found.unrestricted


def test_features_that_depend_on_others_are_counted_once():
    x, y = draw(2)
    doubled = np.hstack([x, x[:, :2]])
    found = linear_networks.optimum(doubled, y, width=3)
    assert (found.features, found.features_rank) == (7, 5)
    assert found.loss == pytest.approx(linear_networks.optimum(x, y, width=3).loss)


def test_one_hot_labels_leave_a_variance_of_zero_out():
    x, _ = draw(3)
    labels = np.arange(40) % 3
    assert linear_networks.optimum(x, np.eye(3)[labels], width=3).gap > 1e-3


def test_data_that_are_at_fault_are_refused():
    x, y = draw(0)
    with pytest.raises(InputError, match=r"got \(40, 5\) and \(39, 3\)"):
        linear_networks.optimum(x, y[1:], width=1)
    x[3, 2] = np.nan
    with pytest.raises(InputError, match="must be finite"):
        linear_networks.optimum(x, y, width=1)
    with pytest.raises(InputError, match="features must be finite: 1 are not"):
        problems.PROBLEMS["linear + MSE"](x, np.arange(40) % 3)
