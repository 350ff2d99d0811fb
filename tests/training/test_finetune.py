"""What is frozen keeps its bits; what is trained moves as torch moves it."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
import torch_reference as reference
from tiny_run import STEPS, bits, with_

from jaxdl.config import OptimConfig
from jaxdl.data.batches import Batch
from jaxdl.losses import cross_entropy
from jaxdl.models import pretrained, registry
from jaxdl.models.resnet import ResNet
from jaxdl.training import checkpoints, finetune, optim, state, steps

BLOCKS = (("fc",), ("layer2_0",), ("layer1_0",), ("conv1", "bn1"))
DEEP = {"arch": "fnn", "hidden": (8, 7, 6), "pretrained": "given to initial_state"}
SPREAD = {"augment": "digits", "dropout": 0.2, "accumulate": 2, "ema": 0.9}


def test_layers_and_rates_by_block() -> None:
    assert finetune.trained_layers("all", BLOCKS) is None
    assert finetune.trained_layers("head", BLOCKS) == {"fc"}
    assert finetune.trained_layers("last-block", BLOCKS) == {"fc", "layer2_0"}
    assert finetune.rates(1.0, BLOCKS) is None
    assert finetune.rates(0.5, BLOCKS) == {
        "fc": 1,
        "layer2_0": 0.5,
        "layer1_0": 0.25,
        "conv1": 0.125,
        "bn1": 0.125,
    }


class Narrow:
    """torchvision's ResNet-18 cut down to two stages, in float64, and ours."""

    def __init__(self) -> None:
        torch, resnet = reference.torch(), reference.torchvision_models().resnet
        self.net = resnet.ResNet(resnet.BasicBlock, (1, 1, 1, 1), num_classes=5)
        self.net.layer3 = self.net.layer4 = torch.nn.Identity()
        self.net.fc = torch.nn.Linear(128, 5)
        self.net.double()
        reference.randomise(self.net)
        self.module = ResNet(5, (1, 1), False, "torchvision", "float64")

    def variables(self):
        state_dict = reference.arrays(self.net.state_dict())
        return pretrained.from_torch(state_dict)


@pytest.mark.parametrize(
    ("which", "decay"),
    [("head", 1.0), ("last-block", 1.0), ("all", 0.5), ("last-block", 0.3)],
)
def test_steps_equal_torchs_with_frozen_layers_and_parameter_groups(which, decay):
    """Three steps: requires_grad=False, eval() of frozen batch norms, group rates."""
    torch, narrow = reference.torch(), Narrow()
    net, begun = narrow.net, narrow.variables()
    trained = finetune.trained_layers(which, BLOCKS)
    rates = finetune.rates(decay, BLOCKS)
    random = np.random.default_rng(0)
    images = random.standard_normal((3, 8, 17, 17, 3))
    labels = random.integers(0, 5, (3, 8))

    net.train()
    groups = []
    for name, layer in net.named_children():
        for part, module in (
            [(name, layer)]
            if len(name) < 6
            else [(f"{name}_{i}", block) for i, block in layer.named_children()]
        ):
            if trained is not None and part not in trained:
                module.requires_grad_(False).eval()
                continue
            for parameter in module.parameters():
                rate = 0.1 * (1.0 if rates is None else rates[part])
                # Kernels decay, biases and normalisations do not.
                wd = 0.05 if parameter.ndim > 1 else 0.0
                groups.append({"params": [parameter], "lr": rate, "weight_decay": wd})
    sgd = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    for x, y in zip(images, labels, strict=True):
        sgd.zero_grad()
        logits = net(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(y)).backward()
        sgd.step()

    config = OptimConfig(learning_rate=0.1, weight_decay=0.05, schedule="constant")
    with jax.enable_x64(True):
        optimizer = optim.make_optimizer(config, 3, 3, rates=rates)
        now = state.create(
            narrow.module,
            optimizer,
            (17, 17, 3),
            jax.random.key(0),
            trained=trained,
            variables=begun,
        )
        step = jax.jit(
            steps.make_train_step(
                narrow.module,
                optimizer,
                cross_entropy,
                lambda x: x,
                trained=trained,
            )
        )
        for x, y in zip(images, labels, strict=True):
            now = step(now, Batch(x[None], y[None], np.arange(8)[None]))
        found = jax.device_get(now.variables)
    wanted = narrow.variables()
    moved = 0
    for (path, mine), theirs, first in zip(
        jax.tree.leaves_with_path(found),
        jax.tree.leaves(wanted),
        jax.tree.leaves(begun),
        strict=True,
    ):
        assert mine.dtype == np.float64
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-11, err_msg=name)
        if trained is not None and path[1].key not in trained:
            assert mine.tobytes() == first.tobytes(), name
        else:
            moved += not np.allclose(mine, first, rtol=1e-6)
    assert moved >= 2


def operations(jaxpr, names=("conv_general_dilated", "dot_general")) -> int:
    """How often the step multiplies matrices or convolves, in all its parts."""
    found = sum(equation.primitive.name in names for equation in jaxpr.eqns)
    return found + sum(
        operations(inner)
        for equation in jaxpr.eqns
        for inner in jax.extend.core.jaxprs_in_params(equation.params)
    )


