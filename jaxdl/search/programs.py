"""Trials side by side in one compiled program: the project's own step, many times over.

Trials whose networks have the same shapes share a program. What differs between them
is data to it: the seed, the learning rate of every step (hence any schedule of any
length), dropout, momentum, weight decay, label smoothing, and the numbers of clipping
and averaging. A program takes `width` trials at a time: an equal number on each device
of a mesh, and on a device by `vmap`.

On a CPU a device is a core (`jax_num_cpu_devices`). One trial per core, each product on
one core, beats a `vmap` of several wherever a product is longer than the time it takes
to start one; `benchmarks.search` measures both. Convolutions are never mapped over
their weights: XLA turns them into grouped ones, which are slow.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdl.config import Config, OptimConfig
from jaxdl.data import batches
from jaxdl.data.batches import Batch, Layout
from jaxdl.data.sources import Split
from jaxdl.models import registry
from jaxdl.search import space
from jaxdl.traced import is_off
from jaxdl.training import assemble, optim
from jaxdl.training.assemble import DataFacts
from jaxdl.training.epoch import Examples
from jaxdl.training.parallel import Devices
from jaxdl.training.state import (
    NEVER,
    TrainState,
    Variables,
    evaluated_variables,
    zero_totals,
)

AXIS = "trials"
"""Mesh axis over which trials are spread."""
TRACED = ("dropout", "momentum", "weight_decay", "label_smoothing", "clip_norm", "ema")
"""Numbers that may differ between the trials of a program; the learning rate too."""
LANES_ON_CPU = 8
"""Trials that a core maps over where their network is small."""
SMALL = 2**15
"""Most parameters of such a network; see `benchmarks.search`."""
LANES_ELSEWHERE = 32
"""Trials that any other device maps over."""


class Scores(NamedTuple):
    """How trials do on some examples; host arrays [width]."""

    loss: np.ndarray
    """Mean loss."""
    accuracy: np.ndarray
    """In [0, 1]."""


class Chunks(NamedTuple):
    """A split in equal chunks, on every device; the last one is filled up."""

    images: jax.Array
    """uint8 [chunks, size, H, W, C]."""
    labels: jax.Array
    """int32 [chunks, size]."""
    weights: jax.Array
    """float32 [chunks, size]: 1, or 0 for what is filled up."""
    examples: int
    """Examples of the split."""


class Material(NamedTuple):
    """The data of a study, on every device of its mesh."""

    mesh: Mesh
    facts: DataFacts
    train: Examples
    validation: Chunks


class Program(NamedTuple):
    """Compiled functions over `width` trials, whose states have that leading axis."""

    width: int
    start: Callable[[Sequence[int]], TrainState]
    """seeds -> states before the first step."""
    epoch: Callable[[TrainState, Mapping[str, Any], np.ndarray, int], TrainState]
    """(states, traced numbers [width], rates [width, steps], epoch) -> states."""
    seen: Callable[[TrainState], tuple[Scores, np.ndarray]]
    """The epoch's batches as they were seen; and bool [width], whether a loss in the
    run was not finite."""
    score: Callable[[TrainState, Chunks], Scores]
    """Any other examples."""


def material(
    train: Split, validation: Split, classes: tuple[str, ...], devices: Sequence[Any]
) -> Material:
    """Puts the data on the devices that a study uses.

    Args:
      train: examples to train on.
      validation: examples by which trials are ranked.
      classes: names of the classes.
      devices: JAX devices, one or more.
    """
    mesh = Mesh(np.array(devices), (AXIS,))
    examples = Examples(*_everywhere((train.images, train.labels), mesh))
    facts = assemble.facts(train, classes)
    return Material(mesh, facts, examples, chunked(validation, mesh))


def chunked(split: Split, mesh: Mesh) -> Chunks:
    """Puts a split on all devices of a mesh, ready for `Program.score`."""
    count = len(split.labels)
    size = min(count, assemble.EVALUATION_BATCH)
    places = np.arange(-(-count // size) * size).reshape(-1, size)
    chosen = np.minimum(places, count - 1)
    weights = (places < count).astype(np.float32)
    arrays = (split.images[chosen], split.labels[chosen], weights)
    images, labels, weights = _everywhere(arrays, mesh)
    return Chunks(images, labels, weights, count)


def shape_of(config: Config) -> Config:
    """What of a configuration decides its program, the same for all that share it."""
    settings: dict[str, Any] = dict.fromkeys(traced_numbers(config), 0.5)
    optimizer = dataclasses.replace(
        config.optim,
        learning_rate=1.0,
        schedule="constant",
        warmup_epochs=0.0,
        step_epochs=(),
        step_factor=1.0,
    )
    config = dataclasses.replace(config, optim=optimizer)
    run = dataclasses.replace(config.run, epochs=1, seed=0)
    return space.applied(dataclasses.replace(config, run=run), settings)


def traced_numbers(config: Config) -> dict[str, float]:
    """The numbers of a configuration that are arguments of its program.

    One that is off (0 or None) is none of them: its program leaves out what it is for.
    """
    found = {
        name: getattr(getattr(config, space.FIELDS[name][0]), name) for name in TRACED
    }
    return {name: float(value) for name, value in found.items() if not is_off(value)}


def rates(config: Config, steps_per_epoch: int) -> np.ndarray:
    """Learning rate of every step of a run, float32 [epochs, steps_per_epoch]."""
    # Every schedule is a multiple of its peak, and most of a study share one.
    unit = dataclasses.replace(
        OptimConfig(),
        learning_rate=1.0,
        schedule=config.optim.schedule,
        warmup_epochs=config.optim.warmup_epochs,
        step_epochs=config.optim.step_epochs,
        step_factor=config.optim.step_factor,
    )
    relative = _relative_rates(unit, config.run.epochs, steps_per_epoch)
    return np.float32(config.optim.learning_rate) * relative


@functools.cache
def _relative_rates(unit: OptimConfig, epochs: int, steps: int) -> np.ndarray:
    schedule = optim.make_schedule(unit, epochs * steps, steps)
    every = jax.vmap(lambda i: jnp.float32(schedule(i)))(jnp.arange(epochs * steps))
    return np.asarray(every).reshape(epochs, steps)


def lanes(config: Config, data: Material) -> int:
    """How many trials a device maps over: a rule of static shapes, not of timings."""
    if registry.spec(config.model.arch).family != "fnn":
        return 1
    if data.mesh.devices.flat[0].platform != "cpu":
        return LANES_ELSEWHERE
    hidden = config.model.hidden
    sizes = (
        int(np.prod(data.facts.image_shape)),
        *((512, 256) if hidden is None else hidden),
        len(data.facts.classes),
    )
    parameters = sum(a * b for a, b in itertools.pairwise(sizes))
    return LANES_ON_CPU if parameters <= SMALL else 1


def compile(shape: Config, data: Material, lanes: int) -> Program:
    """The program of all trials of a shape; compiled at its first calls.

    Args:
      shape: from `shape_of`, valid by `assemble.validate`.
      data: from `material`.
      lanes: trials per device.

    Raises:
      InputError: at the first call, from `assemble.assemble`.
    """
    size = len(data.train.labels)
    steps = size // shape.run.batch_size
    layout = Layout(shape.run.batch_size, shape.optim.accumulate, 1)
    alone = Devices("jit", Mesh(data.mesh.devices.flat[:1], ("data",)))
    width = lanes * data.mesh.size

    def parts(numbers: Mapping[str, Any], rate: jax.Array) -> assemble.Parts:
        config = space.applied(shape, numbers)
        schedule = lambda count: rate  # noqa: E731
        return assemble.assemble(config, data.facts, steps, steps, alone, schedule)

    def start(seed: Any) -> TrainState:
        made = parts({}, jnp.float32(1))
        config = dataclasses.replace(
            shape, run=dataclasses.replace(shape.run, seed=seed)
        )
        return assemble.initial_state(config, made, data.facts)

    def epoch(
        state: TrainState,
        numbers: Mapping[str, jax.Array],
        rates: jax.Array,
        index: jax.Array,
        train: Examples,
    ) -> TrainState:
        order = batches.epoch_order(state.key, index, size)
        positions = jnp.asarray(layout.positions[0])

        def one(i: jax.Array, state: TrainState) -> TrainState:
            chosen = order[i * layout.batch_size + positions]
            batch = Batch(train.images[chosen], train.labels[chosen], positions)
            return parts(numbers, rates[i]).train_step(state, batch)

        begun = state._replace(totals=zero_totals())
        return jax.lax.fori_loop(0, steps, one, begun)

    def sums(
        variables: Variables, chunks: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        made = parts({}, jnp.float32(1))

        def chunk(some: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            images, labels, weight = some
            logits = made.predict(variables, images)
            correct = (logits.argmax(-1) == labels) * weight
            return correct.sum(), (made.loss(logits, labels) * weight).sum()

        correct, loss = jax.lax.map(chunk, chunks)
        return correct.sum(), loss.sum()

    each = _over_mesh(data.mesh, lanes)
    starts = each(start, mapped=(True,))
    epochs = each(epoch, mapped=(True, True, True, False, False), donate=(0,))
    all_sums = each(sums, mapped=(True, False))

    def seen(states: TrainState) -> tuple[Scores, np.ndarray]:
        totals, bad_step = jax.device_get((states.totals, states.bad_step))
        loss, accuracy = (x / totals.examples for x in (totals.loss, totals.correct))
        return Scores(loss, accuracy), bad_step != NEVER

    def score(states: TrainState, chunks: Chunks) -> Scores:
        arrays = (chunks.images, chunks.labels, chunks.weights)
        correct, loss = jax.device_get(all_sums(evaluated_variables(states), arrays))
        return Scores(
            loss / chunks.examples, correct.astype(np.float64) / chunks.examples
        )

    return Program(
        width,
        lambda seeds: starts(np.asarray(seeds, np.uint32)),
        lambda states, numbers, rates, index: epochs(
            states, numbers, rates, np.int32(index), data.train
        ),
        seen,
        score,
    )


def epochs(
    several: Sequence[Config], program: Program, data: Material
) -> Iterator[TrainState]:
    """Trains configurations that share a program, from their seeds.

    Args:
      several: `program.width` of them at most, of one shape and length.
      program: of that shape.
      data: from `material`.

    Yields:
      Their states after each epoch, computed; donated to the next one.
    """
    # Places that no trial needs compute a copy of the last one.
    padded = [several[min(i, len(several) - 1)] for i in range(program.width)]
    numbers = [traced_numbers(config) for config in padded]
    stacked = {
        name: np.array([one[name] for one in numbers], np.float32)
        for name in numbers[0]
    }
    steps = len(data.train.labels) // padded[0].run.batch_size
    every_rate = np.stack([rates(config, steps) for config in padded])
    states = program.start([config.run.seed for config in padded])
    for epoch in range(padded[0].run.epochs):
        states = program.epoch(states, stacked, every_rate[:, epoch], epoch)
        # Here a signal is heard; where a later call waits for this one, it is not.
        yield jax.block_until_ready(states)


def _everywhere(tree: Any, mesh: Mesh) -> Any:
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def _over_mesh(mesh: Mesh, lanes: int) -> Callable[..., Callable[..., Any]]:
    """Compiles a function of one trial for all: `vmap` on a device, a mesh over them.

    Arguments marked as mapped, and the results, have an axis of trials in front.
    """

    def compiled(
        function: Callable[..., Any],
        *,
        mapped: tuple[bool, ...],
        donate: tuple[int, ...] = (),
    ) -> Callable[..., Any]:
        def on_device(*args: Any) -> Any:
            if lanes > 1:
                axes = tuple(0 if is_mapped else None for is_mapped in mapped)
                return jax.vmap(function, axes)(*args)
            firsts = (
                jax.tree.map(lambda x: x[0], arg) if is_mapped else arg
                for arg, is_mapped in zip(args, mapped, strict=True)
            )
            return jax.tree.map(lambda x: x[None], function(*firsts))

        spread = PartitionSpec(AXIS)
        specs = tuple(spread if is_mapped else PartitionSpec() for is_mapped in mapped)
        # No trial looks at another: there is nothing for a checker to check.
        whole = jax.shard_map(
            on_device, mesh=mesh, in_specs=specs, out_specs=spread, check_vma=False
        )
        return jax.jit(whole, donate_argnums=donate)

    return compiled
