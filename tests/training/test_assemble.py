"""From settings to parts: what is refused, and what the parts are made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from PIL import Image
from tiny_run import STEPS, with_

from jaxdl.config import Config
from jaxdl.data import augment
from jaxdl.data.sources import Split
from jaxdl.errors import InputError
from jaxdl.models import pretrained
from jaxdl.training import assemble, epoch, parallel
from jaxdl.training.assemble import DataFacts


def refused(config: Config, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        assemble.validate(config)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_the_defaults_are_valid() -> None:
    assemble.validate(Config())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, ["--epochs", "at least 1", "not 0"]),
        ({"epochs": -1}, ["--epochs", "not -1"]),
        ({"batch_size": 0}, ["--batch-size", "at least 1", "not 0"]),
        ({"seed": -1}, ["--seed", "at least 0", "not -1"]),
        ({"log_every": 0}, ["--log-every"]),
        ({"checkpoint_seconds": -0.1}, ["--checkpoint-seconds"]),
        ({"checkpoint_seconds": float("nan")}, ["--checkpoint-seconds", "nan"]),
        ({"keep": 0}, ["--keep"]),
        ({"patience": 0}, ["--patience"]),
        ({"devices": 0}, ["--devices"]),
        ({"validation": 0}, ["--validation"]),
        ({"name": ""}, ["--name"]),
        ({"name": "a/b"}, ["--name", "'a/b'"]),
        ({"name": "a\0"}, ["--name"]),
        ({"name": ".."}, ["--name"]),
        ({"name": "."}, ["--name"]),
        ({"learning_rate": -0.1}, ["--learning-rate", "-0.1"]),
        ({"learning_rate": float("nan")}, ["--learning-rate", "nan"]),
        ({"accumulate": 0}, ["--accumulate"]),
        ({"ema": 1.0}, ["--ema"]),
        ({"epochs": 2, "warmup_epochs": 2.0}, ["--warmup-epochs"]),
        ({"arch": "lenet"}, ["lenet", "lenet5"]),
        ({"arch": "lenet5", "hidden": (5,)}, ["lenet5", "hidden"]),
        ({"dropout": 1.0}, ["dropout"]),
        ({"hidden": (0,)}, ["hidden"]),
        ({"image_size": 0}, ["--image-size", "not 0"]),
        ({"pretrained": ""}, ["--pretrained", "imagenet"]),
        ({"pretrained": "imagenet"}, ["--pretrained=imagenet", "fnn", "resnet"]),
        ({"finetune": "head"}, ["--finetune=head", "--pretrained"]),
        ({"finetune": "tail", "pretrained": "a"}, ["--finetune", "tail", "last-block"]),
        ({"layer_decay": 2.0}, ["--layer-decay", "2.0"]),
        (
            {"arch": "lenet5_1998", "finetune": "head", "pretrained": "a.pth"},
            ["--finetune=head", "last-block"],
        ),
    ],
    ids=str,
)
def test_a_bad_value_is_named_with_what_is_allowed(changes, words) -> None:
    changes = dict(changes)
    config = tiny_run.CONFIG
    if "arch" in changes and "hidden" not in changes:
        config = with_(config, hidden=None, batch_norm=None)
    refused(with_(config, **changes), *words)


def test_the_least_values_are_accepted() -> None:
    least = {
        "epochs": 1,
        "batch_size": 1,
        "seed": 0,
        "log_every": 1,
        "checkpoint_seconds": 0.0,
        "keep": 1,
        "patience": 1,
        "devices": 1,
        "validation": 1,
        "name": "a run, v1.0",
    }
    assemble.validate(with_(**least))


def test_facts_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 6, 5, 3), np.uint8)
    images[..., 1] //= 3
    found = assemble.facts(Split(images, np.zeros(50, np.int32)), ("a", "b"))
    assert found.image_shape == (6, 5, 3)
    assert found.classes == ("a", "b")
    pixels = images.reshape(-1, 3) / 255
    np.testing.assert_allclose(found.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std(0), rtol=1e-9)


def test_facts_of_a_large_set_come_from_all_over_it() -> None:
    images = np.zeros((30_000, 1, 1, 1), np.uint8)
    images[15_000:] = 255
    found = assemble.facts(Split(images, np.zeros(30_000, np.int32)), ("a",))
    assert found.mean == pytest.approx((0.5,))
    assert found.std == pytest.approx((0.5,))


def test_images_of_one_colour_have_something_to_be_divided_by() -> None:
    images = np.full((4, 2, 2, 1), 7, np.uint8)
    found = assemble.facts(Split(images, np.zeros(4, np.int32)), ("a",))
    assert found.std == (1.0,)
    assert found.mean == pytest.approx((7 / 255,))


def parts_of(**changes):
    return tiny_run.make(with_(**changes)).parts


def test_the_seed_decides_the_start() -> None:
    states = [tiny_run.make(with_(seed=seed)).state for seed in (0, 0, 1)]
    first, again, other = map(tiny_run.bits, states)
    assert first == again
    kernels = [s.variables["params"]["head"]["kernel"] for s in (states[0], states[2])]
    assert not np.allclose(*kernels)
    assert first != other


def test_the_schedule_ends_with_the_run() -> None:
    rate = parts_of(schedule="cosine", learning_rate=0.4, epochs=3).learning_rate
    assert float(rate(0)) == pytest.approx(0.4)
    assert float(rate(3 * STEPS // 2)) == pytest.approx(0.2)
    assert float(rate(3 * STEPS)) == pytest.approx(0, abs=1e-6)


def test_smoothing_is_for_training_only() -> None:
    parts = parts_of(label_smoothing=0.3)
    logits = jnp.array([[2.0, 0.0, -1.0]])
    expected = -jax.nn.log_softmax(logits)[0, 0]
    assert float(parts.loss(logits, jnp.array([0]))[0]) == pytest.approx(
        float(expected)
    )


def test_predict_normalises_with_the_facts() -> None:
    """A linear classifier by hand: its kernel times the normalised pixels."""
    tiny = tiny_run.make(with_(hidden=(), batch_norm=None))
    images = tiny_run.VALIDATION.images
    head = jax.device_get(tiny.state.variables["params"]["head"])
    x = (images / 255 - tiny.facts.mean[0]) / tiny.facts.std[0]
    expected = x.reshape(len(x), -1) @ head["kernel"] + head["bias"]
    found = jax.jit(tiny.parts.predict)(tiny.state.variables, images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def facts_of(shape) -> DataFacts:
    channels = shape[-1]
    return DataFacts(shape, ("0", "1", "2"), (0.3,) * channels, (0.2,) * channels)


def test_images_are_normalised_by_their_own_or_by_imagenets() -> None:
    colour, grey = facts_of((9, 9, 3)), facts_of((9, 9, 1))
    config = with_(arch="resnet18", hidden=None, batch_norm=None)
    published = with_(config, pretrained="imagenet")
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for given, expected in (
        (config, (colour.mean, colour.std)),
        (with_(config, pretrained="a.pth"), (colour.mean, colour.std)),
        (with_(config, normalise="imagenet"), imagenet),
        (published, imagenet),
        (with_(published, normalise="data"), (colour.mean, colour.std)),
    ):
        assert assemble.normalisation(given, colour) == expected
    (mean,), (std,) = assemble.normalisation(published, grey)
    assert mean == pytest.approx(0.449) and std == pytest.approx(0.226)
    with pytest.raises(InputError, match="1 or 3 channels, not 2"):
        assemble.normalisation(published, facts_of((9, 9, 2)))


def test_the_model_sees_resized_images_in_training_and_after() -> None:
    """Predictions are the network's on Pillow's BILINEAR of the normalised images."""
    changes = {"arch": "lenet5", "hidden": None, "batch_norm": None}
    tiny = tiny_run.make(with_(image_size=24, **changes))
    images = tiny_run.VALIDATION.images[:5]
    normal = (images / 255 - tiny.facts.mean) / tiny.facts.std
    resized = [
        np.asarray(
            Image.fromarray(np.float32(x[..., 0])).resize(
                (24, 24), Image.Resampling.BILINEAR
            )
        )
        for x in normal
    ]
    expected = jax.jit(tiny.parts.model.apply)(
        tiny.state.variables, np.stack(resized)[..., None]
    )
    found = jax.jit(tiny.parts.predict)(tiny.state.variables, images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    # The loss of the first step is that of these very logits.
    order = np.asarray(tiny.order())[: tiny_run.BATCH]
    logits = jax.jit(tiny.parts.predict)(
        tiny.state.variables, tiny_run.TRAIN.images[order]
    )
    loss = tiny.parts.loss(logits, jnp.asarray(tiny_run.TRAIN.labels[order])).sum()
    assert float(tiny.train(1).totals.loss) == pytest.approx(float(loss), rel=1e-5)
    # A network that the stored images are too small for.
    with pytest.raises(InputError, match=r"20x20 pixels, got 8x8.*--image-size=20"):
        tiny_run.make(with_(**changes))


def test_the_size_that_images_have_changes_nothing() -> None:
    one, other = (tiny_run.make(with_(image_size=size)) for size in (None, 8))
    assert tiny_run.bits(one.train(2)) == tiny_run.bits(other.train(2))


def test_a_grey_image_gives_what_it_gives_in_three_equal_channels(tmp_path) -> None:
    """From stored pixels to logits: normalised as ImageNet, the first kernel summed."""
    base = {"arch": "lenet5", "hidden": None, "batch_norm": None, "devices": 1}
    config = with_(normalise="imagenet", **base)
    devices = parallel.choose("jit", 1, 1, 1)
    grey, colour = facts_of((20, 20, 1)), facts_of((20, 20, 3))
    parts = {
        facts: assemble.assemble(config, facts, 1, 1, devices)
        for facts in (grey, colour)
    }
    start = assemble.initial_state(config, parts[colour], colour)
    path = tmp_path / "colour.safetensors"
    pretrained.save(path, jax.device_get(start.variables))
    summed = assemble.initial_state(config, parts[grey], grey, path).variables
    pixels = np.random.default_rng(0).integers(0, 256, (4, 20, 20, 1), np.uint8)
    found = jax.jit(parts[grey].predict)(summed, pixels)
    (mean,), (std,) = assemble.normalisation(config, grey)
    equal = augment.normalise(jnp.repeat(pixels, 3, -1), [mean] * 3, [std] * 3)
    expected = jax.jit(parts[colour].model.apply)(start.variables, equal)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert np.ptp(expected) > 0.1


def test_bfloat16_computes_in_it_and_keeps_parameters_and_logits() -> None:
    tiny = tiny_run.make(with_(precision="bfloat16", batch_norm=None, hidden=(8,)))
    images = tiny_run.VALIDATION.images
    assert {leaf.dtype.name for leaf in jax.tree.leaves(tiny.state.variables)} == {
        "float32"
    }
    logits = jax.jit(tiny.parts.predict)(tiny.state.variables, images)
    assert logits.dtype == jnp.float32
    precise = tiny_run.make(with_(batch_norm=None, hidden=(8,))).parts.predict(
        tiny.state.variables, images
    )
    error = np.abs(np.asarray(logits) - precise).max()
    assert 1e-5 < error < 0.1


def test_images_too_small_for_the_network_are_refused() -> None:
    config = with_(arch="lenet5", hidden=None, batch_norm=None)
    with pytest.raises(InputError, match="20x20"):
        tiny_run.make(config)


def test_evaluation_has_one_batch_per_device() -> None:
    """More examples than one call takes, and not a multiple of it."""
    devices = parallel.choose("jit", 1, 1, 1)
    tiny = tiny_run.make()
    count = assemble.EVALUATION_BATCH + 3
    examples = tiny_run.split(count, seed=9)
    scores = tiny.programs.evaluate(tiny.state.variables, examples)
    assert len(scores.losses) == count
    other = epoch.compile_evaluate(tiny.parts.predict, tiny.parts.loss, devices, count)
    expected = other(tiny.state.variables, examples)
    np.testing.assert_allclose(scores.logits, expected.logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("finetune", "refused"), [("all", True), ("last-block", True), ("head", False)]
)
def test_single_images_are_for_frozen_batch_norms_alone(finetune, refused) -> None:
    """Those normalise by their running statistics; others would have no variance."""
    base = {"arch": "resnet18", "layout": "torchvision", "batch_size": 1, "devices": 1}
    config = with_(
        pretrained="FILE", finetune=finetune, hidden=None, batch_norm=None, **base
    )
    devices = parallel.choose("jit", 1, 1, 1)

    def step() -> None:
        assemble.assemble(config, facts_of((32, 32, 3)), 1, 1, devices)

    if refused:
        with pytest.raises(InputError, match="batch norm needs more than one value"):
            step()
    else:
        step()
