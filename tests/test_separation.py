"""Separation by a plane, against planted planes and scikit-learn's support vectors."""

import fractions
import itertools

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


def exact_margin(x, y):
    """The shortest (weights, bias), by trying all supports in fractions."""
    signs = (2 * y - 1).astype(int)
    rows = np.column_stack([x, np.ones(len(x))]).tolist()
    rows = np.array([[fractions.Fraction(v) for v in row] for row in rows])
    rows = rows * signs[:, None]
    for count in range(1, rows.shape[1] + 1):
        for held in itertools.combinations(rows, count):
            lengths = solved(np.array(held) @ np.array(held).T)
            if lengths is not None and min(lengths) >= 0:
                shortest = lengths @ np.array(held)
                if min(rows @ shortest) >= 1:
                    return shortest.astype(float)
    raise AssertionError("no plane")


def solved(matrix):
    """The solution with 1 on the right; None where the matrix is singular."""
    system = np.column_stack([matrix, [fractions.Fraction(1)] * len(matrix)])
    for i in range(len(system)):
        pivots = np.flatnonzero(system[i:, i]) + i
        if not len(pivots):
            return None
        system[[i, pivots[0]]] = system[[pivots[0], i]]
        system[i] /= system[i, i]
        for j in range(len(system)):
            if j != i:
                system[j] -= system[j, i] * system[i]
    return system[:, -1]


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e3, 1e4, 1e5, 1e6])
def test_margin_is_exact_far_from_the_origin(offset):
    for seed in range(10):
        width = 1 + seed % 3
        x, y = planted(seed, count=8, width=width, gap=1.0)
        x += offset * np.random.default_rng(seed).normal(size=width)
        assert separation.separable(x, y)
        found, best = np.append(*separation.max_margin(x, y)), exact_margin(x, y)
        # Relative to the longest of them: a plane far away is given by its bias.
        error = np.abs(found - best).max() / np.abs(best).max()
        assert error < 1e-9, (seed, error)


@pytest.mark.parametrize("offset", [0, 1e3, 1e6, -1e6])
def test_classes_in_a_row_are_separated_at_any_offset(offset):
    x, y = offset + np.arange(6.0)[:, None], np.array([0, 0, 0, 1, 1, 1])
    weights, bias = separation.max_margin(x, y)
    np.testing.assert_allclose([*weights, bias], [2, -5 - 2 * offset], rtol=1e-9)
    for far in (x, 1e7 + x, 1e300 * x):
        assert separation.separable(far, y)
        assert not separation.separable(far, [0, 0, 1, 0, 1, 1])


def test_classes_of_years_are_separated():
    years = np.arange(1990.0, 2010.0)
    weights, bias = separation.max_margin(years[:, None], years >= 2000)
    np.testing.assert_allclose([*weights, bias], [2, -3999], rtol=1e-9)


def test_no_plane_is_found_between_mixed_classes_at_any_offset():
    for seed, offset in enumerate([0, 1e3, 1e6]):
        x, y = planted(seed)
        x = np.vstack([x, x[y == 0].mean(0)]) + offset
        assert not separation.separable(x, np.append(y, 1.0))
        with pytest.raises(InputError, match="no plane"):
            separation.max_margin(x, np.append(y, 1.0))


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
