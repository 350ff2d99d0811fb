"""The trainings of `experiments.transfer`: arms, and one compiled program for each.

Import it late: it brings JAX.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.config import Config, OptimConfig
from jaxdl.data import batches, sources
from jaxdl.data.batches import Batch, Layout
from jaxdl.data.sources import Split
from jaxdl.models import registry
from jaxdl.training import assemble, epoch, optim, parallel
from jaxdl.training.assemble import DataFacts
from jaxdl.training.epoch import Evaluate, Examples, Scores
from jaxdl.training.state import NEVER, TrainState, Variables, zero_totals

POINTS = 5
"""Points of a learning curve, evenly spread; the last is the end."""


class Arm(NamedTuple):
    """A way to train the network."""

    title: str
    optim: Mapping[str, Any]
    """Settings that are its own."""


ARMS: Mapping[str, Arm] = MappingProxyType(
    {
        "scratch": Arm("from scratch", {}),
        "all": Arm("fine-tuned, all layers", {}),
        "decay": Arm("fine-tuned, rates halved by block", {"layer_decay": 0.5}),
        "last-block": Arm(
            "fine-tuned, last block and head", {"finetune": "last-block"}
        ),
        "head": Arm("fine-tuned, head alone", {"finetune": "head"}),
    }
)


class Trial(NamedTuple):
    """One training."""

    arm: str
    labels: int
    """Labelled images."""
    seed: int
    rate: float
    """Peak learning rate."""
    steps: int


class Point(NamedTuple):
    """A point of a learning curve."""

    step: int
    train: float | None
    """Mean training loss since the point before, as the batches were seen."""
    loss: float | None
    """On the validation images; None where the training diverged."""
    accuracy: float
    """In [0, 1], on the validation images; 0 where the training diverged."""


class Result(NamedTuple):
    """What a training has come to."""

    trial: Trial
    curve: tuple[Point, ...]
    test: float | None
    """Accuracy on the test set, in [0, 1]; None where rates were chosen."""
    seconds: float


class Source(NamedTuple):
    """The network that is transferred, and what comes with it."""

    config: Config
    """Settings that all arms share: model, data, batch, and the rest of the recipe."""
    facts: DataFacts
    variables: Variables
    """Host arrays."""


class Program(NamedTuple):
    """The compiled functions of an arm."""

    start: Callable[[int], TrainState]
    """Seed -> the state before the first step."""
    train: Callable[..., TrainState]
    """(state, examples, order, rates, first, count) -> state; donates the state."""


def config_of(shared: Config, arm: str) -> Config:
    """The whole configuration of an arm, but for seed and learning rate.

    Args:
      shared: the source's, from `settings.spelled_out`: without weights nothing else
        of network and input may change.
      arm: of `ARMS`.
    """
    own = dataclasses.replace(shared.optim, **ARMS[arm].optim)
    model = shared.model
    if arm == "scratch":
        model = dataclasses.replace(model, pretrained=None)
    return dataclasses.replace(shared, optim=own, model=model)


def compile(source: Source, arm: str) -> Program:
    """The program of all trainings of an arm, compiled at its first calls.

    Learning rates and the order of the examples are data to it, and so are the examples
    themselves; of any number of labels, if their arrays are filled up to one shape.
    """
    config, facts = config_of(source.config, arm), source.facts
    devices = parallel.choose("jit", 1, config.run.batch_size, 1)
    layout = Layout(config.run.batch_size, 1, 1)
    parts = assemble.assemble(config, facts, 1, 1, devices)

    @jax.jit
    def fresh(seed: jax.Array) -> TrainState:
        run: Any = dataclasses.replace(config.run, seed=seed)  # type: ignore[arg-type]
        seeded = dataclasses.replace(config, run=run)
        return assemble.initial_state(seeded, parts, facts)

    def start(seed: int) -> TrainState:
        state = fresh(np.uint32(seed))
        if arm == "scratch":
            return state
        # The head is new even if the classes are the same: features are transferred.
        heads = registry.blocks(
            config.model.arch, **registry.options_for(config.model.arch, config.model)
        )[0]
        given = jax.tree.map(jnp.array, source.variables)  # a copy: it is donated
        for head in heads:
            given["params"][head] = state.variables["params"][head]
        return state._replace(variables=given)

    def train(
        state: TrainState,
        data: Examples,
        order: jax.Array,
        rates: jax.Array,
        first: jax.Array,
        count: jax.Array,
    ) -> TrainState:
        scheduled = assemble.assemble(
            config, facts, 1, 1, devices, lambda done: rates[done]
        )
        positions = jnp.asarray(layout.positions[0])

        def one(i: jax.Array, state: TrainState) -> TrainState:
            chosen = order[(first + i) * layout.batch_size + positions]
            batch = Batch(data.images[chosen], data.labels[chosen], positions)
            return scheduled.train_step(state, batch)

        return jax.lax.fori_loop(0, count, one, state._replace(totals=zero_totals()))

    return Program(start, jax.jit(train, donate_argnums=0))


def compile_evaluate(source: Source) -> Evaluate:
    """The evaluation of all arms."""
    devices = parallel.choose("jit", 1, source.config.run.batch_size, 1)
    parts = assemble.assemble(source.config, source.facts, 1, 1, devices)
    size = assemble.EVALUATION_BATCH
    return epoch.compile_evaluate(parts.predict, parts.loss, devices, size)


def labelled(train: Split, count: int, seed: int) -> Split:
    """The labelled images of a seed; those of a smaller count come first in it."""
    chosen = sources.balanced(train.labels, count, seed)
    return Split(train.images[chosen], train.labels[chosen])


def run(
    source: Source,
    trial: Trial,
    program: Program,
    evaluate: Evaluate,
    pool: Split,
    validation: Split,
    points: int,
) -> Iterator[tuple[Point, Variables]]:
    """Trains once.

    Args:
      source: from which, and how.
      trial: what is trained.
      program: of its arm.
      evaluate: from `compile_evaluate`.
      pool: from `labelled`, of the trial's seed; as many for each trial of a program.
      validation: images for the learning curve.
      points: of the curve.

    Yields:
      Each point of the curve and the variables then, which the next step takes over.
    """
    steps, batch = trial.steps, source.config.run.batch_size
    state = program.start(trial.seed)
    epochs = -(-steps * batch // trial.labels)
    shuffled = jax.vmap(lambda e: batches.epoch_order(state.key, e, trial.labels))
    order = shuffled(jnp.arange(epochs)).ravel()[: steps * batch]
    data = Examples(jnp.asarray(pool.images), jnp.asarray(pool.labels))
    rates = _rates(source.config.optim, trial.rate, steps)
    marks = [steps * i // points for i in range(points + 1)]
    for first, after in itertools.pairwise(marks):
        state = program.train(state, data, order, rates, first, after - first)
        totals, bad = jax.device_get((state.totals, state.bad_step))
        scores = evaluate(state.variables, validation)
        diverged = bad != NEVER or not math.isfinite(scores.loss)
        yield (
            Point(after, None, None, 0.0)
            if diverged
            else Point(
                after,
                float(totals.loss) / int(totals.examples),
                scores.loss,
                scores.accuracy,
            ),
            state.variables,
        )


def standing(results: Sequence[Result]) -> tuple[float, float]:
    """By what rates are ranked: mean accuracy at the end, and among equals the loss."""
    ends = [result.curve[-1] for result in results]
    losses = [float("inf") if end.loss is None else end.loss for end in ends]
    return sum(end.accuracy for end in ends) / len(ends), -sum(losses)


def untouched(source: Source, evaluate: Evaluate, test: Split) -> Scores:
    """The source with its own head, as it is."""
    return evaluate(jax.tree.map(jnp.array, source.variables), test)


def _rates(config: OptimConfig, peak: float, steps: int) -> jax.Array:
    """Learning rate of every step, float32 [steps]."""
    config = dataclasses.replace(config, learning_rate=peak)
    schedule = optim.make_schedule(config, steps, steps)
    return jax.vmap(lambda i: jnp.float32(schedule(i)))(jnp.arange(steps))
