"""Binary logistic regression under cross-entropy and under squared error.

A linear model gives a logit for each example, a sigmoid makes it the probability of
class 1, and a loss compares that with the label. The two losses differ in nothing but
that comparison, so whatever differs in the outcome is theirs.

`fit` finds the exact optimum and checks its input. `newton` and `descend` are the pure
functions below it, without checks: `vmap` them over seeds, starts and rates to run a
whole study in one compiled program. All compute in the dtype of their input; use
`jax.enable_x64()` for optima to more than six digits.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.linalg import cho_solve
from jax.typing import ArrayLike

from jaxdl import separation
from jaxdl.config import Loss
from jaxdl.errors import InputError


class Linear(NamedTuple):
    """A linear model: the logit of an example x is weights . x + bias."""

    weights: jax.Array
    """Float [D]."""
    bias: jax.Array
    """Float []."""


class Optimum(NamedTuple):
    """Where `newton` has ended."""

    model: Linear
    value: jax.Array
    """The objective there."""
    slope: jax.Array
    """The largest component of its gradient there, in absolute value."""
    curvature: jax.Array
    """The smallest eigenvalue of its Hessian there: above 0 at a strict minimum."""
    iterations: jax.Array
    """Steps tried."""


def logits(model: Linear, features: jax.Array) -> jax.Array:
    """Logits [N] of class 1 for features [N, D]."""
    return features @ model.weights + model.bias


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log P(label), in nats; its derivative by the logit z is sigma(z) - y.

    Args:
      logits: float, of any shape.
      labels: 0 or 1, of the same shape.

    Returns:
      One number per example, in the dtype of the logits.
    """
    return optax.losses.sigmoid_binary_cross_entropy(logits, labels)


