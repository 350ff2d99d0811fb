import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_reference as reference
from jax.sharding import Mesh, PartitionSpec

from jaxdl.errors import InputError
from jaxdl.models.norm import BatchNorm, moments


def variables_for(x):
    return BatchNorm().init(jax.random.key(0), x, train=False)


def train(module, variables, x):
    y, updated = module.apply(variables, x, train=True, mutable=["batch_stats"])
    return y, updated["batch_stats"]


class Variants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_equals_flax_but_for_the_unbiased_variance(self):
        x = jax.random.normal(jax.random.key(1), (4, 3, 5, 6)) * 2 + 1
        variables = variables_for(x)
        y, stats = self.variant(lambda v, x: train(BatchNorm(), v, x))(variables, x)
        flax = nn.BatchNorm(use_running_average=False, momentum=0.9)
        expected, updated = flax.apply(variables, x, mutable=["batch_stats"])
        biased = updated["batch_stats"]["var"]
        chex.assert_trees_all_close(y, expected, atol=1e-5)
        chex.assert_trees_all_close(
            stats["mean"], updated["batch_stats"]["mean"], atol=1e-6
        )
        n = 4 * 3 * 5
        chex.assert_trees_all_close(
            stats["var"], 0.9 + (biased - 0.9) * n / (n - 1), rtol=1e-5
        )


def test_equals_torch_and_has_its_running_variance():
    torch = reference.torch()
    x = np.random.default_rng(0).normal(2, 3, (2, 3, 3, 5)).astype(np.float32)
    norm = torch.nn.BatchNorm2d(5)
    theirs = norm(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).detach().numpy()
    y, stats = train(BatchNorm(), variables_for(x), x)
    np.testing.assert_allclose(y, theirs.transpose(0, 2, 3, 1), atol=1e-5)
    np.testing.assert_allclose(stats["mean"], norm.running_mean.numpy(), atol=1e-6)
    np.testing.assert_allclose(stats["var"], norm.running_var.numpy(), rtol=1e-5)


def test_variance_survives_a_mean_far_from_zero():
    """E[x^2] - E[x]^2 has no correct digit here; two passes keep them."""
    x = np.random.default_rng(0).normal(3000, 1, (64, 8, 8, 4)).astype(np.float32)
    _, variance = moments(jnp.asarray(x))
    np.testing.assert_allclose(variance, x.astype(np.float64).var((0, 1, 2)), rtol=1e-4)


def test_half_precision_keeps_statistics_in_float32():
    x = jax.random.normal(jax.random.key(0), (64, 8, 8, 4)) + 5
    y, stats = train(
        BatchNorm(dtype=jnp.bfloat16), variables_for(x), x.astype("bfloat16")
    )
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(stats)} == {jnp.dtype("float32")}
    chex.assert_trees_all_close(stats["mean"], 0.1 * x.mean((0, 1, 2)), rtol=1e-3)


@pytest.mark.parametrize("devices", [2, 4, 8])
@pytest.mark.parametrize("how", ["pmap", "shard_map"])
def test_statistics_over_devices_are_those_of_the_whole_batch(how, devices):
    x = (
        jax.random.normal(jax.random.key(2), (16, 3, 3, 4))
        + jnp.arange(16.0)[:, None, None, None]
    )
    variables = variables_for(x)
    expected = train(BatchNorm(), variables, x)
    module = BatchNorm(axis_name="data")
    assert jax.tree.structure(module.init(jax.random.key(0), x, train=True))
    if how == "pmap":
        shards = x.reshape(devices, -1, *x.shape[1:])
        step = jax.pmap(
            lambda x: train(module, variables, x),
            axis_name="data",
            devices=jax.devices()[:devices],
        )
        y, stats = step(shards)
        y = y.reshape(x.shape)
        for leaf in jax.tree.leaves(stats):
            np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[0], leaf.shape))
        stats = jax.tree.map(lambda leaf: leaf[0], stats)
    else:
        mesh = Mesh(jax.devices()[:devices], "data")
        split, whole = PartitionSpec("data"), PartitionSpec()
        step = jax.shard_map(
            lambda x: train(module, variables, x),
            mesh=mesh,
            in_specs=split,
            out_specs=(split, whole),
        )
        y, stats = jax.jit(step)(x)
    chex.assert_trees_all_close((y, stats), expected, rtol=1e-5, atol=1e-5)


def test_one_value_per_channel_is_refused():
    with pytest.raises(InputError, match="more than one value"):
        train(BatchNorm(), variables_for(jnp.ones((1, 3))), jnp.ones((1, 3)))
