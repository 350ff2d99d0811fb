"""Data for the rows of the table, and their verdicts, known beforehand."""

import numpy as np

NOT_CONVEX = {
    "sigmoid + MSE",
    "deep linear 2 + MSE",
    "deep linear 2 + CE",
    "deep linear 3 + MSE",
    "deep linear 3 + CE",
    "ReLU network",
}
"""The rest is convex: log-sum-exp, squares, maxima of affine functions."""


def data() -> tuple[np.ndarray, np.ndarray]:
    """Features [12, 3] and labels 0 and 1 [12] that a line does not separate."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((12, 3))
    noise = rng.standard_normal(12)
    return features, (features @ [1.0, -1.0, 0.5] + noise > 0).astype(int)
