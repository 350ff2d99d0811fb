import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from jaxdl.models import cost, lenet, registry


def test_the_paper_counts_its_parameters():
    """LeCun et al. 1998, section II.B: layer by layer, and 60,000 in all."""
    module = registry.build("lenet5_1998", num_classes=10)
    x = jnp.zeros((1, 32, 32, 1))
    params = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    sizes = {
        name: sum(leaf.size for leaf in jax.tree.leaves(layer))
        for name, layer in params.items()
    }
    assert sizes == {
        **{"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48120, "f6": 10164}
    }
    assert cost.parameters(module, x.shape) == 60_000


def test_the_table_of_connections():
    """Six maps see three neighbours, nine see four, one sees all six; none twice."""
    assert sorted(map(len, lenet.C3_INPUTS)) == [3] * 6 + [4] * 9 + [6]
    assert len(set(lenet.C3_INPUTS)) == 16
    seen = [sum(source in inputs for inputs in lenet.C3_INPUTS) for source in range(6)]
    assert seen == [10] * 6


def test_sparse_convolution_equals_scipys_map_by_map():
    random = np.random.default_rng(0)
    x = random.standard_normal((1, 9, 8, 6)).astype(np.float32)
    module = lenet.C3()
    params = module.init(jax.random.key(0), x)["params"]
    params = {**params, "bias": random.standard_normal(16).astype(np.float32)}
    y = module.apply({"params": params}, x)
    kernels = iter(np.moveaxis(np.asarray(params["kernel"]), -1, 0))
    for out, inputs in enumerate(lenet.C3_INPUTS):
        maps = [correlate(x[0, :, :, i], next(kernels), "valid") for i in inputs]
        expected = sum(maps) + params["bias"][out]
        np.testing.assert_allclose(y[0, :, :, out], expected, atol=1e-5)


def test_subsampling_starts_as_a_mean():
    x = jax.random.normal(jax.random.key(0), (2, 6, 4, 3))
    y, _ = lenet.Subsample().init_with_output(jax.random.key(0), x)
    expected = x.reshape(2, 3, 2, 2, 2, 3).mean((2, 4))
    np.testing.assert_allclose(y, expected, atol=1e-6)


def test_squash_has_the_papers_fixed_points():
    np.testing.assert_allclose(
        lenet.squash(jnp.array([-1.0, 0, 1])), [-1, 0, 1], atol=1e-4
    )


def test_codes_are_fixed_and_far_apart():
    codes = lenet.codes(10)
    np.testing.assert_array_equal(codes, lenet.codes(10))
    assert set(np.unique(codes)) == {-1.0, 1.0}
    differing = (codes[:, None] != codes).sum(-1) + 84 * np.eye(10)
    assert differing.min() >= 25


@pytest.mark.parametrize("name", ["lenet5", "lenet5_1998"])
def test_padding_small_images_is_part_of_the_network(name):
    module = registry.build(name, num_classes=10)
    x = jax.random.normal(jax.random.key(1), (2, 28, 28, 1))
    variables = jax.jit(module.init)(jax.random.key(0), x)
    padded = jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    apply = jax.jit(module.apply)
    np.testing.assert_array_equal(apply(variables, x), apply(variables, padded))
