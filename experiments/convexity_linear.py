"""Deep linear networks in `experiments.convexity`: trained, and in closed form.

Import it late: it brings JAX.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from jaxdl.convexity import hessian, linear_networks, problems
from jaxdl.convexity.linear_networks import Optimum

DIGITS = (
    "scikit-learn's digits table (1,797 images of 8x8 pixels; embedded), as its 61 "
    "principal components, scaled to variance one"
)
DEPTHS = (2, 3)
STEPS = 8000
"""Of gradient descent."""
RATE, MOMENTUM, CLIP = 0.03, 0.95, 1.0
"""Its learning rate, and the norm to which it clips the gradient: between saddles a
deep linear network can be so steep that momentum would overshoot without end."""
SCALE = 0.2
"""Standard deviation of the random starts."""


class Descents(NamedTuple):
    """A deep linear network, trained from several starts."""

    depth: int
    optimum: Optimum
    """In closed form."""
    gaps: list[np.ndarray]
    """For each start, loss less optimum by step, float64 [STEPS]."""
    eigenvalues: np.ndarray
    """Of the Hessian where the first start has ended, ascending."""
    flat: int
    """Directions along which the parameters can change and the network does not."""


def descents(depth: int, starts: int, seed: int) -> Descents:
    """Trains a deep linear network under squared error by gradient descent.

    In float64, with momentum, on all examples at once.

    Args:
      depth: layers, a key of the table.
      starts: random ones.
      seed: draws them.
    """
    table = load_digits()
    features = PCA(61, whiten=True, svd_solver="full").fit_transform(table.data)
    features = features.astype(np.float32)
    loss, zero = problems.PROBLEMS[f"deep linear {depth} + MSE"](features, table.target)
    least = linear_networks.optimum(
        features, np.eye(10)[table.target], width=problems.WIDTH
    )
    with jax.enable_x64():
        flat, unravel = ravel_pytree(
            jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), zero)
        )
        optimizer = optax.chain(
            optax.clip_by_global_norm(CLIP), optax.sgd(RATE, MOMENTUM, nesterov=True)
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
                step, (start, optimizer.init(start)), length=STEPS
            )
            return params, values

        keys = jax.random.split(jax.random.key(seed), starts)
        ends = [
            descend(SCALE * jax.random.normal(k, flat.shape, flat.dtype)) for k in keys
        ]
        matrix = jax.jit(lambda p: hessian.dense(loss, unravel(p)))(ends[0][0])
        gaps = [np.asarray(values) - least.loss for _, values in ends]
    width = problems.WIDTH
    return Descents(
        depth=depth,
        optimum=least,
        gaps=gaps,
        eigenvalues=np.linalg.eigvalsh(np.asarray(matrix)),
        flat=(depth - 1) * (width**2 + width),
    )
