"""Whole epochs in one call: any cut, any placement, nothing compiled twice."""

import collections
import functools
import itertools

import jax
import numpy as np
import pytest
import tiny_run
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_run import BATCH, STEPS, TRAIN, bits

from jaxdl.data import batches
from jaxdl.data.batches import Batch, Layout
from jaxdl.data.sources import Split
from jaxdl.losses import cross_entropy
from jaxdl.training import epoch, parallel
from jaxdl.training.epoch import Scores

CONFIG = tiny_run.with_(augment="digits", dropout=0.3, ema=0.9, devices=2)


@functools.cache
def resident() -> tiny_run.Tiny:
    return tiny_run.make(CONFIG)


@functools.cache
def streamed() -> tiny_run.Tiny:
    return tiny_run.make(CONFIG, resident=False)


@functools.cache
def whole() -> list:
    """The bits after an epoch in one call."""
    return bits(resident().train())


cuts = st.lists(st.integers(0, STEPS), max_size=4).map(
    lambda inner: [0, *sorted(inner), STEPS]  # equal cuts: a call of no steps
)


@given(cuts)
@settings(max_examples=25, deadline=None)
def test_any_cut_of_an_epoch_gives_the_same_bits(edges) -> None:
    tiny = resident()
    state = tiny.start()
    for first, end in itertools.pairwise(edges):
        state = tiny.programs.train(state, tiny.data, tiny.order(), first, end - first)
    assert bits(state) == whole()


@given(cuts, st.integers(2, STEPS))
@settings(max_examples=15, deadline=None)
def test_streamed_equals_resident_to_the_bit(edges, steps) -> None:
    tiny = streamed()
    state = tiny.start()
    pieces = [
        (first, min(steps, end - first))
        for begin, end in itertools.pairwise(edges)
        for first in range(begin, end, steps)
    ]
    chunks = batches.chunks(
        TRAIN, np.asarray(tiny.order()), pieces, tiny.programs.layout, STEPS
    )
    for (start, count), chunk in zip(pieces, chunks, strict=True):
        data = parallel.shard(chunk, tiny.devices)
        for first, many in ((start, count // 2), (start + count // 2, -(-count // 2))):
            state = tiny.programs.train(state, *data, start, first, many)
    assert bits(state) == whole()


def test_an_epoch_is_its_steps_one_by_one() -> None:
    """The loop over a resident set equals plain calls of the step on one device."""
    tiny = tiny_run.make(tiny_run.with_(dropout=0.3, accumulate=2))
    step = jax.jit(tiny.parts.train_step)
    state, order = tiny.start(), np.asarray(tiny.order())
    positions = Layout(BATCH, 2, 1).positions[0]
    for s in range(STEPS):
        chosen = order[s * BATCH : (s + 1) * BATCH].reshape(2, -1)
        state = step(
            state, Batch(TRAIN.images[chosen], TRAIN.labels[chosen], positions)
        )
    epoch_state = tiny.train()
    for (name, one), (_, other) in zip(
        jax.tree_util.tree_leaves_with_path(state._replace(key=None, totals=None)),
        jax.tree_util.tree_leaves_with_path(
            epoch_state._replace(key=None, totals=None)
        ),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6, err_msg=str(name))
    # The log's sums, in contrast, began again after four steps.
    assert int(state.totals.examples) == STEPS * BATCH
    assert int(epoch_state.totals.examples) == (STEPS - 4) * BATCH


def test_epochs_differ() -> None:
    assert bits(resident().train(epoch=1)) != whole()


def test_the_state_given_is_consumed() -> None:
    tiny = resident()
    state = tiny.start()
    tiny.programs.train(state, tiny.data, tiny.order(), 0, 1)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.variables)), (
        "the memory of the old state was not reused"
    )


compiled: collections.Counter[str] = collections.Counter()


def _count(event: str, duration: float, **_) -> None:
    compiled[event] += 1


jax.monitoring.register_event_duration_secs_listener(_count)
BACKEND_COMPILE = "/jax/core/compile/backend_compile_duration"


