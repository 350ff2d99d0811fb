"""One training step and one evaluation, pure and written once.

They know nothing of devices except an optional axis name: with it they run once per
device under `shard_map` or `pmap`, each on its share of the batch, and average over the
axis. `jaxdl.training.parallel` compiles them.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.data.batches import Batch
from jaxdl.training import finetune
from jaxdl.training.finetune import Layers
from jaxdl.training.optim import Optimizer
from jaxdl.training.state import Totals, TrainState, Variables, zero_totals

Tree = TypeVar("Tree")

PerExampleLoss = Callable[[jax.Array, jax.Array], jax.Array]
"""(logits [N, K], labels [N]) -> losses [N]."""
Preprocess = Callable[[jax.Array], jax.Array]
"""images uint8 [N, H, W, C] -> float [N, H, W, C]: normalisation."""
Augment = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""(key, images float [N, H, W, C], positions [N] in the batch) -> what the model sees,
float [N, H', W', C]."""


TrainStep = Callable[[TrainState, Batch], TrainState]
"""(state, share of the batch) -> state after the step."""
Predict = Callable[[Variables, jax.Array], jax.Array]
"""(variables, images uint8 [N, H, W, C]) -> logits float32 [N, K]."""


def make_train_step(
    model: nn.Module,
    optimizer: Optimizer,
    loss: PerExampleLoss,
    preprocess: Preprocess,
    *,
    augment: Augment | None = None,
    ema: float | None = None,
    axis_name: str | None = None,
    trained: Layers | None = None,
) -> TrainStep:
    """Builds `train_step(state, batch) -> state`, a pure function.

    The loss is the mean over the whole batch: over micro-batches and, with `axis_name`,
    over devices. Batch statistics are those of a micro-batch over all devices, if the
    model was built with the same `axis_name`.

    Args:
      model: called as `model(images, train=True)`, returns logits [N, K].
      optimizer: does the step along the gradient of the mean loss.
      loss: per-example loss.
      preprocess: from stored to float images.
      augment: random change of the float images, driven by key and position.
      ema: decay of the moving average of the variables; after t steps at most
        (1 + t) / (10 + t), so that the start is soon forgotten.
      axis_name: mapped axis over which the batch is spread.
      trained: layers (top-level modules) that are trained; None for all. The others are
        frozen: see `jaxdl.training.finetune`.
    """

    def over_devices(tree: Tree) -> Tree:
        return tree if axis_name is None else jax.lax.psum(tree, axis_name)

    def micro_step(
        params: Variables,
        frozen: Variables,
        stats: Variables,
        batch: Batch,
        augment_key: jax.Array,
        dropout_key: jax.Array,
        share: float,
    ) -> tuple[Variables, Variables, Totals]:
        """Gradient of `share` x the sum of losses, updated statistics, and totals.

        What is frozen is no argument of what is differentiated, so that nothing is
        propagated back beyond the last layer that is trained.
        """
        images = preprocess(batch.images)
        if augment is not None:
            images = augment(augment_key, images, batch.positions)

        def objective(params: Variables) -> tuple[jax.Array, Any]:
            with finetune.evaluating(frozen.keys()):
                logits, updated = model.apply(
                    {"params": {**frozen, **params}, **stats},
                    images,
                    train=True,
                    rngs={"dropout": dropout_key},
                    mutable=list(stats),
                )
            losses = loss(logits, batch.labels)
            return share * losses.sum(), (losses, logits, updated)

        gradient, (losses, logits, stats) = jax.grad(objective, has_aux=True)(params)
        correct = jnp.argmax(logits, -1) == batch.labels
        totals = Totals(
            losses.sum(), correct.sum(dtype=jnp.int32), jnp.int32(losses.size)
        )
        return gradient, dict(stats), totals

    def train_step(state: TrainState, batch: Batch) -> TrainState:
        params = finetune.part(state.variables["params"], trained)
        frozen = {k: v for k, v in state.variables["params"].items() if k not in params}
        stats = {k: tree for k, tree in state.variables.items() if k != "params"}
        key = jax.random.fold_in(state.key, state.step)
        augment_key, dropout_key = jax.random.split(key)
        devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
        share = 1 / (batch.labels.size * devices)

        def accumulate(
            carry: tuple[Variables, Variables, Totals], micro: tuple[Batch, jax.Array]
        ) -> tuple[tuple[Variables, Variables, Totals], None]:
            gradient, stats, totals = carry
            batch, j = micro
            more_gradient, stats, more_totals = micro_step(
                params,
                frozen,
                stats,
                batch,
                # Positions tell all examples of the batch apart; dropout sees those of
                # a micro-batch only.
                augment_key,
                jax.random.fold_in(dropout_key, j),
                share,
            )
            return (
                jax.tree.map(jnp.add, gradient, more_gradient),
                stats,
                jax.tree.map(jnp.add, totals, more_totals),
            ), None

        carry = (jax.tree.map(jnp.zeros_like, params), stats, zero_totals())
        micro_batches = batch.labels.shape[0]
        if micro_batches == 1:  # no loop for XLA to look through
            only = jax.tree.map(lambda x: x[0], batch)
            carry, _ = accumulate(carry, (only, jnp.int32(0)))
        else:
            carry, _ = jax.lax.scan(
                accumulate, carry, (batch, jnp.arange(micro_batches))
            )
        gradient, stats, totals = carry
        gradient, totals = over_devices((gradient, totals))

        new_params, opt_state = optimizer.step(gradient, state.opt_state, params)
        variables = {"params": {**frozen, **new_params}, **stats}
        step = state.step + 1
        ema_now = None
        if ema is not None:
            assert state.ema is not None
            ema_now = _average(state.ema, variables, ema, step, trained)
        bad = ~jnp.isfinite(totals.loss)
        return TrainState(
            step=step,
            key=state.key,
            variables=variables,
            opt_state=opt_state,
            ema=ema_now,
            totals=jax.tree.map(jnp.add, state.totals, totals),
            bad_step=jnp.where(bad, jnp.minimum(state.bad_step, step), state.bad_step),
        )

    return train_step


def make_predict(model: nn.Module, preprocess: Preprocess) -> Predict:
    """Builds `predict(variables, images uint8 [N, H, W, C]) -> logits [N, K]`, pure."""

    def predict(variables: Variables, images: jax.Array) -> jax.Array:
        logits = model.apply(variables, preprocess(images), train=False)
        assert isinstance(logits, jax.Array)  # no collection is mutable
        return logits

    return predict


def _average(
    ema: Variables,
    variables: Variables,
    decay: float,
    step: jax.Array,
    trained: Layers | None,
) -> Variables:
    """One update of the moving average, in float32.

    Frozen layers are left out: rounding would change the mean of equal numbers.
    """
    t = step.astype(jnp.float32)
    d = jnp.minimum(decay, (1 + t) / (10 + t))

    def average(old: Variables, new: Variables) -> Variables:
        old, new = finetune.part(old, trained), finetune.part(new, trained)
        return jax.tree.map(lambda a, v: d * a + (1 - d) * v, old, new)

    return {
        collection: {**layers, **average(layers, variables[collection])}
        for collection, layers in ema.items()
    }
