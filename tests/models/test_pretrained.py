import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_reference as reference

from jaxdl.errors import InputError
from jaxdl.models import pretrained, registry
from jaxdl.models.resnet import ResNet

NAMES = [name for name in registry.names() if registry.spec(name).torchvision]


def tiny(shape):
    """Zeros of `shape` that take no memory."""
    return np.broadcast_to(np.zeros((), np.float16), shape)


@pytest.mark.parametrize("name", NAMES)
def test_torchvisions_names_and_shapes_are_ours(name):
    torch = reference.torch()
    with torch.device("meta"):
        net = getattr(reference.torchvision_models(), name)()
    theirs = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    module = registry.build(name, num_classes=1000, layout="torchvision")
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    ours = {
        "/".join(path): leaf.shape
        for path, leaf in flax.traverse_util.flatten_dict(
            jax.eval_shape(module.init, jax.random.key(0), x)
        ).items()
    }
    # one row or column of each kernel is enough to see where its axes go
    small = {
        key: np.zeros(shape if len(shape) < 2 else [n % 97 + 1 for n in shape], np.int8)
        for key, shape in theirs.items()
    }
    mapped = {
        "/".join(path): leaf.shape
        for path, leaf in flax.traverse_util.flatten_dict(
            pretrained.from_torch(small)
        ).items()
    }
    assert mapped == {
        path: shape if len(shape) < 2 else tuple(n % 97 + 1 for n in shape)
        for path, shape in ours.items()
    }


@pytest.mark.parametrize("name", ["alexnet", "vgg11_bn", "resnet50"])
def test_round_trip_is_bit_exact(name):
    """Any bits survive, NaN payloads included; ours to torch's and back as well."""
    torch = reference.torch()
    with torch.device("meta"):
        net = getattr(reference.torchvision_models(), name)(num_classes=3)
    random = np.random.default_rng(0)
    state = {
        key: np.frombuffer(random.bytes(4 * value.numel()), np.float32).reshape(
            value.shape
        )
        if value.is_floating_point()
        else np.array(7, np.int64)
        for key, value in net.state_dict().items()
        if not key.startswith(("classifier.1.", "classifier.0."))  # 100 MB more
    }
    variables = pretrained.from_torch(state)
    back = pretrained.to_torch(variables, batches=7)
    assert back.keys() == state.keys()
    for key, value in state.items():
        assert back[key].dtype == value.dtype and back[key].shape == value.shape
        assert back[key].flags.c_contiguous
        assert back[key].tobytes() == value.tobytes(), key
    again = flax.traverse_util.flatten_dict(pretrained.from_torch(back))
    for path, value in flax.traverse_util.flatten_dict(variables).items():
        assert again[path].tobytes() == value.tobytes()


def test_torchvision_loads_ours_strictly_and_agrees():
    torch = reference.torch()
    resnet = reference.torchvision_models().resnet
    net = resnet.ResNet(resnet.BasicBlock, (1, 1, 1, 1), num_classes=4)
    module = ResNet(4, (1, 1, 1, 1), False, "torchvision")
    x = np.random.default_rng(0).standard_normal((2, 40, 40, 3), np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    state = pretrained.to_torch(variables)
    net.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()}, strict=True)
    with torch.no_grad():
        theirs = net.eval()(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    ours = jax.jit(module.apply)(variables, x)
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max(), rtol=0)


def test_what_is_no_layer_of_ours_is_refused():
    with pytest.raises(InputError, match=r"'conv\.kernel'"):
        pretrained.from_torch({"conv.kernel": tiny((3, 3))})
    with pytest.raises(InputError, match=r"\(2, 3, 4\)"):
        pretrained.from_torch({"conv1d.weight": tiny((2, 3, 4))})
    with pytest.raises(InputError, match="'params/c3/kernel'"):
        pretrained.to_torch({"params": {"c3": {"kernel": tiny((5, 5, 60))}}})
