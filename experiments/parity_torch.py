"""The side of torchvision: its networks, what they compute, how they learn.

Everything that needs torch is imported in `libraries`; results are NumPy arrays in the
places that Flax's variables have (`jaxdl.models.pretrained`).
"""

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdl import runtime
from jaxdl.config import OptimConfig
from jaxdl.errors import InputError
from jaxdl.models import pretrained

_declared: list[Any] = []  # an operator lives as long as the library that declares it


class Libraries(NamedTuple):
    """The two modules."""

    torch: Any
    models: Any
    """`torchvision.models`."""


class Outcome(NamedTuple):
    """What one network makes of one batch."""

    logits: Any
    """In evaluation, [N, K]."""
    loss: Any
    """Mean cross-entropy in training, [] (statistics are those of the batch)."""
    gradients: Any
    """Of that loss; a tree like the Flax parameters."""
    batch_stats: Any
    """Running statistics after it; a tree like Flax's, empty without batch norm."""


class Descent(NamedTuple):
    """Where a network has come to after some steps of SGD."""

    params: Any
    batch_stats: Any
    momentum: Any
    """The momentum buffers; a tree like the parameters."""


def libraries() -> Libraries:
    """The modules torch and `torchvision.models`.

    The CPU build of torch from the default index does not load torchvision's compiled
    operators, on which its import stumbles ("operator torchvision::nms does not
    exist"). None of the classifiers uses them, so they are declared here, without a
    body.

    Raises:
        InputError: one of them is not installed.
    """
    for name in ("torch", "torchvision"):
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"{name} is not installed, with which jaxdl is compared; "
                "pip install -e '.[parity]'"
            )
    torch = importlib.import_module("torch")
    torch.set_num_threads(runtime.cores())
    while True:
        try:
            return Libraries(torch, importlib.import_module("torchvision.models"))
        except RuntimeError as error:
            missing = re.search(r"torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            if not _declared:
                _declared.append(torch.library.Library("torchvision", "FRAGMENT"))
            _declared[0].define(f"{missing[1]}(Tensor x) -> Tensor")


def network(name: str, num_classes: int, seed: int = 0) -> Any:
    """A network of torchvision by its name, float32, with everything in it random.

    Weights are those of torchvision's initialisation; see `randomise`.
    """
    torch, models = libraries()
    torch.manual_seed(seed)
    net = getattr(models, name)(num_classes=num_classes)
    randomise(net)
    return net


def loaded(name: str, path: Path) -> Any:
    """A network of torchvision with the weights of a file, loaded strictly.

    Raises:
        InputError: torch cannot read the file, or it is not of that network.
    """
    torch, models = libraries()
    try:
        if path.suffix == ".safetensors":
            state = importlib.import_module("safetensors.torch").load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        head = [value for key, value in state.items() if key.endswith(".weight")][-1]
        net = getattr(models, name)(num_classes=len(head))
        net.float().load_state_dict(state, strict=True)
    except Exception as error:  # torch and zipfile have no common ground
        said = str(error).strip().partition("\n")[0]
        raise InputError(
            f"torchvision's {name} does not load {path}: {said}"
        ) from error
    _without_dropout(net)
    return net


def randomise(net: Any) -> None:
    """Gives biases, normalisation and running statistics of `net` random values.

    The scales that end residual blocks are smaller by 1/sqrt(blocks), as at the start
    of ours (`jaxdl.models.resnet`). With scales around 1 in all of them gradients grow
    from block to block, and the steps of SGD are chaotic: in ResNet-50 a rounding error
    of float64 grew 200-fold with each, in torch as here.

    Dropout is switched off: its draws are nobody else's.
    """
    torch = libraries().torch
    _without_dropout(net)
    with torch.no_grad():
        for module in net.modules():
            if getattr(module, "bias", None) is not None:
                module.bias.uniform_(-0.2, 0.2)
            if hasattr(module, "running_var"):
                module.weight.uniform_(0.5, 1.5)
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 1.5)
        blocks = [m for m in net.modules() if hasattr(m, "downsample")]
        for block in blocks:
            last = getattr(block, "bn3", None) or block.bn2
            last.weight.mul_(len(blocks) ** -0.5)


def _without_dropout(net: Any) -> None:
    for module in net.modules():
        if isinstance(module, libraries().torch.nn.Dropout):
            module.p = 0.0


def arrays(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A torch state dict, or named gradients, as views in NumPy."""
    return {name: value.detach().numpy() for name, value in state.items()}


def variables(net: Any) -> dict[str, Any]:
    """Flax variables with copies of the network's weights and statistics."""
    return pretrained.from_torch(arrays(net.state_dict()))


def measure(net: Any, x: np.ndarray, labels: np.ndarray) -> Outcome:
    """What torch makes of a batch; updates the running statistics of `net`.

    Args:
        net: in the number format of the images.
        x: images, [N, H, W, C].
        labels: int [N].
    """
    torch = libraries().torch
    images = _images(x)
    net.eval()
    with torch.no_grad():
        logits = net(images).numpy()
    net.train()
    net.zero_grad(set_to_none=True)
    loss = torch.nn.functional.cross_entropy(net(images), _labels(labels))
    loss.backward()
    gradients = {name: p.grad for name, p in net.named_parameters()}
    return Outcome(
        logits,
        loss.detach().numpy(),
        pretrained.from_torch(arrays(gradients))["params"],
        variables_of_norms(net),
    )


def descend(
    net: Any, x: np.ndarray, labels: np.ndarray, config: OptimConfig
) -> Descent:
    """Where `torch.optim.SGD` leads the network, one step a batch; changes `net`.

    Args:
        net: in the number format of the images.
        x: images, [steps, N, H, W, C].
        labels: int [steps, N].
        config: learning rate, momentum, Nesterov, weight decay and what it is for.
    """
    torch = libraries().torch
    net.train()
    parameters = list(net.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim == 1]},
    ]
    if not config.decay_all:
        groups[1]["weight_decay"] = 0.0
    optimizer = torch.optim.SGD(
        groups,
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
    )
    for images, targets in zip(x, labels, strict=True):
        optimizer.zero_grad(set_to_none=True)
        logits = net(_images(images))
        torch.nn.functional.cross_entropy(logits, _labels(targets)).backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    momentum = {
        name: optimizer.state[p]["momentum_buffer"]
        for name, p in net.named_parameters()
    }
    return Descent(
        pretrained.from_torch(arrays(dict(net.named_parameters())))["params"],
        variables_of_norms(net),
        pretrained.from_torch(arrays(momentum))["params"],
    )


def variables_of_norms(net: Any) -> Any:
    """Copies of the running statistics, as Flax has them."""
    running = {
        name: value
        for name, value in net.named_buffers()
        if name.rpartition(".")[2] in ("running_mean", "running_var")
    }
    return pretrained.from_torch(arrays(running)).get("batch_stats", {})


def _images(x: np.ndarray) -> Any:
    return libraries().torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def _labels(labels: np.ndarray) -> Any:
    return libraries().torch.from_numpy(labels).long()
