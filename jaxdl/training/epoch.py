"""The compiled programs of a run: many steps in one call, and evaluation.

The number of steps of a call is an argument, not a shape. So one program serves every
slice of an epoch, nothing is compiled after the first, and a run computes the same bits
however it is cut into slices.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.data.batches import Batch, Layout
from jaxdl.data.sources import Split
from jaxdl.training import parallel
from jaxdl.training.parallel import Devices
from jaxdl.training.state import NEVER, TrainState, Variables
from jaxdl.training.steps import PerExampleLoss, Predict, TrainStep


class Examples(NamedTuple):
    """A whole split on the device."""

    images: jax.Array
    """uint8 [N, H, W, C]."""
    labels: jax.Array
    """int32 [N]."""


class Scores(NamedTuple):
    """What a model makes of a split; host arrays, in the order of the split."""

    logits: np.ndarray
    """float32 [N, K]."""
    losses: np.ndarray
    """float32 [N]."""
    labels: np.ndarray
    """int32 [N]."""

    @property
    def predictions(self) -> np.ndarray:
        """Most probable class, int [N]."""
        return self.logits.argmax(-1)

    @property
    def confusion(self) -> np.ndarray:
        """Counts of examples by label (row) and prediction (column), int [K, K]."""
        classes = self.logits.shape[-1]
        pairs = self.labels * classes + self.predictions
        return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    @property
    def accuracy(self) -> float:
        """Part of the examples whose prediction is their label, in [0, 1]."""
        return float(np.mean(self.predictions == self.labels))

    @property
    def loss(self) -> float:
        """Mean loss, summed in float64."""
        return float(np.mean(self.losses, dtype=np.float64))


RunResident = Callable[[TrainState, Examples, jax.Array, int, int], TrainState]
"""(state, data, order [N], first step of the epoch, steps) -> state."""
RunStreamed = Callable[[TrainState, jax.Array, jax.Array, int, int, int], TrainState]
"""(state, images, labels, the chunk's first step, first step, steps) -> state; images
and labels are a chunk of `batches.chunks`, put on the devices by `parallel.shard`."""
Evaluate = Callable[[Variables, Split], Scores]


def compile_resident(
    train_step: TrainStep, layout: Layout, devices: Devices, log_every: int
) -> RunResident:
    """Compiles steps over a split that lies on every device; donates the state."""

    def run(
        state: TrainState,
        data: Examples,
        order: jax.Array,
        first: jax.Array,
        count: jax.Array,
    ) -> TrainState:
        positions = _own_positions(layout, devices)

        def one(i: jax.Array, state: TrainState) -> TrainState:
            index = first + i
            examples = order[index * layout.batch_size + positions]
            batch = Batch(data.images[examples], data.labels[examples], positions)
            return train_step(_restart(state, index, log_every), batch)

        return _checked(jax.lax.fori_loop(0, count, one, state))

    return parallel.compile(run, devices, donate=(0,))


def compile_streamed(
    train_step: TrainStep, layout: Layout, devices: Devices, log_every: int
) -> RunStreamed:
    """Compiles steps over chunks that come from the host; donates the state."""

    def run(
        state: TrainState,
        images: jax.Array,
        labels: jax.Array,
        start: jax.Array,
        first: jax.Array,
        count: jax.Array,
    ) -> TrainState:
        positions = _own_positions(layout, devices)

        def one(i: jax.Array, state: TrainState) -> TrainState:
            index = first + i
            batch = Batch(images[index - start], labels[index - start], positions)
            return train_step(_restart(state, index, log_every), batch)

        return _checked(jax.lax.fori_loop(0, count, one, state))

    return parallel.compile(run, devices, sharded=(1, 2), donate=(0,))


def compile_evaluate(
    predict: Predict, loss: PerExampleLoss, devices: Devices, batch_size: int
) -> Evaluate:
    """Compiles the evaluation of a split of any size.

    The split goes through in batches of one shape. The last one is filled up with
    copies, whose scores are dropped: every example counts exactly once.

    Args:
      predict: (variables, images) -> logits.
      loss: per-example loss.
      devices: from `parallel.choose`.
      batch_size: examples per device and call.
    """

    def score(
        variables: Variables, images: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        logits = predict(variables, images)
        scores = (logits, loss(logits, labels))
        if devices.axis_name is None:
            return scores
        return jax.lax.all_gather(scores, devices.axis_name, tiled=True)

    program = parallel.compile(score, devices, sharded=(1, 2))
    size = batch_size * devices.size

    def evaluate(variables: Variables, split: Split) -> Scores:
        parts = []
        for start in range(0, len(split.labels), size):
            index = np.minimum(np.arange(start, start + size), len(split.labels) - 1)
            index = index.reshape(devices.size, batch_size)
            batch = parallel.shard((split.images[index], split.labels[index]), devices)
            parts.append(program(variables, *batch))
        logits, losses = (
            np.concatenate([np.asarray(x) for x in column])[: len(split.labels)]
            for column in zip(*parts, strict=True)
        )
        return Scores(logits, losses, split.labels)

    return evaluate


def _restart(state: TrainState, index: jax.Array, log_every: int) -> TrainState:
    """Clears the totals where step `index` of the epoch begins a line of the log."""
    # Beyond int32 there is no step, and no line but the one at the end of the epoch.
    begins = index % min(log_every, int(NEVER)) == 0
    totals = jax.tree.map(lambda x: jnp.where(begins, 0, x), state.totals)
    return state._replace(totals=totals)


def _checked(state: TrainState) -> TrainState:
    """Marks a state that its last step left without finite parameters.

    The loss of that step may have been finite; the next one's, which is not, would come
    after a checkpoint. Once a call, as it costs a pass over the parameters.
    """
    finite = [jnp.isfinite(x).all() for x in jax.tree.leaves(state.variables)]
    bad_step = jnp.where(jnp.array(finite).all(), NEVER, state.step)
    return state._replace(bad_step=jnp.minimum(state.bad_step, bad_step))


def _own_positions(layout: Layout, devices: Devices) -> jax.Array:
    """Places in the batch of the device that asks, int32 [k, m]."""
    positions = jnp.asarray(layout.positions)
    if devices.axis_name is None:
        return positions[0]
    return positions[jax.lax.axis_index(devices.axis_name)]