def test_nothing_is_propagated_back_into_what_is_frozen() -> None:
    """Counted: forward 1, weights' gradient 1 and input's 1 for each trained layer."""
    model = registry.build("resnet18", num_classes=5)
    blocks = registry.blocks("resnet18")
    optimizer = optim.make_optimizer(OptimConfig(), 1, 1)
    shape, layers = (8, 8, 3), 20 + 1  # 3 of them are shortcuts; the head
    counts = {}
    for which in ("all", "last-block", "head"):
        trained = finetune.trained_layers(which, blocks)
        step = steps.make_train_step(
            model, optimizer, cross_entropy, jnp.float32, trained=trained
        )
        begin = functools.partial(
            state.create, model, optimizer, shape, trained=trained
        )
        now = jax.eval_shape(begin, jax.random.key(0))
        batch = Batch(
            jax.ShapeDtypeStruct((1, 2, *shape), jnp.uint8),
            jax.ShapeDtypeStruct((1, 2), jnp.int32),
            jax.ShapeDtypeStruct((1, 2), jnp.int32),
        )
        counts[which] = operations(jax.make_jaxpr(step)(now, batch).jaxpr)
    # The first trained layers need no gradient of their input: layer4 begins with two.
    assert counts == {
        "all": 3 * layers - 1,
        "last-block": layers + 2 * (5 + 1) - 2,
        "head": layers + 1,
    }


@functools.cache
def trained(which: str, kind: str = "jit", devices: int = 1, decay: float = 1.0):
    """(state before, state after an epoch), on the host."""
    config = with_(
        **DEEP,
        **SPREAD,
        finetune=which,
        layer_decay=decay,
        parallel=kind,
        devices=devices,
    )
    tiny = tiny_run.make(config)
    before, after = tiny.state, tiny.train()
    return [jax.device_get(s._replace(key=None)) for s in (before, after)]


@pytest.mark.parametrize("which", ["head", "last-block"])
def test_what_is_frozen_keeps_its_bits(which) -> None:
    """Parameters, batch statistics and their moving average; the rest has moved."""
    before, after = trained(which)
    moving = {"head"} | ({"hidden_2", "norm_2"} if which == "last-block" else set())
    for kind in ("variables", "ema"):
        old, new = getattr(before, kind), getattr(after, kind)
        assert old.keys() == new.keys() == {"params", "batch_stats"}
        for collection in old:
            assert old[collection].keys() == new[collection].keys()
            for layer in old[collection]:
                same = bits(old[collection][layer]) == bits(new[collection][layer])
                assert same == (layer not in moving), (kind, collection, layer)
    traces = [s.trace for s in after.opt_state if hasattr(s, "trace")]
    assert [trace.keys() for trace in traces] == [moving]


@pytest.mark.parametrize(("kind", "devices"), [("jit", 2), ("pmap", 2)])
@pytest.mark.parametrize(("which", "decay"), [("last-block", 0.5), ("all", 0.5)])
def test_two_devices_compute_what_one_does(kind, devices, which, decay) -> None:
    (_, one), (_, two) = (
        trained(which, "jit", 1, decay),
        trained(which, kind, devices, decay),
    )
    chex.assert_trees_all_close(two.variables, one.variables, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(two.opt_state, one.opt_state, rtol=1e-3, atol=1e-4)
    chex.assert_trees_all_close(two.ema, one.ema, rtol=1e-4, atol=1e-5)


def test_a_run_restored_from_a_checkpoint_goes_on_with_the_same_bits(tmp_path) -> None:
    config = with_(**DEEP, **SPREAD, finetune="last-block", layer_decay=0.5)
    tiny = tiny_run.make(config)
    whole = bits(tiny.train())
    half = tiny.train(STEPS // 2)
    with checkpoints.open_manager(tmp_path, 1) as manager:
        checkpoints.save(manager, half, {})
        checkpoints.wait(manager)
        found = checkpoints.restore(manager, tiny.state)
    assert found is not None
    again = tiny.programs.train(
        tiny.start(found[0]), tiny.data, tiny.order(), STEPS // 2, STEPS - STEPS // 2
    )
    assert bits(again) == whole


def test_training_all_layers_by_name_is_training_all() -> None:
    tiny = tiny_run.make(with_(**DEEP, **SPREAD))
    every = frozenset(tiny.state.variables["params"])
    step = steps.make_train_step(
        tiny.parts.model,
        tiny.parts.optimizer,
        tiny.parts.loss,
        lambda x: x / 255,
        trained=every,
    )
    plain = steps.make_train_step(
        tiny.parts.model, tiny.parts.optimizer, tiny.parts.loss, lambda x: x / 255
    )
    batch = Batch(
        tiny_run.TRAIN.images[None, :16],
        tiny_run.TRAIN.labels[None, :16],
        np.arange(16)[None],
    )
    assert bits(jax.jit(step)(tiny.state, batch)) == bits(
        jax.jit(plain)(tiny.state, batch)
    )
