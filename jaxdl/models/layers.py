"""Layers exactly as torch has them: padding, pooling, order of features, first weights.

All are functions on channels-last arrays [N, H, W, C]; those with weights are called
from within a module's `__call__` and name the layer.
"""

import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike, DTypeLike

from jaxdl.errors import InputError
from jaxdl.ops import pool
from jaxdl.ops.materialise import materialise

torch_kernel = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""First weights of torch's Linear and Conv2d: uniform within +-1/sqrt(fan-in)."""

he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""He et al. 2015, backward form: convolutions of torchvision's VGG and ResNet."""


def uniform(bound: ArrayLike) -> Initializer:
    """Initialiser: uniform within +-`bound` (which broadcasts against the shape)."""

    def init(key, shape, dtype=jnp.float32, out_sharding=None):  # type: ignore[no-untyped-def]
        return jnp.asarray(bound, dtype) * jax.random.uniform(
            key, shape, dtype, -1.0, 1.0, out_sharding=out_sharding
        )

    return init


def conv(
    x: jax.Array,
    features: int,
    size: int,
    stride: int = 1,
    padding: int = 0,
    *,
    name: str,
    dtype: DTypeLike,
    bias: bool = True,
    init: Initializer | None = None,
) -> jax.Array:
    """2-d convolution with a square kernel and the same zero padding on every side.

    Args:
        x: Images, [N, H, W, C].
        features: Channels of the result.
        size: Side of the kernel.
        stride: Stride in both directions.
        padding: Rows and columns of zeros added on each side.
        name: Name of the layer.
        dtype: Number format of the computation; parameters are float32.
        bias: Whether there is a bias.
        init: First kernel, with bias zero; by default torch's kernel and bias.
    """
    bound = 1 / math.sqrt(size * size * x.shape[-1])
    return nn.Conv(
        features,
        (size, size),
        strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        use_bias=bias,
        dtype=dtype,
        kernel_init=init or torch_kernel,
        bias_init=nn.initializers.zeros if init else uniform(bound),
        name=name,
    )(x)


def dense(
    x: jax.Array,
    features: int,
    *,
    name: str,
    dtype: DTypeLike,
    bias: bool = True,
    init: Initializer | None = None,
) -> jax.Array:
    """Affine map of the last axis; the arguments are those of `conv`."""
    return nn.Dense(
        features,
        use_bias=bias,
        dtype=dtype,
        kernel_init=init or torch_kernel,
        bias_init=nn.initializers.zeros if init else uniform(x.shape[-1] ** -0.5),
        name=name,
    )(x)


def relu(x: jax.Array, *, train: bool) -> jax.Array:
    """The greater of `x` and 0.

    In training the gradient takes the result, as torch's does, and not `x` as that of
    `jax.nn.relu`: there is one map less to keep for each layer until then. Without a
    gradient nothing need be kept, and XLA may fuse it with a pooling.
    """
    return _kept_relu(x) if train else nn.relu(x)


@jax.custom_jvp
def _kept_relu(x: jax.Array) -> jax.Array:
    return materialise(jnp.maximum(x, 0))


@_kept_relu.defjvp
def _relu_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    y = _kept_relu(*primals)
    return y, jnp.where(y > 0, *tangents, 0)


def max_pool(x: jax.Array, size: int, stride: int, padding: int = 0) -> jax.Array:
    """Maximum over windows; the padding is -inf and the last odd row is dropped.

    Of equal maxima the first has the gradient, as torch does it. Where `jaxdl.ops.pool`
    is not enabled, it is written as choices between strided slices: XLA's own gradient
    of a pooling is 2 to 20 times slower on a CPU.

    Raises:
        InputError: No whole window fits, where JAX would go on with an empty array.
    """
    if min(x.shape[1:3]) + 2 * padding < size:
        raise InputError(
            f"the images are too small for this network: a map of {x.shape[1]}x"
            f"{x.shape[2]} cannot be pooled by {size}x{size}; "
            "`python -m experiments.models` lists the limits"
        )
    if pool.is_enabled():
        pads = (padding, padding)
        return nn.max_pool(x, (size, size), (stride, stride), (pads, pads))
    pad = (padding, padding, 0)
    x = jax.lax.pad(x, jnp.array(-jnp.inf, x.dtype), ((0, 0, 0), pad, pad, (0, 0, 0)))
    rows, columns = ((length - size) // stride + 1 for length in x.shape[1:3])
    best = None
    for i, j in itertools.product(range(size), repeat=2):
        tap = x[
            :,
            i : i + (rows - 1) * stride + 1 : stride,
            j : j + (columns - 1) * stride + 1 : stride,
        ]
        if best is None:
            best = tap
        else:
            best = jnp.where((tap > best) | jnp.isnan(tap), tap, best)
    assert best is not None
    return best


def adaptive_mean(x: jax.Array, size: int) -> jax.Array:
    """Mean over size x size bins of any image: torch's AdaptiveAvgPool2d.

    Bin i of n covers rows floor(i*H/n) to ceil((i+1)*H/n), so bins overlap where n does
    not divide H, and repeat pixels where H < n.

    Args:
        x: [N, H, W, C].
        size: Bins in each direction.

    Returns:
        [N, size, size, C].
    """
    for axis in (1, 2):
        length = x.shape[axis]
        if length != size:
            edges = [
                (i * length // size, -(-(i + 1) * length // size)) for i in range(size)
            ]
            bins = [
                jax.lax.slice_in_dim(x, a, b, axis=axis).mean(axis) for a, b in edges
            ]
            x = jnp.stack(bins, axis)
    return x


def flatten(x: jax.Array) -> jax.Array:
    """[N, H, W, C] -> [N, C*H*W], in torch's order.

    Weights of the dense layer that follows thus map to torch's by a transposition, at
    any image size; moving the few activations that are left costs next to nothing.
    """
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)


def as_logits(x: jax.Array) -> jax.Array:
    """Float32, or wider: losses are never taken in half precision."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
