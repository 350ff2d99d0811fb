"""SGD and its learning-rate schedules, composed from Optax in the order of torch.

    gradient -> clip by global norm -> + weight decay (L2) -> momentum
             -> + weight decay (decoupled) -> x -learning rate -> x layer's part of it

Momentum accumulates undamped gradients and the learning rate multiplies last, so that
without a schedule an update equals `torch.optim.SGD`'s.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from jaxdl.config import Finetune, Loss, OptimConfig, Schedule
from jaxdl.errors import InputError
from jaxdl.ops import update
from jaxdl.traced import is_off

Step = Callable[
    [optax.Updates, optax.OptState, optax.Params], tuple[optax.Params, optax.OptState]
]
"""(gradient, state, params) -> params and state after the step."""


class Optimizer(NamedTuple):
    """An `optax.GradientTransformation` that can also do the whole step at once."""

    init: optax.TransformInitFn
    update: optax.TransformUpdateFn
    step: Step
    """`update` and `optax.apply_updates`, faster."""


def validate(config: OptimConfig, *, epochs: int | None = None) -> None:
    """Checks every setting that needs neither the data nor the model.

    Args:
      config: the settings.
      epochs: length of the run; given, the warm-up must be shorter.

    Raises:
      InputError: a value at fault; the line names the option as on the command line.
    """
    _require_choice("--loss", config.loss, get_args(Loss))
    _require_choice("--schedule", config.schedule, get_args(Schedule))
    _require_choice("--finetune", config.finetune, get_args(Finetune))
    _require(
        0 < config.layer_decay <= 1,
        "--layer-decay must be above 0 and at most 1",
        config.layer_decay,
    )
    rate, factor = config.learning_rate, config.step_factor
    _require(_positive(rate), "--learning-rate must be a positive number", rate)
    _require(
        0 <= config.momentum < 1,
        "--momentum must be at least 0 and below 1",
        config.momentum,
    )
    _require(
        0 <= config.weight_decay < math.inf,
        "--weight-decay must be 0 or a positive number",
        config.weight_decay,
    )
    _require(
        config.clip_norm is None or _positive(config.clip_norm),
        "--clip-norm must be a positive number",
        config.clip_norm,
    )
    _require(
        0 <= config.warmup_epochs < math.inf,
        "--warmup-epochs must be 0 or a positive number",
        config.warmup_epochs,
    )
    _require(
        epochs is None or config.warmup_epochs < max(epochs, 1),
        f"--warmup-epochs must be shorter than the run of {epochs} epochs",
        config.warmup_epochs,
    )
    _require(
        config.schedule != "onecycle" or config.warmup_epochs == 0,
        "--warmup-epochs must be 0 with --schedule=onecycle, which warms up itself "
        "(experiments.svhn has 0.1 if nothing is said)",
        config.warmup_epochs,
    )
    marks = (0.0, *config.step_epochs, 1.0)
    _require(
        all(a < b for a, b in itertools.pairwise(marks)),
        "--step-epochs must be ascending numbers between 0 and 1, as parts of the run",
        " ".join(f"{mark:g}" for mark in config.step_epochs),
    )
    _require(0 < factor <= 1, "--step-factor must be above 0 and at most 1", factor)
    for name in ("step_epochs", "step_factor"):
        value, default = getattr(config, name), getattr(OptimConfig(), name)
        _require(
            config.schedule == "step" or value == default,
            f"--{name.replace('_', '-')} must be left out without --schedule=step",
            value,
        )
    _require(
        0 <= config.label_smoothing < 1,
        "--label-smoothing must be at least 0 and below 1",
        config.label_smoothing,
    )
    _require(
        config.ema is None or 0 < config.ema < 1,
        "--ema must lie between 0 and 1, for instance 0.999",
        config.ema,
    )
    _require(
        config.accumulate >= 1, "--accumulate must be 1 or more", config.accumulate
    )


def make_schedule(
    config: OptimConfig, total_steps: int, steps_per_epoch: int
) -> optax.Schedule:
    """Learning rate as a function of the number of updates already done.

    After a linear warm-up from 0 to the peak over `warmup_epochs`:

    - constant: the peak.
    - step: the peak, multiplied by `step_factor` at each of `step_epochs`, which count
      as parts of the whole run, warm-up included.
    - cosine: half a cosine from the peak to 0 at `total_steps` (Loshchilov and Hutter
      2017, "SGDR", without restarts).
    - onecycle: no warm-up but its own, a cosine from peak / 25 to the peak over the
      first 30 % of the run, then one down to peak / 250,000 (Smith and Topin 2018,
      "Super-Convergence"; the constants are fastai's and torch's).

    Args:
      config: the settings, valid by `validate`.
      total_steps: updates in the whole run, at least 1.
      steps_per_epoch: updates in an epoch.

    Returns:
      A pure function int [] -> float [].

    Raises:
      InputError: the warm-up is as long as the run or longer.
    """
    peak = config.learning_rate
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if warmup >= max(total_steps, 1):
        raise InputError(
            f"--warmup-epochs must be shorter than the run of {total_steps} steps, "
            f"not {config.warmup_epochs:g} epochs of {steps_per_epoch} steps"
        )
    match config.schedule:
        case "constant":
            main = optax.constant_schedule(peak)
        case "step":
            scales: dict[int, float] = {}
            for part in config.step_epochs:  # of a short run, two may be the same step
                mark = round(part * total_steps) - warmup
                scales[mark] = scales.get(mark, 1.0) * config.step_factor
            main = optax.piecewise_constant_schedule(peak, scales)
        case "cosine":
            main = optax.cosine_decay_schedule(peak, total_steps - warmup)
        case "onecycle":
            main = optax.cosine_onecycle_schedule(total_steps, peak)
    if warmup == 0:
        return main
    return optax.join_schedules(
        [optax.linear_schedule(0.0, peak, warmup), main], [warmup]
    )


def make_optimizer(
    config: OptimConfig,
    total_steps: int,
    steps_per_epoch: int,
    schedule: optax.Schedule | None = None,
    rates: Mapping[str, float] | None = None,
) -> Optimizer:
    """SGD as configured: clipping, weight decay, momentum and schedule.

    With `decoupled` the weights decay by learning rate x `weight_decay` at each step,
    apart from the momentum: SGDW (Loshchilov and Hutter 2019, "Decoupled Weight Decay
    Regularization"), in the parametrisation of torch's AdamW. The paper multiplies by
    the schedule alone: its lambda is our peak learning rate x `weight_decay`.

    Args:
      config: the settings, valid by `validate`. Momentum, weight decay and the norm to
        clip to may be traced (`jaxdl.traced`).
      total_steps: updates in the whole run.
      steps_per_epoch: updates in an epoch.
      schedule: in the place of the one that is configured.
      rates: what the learning rate is multiplied by for each of the top-level entries
        of the parameters, a dict; None for 1 everywhere.

    Returns:
      A transformation for any pytree of parameters; `update` needs them.

    Raises:
      InputError: from `make_schedule`.
    """
    if schedule is None:
        schedule = make_schedule(config, total_steps, steps_per_epoch)
    stages: list[optax.GradientTransformation] = []
    if config.clip_norm is not None:
        stages.append(_clip_by_global_norm(config.clip_norm))
    decay = optax.add_decayed_weights(
        config.weight_decay, mask=None if config.decay_all else kernels
    )
    decays = not is_off(config.weight_decay)
    if decays and not config.decoupled:
        stages.append(decay)
    if not is_off(config.momentum):
        stages.append(optax.trace(config.momentum, nesterov=config.nesterov))
    if decays and config.decoupled:
        stages.append(decay)
    stages.append(optax.scale_by_learning_rate(schedule))
    if rates is not None:
        stages.append(_by_layer(rates))
    chain = optax.chain(*stages)

    def step(
        gradient: optax.Updates, state: optax.OptState, params: optax.Params
    ) -> tuple[optax.Params, optax.OptState]:
        updates, state = chain.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    fastest = step if is_off(config.momentum) else _fused(config, schedule, rates)
    return Optimizer(chain.init, chain.update, fastest)


def _fused(
    config: OptimConfig, schedule: optax.Schedule, rates: Mapping[str, float] | None
) -> Step:
    """The step with momentum, in one pass; states are those of the chain.

    Clipping, which needs the whole gradient first, stays a pass of its own. Where
    layers have rates of their own, there is one call for all those of equal rate.
    """

    def step(
        gradient: optax.Updates, state: optax.OptState, params: optax.Params
    ) -> tuple[optax.Params, optax.OptState]:
        if config.clip_norm is not None:
            clip = _clip_by_global_norm(config.clip_norm)
            gradient, _ = clip.update(gradient, optax.EmptyState())
        states = {type(s): s for s in state}
        trace, scale = states[optax.TraceState], states[optax.ScaleByScheduleState]
        leaves, tree = jax.tree.flatten(params)
        decays = [
            config.weight_decay if decays or config.decay_all else 0.0
            for decays in jax.tree.leaves(kernels(params))
        ]
        traces, slopes = jax.tree.leaves(trace.trace), jax.tree.leaves(gradient)
        rate = schedule(scale.count)
        for relative, places in _equal_rates(params, rates).items():
            moved = update.sgd(
                [leaves[i] for i in places],
                [traces[i] for i in places],
                [slopes[i] for i in places],
                rate if rates is None else relative * rate,
                momentum=config.momentum,
                decays=[decays[i] for i in places],
                nesterov=config.nesterov,
                decoupled=config.decoupled,
            )
            for i, leaf, kept in zip(places, *moved, strict=True):
                leaves[i], traces[i] = leaf, kept
        new: dict[type, optax.OptState] = {
            optax.TraceState: optax.TraceState(jax.tree.unflatten(tree, traces)),
            optax.ScaleByScheduleState: optax.ScaleByScheduleState(
                optax.safe_increment(scale.count)
            ),
        }
        return jax.tree.unflatten(tree, leaves), tuple(
            new.get(type(s), s) for s in state
        )

    return step


def _equal_rates(
    params: optax.Params, rates: Mapping[str, float] | None
) -> dict[float, list[int]]:
    """Places among the leaves of the parameters, by what multiplies their rate."""
    count = len(jax.tree.leaves(params))
    if rates is None:
        return {1.0: list(range(count))}
    each = jax.tree.leaves(_by_layer_leaf(params, rates))
    return {
        rate: [i for i in range(count) if each[i] == rate] for rate in sorted(set(each))
    }


def _by_layer_leaf(params: optax.Params, rates: Mapping[str, float]) -> optax.Params:
    """A tree like the parameters, with each leaf's part of the learning rate."""
    assert isinstance(params, Mapping)
    return {
        layer: jax.tree.map(lambda _, rate=rates[layer]: rate, leaves)
        for layer, leaves in params.items()
    }


def _by_layer(rates: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiplies the updates of each layer by its part of the learning rate."""

    def scale(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        del params
        return jax.tree.map(
            lambda update, rate: rate * update,
            updates,
            _by_layer_leaf(updates, rates),
        )

    return optax.stateless(scale)


def kernels(params: optax.Params) -> optax.Params:
    """Marks the leaves that weight decay is for: those that Flax calls "kernel".

    Biases and the parameters of normalisation are left alone, as He et al. 2019
    ("Bag of Tricks", section 3.1) recommend.

    Args:
      params: pytree of parameters.

    Returns:
      The same tree with a bool for each leaf.
    """

    def is_kernel(path: tuple[jax.tree_util.KeyEntry, ...], leaf: jax.Array) -> bool:
        return jax.tree_util.keystr(path[-1:], simple=True) == "kernel"

    return jax.tree_util.tree_map_with_path(is_kernel, params)


def _clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm`, with the norm as a dot product.

    On the CPU, XLA adds up a sum of squares one by one, which costs a small network
    more than all the rest of its update.
    """

    def clip(gradient: optax.Updates, params: optax.Params | None) -> optax.Updates:
        del params
        leaves = jax.tree.leaves(gradient)
        norm = jnp.sqrt(sum((jnp.vdot(g, g) for g in leaves), jnp.float32(0)))
        scale = jnp.minimum(1.0, limit / norm)  # NaN stays NaN, and stops the run
        return jax.tree.map(lambda g: scale * g, gradient)

    return optax.stateless(clip)


def _positive(number: float) -> bool:
    """Whether it is above zero and finite (NaN is neither)."""
    return 0 < number < math.inf


def _require(condition: bool, rule: str, value: object) -> None:
    """Raises InputError with the rule and the value that breaks it."""
    if not condition:
        raise InputError(f"{rule}, not {value}")


def _require_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises InputError for a value that is none of the choices."""
    _require(value in choices, f"{option} must be one of {', '.join(choices)}", value)
