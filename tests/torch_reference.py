"""torchvision as the independent reference, where it is installed (extra "parity")."""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import parity_measure, parity_torch
from experiments.parity_torch import randomise
from jaxdl.errors import InputError
from jaxdl.models import pretrained

__all__ = ["arrays", "assert_equal", "randomise", "torch", "torchvision_models"]


def torch() -> ModuleType:
    """The `torch` module, on two threads; skips the test where it is missing."""
    module = pytest.importorskip("torch", reason="torch is not installed")
    module.set_num_threads(2)
    module.manual_seed(0)  # for the network that the caller is about to make
    return module


def torchvision_models() -> ModuleType:
    """`torchvision.models`; skips the calling test where it is missing."""
    torch()
    try:
        return parity_torch.libraries().models
    except InputError as error:
        pytest.skip(str(error))


def arrays(state: Any) -> dict[str, np.ndarray]:
    """A torch state dict, or named gradients, as copies in NumPy."""
    return {name: value.copy() for name, value in parity_torch.arrays(state).items()}


def assert_equal(net: Any, module: Any, shape: tuple[int, ...], tolerance: float):
    """Logits, loss, gradients and updated batch statistics of both networks agree.

    Errors are those of `parity_measure.difference`. Gradients are compared in float64
    only: in float32 one ReLU or max-pool whose inputs round to the other side changes
    them in a jump. `net` decides the number format; float64 needs `jax.enable_x64`.
    Weights are mapped from `net`.
    """
    randomise(net)
    dtype = next(iter(arrays(net.state_dict()).values())).dtype
    random = np.random.default_rng(0)
    x = random.standard_normal(shape).astype(dtype)
    labels = random.integers(0, 10, shape[0])
    variables = jax.tree.map(
        jnp.asarray, pretrained.from_torch(arrays(net.state_dict()))
    )
    expected = jax.eval_shape(module.init, jax.random.key(0), jnp.asarray(x))
    assert jax.tree.map(jnp.shape, expected) == jax.tree.map(jnp.shape, variables)

    ours = parity_measure.measure(module)(variables, x, labels)
    theirs = parity_torch.measure(net, x, labels)
    assert ours.logits.dtype == dtype
    for name in ours._fields:
        error = parity_measure.difference(getattr(ours, name), getattr(theirs, name))
        exempt = dtype == np.float32 and name == "gradients"
        assert exempt or error <= tolerance, f"{name}: {error:.1e}"
