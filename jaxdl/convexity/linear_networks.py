"""What is known of deep linear networks under squared error, in closed form.

Not convex, they have no bad local minima: every local minimum is a global one, and
every other critical point a saddle (Baldi and Hornik 1989, "Neural networks and
principal component analysis", for two layers; Kawaguchi 2016, "Deep learning without
poor local minima", for any depth). Both ask that the features and the labels are in
general position: see `Optimum`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxdl.errors import InputError


class Optimum(NamedTuple):
    """The least squared error of a linear network with a narrowest layer."""

    loss: float
    """Mean over the examples of the squared distance to the targets."""
    unrestricted: float
    """The same without the narrow layer: ordinary least squares."""
    features: int
    """How many there are: D."""
    features_rank: int
    """Rank of the centred features; the theorems ask for D."""
    gap: float
    """Least relative distance of two neighbours among the K variances that the fit
    explains, but for those that are zero; the theorems ask for a positive one."""


def optimum(features: ArrayLike, targets: ArrayLike, *, width: int) -> Optimum:
    """The global minimum, by least squares and a singular value decomposition.

    A chain of affine layers is one affine map whose matrix has a rank of at most the
    narrowest width. The best such map is the least-squares fit, projected on the
    `width` leading principal components of what it predicts (Baldi and Hornik 1989,
    section 3).

    Args:
      features: float [N, D].
      targets: float [N, K].
      width: units of the narrowest hidden layer.

    Raises:
      InputError: other shapes, or a number that is not finite.
    """
    x, y = np.asarray(features, np.float64), np.asarray(targets, np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not len(x):
        raise InputError(
            f"features must be [N, D] and targets [N, K], got {x.shape} and {y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError("features and targets must be finite, got NaN or infinity")
    x, y = x - x.mean(0), y - y.mean(0)  # the biases take up the means
    weights, _, rank, _ = np.linalg.lstsq(x, y, rcond=1e-10)
    fit = x @ weights
    explained = np.linalg.svd(fit, compute_uv=False) ** 2 / len(x)
    unexplained = np.sum((y - fit) ** 2) / len(x)
    present = explained[explained > 1e-12 * explained[0]]
    return Optimum(
        loss=float(unexplained + explained[width:].sum()),
        unrestricted=float(unexplained),
        features=x.shape[1],
        features_rank=int(rank),
        gap=float(np.min(-np.diff(present) / present[:-1], initial=1.0)),
    )
