"""Networks out of weight files, and into them."""

import flax.traverse_util
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch_reference as reference

from jaxdl import weights
from jaxdl.errors import InputError
from jaxdl.models import pretrained, registry

KEY = jax.random.key(7)


def load(path, name="lenet5", num_classes=10, shape=(32, 32, 3), **options):
    return pretrained.load(
        path, name, image_shape=shape, num_classes=num_classes, key=KEY, **options
    )


def flat(variables):
    return {
        "/".join(path): np.asarray(leaf)
        for path, leaf in flax.traverse_util.flatten_dict(variables).items()
    }


def assert_same(a, b, but=()):
    a, b = flat(a), flat(b)
    assert a.keys() == b.keys()
    for path in a:
        assert a[path].dtype == b[path].dtype
        if not path.startswith(but):
            assert a[path].tobytes() == b[path].tobytes(), path


@pytest.fixture(scope="module")
def lenet():
    """LeNet-5 for colour images, with random biases too."""
    module = registry.build("lenet5", num_classes=10)
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    random = np.random.default_rng(0)
    return module, jax.tree.map(
        lambda leaf: leaf + random.normal(0, 0.1, leaf.shape).astype(np.float32),
        variables,
    )


@pytest.fixture(params=weights.SUFFIXES)
def saved(request, tmp_path, lenet):
    path = tmp_path / f"lenet{request.param}"
    pretrained.save(path, lenet[1])
    return path


def changed(path, change):
    """The file with its state dict changed."""
    state = {name: array.copy() for name, array in weights.read(path).items()}
    change(state)
    weights.write(path, state)
    return path


def test_saved_and_loaded_is_the_same(saved, lenet):
    found = load(saved)
    assert_same(found, lenet[1])
    assert all(leaf.flags.owndata for leaf in jax.tree.leaves(found["params"]["fc1"]))


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("fnn", {"hidden": (7, 5), "batch_norm": True}, (6, 5, 1)),
        ("resnet18", {"layout": "small"}, (8, 8, 3)),
        ("alexnet", {"layout": "small"}, (15, 15, 3)),
    ],
)
def test_every_family_is_saved_and_loaded(tmp_path, name, options, shape):
    module = registry.build(name, num_classes=10, **options)
    x, random = jnp.zeros((1, *shape)), np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: random.standard_normal(leaf.shape, np.float32),
        jax.eval_shape(module.init, KEY, x),
    )
    pretrained.save(tmp_path / "net.pth", variables, batches=3)
    assert_same(load(tmp_path / "net.pth", name, 10, shape, **options), variables)
    found = load(tmp_path / "net.pth", name, 4, shape, **options)
    head = registry.spec(name).head(options.get("layout"))
    expected = jax.eval_shape(
        registry.build(name, num_classes=4, **options).init, KEY, x
    )
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, expected)
    old = {**found, "params": {**found["params"], head: variables["params"][head]}}
    assert_same(old, variables)


FAMILIES = ("fnn", "lenet5", "lenet5_1998", "alexnet", "vgg11", "vgg16_bn", "resnet18")


@pytest.mark.parametrize("name", [*FAMILIES, "resnet50"])
def test_the_head_is_what_depends_on_the_number_of_classes(name):
    arch = registry.spec(name)
    for layout in arch.layouts or (None,):
        side = max(arch.min_size(layout), 20)
        shapes = []
        for classes in (10, 11):
            options = {"layout": layout} if layout else {}
            module = registry.build(name, num_classes=classes, **options)
            x = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
            init = jax.eval_shape(module.init, KEY, x)
            shapes.append(jax.tree.map(lambda leaf: leaf.shape, init["params"]))
        differ = [layer for layer in shapes[0] if shapes[0][layer] != shapes[1][layer]]
        assert differ == [head for head in [arch.head(layout)] if head]


def test_a_new_head_is_that_of_a_new_network(saved, lenet):
    found = load(saved, num_classes=4)
    module = registry.build("lenet5", num_classes=4)
    new = jax.jit(module.init)(KEY, jnp.zeros((1, 32, 32, 3)))
    assert_same(
        {"params": {"fc3": found["params"]["fc3"]}},
        {"params": {"fc3": jax.tree.map(np.asarray, new["params"]["fc3"])}},
    )
    assert_same(found, {"params": {**lenet[1]["params"], "fc3": new["params"]["fc3"]}})


