"""Dropout whose mask does not depend on how the batch is spread over devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.traced import is_off


class Dropout(nn.Module):
    """Drops units at random in training and scales up the others.

    Srivastava et al. 2014, in the inverted form. Each example's mask derives from the
    "dropout" key and the example's place in the whole batch; `flax.linen.Dropout` would
    draw the same mask on every device of a mapped axis.

    Attributes:
        rate: Probability of dropping a unit, in [0, 1); may be traced.
        axis_name: Mapped axis over which the batch is spread, if any.
    """

    rate: float | jax.Array
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Float [N, ...] -> the same shape and dtype."""
        if not train or is_off(self.rate):
            return x
        places = jnp.arange(len(x))
        if self.axis_name is not None:
            places += len(x) * jax.lax.axis_index(self.axis_name)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(self.make_rng("dropout"), places)
        # Also faster on a CPU than one draw for the batch.
        kept = jax.vmap(
            lambda key: jax.random.bernoulli(key, 1 - self.rate, x.shape[1:])
        )(keys)
        return jnp.where(kept, x / (1 - self.rate), 0)
