"""Do predicted probabilities come true? What scikit-learn's metrics leave out.

For the Brier score and the log loss see `sklearn.metrics`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxdl.errors import InputError


class Reliability(NamedTuple):
    """Predictions in bins of about equal count, in ascending order."""

    predicted: np.ndarray
    """Mean predicted probability in each bin, float64 [B]."""
    observed: np.ndarray
    """What came true: the mean of the truth in each bin, float64 [B]."""
    counts: np.ndarray
    """Examples in each bin, int64 [B]."""


def reliability(
    truth: ArrayLike, probabilities: ArrayLike, bins: int = 10
) -> Reliability:
    """A reliability diagram's points.

    The bins hold equally many examples (within one) rather than being equally wide,
    since those at the ends of equal width may be nearly empty (Nixon et al. 2019,
    "Measuring calibration in deep learning"). scikit-learn's
    `calibration_curve(strategy="quantile")` gives the same points without the counts,
    but for examples on the border of two bins. Of equal predictions each counts with
    the mean of what came true for them all, as they may be dealt to several bins: so
    the order of the examples changes nothing.

    Args:
      truth: [N], labels 0 or 1, or, where it is known, the true P(1|x) in [0, 1].
      probabilities: predicted for class 1, in [0, 1], [N].
      bins: at most so many; N where there are fewer examples.

    Raises:
      InputError: shapes that differ, no examples, or numbers outside [0, 1].
    """
    truth = np.asarray(truth, np.float64)
    probabilities = np.asarray(probabilities, np.float64)
    if truth.ndim != 1 or truth.shape != probabilities.shape or not len(truth):
        raise InputError(
            f"truth and probabilities must both be [N], N > 0, not {list(truth.shape)} "
            f"and {list(probabilities.shape)}"
        )
    for name, values in (("truth", truth), ("probabilities", probabilities)):
        if not ((values >= 0) & (values <= 1)).all():  # NaN is neither
            odd = values[~((values >= 0) & (values <= 1))][0]
            raise InputError(f"{name} must lie in [0, 1], not {odd}")
    if bins < 1:
        raise InputError(f"bins must be at least 1, not {bins}")
    _, group = np.unique(probabilities, return_inverse=True)
    truth = (np.bincount(group, truth) / np.bincount(group))[group]
    order = np.argsort(probabilities, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return Reliability(
        np.array([probabilities[part].mean() for part in parts]),
        np.array([truth[part].mean() for part in parts]),
        np.array([len(part) for part in parts]),
    )


def expected_calibration_error(
    truth: ArrayLike, probabilities: ArrayLike, bins: int = 10
) -> float:
    """Mean distance between what was predicted and what came true, over bins.

    Weighted by the bins' counts (Naeini et al. 2015); bins of equal count, as in
    `reliability`. With few examples it is above 0 even for the true probabilities, as
    labels scatter.

    Args:
      truth: as in `reliability`.
      probabilities: as in `reliability`.
      bins: as in `reliability`.

    Returns:
      In [0, 1]; 0 is best.

    Raises:
      InputError: as from `reliability`.
    """
    found = reliability(truth, probabilities, bins)
    gaps = np.abs(found.predicted - found.observed)
    return float(np.average(gaps, weights=found.counts))
