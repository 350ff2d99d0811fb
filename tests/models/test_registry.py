import functools
import subprocess
import sys

import chex
import flax
import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.config import ModelConfig
from jaxdl.errors import InputError
from jaxdl.models import cost, registry

OFFICIAL = {  # torchvision's documentation: parameters, 1e9 multiply-adds at 224x224
    "alexnet": (61_100_840, 0.71),
    "vgg11": (132_863_336, 7.61),
    "vgg13": (133_047_848, 11.31),
    "vgg16": (138_357_544, 15.47),
    "vgg19": (143_667_240, 19.63),
    "vgg11_bn": (132_868_840, 7.61),
    "vgg13_bn": (133_053_736, 11.31),
    "vgg16_bn": (138_365_992, 15.47),
    "vgg19_bn": (143_678_248, 19.63),
    "resnet18": (11_689_512, 1.81),
    "resnet34": (21_797_672, 3.66),
    "resnet50": (25_557_032, 4.09),
    "resnet101": (44_549_160, 7.80),
    "resnet152": (60_192_808, 11.51),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_parameters_and_multiply_adds_are_torchvisions(name):
    assert registry.spec(name).torchvision == name
    module = registry.build(name, num_classes=1000, layout="torchvision")
    parameters, billions = OFFICIAL[name]
    shape = (1, 224, 224, 3)
    assert cost.parameters(module, shape) == parameters
    assert round(cost.flops(module, shape) / 2e9, 2) == billions


def test_every_name_of_torchvision_is_covered():
    assert {registry.spec(n).torchvision for n in registry.names()} == {None, *OFFICIAL}


def cases():
    for name in registry.names():
        for layout in registry.spec(name).layouts or (None,):
            yield name, layout


@settings(deadline=None, max_examples=40)
@given(
    case=st.sampled_from(list(cases())),
    extra=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    channels=st.sampled_from([1, 3]),
)
def test_takes_any_size_from_its_limit(case, extra, channels):
    name, layout = case
    least = registry.spec(name).min_size(layout)
    height, width = least + extra[0], least + extra[1]
    registry.check_input(name, layout, height, width)
    module = registry.build(
        name, num_classes=7, **({"layout": layout} if layout else {})
    )
    x = jax.ShapeDtypeStruct((2, height, width, channels), jnp.float32)
    logits, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), x)
    chex.assert_shape(logits, (2, 7))
    assert ("batch_stats" in variables) == registry.spec(name).has_batch_norm


@pytest.mark.parametrize(("name", "layout"), cases())
def test_refuses_what_is_below_its_limit(name, layout):
    """The limit is the network's own: one pixel less and it cannot be built."""
    least = registry.spec(name).min_size(layout)
    if least == 1:
        return
    with pytest.raises(
        InputError, match=f"at least {least}x{least} .* got {least - 1}x"
    ):
        registry.check_input(name, layout, least - 1, 500)
    if registry.spec(name).family != "lenet":  # which pads; its limit is a stated one
        options = {"layout": layout} if layout else {}
        module = registry.build(name, num_classes=10, **options)
        x = jax.ShapeDtypeStruct((1, least - 1, 99, 3), jnp.float32)
        with pytest.raises(InputError, match="too small"):
            jax.eval_shape(module.init, jax.random.key(0), x)


@functools.cache
def initial(module):
    """Image and variables of a network, as shapes."""
    x = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    return x, jax.eval_shape(module.init, jax.random.key(0), x)


@pytest.mark.parametrize(("name", "layout"), cases())
def test_blocks_are_all_layers_once_from_the_head_on(name, layout):
    options = {"layout": layout} if layout else {}
    if name == "fnn":
        options = {"hidden": (5, 4, 3), "batch_norm": True}
    module = registry.build(name, num_classes=10, **options)
    _, variables = initial(module)
    layers = variables["params"].keys()
    blocks = registry.blocks(name, **options)
    assert sorted(layer for block in blocks for layer in block) == sorted(layers)
    head = registry.spec(name).head(layout)
    assert blocks[0] == ((head,) if head else ())
    assert all(blocks[1:])


def test_blocks_are_counted_as_the_documentation_says():
    def sizes(name, **options):
        return [len(block) for block in registry.blocks(name, **options)]

    assert sizes("resnet101") == [1, 3, 23, 4, 3, 2]
    assert registry.blocks("resnet18")[1] == ("layer4_0", "layer4_1")
    assert sizes("vgg16_bn", layout="torchvision") == [1, 6 + 2, 6, 6, 4, 4]
    last = registry.blocks("vgg16_bn", layout="torchvision")[1]
    assert last[-2:] == ("classifier_0", "classifier_3")
    # torchvision's features[34] is the first convolution after the fourth max-pool.
    assert last[0] == "features_34"
    assert registry.blocks("fnn", hidden=()) == (("head",),)


