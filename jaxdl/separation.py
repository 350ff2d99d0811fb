"""Two classes of points: does a plane separate them, and by how much at most?

Where one does, logistic regression has no optimum without a penalty (`jaxdl.logistic`).
By SciPy's solvers, without JAX.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linprog, nnls

from jaxdl.errors import InputError


def separable(features: ArrayLike, labels: ArrayLike) -> bool:
    """Whether a plane separates the classes, some points on it allowed but not all.

    Exactly then the mean cross-entropy has no minimum (Albert and Anderson 1984). The
    answer is a linear program's (Konis 2007), by SciPy's HiGHS.

    Args:
      features: [N, D], finite numbers.
      labels: [N], each 0 or 1, both present.

    Raises:
      InputError: bad input.
    """
    x, y = checked(features, labels)
    # Amid the features, or a common offset would hide how they differ; the bias takes
    # it up. Halves, because the sum could overflow.
    x = x - (x.min(axis=0) / 2 + x.max(axis=0) / 2)
    rows = _signed(x / np.maximum(np.abs(x).max(axis=0), 1e-300), y)
    found = linprog(-rows.sum(0), A_ub=-rows, b_ub=np.zeros(len(rows)), bounds=(-1, 1))
    # HiGHS lets each row fall short of 0 by 1e-7.
    return bool(-found.fun > 1e-6 * len(rows))


def max_margin(features: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The shortest (weights, bias) with y (weights . x + bias) >= 1, y being -1 or 1.

    The hard-margin support vector machine on features with a constant 1 beside them, so
    the bias counts in the length. The distance of the closest example to the plane is
    1 / length there. Solved as a least-distance problem by non-negative least squares
    (Lawson and Hanson 1974, "Solving Least Squares Problems", chapter 23).

    Args:
      features: [N, D], finite numbers.
      labels: [N], each 0 or 1, both present.

    Returns:
      Weights, float64 [D], and bias, float64 [].

    Raises:
      InputError: bad input, or no plane separates the classes with none on it, or so
        narrowly that float64 does not tell: at some 1e-6 of the features' size.
    """
    x, y = checked(features, labels)
    rows = _signed(x, y)
    system = np.vstack([rows.T, np.ones(len(rows))])
    wanted = np.append(np.zeros(rows.shape[1]), 1.0)
    held = rows[nnls(system, wanted, maxiter=100 * len(rows))[0] > 0]
    # The direction would be that of the residual, but where the plane is far from the
    # origin little of it is left. The shortest with margin 1 at what holds the plane is
    # the same; again for what is missing, because rows far from the origin look alike.
    shortest = np.zeros(rows.shape[1])
    for _ in range(3):
        missing = 1 - held @ shortest
        shortest += np.linalg.lstsq(held, missing)[0]
    if not (rows @ shortest > 1 - 1e-6).all():
        raise InputError(
            "no plane separates the classes, or too narrowly beside the size of the "
            "features, so there is no margin"
        )
    return shortest[:-1], shortest[-1]


def _signed(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rows y (x, 1), [N, D+1]: a model is right where its product with one is > 0."""
    extended = np.column_stack([features, np.ones(len(features))])
    return (2 * labels - 1)[:, None] * extended


def checked(features: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels as float64 arrays of finite numbers and of 0 and 1.

    Args:
      features: [N, D].
      labels: [N].

    Raises:
      InputError: they cannot be taken for two classes of points.
    """
    x, y = np.asarray(features, np.float64), np.asarray(labels, np.float64)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise InputError(
            f"features must be [N, D] and labels [N], not {list(x.shape)} and "
            f"{list(y.shape)}"
        )
    if bad := int(x.size - np.isfinite(x).sum()):
        where = tuple(map(int, np.argwhere(~np.isfinite(x))[0]))
        raise InputError(
            f"features must be finite: {bad} are not, the first is {x[where]} in row "
            f"{where[0]}, column {where[1]}; drop such rows or fill them in"
        )
    if odd := sorted(set(np.unique(y)) - {0.0, 1.0}):
        raise InputError(f"labels must be 0 or 1, not {odd[0]:g}")
    if len(np.unique(y)) < 2:
        raise InputError(f"both classes must occur among the {len(y)} labels")
    return x, y