@pytest.mark.parametrize("kind", ["jit", "pmap"])
@pytest.mark.parametrize("placed", ["resident", "streamed"])
def test_nothing_is_compiled_after_the_first_call(kind, placed) -> None:
    """Any later slice, epoch or evaluation of another split reuses the programs."""
    config = tiny_run.with_(parallel=kind, devices=2)
    tiny = tiny_run.make(config, resident=placed == "resident")

    def slices(state, epoch, pieces):
        order = tiny.order(epoch)
        if placed == "resident":
            for piece in pieces:
                state = tiny.programs.train(state, tiny.data, order, *piece)
            return state
        chunks = batches.chunks(
            TRAIN, np.asarray(order), pieces, tiny.programs.layout, 3
        )
        for piece, chunk in zip(pieces, chunks, strict=True):
            images, labels = parallel.shard(chunk, tiny.devices)
            state = tiny.programs.train(state, images, labels, piece[0], *piece)
        return state

    before = compiled[BACKEND_COMPILE]
    # A new state, then one that the program itself returned: both are the same to it.
    state = slices(tiny.start(), 0, [(0, 1), (1, 2)])
    tiny.programs.evaluate(state.variables, tiny_run.VALIDATION)
    assert compiled[BACKEND_COMPILE] >= before + 2, "the counter counts nothing"

    before = compiled[BACKEND_COMPILE]
    state = slices(state, 0, [(3, 3)])
    for e in (1, 2):
        state = slices(state, e, [(0, 2), (2, 1), (3, 3)])
        tiny.programs.evaluate(state.variables, tiny_run.VALIDATION)
    tiny.programs.evaluate(state.variables, tiny_run.split(7, seed=2))
    slices(tiny.start(), 0, [(0, 3)])
    assert compiled[BACKEND_COMPILE] == before


@functools.cache
def evaluator(kind: str, devices: int, batch_size: int):
    chosen = parallel.choose(kind, devices, devices, 1)
    tiny = tiny_run.make(tiny_run.with_(parallel=kind, devices=devices))
    program = epoch.compile_evaluate(
        tiny.parts.predict, cross_entropy, chosen, batch_size
    )
    return parallel.replicate(tiny.state.variables, chosen), program


@functools.cache
def plain_forward():
    tiny = tiny_run.make()
    predict = jax.jit(tiny.parts.predict)
    return lambda images: np.asarray(predict(tiny.state.variables, images))


@given(
    st.sampled_from([("jit", 1, 16), ("jit", 4, 3), ("pmap", 4, 3)]), st.integers(1, 50)
)
@settings(max_examples=40, deadline=None)
def test_evaluation_counts_each_example_once(program, size) -> None:
    """Any size of split gives the scores of a forward pass, example by example."""
    variables, evaluate = evaluator(*program)
    examples = tiny_run.split(50, seed=3)
    logits = plain_forward()(examples.images)[:size].astype(np.float64)
    examples = Split(examples.images[:size], examples.labels[:size])

    scores = evaluate(variables, examples)

    assert scores.logits.shape == (size, 3) and scores.losses.shape == (size,)
    np.testing.assert_allclose(scores.logits, logits, rtol=1e-4, atol=1e-5)
    shifted = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[range(size), examples.labels]
    np.testing.assert_allclose(scores.losses, losses, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(scores.labels, examples.labels)
    assert scores.loss == pytest.approx(losses.mean(), rel=1e-4)
    right = (logits.argmax(1) == examples.labels).sum()
    assert scores.accuracy == pytest.approx(right / size)
    assert scores.confusion.sum() == size
    assert np.trace(scores.confusion) == right


def test_confusion_counts_by_label_and_prediction() -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 1, 1, 2, 0]]
    labels = np.array([0, 0, 1, 1, 1], np.int32)
    scores = Scores(logits, np.zeros(5, np.float32), labels)
    expected = np.zeros((3, 3), int)
    for label, prediction in zip(labels, [0, 1, 1, 2, 0], strict=True):
        expected[label, prediction] += 1
    np.testing.assert_array_equal(scores.confusion, expected)
    assert scores.accuracy == 2 / 5


def test_the_mean_loss_is_summed_in_double_precision() -> None:
    losses = np.full(2**20, 0.1, np.float32)
    losses[0] = 1e6
    scores = Scores(np.zeros((1, 3)), losses, np.zeros(1, np.int32))
    assert scores.loss == pytest.approx(losses.astype(np.float64).mean(), rel=1e-12)
