"""ResNet's first scales; `test_parity` has what it computes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.models.resnet import ResNet


@pytest.mark.parametrize("bottleneck", [False, True])
def test_only_bottlenecks_start_with_a_small_last_scale(bottleneck):
    stages = (1, 2)
    module = ResNet(10, stages, bottleneck)
    images = jnp.zeros((1, 8, 8, 3))

    @jax.jit
    def first_scales():  # alone: XLA drops what they do not need
        params = module.init(jax.random.key(0), images)["params"]
        flat = jax.tree_util.tree_leaves_with_path(params)
        named = {
            jax.tree_util.keystr(k, simple=True, separator="/"): v for k, v in flat
        }
        return {k: v for k, v in named.items() if k.endswith("/scale")}

    scales = jax.tree.map(np.asarray, first_scales())
    small = {k for k, v in scales.items() if np.all(v == 1 / math.sqrt(sum(stages)))}
    ones = {k for k, v in scales.items() if np.all(v == 1)}
    assert small == {k for k in scales if k.endswith("/bn3/scale")}
    assert ones == scales.keys() - small
    assert len(small) == bottleneck * sum(stages)
