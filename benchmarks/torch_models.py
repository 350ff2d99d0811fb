"""The networks of jaxdl in PyTorch: torchvision's own, changed for small images."""

import importlib
import re
from typing import Any

import torch
from torch import nn

from benchmarks.cases import CLASSES, Network

_declared = torch.library.Library("torchvision", "FRAGMENT")


def build(network: Network) -> nn.Module:
    """The module, for images [N, C, H, W]."""
    arch, small = network.arch, network.layout == "small"
    if arch == "fnn":
        return nn.Sequential(
            nn.Flatten(),
            *(nn.Linear(784, 512), nn.ReLU()),
            *(nn.Linear(512, 256), nn.ReLU()),
            nn.Linear(256, CLASSES),
        )
    if arch == "lenet5":
        height, _, channels = network.image_shape
        first = nn.Conv2d(channels, 6, 5, padding=(32 - height) // 2)
        return nn.Sequential(
            *(first, nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(400, 120), nn.ReLU()),
            *(nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, CLASSES)),
        )
    net: Any = getattr(from_torchvision("models"), arch)(num_classes=CLASSES)
    if small and arch == "alexnet":
        net.features[0] = nn.Conv2d(3, 64, 5, 1, 2)
        net.avgpool = nn.Identity()
        net.classifier[1] = nn.Linear(256 * 3 * 3, 1024)
        net.classifier[4] = nn.Linear(1024, 1024)
        net.classifier[6] = nn.Linear(1024, CLASSES)
    elif small and arch.startswith("vgg"):
        net.avgpool = nn.AdaptiveAvgPool2d(1)
        net.classifier = nn.Linear(512, CLASSES)
    elif small:
        net.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        net.maxpool = nn.Identity()
    return net


def feed_forward(
    hidden: tuple[int, ...], batch_norm: bool, dropout: float
) -> nn.Module:
    """The FNN of a search, for images of 28x28."""
    layers: list[nn.Module] = [nn.Flatten()]
    features = 28 * 28
    for size in hidden:
        layers.append(nn.Linear(features, size, bias=not batch_norm))
        layers += [nn.BatchNorm1d(size)] * batch_norm
        layers += [nn.ReLU(), nn.Dropout(dropout)]
        features = size
    return nn.Sequential(*layers, nn.Linear(features, CLASSES))


def from_torchvision(module: str) -> Any:
    """A module of torchvision, also where its compiled operators do not load.

    Its import then stumbles over their names; the classifiers use none of them.
    """
    while True:
        try:
            return importlib.import_module(f"torchvision.{module}")
        except RuntimeError as error:
            missing = re.search(r"torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            _declared.define(f"{missing[1]}(Tensor x) -> Tensor")
