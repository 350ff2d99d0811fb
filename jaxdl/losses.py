"""Training losses: one number per example, float32 or as wide as the logits.

Per-example rather than averaged, so that the caller decides the weights (an exact mean
over a last partial batch, over micro-batches, over devices).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import jax
import jax.numpy as jnp
import optax

from jaxdl.config import Loss
from jaxdl.traced import is_off


class PerExampleLoss(Protocol):
    """What every loss of this module looks like."""

    def __call__(
        self, logits: jax.Array, labels: jax.Array, *, label_smoothing: float = 0.0
    ) -> jax.Array:
        """Logits float [N, K], labels int [N] -> float32 or wider [N]."""
        ...


def cross_entropy(
    logits: jax.Array, labels: jax.Array, *, label_smoothing: float = 0.0
) -> jax.Array:
    r"""Cross-entropy of softmax(logits) against the (smoothed) one-hot label, in nats.

    With smoothing s the target is :math:`(1 - s) e_y + s / K` (Szegedy et al. 2016,
    "Rethinking the Inception Architecture", section 7), as in torch's
    `CrossEntropyLoss(label_smoothing=s)`. It is computed from log-sum-exp, so finite
    logits of any size give a finite loss.

    Args:
      logits: float [N, K]; computed in float32 or wider.
      labels: int [N], in [0, K). A label outside gives NaN.
      label_smoothing: s, in [0, 1).

    Returns:
      float32 [N], or float64 where the logits are.
    """
    logits = _wide(logits)
    hard = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    # Optax reads a label from -K to -1 as an index from the end.
    hard = jnp.where(labels >= 0, hard, jnp.nan)
    if is_off(label_smoothing):  # so a class of logit -inf stays harmless
        return hard
    normaliser = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    uniform = (normaliser - logits).mean(axis=-1)  # subtract first: a sum may overflow
    return (1 - label_smoothing) * hard + label_smoothing * uniform


def mse(
    logits: jax.Array, labels: jax.Array, *, label_smoothing: float = 0.0
) -> jax.Array:
    r"""Squared distance between softmax(logits) and the (smoothed) one-hot label.

    Summed over the classes, without a factor 1/2: the multi-class Brier score (Brier
    1950), in [0, 2] whatever K. torch's `MSELoss` of the same two averages over the
    classes as well, which is 1/K of it: with ten classes its gradient needs ten times
    the learning rate. On probabilities, not on raw logits, so that both losses train
    the same model: logits that mean log-probabilities.

    Args:
      logits: float [N, K]; computed in float32 or wider.
      labels: int [N], in [0, K). A label outside gives NaN.
      label_smoothing: s, in [0, 1); the target is :math:`(1 - s) e_y + s / K`.

    Returns:
      float32 [N], or float64 where the logits are.
    """
    probabilities = jax.nn.softmax(_wide(logits), axis=-1)
    classes = logits.shape[-1]
    target = jax.nn.one_hot(labels, classes, dtype=probabilities.dtype)
    if not is_off(label_smoothing):
        target = optax.losses.smooth_labels(target, label_smoothing)
    distance = optax.losses.squared_error(probabilities, target).sum(axis=-1)
    # one_hot knows no error: it would call a label outside "none of the classes".
    return jnp.where((labels >= 0) & (labels < classes), distance, jnp.nan)


def _wide(logits: jax.Array) -> jax.Array:
    """Float32, or wider: losses are never taken in half precision."""
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


LOSSES: Mapping[Loss, PerExampleLoss] = MappingProxyType(
    {"cross_entropy": cross_entropy, "mse": mse}
)
"""The losses by their name in `OptimConfig.loss`."""
