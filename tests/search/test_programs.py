import dataclasses

import chex
import jax
import numpy as np
import pytest

from jaxdl.config import Config, DataConfig, ModelConfig, OptimConfig, RunConfig
from jaxdl.data import batches, sources
from jaxdl.data.sources import Split
from jaxdl.search import programs
from jaxdl.training import assemble, optim, parallel
from jaxdl.training.epoch import Examples

EPOCHS, BATCH = 3, 16


@pytest.fixture(scope="module")
def splits():
    (images, labels), _ = sources.mnist_embedded()
    order = np.random.default_rng(0).permutation(len(labels))
    train, validation = order[:1600], order[1600:1900]
    return [Split(images[some], labels[some]) for some in (train, validation)]


def material(splits, devices):
    return programs.material(*splits, tuple("0123456789"), jax.devices()[:devices])


def config(rate=0.05, seed=0, **changes):
    made = Config(
        model=ModelConfig(
            arch="fnn", hidden=(24, 16), activation="gelu", batch_norm=True, dropout=0.2
        ),
        optim=OptimConfig(
            learning_rate=rate,
            schedule="onecycle",
            label_smoothing=0.1,
            clip_norm=2.0,
            ema=0.9,
        ),
        run=RunConfig(epochs=EPOCHS, batch_size=BATCH, seed=seed),
    )
    for section, part in changes.items():
        part = dataclasses.replace(getattr(made, section), **part)
        made = dataclasses.replace(made, **{section: part})
    return made


SEVERAL = [
    config(),
    config(0.1, seed=1, model={"dropout": 0.4}, optim={"schedule": "cosine"}),
    config(
        0.02,
        seed=2,
        optim={
            "momentum": 0.5,
            "weight_decay": 1e-2,
            "label_smoothing": 0.3,
            "clip_norm": 0.5,
            "ema": 0.99,
        },
    ),
]


READY = {}


def together(several, splits, devices, lanes):
    (shape,) = {programs.shape_of(one) for one in several}
    if (devices, lanes) not in READY:  # for SEVERAL only
        data = material(splits, devices)
        READY[devices, lanes] = data, programs.compile(shape, data, lanes)
    data, program = READY[devices, lanes]
    for first in range(0, len(several), program.width):
        lot = several[first : first + program.width]
        for states in programs.epochs(lot, program, data):
            assert all(leaf.is_ready() for leaf in jax.tree.leaves(states.variables))
        scores = program.score(states, data.validation)
        for i in range(len(lot)):
            yield jax.tree.map(lambda x, i=i: x[i], states), scores.accuracy[i]


def alone(one, splits):
    """The same run by the programs of `experiments.mnist`."""
    train, validation = splits
    devices = parallel.choose("jit", 1, BATCH, 1)
    facts = assemble.facts(train, tuple("0123456789"))
    steps = len(train.labels) // BATCH
    parts = assemble.assemble(one, facts, steps * EPOCHS, steps, devices)
    state = assemble.initial_state(one, parts, facts)
    ready = assemble.compile_programs(one, parts, devices, resident=True)
    data = Examples(*parallel.replicate((train.images, train.labels), devices))
    for epoch in range(EPOCHS):
        order = batches.epoch_order(state.key, epoch, len(train.labels))
        state = ready.train(state, data, order, 0, steps)
    return state, ready.evaluate(state.ema or state.variables, validation).accuracy


@pytest.fixture(scope="module")
def each_alone(splits):
    return [alone(one, splits) for one in SEVERAL]


