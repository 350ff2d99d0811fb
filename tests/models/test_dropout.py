"""Dropout: its statistics, its scale, and its independence of devices."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxdl.models.dropout import Dropout

KEY = jax.random.key(3)


def drop(x, rate=0.3, axis_name=None, train=True):
    return Dropout(rate, axis_name).apply({}, x, train=train, rngs={"dropout": KEY})


class Variants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_kept_units_are_scaled_and_the_rest_is_zero(self):
        x = jnp.linspace(1, 2, 64 * 500).reshape(64, 500)
        y = np.asarray(self.variant(drop)(x))
        kept = y != 0
        np.testing.assert_allclose(y[kept], np.asarray(x)[kept] / 0.7, rtol=1e-6)
        # Binomial(32000, 0.7): five standard deviations are 0.013.
        assert abs(kept.mean() - 0.7) < 0.013
        # Nor may all examples, or all units, share a mask.
        assert 0.05 < kept.mean(0).std() < 0.07
        assert 0.015 < kept.mean(1).std() < 0.027


def test_identity_in_evaluation_and_at_rate_zero():
    x = jnp.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(drop(x, train=False), x)
    np.testing.assert_array_equal(drop(x, rate=0.0), x)


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_the_mask_does_not_depend_on_the_devices(devices):
    x = jnp.ones((8, 50))
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    spread = jax.shard_map(
        lambda x: drop(x, axis_name="data"),
        mesh=mesh,
        in_specs=PartitionSpec("data"),
        out_specs=PartitionSpec("data"),
    )
    np.testing.assert_array_equal(jax.jit(spread)(x), drop(x))
    mapped = jax.pmap(lambda x: drop(x, axis_name="data"), axis_name="data")
    parts = x.reshape(devices, 8 // devices, 50)
    np.testing.assert_array_equal(mapped(parts).reshape(8, 50), drop(x))


def test_half_precision_stays_half():
    assert drop(jnp.ones((2, 3), jnp.bfloat16)).dtype == jnp.bfloat16
