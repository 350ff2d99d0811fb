"""Dropout whose mask does not depend on how the batch is spread over devices."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.traced import is_off


class Dropout(nn.Module):
    """Drops units at random in training and scales up the others.

    Srivastava et al. 2014, in the inverted form. Whether a unit is kept derives from
    the "dropout" key, the example's place in the whole batch and the unit's in the
    example; `flax.linen.Dropout` would draw the same mask on every device of a mapped
    axis.

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
        places = jnp.arange(x.shape[0])
        if self.axis_name is not None:
            places += x.shape[0] * jax.lax.axis_index(self.axis_name)
        key = jax.random.bits(self.make_rng("dropout"), (2,), jnp.uint32)
        units = jnp.arange(math.prod(x.shape[1:]), dtype=jnp.uint32)
        random, _ = threefry(key, places.astype(jnp.uint32)[:, None], units)
        # As jax.random.uniform: 23 bits, [0, 1).
        part = (random >> np.uint32(9)).astype(jnp.float32) * 2.0**-23
        kept = (part < 1 - self.rate).reshape(x.shape)
        return jnp.where(kept, (x / (1 - self.rate)).astype(x.dtype), 0)


def threefry(
    key: jax.Array, first: jax.Array, second: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Threefry-2x32 with 20 rounds (Salmon et al. 2011): two words for each counter.

    The function behind JAX's own keys. On a CPU JAX loops over its rounds, and each
    writes all words to memory; here they are one expression, which the compiler fuses
    with what uses the words. That halves the time of dropout.

    Args:
        key: uint32 [2].
        first: First words of the counters, uint32.
        second: Second words, uint32; the two broadcast.

    Returns:
        Words of 32 random bits, uint32, two for each counter.
    """
    keys = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    x, y = first + keys[0], second + keys[1]
    for group in range(5):
        for bits in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            x = x + y
            y = x ^ ((y << np.uint32(bits)) | (y >> np.uint32(32 - bits)))
        x += keys[(group + 1) % 3]
        y += keys[(group + 2) % 3] + np.uint32(group + 1)
    return x, y
