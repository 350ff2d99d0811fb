"""The rivals train the same network: equal parameters, and equal FLOPs."""

import jax
import pytest

from benchmarks import cases, flax_models
from jaxdl.models import cost, registry

SOME = [n for n in cases.NETWORKS if not n.arch.startswith("resnet101")]
SOME.append(cases.Digits("lenet5", None))


def ours(network):
    options = {"layout": network.layout} if network.layout else {}
    return registry.build(network.arch, num_classes=cases.CLASSES, **options)


@pytest.mark.parametrize("network", SOME, ids=lambda n: n.title)
def test_plain_flax_has_our_networks(network):
    plain, shape = flax_models.Plain(network), (2, *network.image_shape)
    assert cost.parameters(plain, shape) == cost.parameters(ours(network), shape)
    assert cost.flops(plain, shape) == cost.flops(ours(network), shape)


@pytest.mark.parametrize("network", SOME, ids=lambda n: n.title)
def test_torch_has_our_networks(network):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("torch.utils.flop_counter")
    torch_models = pytest.importorskip("benchmarks.torch_models")
    height, width, channels = network.image_shape
    with torch.device("meta"):  # shapes only
        net = torch_models.build(network)
        with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
            net(torch.zeros(2, channels, height, width))
    size = sum(p.numel() for p in net.parameters())
    shape = (2, *network.image_shape)
    assert size == cost.parameters(ours(network), shape)
    assert counter.get_total_flops() == cost.flops(ours(network), shape)


def test_plain_flax_in_bfloat16_keeps_float32_parameters():
    network = cases.Network("vgg16_bn", batch=2, precision="bfloat16")
    model = flax_models.Plain(network)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), "float32")
    logits, variables = jax.eval_shape(
        model.init_with_output, jax.random.key(0), images
    )
    assert logits.dtype == "float32"
    assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {"float32"}