def test_published_weights_decide_the_layout():
    config = ModelConfig(arch="resnet18", pretrained="imagenet")
    assert registry.options_for("resnet18", config) == {"layout": "torchvision"}
    given = ModelConfig(arch="resnet18", pretrained="a.pth")
    assert registry.options_for("resnet18", given) == {}
    small = ModelConfig(arch="vgg11", pretrained="imagenet", layout="small")
    with pytest.raises(InputError, match=r"needs --layout=torchvision, not small"):
        registry.options_for("vgg11", small)
    for name in ("fnn", "lenet5", "lenet5_1998"):
        with pytest.raises(InputError, match=rf"published for {name}, only for alexn"):
            registry.options_for(name, ModelConfig(arch=name, pretrained="imagenet"))


def test_messages_name_the_way_out():
    with pytest.raises(InputError, match=r"--image-size=63.*layout 'small' takes"):
        registry.check_input("alexnet", "torchvision", 32, 32)
    with pytest.raises(InputError, match=r"--image-size=32.*take fnn, lenet, .*resnet"):
        registry.check_input("vgg16", None, 28, 28)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("resnet5O", "resnet50"),
        ("ResNet-50", "resnet50"),
        ("vgg16bn", "vgg16_bn"),
        ("lenet", "lenet5"),
        ("zzz", "experiments.models"),
    ],
)
def test_unknown_names_get_a_suggestion(wrong, hint):
    with pytest.raises(InputError) as caught:
        registry.spec(wrong)
    assert repr(wrong) in str(caught.value) and hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_of_a_configuration():
    chosen = ModelConfig(arch="fnn", hidden=(8, 4), dropout=0.1, precision="bfloat16")
    assert registry.options_for("fnn", chosen) == {"hidden": (8, 4), "dropout": 0.1}
    assert registry.options_for("resnet18", ModelConfig()) == {}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet18", {"dropout": 0.5}, "resnet18 has no option 'dropout'"),
        ("lenet5", {"hidden": (3,)}, "its options: none.*only fnn"),
        ("fnn", {"layout": "small"}, "only alexnet, vgg, resnet have it"),
        ("fnn", {"dropout": 1.0}, "dropout of fnn must be .* got 1.0"),
        ("vgg11", {"dropout": -0.1}, "got -0.1"),
        ("alexnet", {"dropout": float("nan")}, "got nan"),
        ("fnn", {"hidden": (128, 0)}, r"hidden of fnn .* got \(128, 0\)"),
        ("fnn", {"hidden": (1.5,)}, "whole numbers"),
        ("fnn", {"hidden": 512}, "as in 512 256, got 512"),
        ("fnn", {"activation": "swish"}, "must be one of relu, .*, got 'swish'"),
        ("resnet18", {"layout": "large"}, "must be one of small, torchvision"),
    ],
)
def test_wrong_options_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        registry.build(name, num_classes=10, **options)
    with pytest.raises(InputError, match=message):
        registry.options_for(name, ModelConfig(arch=name, **options))


def test_wrong_number_of_classes_is_refused():
    with pytest.raises(InputError, match="at least 1 class, got 0"):
        registry.build("fnn", num_classes=0)


def test_importing_the_registry_loads_neither_jax_nor_flax():
    code = (
        "import sys; from jaxdl.models import registry; registry.spec('vgg16');"
        "print(sorted({'jax', 'flax', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("name", ["fnn", "lenet5"])
def test_half_precision_gives_float32_logits_near_those_of_float32(name):
    x = jax.random.normal(jax.random.key(1), (2, 28, 28, 1))
    exact = registry.build(name, num_classes=10)
    half = registry.build(name, num_classes=10, dtype=jnp.bfloat16)
    variables = jax.jit(half.init)(jax.random.key(0), x)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(variables)}
    assert dtypes == {jnp.dtype("float32")}
    logits = jax.jit(half.apply)(variables, x)
    chex.assert_type(logits, jnp.float32)
    expected = jax.jit(exact.apply)(variables, x)
    assert not jnp.array_equal(logits, expected)  # bfloat16 really was used
    scale = jnp.abs(expected).max()
    chex.assert_trees_all_close(logits / scale, expected / scale, atol=0.03)


def test_dropout_follows_its_key_and_rests_in_evaluation():
    module = registry.build("fnn", num_classes=10, dropout=0.5)
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    variables = jax.jit(module.init)(jax.random.key(0), x)

    @jax.jit
    def train(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return module.apply(variables, x, train=True, rngs=rngs)

    chex.assert_trees_all_equal(train(0), train(0))
    assert not jnp.array_equal(train(0), train(1))
    without = registry.build("fnn", num_classes=10)
    chex.assert_trees_all_equal(
        jax.jit(module.apply)(variables, x),
        jax.jit(functools.partial(without.apply, train=True))(variables, x),
    )


@pytest.mark.parametrize(("name", "layout"), cases())
def test_dropout_key_is_asked_for_in_training_only_where_said(name, layout):
    arch = registry.spec(name)
    options = {"layout": layout} if layout else {}
    if arch.has_dropout:
        options["dropout"] = 0.5
    module = registry.build(name, num_classes=10, **options)
    x, variables = initial(module)
    jax.eval_shape(module.apply, variables, x)
    train = functools.partial(module.apply, train=True, mutable=["batch_stats"])
    if not arch.has_dropout:
        jax.eval_shape(train, variables, x)
        return
    with pytest.raises(flax.errors.InvalidRngError):
        jax.eval_shape(train, variables, x)
