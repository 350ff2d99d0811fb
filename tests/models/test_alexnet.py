"""AlexNet's first weights; `test_parity` has what it computes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.models import registry


@pytest.mark.parametrize(
    ("layout", "side", "gain", "last"),
    [("small", 32, 2, 0.01), ("torchvision", 64, 1 / 3, None)],
)
def test_first_weights_are_hes_or_torchs(layout, side, gain, last):
    module = registry.build("alexnet", num_classes=10, layout=layout)
    images = jnp.zeros((1, side, side, 3))
    params = jax.jit(module.init)(jax.random.key(0), images)["params"]
    for name, layer in params.items():
        fan_in = math.prod(layer["kernel"].shape[:-1])
        std = last if last and name == "classifier_6" else math.sqrt(gain / fan_in)
        assert np.std(layer["kernel"]) == pytest.approx(std, rel=0.05)
        assert np.any(layer["bias"]) == (layout == "torchvision")
