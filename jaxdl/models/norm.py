"""Batch normalisation whose running statistics are those of torch.

Flax's own layer keeps a running average of the biased variance of the batch; torch,
and therefore every published weight of torchvision, keeps the unbiased one, n/(n-1)
times larger (at 4x4 pixels and 8 images already 0.8 %). Flax also takes the variance as
E[x^2] - E[x]^2, which in float32 loses all its digits where a channel's mean is large
against its spread. Everything else here is Flax's layer: names, collections, momentum.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.errors import InputError
from jaxdl.ops import norm
from jaxdl.ops.materialise import materialise


def moments(x: jax.Array, axis_name: str | None = None) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of each channel.

    Args:
        x: Floating point, [..., channels].
        axis_name: Mapped axis (`pmap`, `shard_map`) that holds the rest of the batch,
            in equal parts; the moments are then those of the whole batch.

    Returns:
        Mean and variance, [channels] each, at least float32.
    """
    mean, variance = norm.moments(x)
    if axis_name is None:
        return mean, variance
    whole = jax.lax.pmean(mean, axis_name)
    # Chan, Golub and LeVeque (1979), for equal parts.
    apart = jnp.square(mean - whole)
    return whole, jax.lax.pmean(variance + apart, axis_name)


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last (Ioffe and Szegedy 2015).

    Variables: params `scale`, `bias`; batch_stats `mean`, `var`; all [channels]. In
    training the batch's biased variance normalises, and its unbiased variance enters
    the running one, as in torch. Statistics are computed in float32 (or wider).

    Attributes:
        momentum: What is kept of the running statistics at each step: 1 - torch's.
        epsilon: Added to the variance.
        axis_name: Mapped axis (`pmap`, `shard_map`) over which the batch is spread in
            equal parts; statistics then are those of the whole batch.
        dtype: Number format of the result.
        initial_scale: What every entry of `scale` is at the start.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32
    initial_scale: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalise `x` [..., channels] with its own (train) or running statistics.

        Raises:
            InputError: a single value for each channel, in training.
        """
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.constant(self.initial_scale), shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        if train and not self.is_initializing():
            x = materialise(x)  # for its moments, the result and the gradient
            mean, var = moments(x, self.axis_name)
            count = math.prod(x.shape[:-1])
            if self.axis_name is not None:
                count *= jax.lax.axis_size(self.axis_name)
            if count == 1:
                raise InputError(
                    "batch norm needs more than one value for each channel, to have a "
                    "variance: take a larger --batch-size or a smaller --accumulate"
                )
            unbiased = var * (count / (count - 1))
            for running, new in (running_mean, mean), (running_var, unbiased):
                running.value += (1 - self.momentum) * (new - running.value)
        else:
            mean, var = running_mean.value, running_var.value
        factor = jax.lax.rsqrt(var + self.epsilon) * scale
        return norm.affine(x, mean, factor, bias, dtype=self.dtype)
