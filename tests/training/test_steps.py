"""One training step against NumPy in float64, and what it promises to be."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from jaxdl.config import OptimConfig
from jaxdl.data import augment
from jaxdl.data.batches import Batch, Layout
from jaxdl.losses import cross_entropy
from jaxdl.models import registry
from jaxdl.training import optim, state, steps
from jaxdl.training.state import NEVER

MEAN, STD = (0.3, 0.5), (0.2, 0.4)
SHAPE, CLASSES, BATCH = (3, 4, 2), 5, 12
SGD = OptimConfig(
    learning_rate=0.3,
    momentum=0.8,
    nesterov=False,
    weight_decay=0.02,
    schedule="constant",
)


def preprocess(images: jax.Array) -> jax.Array:
    return augment.normalise(images, MEAN, STD)


@functools.cache
def smoothed(smoothing: float):
    return lambda logits, labels: cross_entropy(
        logits, labels, label_smoothing=smoothing
    )


def batch(seed: int = 0, micro_batches: int = 1) -> Batch:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (BATCH, *SHAPE), np.uint8)
    labels = rng.integers(0, CLASSES, BATCH).astype(np.int32)
    positions = Layout(BATCH, micro_batches, 1).positions[0]
    return Batch(images[positions], labels[positions], positions)


@functools.cache
def make(
    optimizer_config: OptimConfig = SGD,
    *,
    loss=cross_entropy,
    ema: float | None = None,
    augmentation=None,
    **options,
):
    """(compiled train_step, initial state) of a network with one hidden layer."""
    model = registry.build("fnn", num_classes=CLASSES, hidden=(7,), **options)
    optimizer = optim.make_optimizer(optimizer_config, 100, 10)
    first = state.create(
        model, optimizer, SHAPE, jax.random.key(0), ema=ema is not None
    )
    step = steps.make_train_step(
        model, optimizer, loss, preprocess, ema=ema, augment=augmentation
    )
    return jax.jit(step), first


class Reference:
    """The same network and optimiser by hand: float64, backpropagation written out."""

    def __init__(self, params, smoothing: float = 0.0) -> None:
        self.params = jax.tree.map(lambda p: np.array(p, np.float64), params)
        self.velocity = jax.tree.map(np.zeros_like, self.params)
        self.smoothing = smoothing

    def step(self, batch: Batch) -> tuple[np.ndarray, int]:
        """Per-example losses and the number of right answers before the update."""
        images = np.asarray(batch.images, np.float64).reshape(-1, *SHAPE)
        x = ((images / 255 - MEAN) / STD).reshape(len(images), -1)
        labels = batch.labels.ravel()
        hidden, head = self.params["hidden_0"], self.params["head"]
        before = x @ hidden["kernel"] + hidden["bias"]
        after = np.maximum(before, 0)
        logits = after @ head["kernel"] + head["bias"]
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        probabilities = exponentials / exponentials.sum(1, keepdims=True)
        target = (1 - self.smoothing) * np.eye(CLASSES)[labels]
        target += self.smoothing / CLASSES
        losses = -(target * np.log(probabilities)).sum(1)

        to_logits = (probabilities - target) / len(labels)
        to_before = (to_logits @ head["kernel"].T) * (before > 0)
        gradient = {
            "hidden_0": {"kernel": x.T @ to_before, "bias": to_before.sum(0)},
            "head": {"kernel": after.T @ to_logits, "bias": to_logits.sum(0)},
        }
        for layer, leaves in gradient.items():
            for name, g in leaves.items():
                p, v = self.params[layer][name], self.velocity[layer][name]
                if name == "kernel":
                    g = g + SGD.weight_decay * p
                v[...] = SGD.momentum * v + g
                p -= SGD.learning_rate * v
        return losses, int((logits.argmax(1) == labels).sum())


class AgainstNumPyTest(chex.TestCase):
    """Momentum and weight decay over four steps, smoothed or not, split or not."""

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters((0.0, 1), (0.2, 4))
    def test_steps_equal_the_reference(self, smoothing, micro_batches) -> None:
        train_step, now = make(loss=smoothed(smoothing))
        train_step = self.variant(train_step.__wrapped__)
        reference = Reference(now.variables["params"], smoothing)
        losses, correct = 0.0, 0
        for seed in range(4):
            now = train_step(now, batch(seed, micro_batches))
            expected_losses, expected_correct = reference.step(batch(seed))
            losses += expected_losses.sum()
            correct += expected_correct
            chex.assert_trees_all_close(
                now.variables["params"],
                jax.tree.map(np.float32, reference.params),
                rtol=2e-5,
                atol=2e-6,
            )
            assert int(now.step) == seed + 1
            assert float(now.totals.loss) == pytest.approx(losses, rel=1e-5)
            assert int(now.totals.correct) == correct
            assert int(now.totals.examples) == (seed + 1) * BATCH
            assert int(now.bad_step) == NEVER


@pytest.mark.parametrize("micro_batches", [2, 4])
def test_accumulation_changes_nothing_without_batch_norm(micro_batches: int) -> None:
    train_step, now = make()
    whole, parts = now, now
    for seed in range(3):
        whole = train_step(whole, batch(seed))
        parts = train_step(parts, batch(seed, micro_batches))
    chex.assert_trees_all_close(whole.variables, parts.variables, rtol=1e-5, atol=1e-6)
    assert int(whole.totals.correct) == int(parts.totals.correct)
    assert float(whole.totals.loss) == pytest.approx(float(parts.totals.loss), rel=1e-6)


def test_batch_norm_sees_one_micro_batch_after_the_other() -> None:
    """Two halves in one step leave the statistics of two steps at frozen weights."""
    frozen = OptimConfig(learning_rate=1e-30, momentum=0.0, weight_decay=0.0)
    train_step, first = make(frozen, batch_norm=True)
    halves = batch(0, 2)
    together = train_step(first, halves)
    apart = first
    for j in range(2):
        apart = train_step(apart, jax.tree.map(lambda x, j=j: x[j : j + 1], halves))
    chex.assert_trees_all_close(
        together.variables["batch_stats"], apart.variables["batch_stats"], rtol=1e-6
    )
    with pytest.raises(AssertionError):  # and that is not where they were
        chex.assert_trees_all_close(
            together.variables["batch_stats"], first.variables["batch_stats"]
        )


def test_the_moving_average_has_its_closed_form() -> None:
    """sum over t of (1 - d_t) prod_{s > t} d_s v_t, statistics included."""
    decay, count = 0.35, 6  # (1 + t) / (10 + t) passes 0.35 between t = 3 and t = 4
    train_step, now = make(ema=decay, batch_norm=True)
    chex.assert_trees_all_equal(now.ema, now.variables)
    visited = [now.variables]
    for seed in range(count):
        now = train_step(now, batch(seed))
        visited.append(now.variables)

    decays = [min(decay, (1 + t) / (10 + t)) for t in range(1, count + 1)]
    assert decays[0] < decays[1] < decays[-2] == decays[-1] == decay
    weights = [(1 - d) * np.prod(decays[t + 1 :]) for t, d in enumerate(decays)]
    weights.insert(0, np.prod(decays))
    assert sum(weights) == pytest.approx(1)
    expected = jax.tree.map(
        lambda *leaves: sum(
            w * np.asarray(leaf, np.float64)
            for w, leaf in zip(weights, leaves, strict=True)
        ),
        *visited,
    )
    chex.assert_trees_all_close(
        now.ema, jax.tree.map(np.float32, expected), rtol=1e-5, atol=1e-6
    )
    assert state.evaluated_variables(now) is now.ema


def test_shapes_and_types_stay() -> None:
    train_step, now = make(ema=0.9, batch_norm=True, dropout=0.5)
    after = jax.eval_shape(train_step, now, batch(0, 3))
    chex.assert_trees_all_equal_structs(now, after)
    chex.assert_trees_all_equal_shapes_and_dtypes(now, after)


def test_without_a_moving_average_the_variables_are_evaluated() -> None:
    train_step, now = make()
    now = train_step(now, batch())
    assert now.ema is None
    assert state.evaluated_variables(now) is now.variables


def bad_labels(value: int = 99) -> Batch:
    whole = batch()
    labels = whole.labels.copy()
    labels[0, 3] = value
    return whole._replace(labels=labels)


def test_the_first_bad_step_is_remembered() -> None:
    train_step, now = make()
    for seed in range(2):
        now = train_step(now, batch(seed))
    assert int(now.bad_step) == NEVER
    for _ in range(3):  # a label outside gives NaN
        now = train_step(now, bad_labels())
        assert int(now.bad_step) == 3


def test_an_infinite_loss_is_bad_too_in_any_micro_batch() -> None:
    def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.where(labels == 99, jnp.inf, cross_entropy(logits, labels % CLASSES))

    train_step, now = make(loss=loss)
    good = train_step(now, batch(0, 3))
    assert int(good.bad_step) == NEVER
    parts = Layout(BATCH, 3, 1).positions[0]
    for place in (0, BATCH - 1):
        labels = batch().labels.ravel().copy()
        labels[place] = 99
        bad = train_step(now, batch(0, 3)._replace(labels=labels[parts]))
        assert int(bad.bad_step) == 1


@pytest.mark.parametrize(
    "options",
    [{}, {"dropout": 0.5, "batch_norm": True, "augmentation": augment.digits}],
)
def test_the_step_is_pure(options) -> None:
    """The same input gives the same bits, and is left as it was."""
    train_step, now = make(ema=0.9, **options)
    before = jax.device_get(now._replace(key=jax.random.key_data(now.key)))
    first, second = train_step(now, batch()), train_step(now, batch())
    chex.assert_trees_all_equal(first, second)
    chex.assert_trees_all_equal(
        before, jax.device_get(now._replace(key=jax.random.key_data(now.key)))
    )


class Noise(nn.Module):
    """Logits are what dropout leaves of ones: the mask itself, per example."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        bias = self.param("bias", nn.initializers.zeros, (CLASSES,))
        ones = jnp.ones((len(x), CLASSES)) + bias
        return nn.Dropout(0.5, deterministic=not train)(ones)


