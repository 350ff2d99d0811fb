"""Dropout: its statistics, its scale, and its independence of devices."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxdl.models.dropout import Dropout, threefry

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


@pytest.mark.parametrize("rate", [0.3, np.float32(0.3)], ids=["weak", "float32"])
def test_half_precision_stays_half(rate):
    y = jax.jit(drop)(jnp.ones((2, 3), jnp.bfloat16), rate)
    assert y.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("key", "counter", "words"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((2**32 - 1, 2**32 - 1), (2**32 - 1, 2**32 - 1), (0x1CB996FC, 0xBB002BE7)),
        (
            (0x13198A2E, 0x03707344),
            (0x243F6A88, 0x85A308D3),
            (0xC4923A9C, 0x483DF7A0),
        ),
    ],
)
def test_threefry_has_the_known_answers(key, counter, words):
    """Those of Random123, the authors' own library (kat_vectors, threefry2x32 20)."""
    found = threefry(jnp.uint32(key), *map(jnp.uint32, counter))
    assert tuple(map(int, found)) == words


def test_units_are_independent_of_their_neighbours():
    """Kept beside kept: 0.7 x 0.7, along examples, along units and between keys."""
    x = jnp.ones((400, 300))
    kept = np.asarray(drop(x)) != 0
    other = Dropout(0.3).apply({}, x, train=True, rngs={"dropout": jax.random.key(4)})
    pairs = (
        kept[1:] & kept[:-1],
        kept[:, 1:] & kept[:, :-1],
        kept & (np.asarray(other) != 0),
    )
    for both in pairs:  # five standard deviations of 119,600 dependent pairs
        assert abs(both.mean() - 0.49) < 0.012


def test_any_kind_of_key_will_do():
    x = jnp.ones((100, 100))
    for key in (jax.random.PRNGKey(1), jax.random.key(1, impl="rbg")):
        y = Dropout(0.5).apply({}, x, train=True, rngs={"dropout": key})
        assert abs(float((y != 0).mean()) - 0.5) < 0.03
