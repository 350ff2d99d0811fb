"""Our networks compute what torch's do: outputs, gradients and batch statistics."""

import jax
import numpy as np
import pytest
import torch_reference as reference

from jaxdl.models import pretrained, registry
from jaxdl.models.resnet import ResNet

TIGHT = 1e-9  # relative to the largest entry, in float64
LOOSE = 1e-4  # the same, in float32 (but for gradients)


def small_vgg(name):
    """torchvision's network with the light head of our layout "small"."""
    torch = reference.torch()
    net = getattr(reference.torchvision_models(), name)(num_classes=10)
    net.avgpool = torch.nn.AdaptiveAvgPool2d(1)
    net.classifier = torch.nn.Linear(512, 10)
    return net


def small_resnet(name):
    """torchvision's network with the 3x3 stem of our layout "small"."""
    torch = reference.torch()
    net = getattr(reference.torchvision_models(), name)(num_classes=10)
    net.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    net.maxpool = torch.nn.Identity()
    return net


@pytest.mark.parametrize(
    ("name", "make", "size"),
    [
        pytest.param("vgg11", small_vgg, 32, marks=pytest.mark.long),
        ("vgg11_bn", small_vgg, 33),
        ("resnet18", small_resnet, 9),
    ],
)
def test_small_layout_equals_torchvision_in_float64(name, make, size):
    net = make(name).double()
    with jax.enable_x64(True):
        module = registry.build(name, num_classes=10, dtype="float64")
        reference.assert_equal(net, module, (4, size, size, 3), TIGHT)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bottlenecks_and_stem_equal_torchvision(dtype):
    """ResNet-50 with as few blocks as show every kind of block."""
    torch = reference.torch()
    resnet = reference.torchvision_models().resnet
    net = resnet.ResNet(resnet.Bottleneck, (2, 1, 1, 1), num_classes=10)
    with jax.enable_x64(dtype == "float64"):
        module = ResNet(10, (2, 1, 1, 1), True, "torchvision", dtype)
        tolerance = TIGHT if dtype == "float64" else LOOSE
        reference.assert_equal(
            net.to(getattr(torch, dtype)), module, (4, 33, 33, 3), tolerance
        )


def test_vgg_logits_equal_torchvision_in_float32():
    """The head of 4096 units; 64 pixels are less than its adaptive mean has bins."""
    net = reference.torchvision_models().vgg11(num_classes=10, init_weights=False)
    module = registry.build("vgg11", num_classes=10, layout="torchvision")
    variables = pretrained.from_torch(reference.arrays(net.state_dict()))
    x = np.random.default_rng(0).standard_normal((2, 64, 64, 3), np.float32)
    ours = jax.jit(module.apply)(variables, x)
    torch = reference.torch()
    with torch.no_grad():
        theirs = net.eval()(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(ours, theirs, atol=LOOSE * np.abs(theirs).max(), rtol=0)


@pytest.mark.parametrize("size", [28, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_lenet_equals_a_sequential_of_torch(size, channels):
    torch = reference.torch()
    nn = torch.nn
    layers = {
        "conv1": nn.Conv2d(channels, 6, 5, padding=(32 - size) // 2),
        "relu1": nn.ReLU(),
        "pool1": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(6, 16, 5),
        "relu2": nn.ReLU(),
        "pool2": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(400, 120),
        "relu3": nn.ReLU(),
        "fc2": nn.Linear(120, 84),
        "relu4": nn.ReLU(),
        "fc3": nn.Linear(84, 10),
    }
    net = nn.Sequential()
    for name, layer in layers.items():
        net.add_module(name, layer)
    with jax.enable_x64(True):
        module = registry.build("lenet5", num_classes=10, dtype="float64")
        reference.assert_equal(net.double(), module, (3, size, size, channels), TIGHT)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh", "sigmoid"])
def test_fnn_equals_a_sequential_of_torch(activation, batch_norm):
    torch = reference.torch()
    nn = torch.nn
    kinds = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden = nn.ModuleList(
                [nn.Linear(36, 20, not batch_norm), nn.Linear(20, 12, not batch_norm)]
            )
            if batch_norm:
                self.norm = nn.ModuleList([nn.BatchNorm1d(20), nn.BatchNorm1d(12)])
            self.head = nn.Linear(12, 10)

        def forward(self, x):
            x = x.flatten(1)
            for i, layer in enumerate(self.hidden):
                x = layer(x)
                x = self.norm[i](x) if batch_norm else x
                x = kinds[activation]()(x)
            return self.head(x)

    with jax.enable_x64(True):
        module = registry.build(
            "fnn",
            num_classes=10,
            dtype="float64",
            hidden=(20, 12),
            activation=activation,
            batch_norm=batch_norm,
        )
        reference.assert_equal(Net().double(), module, (7, 6, 6, 1), TIGHT)
