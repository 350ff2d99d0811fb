"""Deep linear networks in `experiments.convexity`: trained, and at their optimum.

Import it late: it brings JAX.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from jaxdl.convexity import hessian, linear_networks, problems
from jaxdl.convexity.linear_networks import Optimum

DIGITS = (
    "scikit-learn's digits table (1,797 images of 8x8 pixels; embedded), as its 61 "
    "principal components, scaled to variance one"
)
MEANS = (
    "the ten means of scikit-learn's breast cancer table (569 examples; embedded), as "
    "their principal components, scaled to variance one"
)
"""No plane separates the classes, so cross-entropy has a minimum."""
DEPTHS = (2, 3)
MOMENTUM, CLIP = 0.95, 1.0
"""The norm to which gradient descent clips: between saddles a deep linear network can
be so steep that momentum would overshoot without end."""
SCALE = 0.2
"""Standard deviation of the random starts."""


class Descents(NamedTuple):
    """A deep linear network, trained from several starts."""

    depth: int
    loss: str
    """"MSE" or "CE"."""
    least: float
    """The global minimum: in closed form, or of the convex problem of one layer."""
    gaps: list[np.ndarray]
    """For each start, loss less minimum by step, float64 [steps]."""
    eigenvalues: np.ndarray
    """Of the Hessian where the first start has ended, ascending."""
    flat: int
    """Directions along which the parameters can change and the loss does not."""
    optimum: Optimum | None
    """The closed form under squared error."""


def squared_error(depth: int, starts: int, seed: int) -> Descents:
    """Trains under squared error, beside the minimum in closed form.

    Args:
      depth: layers, a key of the table.
      starts: random ones.
      seed: draws them.
    """
    table, width = load_digits(), problems.WIDTH
    features = PCA(61, whiten=True, svd_solver="full").fit_transform(table.data)
    features = features.astype(np.float32)
    least = linear_networks.optimum(features, np.eye(10)[table.target], width=width)
    ends, values, eigenvalues = _descend(
        f"deep linear {depth} + MSE",
        *(features, table.target),
        *(starts, seed),
        rate=0.03,
        steps=8000,
    )
    del ends
    return Descents(
        depth=depth,
        loss="MSE",
        least=least.loss,
        gaps=[each - least.loss for each in values],
        eigenvalues=eigenvalues,
        flat=(depth - 1) * (width**2 + width),
        optimum=least,
    )


def cross_entropy(depth: int, starts: int, seed: int) -> Descents:
    """Trains under cross-entropy, beside the minimum of a single layer.

    That is a convex problem. There are two classes, so no hidden layer of
    `problems.WIDTH` units narrows the network: with or without hidden layers it
    computes the same functions, and has the same minimum.
    All that counts is the difference of the two logits: D weights and a bias.

    Args:
      depth: layers, a key of the table.
      starts: random ones.
      seed: draws them.
    """
    table = load_breast_cancer()
    means = StandardScaler().fit_transform(table.data[:, :10])
    features = PCA(10, whiten=True, svd_solver="full").fit_transform(means)
    features = features.astype(np.float32)
    single = LogisticRegression(
        C=np.inf, solver="newton-cholesky", tol=1e-12, max_iter=1000
    ).fit(features.astype(np.float64), table.target)
    least = float(log_loss(table.target, single.predict_proba(features)))
    ends, values, eigenvalues = _descend(
        f"deep linear {depth} + CE",
        *(features, table.target),
        *(starts, seed),
        rate=0.1,
        steps=4000,
    )
    return Descents(
        depth=depth,
        loss="CE",
        least=least,
        gaps=[each - least for each in values],
        eigenvalues=eigenvalues,
        flat=ends[0].size - (features.shape[1] + 1),
        optimum=None,
    )


def _descend(
    problem: str,
    features: np.ndarray,
    labels: np.ndarray,
    starts: int,
    seed: int,
    *,
    rate: float,
    steps: int,
) -> tuple[list[jax.Array], list[np.ndarray], np.ndarray]:
    """Gradient descent with momentum, in float64, on all examples at once.

    Returns:
      For each start where it ends and the loss by step; and the eigenvalues of the
      Hessian where the first one ends.
    """
    loss, zero = problems.PROBLEMS[problem](features, labels)
    with jax.enable_x64():
        flat, unravel = ravel_pytree(
            jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), zero)
        )
        optimizer = optax.chain(
            optax.clip_by_global_norm(CLIP), optax.sgd(rate, MOMENTUM, nesterov=True)
        )
        value_and_grad = jax.value_and_grad(lambda p: loss(unravel(p)))

        @jax.jit
        def descend(start: jax.Array) -> tuple[jax.Array, jax.Array]:
            def step(carry: Any, _: None) -> tuple[Any, jax.Array]:
                params, state = carry
                value, gradient = value_and_grad(params)
                updates, state = optimizer.update(gradient, state)
                return (optax.apply_updates(params, updates), state), value

            (params, _), values = jax.lax.scan(
                step, (start, optimizer.init(start)), length=steps
            )
            return params, values

        keys = jax.random.split(jax.random.key(seed), starts)
        runs = [
            descend(SCALE * jax.random.normal(k, flat.shape, flat.dtype)) for k in keys
        ]
        matrix = jax.jit(lambda p: hessian.dense(loss, unravel(p)))(runs[0][0])
    return (
        [end for end, _ in runs],
        [np.asarray(values, np.float64) for _, values in runs],
        np.linalg.eigvalsh(np.asarray(matrix)),
    )