def test_grey_images_give_what_they_gave_in_colour(saved, lenet):
    module, colour = lenet
    found = load(saved, shape=(32, 32, 1))
    assert found["params"]["conv1"]["kernel"].shape == (5, 5, 1, 6)
    grey = np.random.default_rng(1).standard_normal((4, 32, 32, 1), np.float32)
    np.testing.assert_allclose(
        jax.jit(module.apply)(found, grey),
        jax.jit(module.apply)(colour, np.repeat(grey, 3, -1)),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_other_floating_formats_become_float32(saved, lenet, dtype):
    def change(state):
        for name, array in state.items():
            state[name] = array.astype(dtype)

    found = load(changed(saved, change))
    rounded = jax.tree.map(
        lambda leaf: np.asarray(leaf).astype(dtype).astype(np.float32), lenet[1]
    )
    assert_same(found, rounded)


def test_all_that_does_not_fit_is_named_at_once(saved):
    def change(state):
        del state["conv2.weight"], state["fc1.bias"]
        state["fc9.weight"] = state["odd"] = np.zeros((2, 2), np.float32)
        state["fc2.weight"] = np.zeros((84, 121), np.float32)
        state["conv1.bias"] = np.zeros(6, np.int64)

    with pytest.raises(InputError) as caught:
        load(changed(saved, change))
    message = str(caught.value)
    assert message.startswith(f"{saved} does not fit lenet5: ")
    assert "missing conv2.weight, fc1.bias;" in message
    assert "unexpected fc9.weight, odd" in message or "odd, fc9.weight" in message
    assert "fc2.weight has shape (84, 121), not (84, 120)" in message
    assert "conv1.bias is int64, not float" in message


def test_names_in_a_file_are_told_in_one_short_line(saved):
    def change(state):
        state["a\nerror: \x1b[31m"] = np.zeros(1, np.float32)
        state |= {f"{n}": np.zeros(1, np.float32) for n in range(3000)}

    with pytest.raises(InputError) as caught:
        load(changed(saved, change))
    message = str(caught.value)
    assert message.isprintable() and len(message) < 1000
    assert message.endswith("2981 more")


def test_only_a_head_of_other_classes_is_replaced(saved):
    def narrower(state):
        state["fc3.weight"] = state["fc3.weight"][:, :-1]

    with pytest.raises(InputError, match=r"fc3\.weight has shape \(10, 83\)"):
        load(changed(saved, narrower), num_classes=4)


def test_only_one_channel_takes_the_place_of_three(saved):
    with pytest.raises(InputError, match=r"conv1\.weight has shape \(6, 3, 5, 5\)"):
        load(saved, shape=(32, 32, 2))


def test_the_wrong_layout_is_named(tmp_path):
    torch, path = reference.torch(), tmp_path / "resnet18.pth"
    torch.save(reference.torchvision_models().resnet18().state_dict(), path)
    with pytest.raises(InputError, match=r"in layout 'small', .* --layout=torchvision"):
        load(path, "resnet18")
    change = changed(path, lambda state: state.pop("bn1.bias"))
    with pytest.raises(InputError, match=r"resnet18 in layout 'small': missing bn1"):
        load(change, "resnet18")


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in registry.names()
            if registry.spec(name).torchvision and name != "resnet18"
        ),
    ],
)
def test_from_torchvision_and_back_bit_for_bit(tmp_path, name):
    """torch.save -> load -> save -> torch.load, which torchvision takes strictly."""
    torch = reference.torch()
    net = getattr(reference.torchvision_models(), name)()
    reference.randomise(net)
    theirs = net.state_dict()
    torch.save(theirs, tmp_path / "theirs.pth")
    found = load(tmp_path / "theirs.pth", name, 1000, (64, 64, 3), layout="torchvision")
    for suffix in (".pth", ".safetensors"):
        path = tmp_path / f"ours{suffix}"
        pretrained.save(path, found)
        if suffix == ".pth":
            ours = torch.load(path, weights_only=True)
        else:
            from safetensors.torch import load_file

            ours = load_file(path)
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert ours[key].dtype == value.dtype and torch.equal(ours[key], value)
        net.load_state_dict(ours, strict=True)
        path.unlink()


def test_vgg_of_timm_is_that_of_torchvision():
    """Its first two dense layers are convolutions over the whole of a 7x7 map."""
    random = np.random.default_rng(0)
    shapes = {
        "features.0.weight": (2, 3, 3, 3),
        "pre_logits.fc1.weight": (5, 2, 7, 7),
        "pre_logits.fc1.bias": (5,),
        "pre_logits.fc2.weight": (5, 5, 1, 1),
        "pre_logits.fc2.bias": (5,),
        "head.fc.weight": (4, 5),
        "head.fc.bias": (4,),
    }
    timm = {k: random.standard_normal(s).astype(np.float32) for k, s in shapes.items()}
    ours = pretrained.from_torch(pretrained._from_timm(timm))["params"]
    places = ["classifier_0", "classifier_3", "classifier_6", "features_0"]
    assert sorted(ours) == places
    x = random.standard_normal((3, 2, 7, 7)).astype(np.float32)  # torch's order
    theirs = jax.lax.conv(x, timm["pre_logits.fc1.weight"], (1, 1), "VALID")
    np.testing.assert_allclose(
        x.reshape(3, -1) @ ours["classifier_0"]["kernel"], theirs[..., 0, 0], rtol=1e-4
    )
    assert ours["classifier_3"]["kernel"].shape == (5, 5)


def test_empty_weights_of_timm_are_refused(tmp_path):
    path = tmp_path / "empty.safetensors"
    empty = np.zeros((0, 3, 1, 1), np.float32)
    weights.write(path, {"pre_logits.fc1.weight": empty})
    with pytest.raises(
        InputError, match=r"classifier.0.weight has shape \(0, 3\), not"
    ):
        load(path, "vgg11", 10, (32, 32, 3), layout="torchvision")


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg11", "vgg16_bn"])
def test_names_and_shapes_of_timm(name):
    """Of timm itself, where it is installed."""
    torch, models = reference.torch(), reference.torchvision_models()
    timm = pytest.importorskip("timm", reason="timm is not installed")
    with torch.device("meta"):
        theirs = timm.create_model(name).state_dict()
        expected = getattr(models, name)().state_dict()
    found = pretrained._from_timm(
        {k: np.broadcast_to(np.int8(0), tuple(v.shape)) for k, v in theirs.items()}
    )
    assert {k: v.shape for k, v in found.items()} == {
        k: tuple(v.shape) for k, v in expected.items()
    }