def test_randomness_differs_by_step_and_by_run_and_by_micro_batch() -> None:
    """The gradient with respect to the bias counts what the mask let through."""

    def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        return (logits * 10.0 ** jnp.arange(CLASSES)).sum(-1)

    optimizer = optim.make_optimizer(SGD, 100, 10)
    step = jax.jit(steps.make_train_step(Noise(), optimizer, loss, preprocess))

    def change(run: int, at: int, data: Batch) -> float:
        first = state.create(Noise(), optimizer, SHAPE, jax.random.key(run))
        after = step(first._replace(step=jnp.int32(at)), data)
        return float(after.totals.loss)

    seen = [change(run, at, batch()) for run in range(3) for at in range(3)]
    assert len(set(seen)) == 9
    assert change(1, 1, batch()) == seen[4]
    same_twice = jax.tree.map(lambda x: np.concatenate([x, x]), batch())
    assert change(0, 0, same_twice) != 2 * seen[0]


def test_augmentation_gets_normalised_images_and_their_places() -> None:
    seen = {}

    def spy(key: jax.Array, images: jax.Array, positions: jax.Array) -> jax.Array:
        seen.update(images=images, positions=positions)
        return images

    train_step, now = make(augmentation=spy)
    data = batch()
    train_step.__wrapped__(now, data)
    np.testing.assert_array_equal(seen["positions"], np.arange(BATCH))
    expected = (data.images[0].astype(np.float64) / 255 - MEAN) / STD
    np.testing.assert_allclose(seen["images"], expected, rtol=1e-5, atol=1e-5)


def test_predict_uses_running_statistics_and_no_dropout() -> None:
    model = registry.build(
        "fnn", num_classes=CLASSES, hidden=(7,), batch_norm=True, dropout=0.5
    )
    train_step, now = make(batch_norm=True, dropout=0.5)
    now = train_step(now, batch())
    predict = jax.jit(steps.make_predict(model, preprocess))
    images = batch(5).images[0]
    logits = predict(now.variables, images)
    assert logits.shape == (BATCH, CLASSES) and logits.dtype == jnp.float32
    alone = np.concatenate(
        [predict(now.variables, images[i : i + 1]) for i in range(BATCH)]
    )
    np.testing.assert_allclose(logits, alone, rtol=1e-5, atol=1e-6)
    expected = model.apply(now.variables, preprocess(images), train=False)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
