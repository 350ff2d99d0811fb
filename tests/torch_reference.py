"""torchvision as the independent reference, where it is installed (extra "parity").

The CPU build of torch from the default index does not load torchvision's compiled
operators, on which its import stumbles ("operator torchvision::nms does not exist").
None of the classifiers uses them, so they are declared here, without a body.
"""

import importlib
import re
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.models import pretrained

_declared = []  # an operator lives as long as the library that declares it


def torch() -> ModuleType:
    """The `torch` module, on two threads; skips the test where it is missing."""
    module = pytest.importorskip("torch", reason="torch is not installed")
    module.set_num_threads(2)
    module.manual_seed(0)  # for the network that the caller is about to make
    return module


def torchvision_models() -> ModuleType:
    """`torchvision.models`; skips the calling test where it is missing."""
    library = torch().library
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    while True:
        try:
            return importlib.import_module("torchvision.models")
        except RuntimeError as error:
            missing = re.search(r"torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            if not _declared:
                _declared.append(library.Library("torchvision", "DEF"))
            _declared[0].define(f"{missing[1]}(Tensor x) -> Tensor")


def randomise(net: Any) -> None:
    """Give biases, normalisation and running statistics of `net` random values."""
    th = torch()
    with th.no_grad():
        for module in net.modules():
            if isinstance(module, th.nn.Dropout):
                module.p = 0.0
            if getattr(module, "bias", None) is not None:
                module.bias.uniform_(-0.2, 0.2)
            if hasattr(module, "running_var"):
                module.weight.uniform_(0.5, 1.5)
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 1.5)


def arrays(state: Any) -> dict[str, np.ndarray]:
    """A torch state dict, or named gradients, as copies in NumPy."""
    return {name: value.detach().numpy().copy() for name, value in state.items()}


def measure(net: Any, x: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """What torch makes of images `x` [N, H, W, C], as Flax variables where it applies.

    Returns logits in evaluation, the loss (mean cross-entropy) in training, gradients,
    and the variables after it, batch statistics updated.
    """
    th = torch()
    images = th.from_numpy(x.transpose(0, 3, 1, 2).copy())
    net.eval()
    with th.no_grad():
        logits = net(images).numpy()
    net.train()
    loss = th.nn.functional.cross_entropy(net(images), th.from_numpy(labels).long())
    loss.backward()
    gradients = {name: p.grad for name, p in net.named_parameters()}
    return {
        "logits": logits,
        "loss": loss.item(),
        "gradients": pretrained.from_torch(arrays(gradients))["params"],
        "batch_stats": pretrained.from_torch(arrays(net.state_dict())).get(
            "batch_stats", {}
        ),
    }


def measure_ours(
    module: Any, variables: Any, x: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """The same of a Flax module with `variables`."""

    def loss_of(params, stats, x):
        logits, updated = module.apply(
            {"params": params, **stats}, x, train=True, mutable=["batch_stats"]
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return loss.mean(), updated

    params = variables["params"]
    stats = {name: value for name, value in variables.items() if name != "params"}
    step = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
    (loss, updated), gradients = step(params, stats, x)
    logits = jax.jit(lambda v, x: module.apply(v, x, train=False))(variables, x)
    return {
        "logits": logits,
        "loss": float(loss),
        "gradients": gradients,
        "batch_stats": updated.get("batch_stats", {}),
    }


def assert_equal(net: Any, module: Any, shape: tuple[int, ...], tolerance: float):
    """Logits, loss, gradients and updated batch statistics of both networks agree.

    The error of each array is taken relative to its largest entry, or to 1e-3 where
    that is less (the gradient of a bias before a batch norm is zero but for rounding).
    Gradients are compared in float64 only: in float32 one ReLU or max-pool whose inputs
    round to the other side changes them in a jump. `net` decides the number format;
    float64 needs `jax.enable_x64`. Weights are mapped from `net`.
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

    ours = measure_ours(module, variables, x, labels)
    theirs = measure(net, x, labels)
    assert ours["logits"].dtype == dtype
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for (path, a), b in zip(
        jax.tree.leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
    ):
        error = np.abs(a - b).max() / max(np.abs(b).max(), 1e-3)
        name = jax.tree_util.keystr(path)
        exempt = dtype == np.float32 and "gradients" in name
        assert exempt or error <= tolerance, f"{name}: {error:.1e}"
