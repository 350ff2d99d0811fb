"""Losses against SciPy, PyTorch, closed forms and finite differences."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from absl.testing import parameterized
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxdl import losses

NAMES = sorted(losses.LOSSES)
jitted = {
    name: jax.jit(loss, static_argnames="label_smoothing")
    for name, loss in losses.LOSSES.items()
}


def examples(seed: int, count: int = 7, classes: int = 5):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, classes)).astype(np.float32) * 3
    return logits, rng.integers(0, classes, count).astype(np.int32)


def target(labels: np.ndarray, classes: int, smoothing: float) -> np.ndarray:
    return (1 - smoothing) * np.eye(classes)[labels] + smoothing / classes


class AgainstSciPyTest(chex.TestCase):
    """With and without jit."""

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(0.0, 0.1, 0.9)
    def test_cross_entropy(self, smoothing):
        logits, labels = examples(0)
        loss = self.variant(
            lambda *args: losses.cross_entropy(*args, label_smoothing=smoothing)
        )
        log_probabilities = scipy.special.log_softmax(logits.astype(float), axis=-1)
        wanted = -(target(labels, 5, smoothing) * log_probabilities).sum(-1)
        np.testing.assert_allclose(loss(logits, labels), wanted, rtol=1e-5)

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(0.0, 0.1, 0.9)
    def test_mse(self, smoothing):
        logits, labels = examples(1)
        loss = self.variant(lambda *args: losses.mse(*args, label_smoothing=smoothing))
        probabilities = scipy.special.softmax(logits.astype(float), axis=-1)
        wanted = ((probabilities - target(labels, 5, smoothing)) ** 2).sum(-1)
        np.testing.assert_allclose(loss(logits, labels), wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_both_losses_and_their_gradients_equal_torch(smoothing):
    torch = pytest.importorskip("torch")
    logits, labels = examples(2)
    wanted_target = torch.tensor(target(labels, 5, smoothing), dtype=torch.float32)
    references = {
        "cross_entropy": lambda z: torch.nn.functional.cross_entropy(
            z, torch.tensor(labels).long(), label_smoothing=smoothing, reduction="sum"
        ),
        # torch's own mean over the classes, taken back
        "mse": lambda z: (
            torch.nn.functional.mse_loss(z.softmax(-1), wanted_target) * logits.size
        ),
    }
    for name, reference in references.items():
        z = torch.tensor(logits, requires_grad=True)
        wanted = reference(z)
        wanted.backward()
        found, gradient = jax.value_and_grad(
            lambda z, name=name: losses.LOSSES[name](
                z, labels, label_smoothing=smoothing
            ).sum()
        )(logits)
        np.testing.assert_allclose(found, wanted.item(), rtol=1e-5)
        np.testing.assert_allclose(gradient, z.grad.numpy(), atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradient_equals_finite_differences(name, smoothing):
    logits, labels = examples(3, count=2, classes=4)

    def total(z):
        return losses.LOSSES[name](z, labels, label_smoothing=smoothing).sum()

    gradient = np.asarray(jax.grad(total)(logits))
    step = 1e-2
    for index in np.ndindex(logits.shape):
        up, down = logits.copy(), logits.copy()
        up[index] += step
        down[index] -= step
        slope = (float(total(up)) - float(total(down))) / (2 * step)
        assert abs(slope - gradient[index]) < 2e-3


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_as_wide_as_their_logits(name):
    logits, labels = examples(4)
    with jax.enable_x64(True):
        for given, wanted in (
            (np.float16, np.float32),
            (np.float32, np.float32),
            (np.float64, np.float64),
        ):
            for smoothing in (0.0, 0.1):
                loss = losses.LOSSES[name](
                    jnp.asarray(logits, given), labels, label_smoothing=smoothing
                )
                assert loss.dtype == wanted


def test_known_values():
    even = jnp.zeros((1, 10))
    np.testing.assert_allclose(losses.cross_entropy(even, jnp.array([3])), np.log(10))
    np.testing.assert_allclose(losses.mse(even, jnp.array([3])), 0.9, rtol=1e-6)
    sure = jnp.zeros((1, 10)).at[0, 3].set(100.0)
    for loss, wrong in ((losses.cross_entropy, 100.0), (losses.mse, 2.0)):
        np.testing.assert_allclose(loss(sure, jnp.array([3])), 0, atol=1e-6)
        np.testing.assert_allclose(loss(sure, jnp.array([0])), wrong, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_huge_logits_give_finite_losses_and_gradients(name, smoothing):
    logits = jnp.array([[1e30, -1e30, 0.0], [-3e38, -3e38, -3e38], [1e4, 1e4, -1e4]])
    labels = jnp.array([1, 0, 2])
    value, gradient = jax.value_and_grad(
        lambda z: jitted[name](z, labels, label_smoothing=smoothing).sum()
    )(logits)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_the_result_is_float32_and_computed_so(name, dtype):
    logits, labels = examples(4)
    logits = jnp.asarray(logits, dtype)
    found = losses.LOSSES[name](logits, labels, label_smoothing=0.1)
    assert found.dtype == jnp.float32
    chex.assert_shape(found, (7,))
    wanted = losses.LOSSES[name](
        logits.astype(jnp.float32), labels, label_smoothing=0.1
    )
    chex.assert_trees_all_equal(found, wanted)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("label", [5, 100, -1, -5, -6])
def test_a_label_that_is_no_class_gives_nan_for_that_example_only(
    name, smoothing, label
):
    logits, labels = examples(5)
    labels[2] = label
    found = np.asarray(jitted[name](logits, labels, label_smoothing=smoothing))
    assert np.isnan(found[2])
    assert np.isfinite(np.delete(found, 2)).all()


logits_and_labels = st.tuples(
    hnp.arrays(np.float32, (6, 4), elements=st.floats(-20, 20, width=32)),
    hnp.arrays(np.int32, 6, elements=st.integers(0, 3)),
)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(batch=logits_and_labels, shift=st.floats(-50, 50, width=32))
def test_a_constant_added_to_the_logits_changes_nothing(name, batch, shift):
    logits, labels = batch
    found = jitted[name](logits + np.float32(shift), labels, label_smoothing=0.1)
    wanted = jitted[name](logits, labels, label_smoothing=0.1)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(batch=logits_and_labels)
def test_smoothed_cross_entropy_is_the_mixture_over_labels(batch):
    logits, labels = batch
    loss = jitted["cross_entropy"]
    each = [loss(logits, np.full(6, label, np.int32)) for label in range(4)]
    wanted = 0.7 * loss(logits, labels) + 0.3 * np.mean(each, axis=0)
    found = loss(logits, labels, label_smoothing=0.3)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(batch=logits_and_labels)
def test_gradients_over_the_classes_sum_to_zero(name, batch):
    logits, labels = batch
    gradient = gradients[name](logits, labels)
    np.testing.assert_allclose(gradient.sum(-1), 0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(batch=logits_and_labels, smoothing=st.sampled_from([0.0, 0.1, 0.9]))
def test_losses_lie_within_their_bounds(name, batch, smoothing):
    logits, labels = batch
    found = jitted[name](logits, labels, label_smoothing=smoothing)
    assert (found >= 0).all()
    if name == "mse":
        assert (found <= 2 + 1e-5).all()


gradients = {
    name: jax.jit(
        jax.grad(lambda z, y, loss=loss: loss(z, y, label_smoothing=0.1).sum())
    )
    for name, loss in losses.LOSSES.items()
}
