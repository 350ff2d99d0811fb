"""Reliability and calibration error against scikit-learn and known cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from jaxdl import calibration
from jaxdl.errors import InputError


def drawn(seed: int, count: int = 1000):
    rng = np.random.default_rng(seed)
    p = rng.random(count)
    return p, (rng.random(count) < p).astype(float)


def test_points_are_those_of_scikit_learn():
    p, y = drawn(0)
    found = calibration.reliability(y, p, bins=10)
    observed, predicted = calibration_curve(y, p, n_bins=10, strategy="quantile")
    np.testing.assert_allclose(found.predicted, predicted, atol=1e-12)
    np.testing.assert_allclose(found.observed, observed, atol=1e-12)
    np.testing.assert_array_equal(found.counts, 100)


def test_known_errors():
    p, _ = drawn(1)
    assert calibration.expected_calibration_error(p, p) < 1e-15
    half = np.full(6, 0.5)
    error = calibration.expected_calibration_error([1, 1, 1, 0, 0, 0], half, bins=1)
    assert error == 0
    assert calibration.expected_calibration_error(np.ones(6), half) == 0.5
    # Two bins, off by 0.2 and by 0.3.
    error = calibration.expected_calibration_error(
        [0, 0, 1, 1], [0.2, 0.2, 0.7, 0.7], bins=2
    )
    np.testing.assert_allclose(error, 0.25)


def test_equal_predictions_count_alike_in_whatever_order():
    """A tie that lies across several bins: scikit-learn has one bin for it."""
    truth, half = np.repeat([1.0, 0.0], 50), np.full(100, 0.5)
    assert calibration.expected_calibration_error(truth, half) < 1e-15
    rng = np.random.default_rng(3)
    p = rng.choice([0.1, 0.5, 0.9], 3000)
    y = (rng.random(3000) < p).astype(float)
    exact = sum(abs(y[p == v].mean() - v) * (p == v).mean() for v in (0.1, 0.5, 0.9))
    for order in (np.argsort(y), np.argsort(-y), rng.permutation(3000)):
        error = calibration.expected_calibration_error(y[order], p[order])
        np.testing.assert_allclose(error, exact, atol=2e-3)
        np.testing.assert_allclose(
            error, calibration.expected_calibration_error(y, p), rtol=1e-12
        )


def test_true_probabilities_are_calibrated_up_to_the_scatter_of_labels():
    p, y = drawn(2, count=200_000)
    assert calibration.expected_calibration_error(y, p) < 0.005
    assert calibration.expected_calibration_error(y, p**2) > 0.1


@given(seed=st.integers(0, 1000), count=st.integers(1, 40), bins=st.integers(1, 12))
@settings(max_examples=50, deadline=None)
def test_bins_hold_all_examples_and_the_error_is_bounded(seed, count, bins):
    p, y = drawn(seed, count)
    found = calibration.reliability(y, p, bins)
    assert len(found.counts) == min(bins, count) and np.ptp(found.counts) <= 1
    assert found.counts.sum() == count
    assert (np.diff(found.predicted) >= 0).all()
    np.testing.assert_allclose(found.counts @ found.observed, y.sum())
    # Finer bins than one can only add to the distance of the means.
    error = calibration.expected_calibration_error(y, p, bins)
    assert abs(p.mean() - y.mean()) - 1e-12 <= error <= 1


@pytest.mark.parametrize(
    ("truth", "probabilities", "bins", "match"),
    [
        ([0, 1], [0.5], 10, "N > 0"),
        ([], [], 10, "N > 0"),
        ([0, 1], [0.5, np.nan], 10, "probabilities must lie"),
        ([0, 1], [0.5, 1.2], 10, "not 1.2"),
        ([0, -1], [0.5, 0.2], 10, "truth must lie"),
        ([0, 1], [0.5, 0.2], 0, "bins"),
    ],
)
def test_bad_input_is_refused(truth, probabilities, bins, match):
    with pytest.raises(InputError, match=match):
        calibration.expected_calibration_error(truth, probabilities, bins)
