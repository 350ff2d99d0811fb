"""Separation by a plane, against planted planes and scikit-learn's support vectors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import SVC

from jaxdl import separation
from jaxdl.errors import InputError


def planted(seed: int, count: int = 30, width: int = 3, gap: float = 0.2):
    """Two classes with an empty strip of that half-width between them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, width))
    normal = rng.normal(size=width)
    normal /= np.linalg.norm(normal)
    side = np.where(np.arange(count) % 2, 1.0, -1.0)
    across = x @ normal
    x += np.outer(side * (gap + np.abs(across)) - across, normal)
    return x + 0.3 * normal, (side > 0).astype(float)


@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1e-6, 1.0, 1e6]))
@settings(max_examples=30, deadline=None)
def test_planted_planes_are_found_at_any_scale(seed, scale):
    x, y = planted(seed)
    assert separation.separable(scale * x, y)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_a_point_amid_the_other_class_prevents_it(seed):
    x, y = planted(seed)
    zeros = x[y == 0]
    assert not separation.separable(np.vstack([x, zeros.mean(0)]), np.append(y, 1.0))


def test_points_on_the_plane_are_allowed_but_not_all():
    x = np.array([[0.0], [0.0], [1.0]])
    assert separation.separable(x, [0, 1, 1])  # no optimum: quasi-separation
    assert not separation.separable(np.zeros((4, 2)), [0, 1, 0, 1])
    with pytest.raises(InputError, match="no plane"):
        separation.max_margin(x, [0, 1, 1])


@pytest.mark.parametrize("seed", range(5))
def test_margin_is_that_of_the_support_vector_machine(seed):
    x, y = planted(seed)
    weights, bias = separation.max_margin(x, y)
    # Mirrored, so that the machine's own intercept is 0 and the bias is a weight.
    rows = np.column_stack([x, np.ones(len(x))])
    machine = SVC(kernel="linear", C=1e9, tol=1e-10).fit(
        np.vstack([rows, -rows]), np.append(y, 1 - y)
    )
    np.testing.assert_allclose(np.append(weights, bias), machine.coef_[0], rtol=1e-4)
    margins = (2 * y - 1) * (x @ weights + bias)
    np.testing.assert_allclose(margins.min(), 1, rtol=1e-9)


def test_without_a_plane_there_is_no_margin():
    x, y = planted(0)
    with pytest.raises(InputError, match="no margin"):
        separation.max_margin(np.vstack([x, x]), np.append(y, 1 - y))


@pytest.mark.parametrize("function", [separation.separable, separation.max_margin])
def test_bad_input_is_refused(function):
    x, y = planted(0)
    with pytest.raises(InputError, match="both classes"):
        function(x, np.ones(len(y)))
    x[2, 1] = np.nan
    with pytest.raises(InputError, match="row 2, column 1"):
        function(x, y)