def mse(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Squared error of the probability: (sigma(z) - y)^2, the binary Brier score.

    Its derivative by the logit z is 2 (sigma(z) - y) sigma(z) (1 - sigma(z)). With two
    classes `jaxdl.losses.mse`, which sums over the classes, is twice this.

    Args:
      logits: float, of any shape.
      labels: 0 or 1, of the same shape.

    Returns:
      One number per example, in the dtype of the logits.
    """
    return optax.losses.squared_error(
        jax.nn.sigmoid(logits), jnp.asarray(labels, logits.dtype)
    )


LOSSES: Mapping[Loss, Callable[[jax.Array, jax.Array], jax.Array]] = MappingProxyType(
    {"cross_entropy": cross_entropy, "mse": mse}
)
"""The losses by name, each from logits and labels to one number per example."""


def objective(
    loss: Loss,
    model: Linear,
    features: jax.Array,
    labels: jax.Array,
    *,
    l2: ArrayLike = 0.0,
    weights: jax.Array | None = None,
) -> jax.Array:
    """Mean loss + l2/2 |weights|^2; the bias is free, as in scikit-learn.

    Args:
      loss: its name.
      model: weights [D] and bias [].
      features: float [N, D].
      labels: 0 or 1, [N].
      l2: strength of the penalty; scikit-learn's C is 1 / (N l2).
      weights: of the examples, [N], not all 0; equal where there are none. Only their
        ratios count.
    """
    losses = LOSSES[loss](logits(model, features), labels)
    penalty = l2 / 2 * jnp.vdot(model.weights, model.weights)
    return jnp.average(losses, weights=weights) + penalty


def zeros(features: jax.Array) -> Linear:
    """The model that says 1/2 to everything, for features [N, D]."""
    return Linear(
        jnp.zeros(features.shape[-1], features.dtype), jnp.zeros((), features.dtype)
    )


def descend(
    loss: Loss,
    start: Linear,
    features: jax.Array,
    labels: jax.Array,
    *,
    learning_rate: ArrayLike,
    steps: Sequence[int],
    l2: ArrayLike = 0.0,
    weights: jax.Array | None = None,
) -> Linear:
    """Gradient descent on the whole objective at a fixed rate.

    Args:
      loss: its name.
      start: weights [D] and bias [].
      features: float [N, D].
      labels: 0 or 1, [N].
      learning_rate: may be traced, so that `vmap` can try many.
      steps: T numbers of steps, ascending, after which the model is recorded. Only
        these are kept, so a run of a million steps takes no more memory than T models.
      l2: as in `objective`.
      weights: as in `objective`.

    Returns:
      The models after those numbers of steps: weights [T, D] and bias [T].
    """
    gradient = jax.grad(objective, argnums=1)

    def step(_: jax.Array, model: Linear) -> Linear:
        slope = gradient(loss, model, features, labels, l2=l2, weights=weights)
        return jax.tree.map(lambda p, g: p - learning_rate * g, model, slope)

    def advance(model: Linear, count: jax.Array) -> tuple[Linear, Linear]:
        model = jax.lax.fori_loop(0, count, step, model)
        return model, model

    counts = jnp.asarray(np.diff(steps, prepend=0))
    return jax.lax.scan(advance, start, counts)[1]


class _Search(NamedTuple):
    """Where `newton` stands."""

    point: jax.Array
    value: jax.Array
    gradient: jax.Array
    hessian: jax.Array
    damping: jax.Array
    iteration: jax.Array


def newton(
    loss: Loss,
    start: Linear,
    features: jax.Array,
    labels: jax.Array,
    *,
    l2: ArrayLike = 0.0,
    weights: jax.Array | None = None,
    iterations: int = 100,
    tolerance: float = 1e-10,
) -> Optimum:
    """A stationary point of the objective, by Newton's method with damping.

    A step that does not lower the objective is taken back and tried shorter
    (Levenberg-Marquardt: a multiple of the identity is added to the Hessian until that
    is positive definite and the step helps). Cross-entropy is convex, so where it has
    an optimum every start leads there. Squared error is not: the end depends on the
    start, and may be a plateau. See `fit` for the checks that this leaves out.

    Args:
      loss: its name.
      start: weights [D] and bias [].
      features: float [N, D].
      labels: 0 or 1, [N].
      l2: as in `objective`.
      weights: as in `objective`.
      iterations: at most so many steps are tried.
      tolerance: the largest component of the gradient, in absolute value, at which it
        ends.
    """
    per_example = LOSSES[loss]
    slopes = jax.vmap(jax.grad(per_example))
    curvatures = jax.vmap(jax.grad(jax.grad(per_example)))
    count, width = features.shape
    dtype = features.dtype
    labels = labels.astype(dtype)
    share = jnp.ones(count, dtype) if weights is None else weights
    share = share / share.sum()
    extended = jnp.concatenate([features, jnp.ones((count, 1), dtype)], axis=1)
    penalised = l2 * jnp.ones(width + 1, dtype).at[-1].set(0)

    def derivatives(point: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        z = extended @ point
        value = share @ per_example(z, labels) + point @ (penalised * point) / 2
        gradient = (share * slopes(z, labels)) @ extended + penalised * point
        scaled = (share * curvatures(z, labels))[:, None] * extended
        return value, gradient, extended.T @ scaled + jnp.diag(penalised)

    def unfinished(state: _Search) -> jax.Array:
        return (
            (jnp.abs(state.gradient).max() > tolerance)
            & (state.iteration < iterations)
            & (state.damping < 1e12)  # else rounding leaves no step that helps
        )

    def step(state: _Search) -> _Search:
        damped = state.hessian + state.damping * jnp.eye(width + 1, dtype=dtype)
        # NaN where that is not positive definite; then nothing below is an improvement.
        factor = jnp.linalg.cholesky(damped)
        point = state.point - cho_solve((factor, True), state.gradient)
        value, gradient, hessian = derivatives(point)
        # Close to the optimum the value says no more than the gradient's last digits.
        level = value <= state.value + 1e-14 * jnp.abs(state.value)
        flatter = jnp.abs(gradient).max() < jnp.abs(state.gradient).max()
        better = (value < state.value) | (level & flatter)
        tried = _Search(
            point, value, gradient, hessian, state.damping / 10, state.iteration + 1
        )
        kept = state._replace(
            damping=jnp.maximum(state.damping, 1e-8) * 10, iteration=state.iteration + 1
        )
        return jax.tree.map(lambda new, old: jnp.where(better, new, old), tried, kept)

    origin = jnp.append(start.weights, start.bias).astype(dtype)
    value, gradient, hessian = derivatives(origin)
    damping = jnp.maximum(1e-3 * jnp.diagonal(hessian).max(), 1e-8)
    first = _Search(origin, value, gradient, hessian, damping, jnp.asarray(0))
    end = jax.lax.while_loop(unfinished, step, first)
    return Optimum(
        Linear(end.point[:-1], end.point[-1]),
        end.value,
        jnp.abs(end.gradient).max(),
        jnp.linalg.eigvalsh(end.hessian)[0],
        end.iteration,
    )


def fit(
    features: ArrayLike,
    labels: ArrayLike,
    loss: Loss = "cross_entropy",
    *,
    l2: float = 0.0,
    weights: ArrayLike | None = None,
) -> Optimum:
    """The optimum, from the start at zero, in float64, or an error that says why not.

    For cross-entropy it is *the* optimum. For squared error it is a minimum; there may
    be lower ones.

    Args:
      features: [N, D], finite numbers, of a size near 1: the gradient, which grows with
        them, is driven below 1e-10.
      labels: [N], each 0 or 1, both present.
      loss: its name.
      l2: strength of the penalty, 0 or more; scikit-learn's C is 1 / (N l2).
      weights: of the examples, [N], positive; equal where there are none.

    Returns:
      NumPy arrays in float64.

    Raises:
      InputError: bad input; or there is no optimum, because without a penalty the
        classes can be separated by a plane; or none was found.
    """
    x, y = separation.checked(features, labels)
    if loss not in LOSSES:
        raise InputError(f"loss must be one of {', '.join(LOSSES)}, not {loss!r}")
    if not (np.isfinite(l2) and l2 >= 0):
        raise InputError(f"l2 must be a finite number of at least 0, not {l2}")
    share = None if weights is None else np.asarray(weights, np.float64)
    if share is not None and not (
        share.shape == y.shape and np.isfinite(share).all() and (share > 0).all()
    ):
        raise InputError(
            f"weights must be {len(y)} positive finite numbers, one for each example"
        )
    if l2 == 0 and separation.separable(x, y):
        raise InputError(
            "there is no optimum: a plane separates the classes, so longer weights are "
            "always better; give l2 > 0"
        )
    with jax.enable_x64():
        start = zeros(jnp.asarray(x))
        end = jax.jit(newton, static_argnums=0)(
            loss, start, jnp.asarray(x), jnp.asarray(y), l2=l2, weights=share
        )
        end = jax.tree.map(np.asarray, end)
    if not end.slope < 1e-6:
        raise InputError(
            f"no optimum was found: after {end.iterations} steps the gradient is still "
            f"{end.slope:.1e}; scale the features, or give a larger l2 than {l2:g}"
        )
    # Its loss has flat ends, lower the further one goes, beside classes that no plane
    # separates as well.
    if loss == "mse" and not end.curvature > 1e-9:
        raise InputError(
            f"no minimum was found: where the gradient ends the loss is flat (least "
            f"curvature {end.curvature:.1e}); scale the features, or give a larger l2 "
            f"than {l2:g}"
        )
    return end