def assert_close(ours, theirs, tolerance):
    chex.assert_trees_all_equal_structs(ours, theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert np.abs(a - b).max() <= tolerance * max(np.abs(b).max(), 1e-3)


# Smooth activations: where a ReLU's input is within rounding of zero, a sum taken in
# another order turns a unit on or off, and the runs part.
@pytest.mark.parametrize(("devices", "lanes"), [(1, 3), (2, 1)])
def test_a_trial_among_others_equals_the_same_alone(splits, each_alone, devices, lanes):
    """300 steps in float32, to 1e-5 of the largest parameter of an array."""
    found = list(together(SEVERAL, splits, devices, lanes))
    for (expected, its_accuracy), (state, accuracy) in zip(
        each_alone, found, strict=True
    ):
        assert int(state.step) == int(expected.step) == 300
        chex.assert_trees_all_equal(
            jax.random.key_data(state.key), jax.random.key_data(expected.key)
        )  # from which the order of the data derives
        assert_close(state.variables, expected.variables, 1e-5)
        assert_close(state.ema, expected.ema, 1e-5)
        assert accuracy == its_accuracy


def test_trials_do_not_look_at_their_neighbours(splits):
    """The bits are the same whoever computes beside."""
    for how in ((1, 3), (2, 1)):
        whole = [s.variables for s, _ in together(SEVERAL, splits, *how)]
        first, *_ = together(SEVERAL[:1], splits, *how)
        chex.assert_trees_all_equal(first[0].variables, whole[0])
        swapped = [s.variables for s, _ in together(SEVERAL[::-1], splits, *how)]
        chex.assert_trees_all_equal(swapped[::-1], whole)


def test_what_shares_a_program_and_what_does_not():
    plain = programs.shape_of(config())
    same = [
        config(0.3, seed=7),
        config(optim={"momentum": 0.5, "weight_decay": 0.1, "schedule": "cosine"}),
        config(model={"dropout": 0.5}),
        config(run={"epochs": 9}),
    ]
    assert {programs.shape_of(one) for one in same} == {plain}
    others = [
        config(model={"hidden": (24,)}),
        config(model={"batch_norm": False}),
        config(model={"dropout": 0.0}),
        config(optim={"label_smoothing": 0.0}),
        config(optim={"ema": None}),
        config(optim={"nesterov": False}),
        config(run={"batch_size": 32}),
        config(data={"augment": "digits"}),
    ]
    shapes = {programs.shape_of(one) for one in others}
    assert len(shapes) == len(others) and plain not in shapes
    assert DataConfig().augment == "none"


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "constant"},
        {"schedule": "step", "step_epochs": (0.3, 0.6)},
        {"schedule": "cosine", "warmup_epochs": 1.0},
        {"schedule": "onecycle"},
    ],
)
def test_rates_are_those_of_the_schedule(changes):
    one = config(0.37, optim=changes)
    schedule = optim.make_schedule(one.optim, 10 * EPOCHS, 10)
    expected = [float(schedule(i)) for i in range(10 * EPOCHS)]
    found = programs.rates(one, 10)
    assert found.shape == (EPOCHS, 10) and found.dtype == np.float32
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-6, atol=1e-9)


def test_a_trial_that_diverges_leaves_the_others_alone(splits):
    data = material(splits, 1)
    wild = config(1e30, optim={"clip_norm": None})
    calm = config(optim={"clip_norm": None})
    program = programs.compile(programs.shape_of(calm), data, 2)
    *_, states = programs.epochs([wild, calm], program, data)
    train, bad = program.seen(states)
    assert bad.tolist() == [True, False]
    assert 0.5 < train.accuracy[1] < 1 and np.isfinite(train.loss[1])
    assert program.score(states, data.validation).accuracy[1] > 0.7


def test_every_example_counts_once(splits):
    """300 examples are no whole number of chunks."""
    data = material(splits, 2)
    assert float(data.validation.weights.sum()) == data.validation.examples == 300


def test_convolutions_are_never_mapped_over(splits):
    data = material(splits, 1)
    assert programs.lanes(config(), data) > 1
    assert programs.lanes(config(model={"hidden": None}), data) == 1
    lenet = Config(model=ModelConfig(arch="lenet5"))
    assert programs.lanes(lenet, data) == 1
