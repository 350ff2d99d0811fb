"""The state of a training run: one pytree, everything that the next step depends on."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxdl.training import finetune
from jaxdl.training.finetune import Layers

Variables = dict[str, Any]
"""Flax variable collections: "params" and, with batch normalisation, "batch_stats"."""


class Totals(NamedTuple):
    """Sums over the examples since the last line of the log; all scalars."""

    loss: jax.Array
    """Sum of the per-example losses, float32."""
    correct: jax.Array
    """Number of examples whose arg-max is their label, int32."""
    examples: jax.Array
    """Number of examples, int32."""


class TrainState(NamedTuple):
    """What a checkpoint holds. The step is a function of it and of the data alone."""

    step: jax.Array
    """Updates done, int32 []."""
    key: jax.Array
    """The run's PRNG key. It never changes: step s uses `fold_in(key, s)`, and the
    order of an epoch a key that no step has (`batches.epoch_order`)."""
    variables: Variables
    """Trained parameters and running batch statistics, float32."""
    opt_state: optax.OptState
    """The optimiser's state."""
    ema: Variables | None
    """Moving average of `variables`, where the run keeps one."""
    totals: Totals
    """Running sums for the log; part of the state, so that a resumed log is equal."""
    bad_step: jax.Array
    """First step whose loss was not finite, or after which the parameters were found
    not to be, int32 []; `NEVER` if none."""


NEVER = jnp.iinfo(jnp.int32).max


def zero_totals() -> Totals:
    """Totals of no examples."""
    return Totals(jnp.float32(0), jnp.int32(0), jnp.int32(0))


def create(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    key: jax.Array,
    *,
    ema: bool = False,
    trained: Layers | None = None,
    variables: Variables | None = None,
) -> TrainState:
    """Initialises a run.

    Args:
      model: called as `model(images, train=...)`.
      optimizer: an Optax transformation.
      image_shape: (height, width, channels) of what the model sees.
      key: typed PRNG key; initialisation and, through the state, everything random in
        the run derives from it.
      ema: keep a moving average of the variables, which starts equal to them.
      trained: layers that are trained, the only ones that the optimiser has a state
        for; None for all.
      variables: what to start from, in the place of new ones; host arrays.
    """
    init_key, run_key = keys(key)

    @jax.jit
    def initialise(init_key: jax.Array) -> tuple[Variables, optax.OptState]:
        images = jnp.zeros((1, *image_shape), jnp.float32)
        new = dict(model.init(init_key, images, train=False))
        return new, optimizer.init(finetune.part(new["params"], trained))

    if variables is None:
        variables, opt_state = initialise(init_key)
    else:
        # A copy: the step's memory is donated to the next one.
        variables = jax.tree.map(jnp.array, variables)
        opt_state = jax.jit(optimizer.init)(finetune.part(variables["params"], trained))
    return TrainState(
        step=jnp.int32(0),
        key=run_key,
        variables=variables,
        opt_state=opt_state,
        ema=jax.tree.map(jnp.copy, variables) if ema else None,
        totals=zero_totals(),
        bad_step=jnp.int32(NEVER),
    )


def keys(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The keys of a run's initialisation and of all that is random later."""
    init_key, run_key = jax.random.split(key)
    return init_key, run_key


def evaluated_variables(state: TrainState) -> Variables:
    """The variables to evaluate and to ship: the moving average, where there is one."""
    return state.variables if state.ema is None else state.ema
