"""A loss along a segment and over a plane of its parameter space: what figures show."""

import jax
import jax.numpy as jnp

from jaxdl.convexity.hessian import Loss, Tree


def along(loss: Loss, a: Tree, b: Tree, places: jax.Array) -> jax.Array:
    """The loss at a + t (b - a).

    Args:
      loss: parameters -> float [].
      a: where t is 0.
      b: where t is 1; a pytree like `a`.
      places: float [t].

    Returns:
      float [t].
    """

    def at(t: jax.Array) -> jax.Array:
        return loss(jax.tree.map(lambda x, y: x + t * (y - x), a, b))

    return jax.lax.map(at, places)


def over(
    loss: Loss,
    centre: Tree,
    axes: tuple[Tree, Tree],
    first: jax.Array,
    second: jax.Array,
) -> jax.Array:
    """The loss at centre + s u + t v, for axes (u, v).

    Args:
      loss: parameters -> float [].
      centre: where s and t are 0.
      axes: two pytrees like `centre`.
      first: float [s].
      second: float [t].

    Returns:
      float [t, s], as Matplotlib's `contour` takes it.
    """

    def at(st: tuple[jax.Array, jax.Array]) -> jax.Array:
        s, t = st
        return loss(jax.tree.map(lambda c, u, v: c + s * u + t * v, centre, *axes))

    s, t = jnp.meshgrid(first, second)
    return jax.lax.map(at, (s.ravel(), t.ravel())).reshape(s.shape)
