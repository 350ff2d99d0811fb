"""LeNet-5, as it is built today and as it was in 1998.

Reference: LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to
document recognition", section II.B and appendix A. Both variants take images of 32x32
and, padded with zeros as there, smaller ones.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxdl.models.layers import as_logits, conv, dense, flatten, max_pool, relu, uniform
from jaxdl.models.registry import Blocks

C3_INPUTS = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5)),
    *((0, 1, 2, 5), (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)),
)
"""The maps of S2 that each of the 16 maps of C3 sees: table I of the paper."""


def pad_to_32(x: jax.Array) -> jax.Array:
    """Zeros around images [N, H, W, C] that are smaller than 32x32."""
    short = [max(0, 32 - side) for side in x.shape[1:3]]
    pads = [(s // 2, s - s // 2) for s in short]
    return jnp.pad(x, ((0, 0), *pads, (0, 0)))


class LeNet5(nn.Module):
    """LeNet-5 with ReLU, max-pools and full connections, initialised by He et al. 2015.

    Two 5x5 convolutions (6 and 16 maps), each before a 2x2 max-pool, and dense layers
    of 120, 84 and `num_classes`: 61,706 parameters on grey images with ten classes.
    """

    num_classes: int
    dtype: DTypeLike = "float32"

    @property
    def blocks(self) -> Blocks:
        """See `registry.blocks`."""
        return (("fc3",), ("conv2", "fc1", "fc2"), ("conv1",))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Images, float [N, H, W, C] -> logits, float32 [N, num_classes]."""
        init = nn.initializers.he_normal()
        x = pad_to_32(x)
        for name, features in ("conv1", 6), ("conv2", 16):
            x = conv(x, features, 5, init=init, dtype=self.dtype, name=name)
            x = max_pool(relu(x, train=train), 2, 2)
        x = flatten(x)
        for name, features in ("fc1", 120), ("fc2", 84):
            x = dense(x, features, init=init, dtype=self.dtype, name=name)
            x = relu(x, train=train)
        last = nn.initializers.lecun_normal()
        return as_logits(
            dense(x, self.num_classes, init=last, dtype=self.dtype, name="fc3")
        )


def squash(x: jax.Array) -> jax.Array:
    """The paper's sigmoid, 1.7159 tanh(2x/3): f(1) = 1, f(-1) = -1 (appendix A)."""
    return 1.7159 * nn.tanh(2 / 3 * x)


def codes(num_classes: int) -> np.ndarray:
    """Fixed target code of each class, -1 or 1, float32 [num_classes, 84].

    The paper draws them as 7x12 bitmaps of the characters, and says that random signs
    would serve as well; random signs exist for any set of classes.
    """
    random = np.random.default_rng(1998)
    return random.choice([-1, 1], (num_classes, 84)).astype(np.float32)


class Subsample(nn.Module):
    """S2 and S4: sums of 2x2 windows, times a coefficient per map, plus a bias.

    The coefficient starts at 1/4, so that the layer starts as a mean.
    """

    dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, H, W, C] -> [N, H/2, W/2, C]."""
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.constant(0.25), shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        total = 4 * nn.avg_pool(x, (2, 2), (2, 2))
        return total * scale.astype(self.dtype) + bias.astype(self.dtype)


class C3(nn.Module):
    """The 5x5 convolution of S2's 6 maps to 16, each of which sees some maps only.

    The 60 kernels that exist are the parameters; the missing ones are zeros.
    """

    dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, H, W, 6] -> [N, H-4, W-4, 16]."""
        pairs = [(i, out) for out, ins in enumerate(C3_INPUTS) for i in ins]
        sources, targets = np.transpose(pairs)
        bound = np.array([2.4 / (25 * len(C3_INPUTS[out])) for out in targets])
        kernels = self.param("kernel", uniform(bound), (5, 5, len(pairs)))
        bias = self.param("bias", nn.initializers.zeros, (16,))
        kernel = jnp.zeros((5, 5, 6, 16), kernels.dtype)
        kernel = kernel.at[:, :, sources, targets].set(kernels)
        y = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + bias.astype(self.dtype)


class LeNet5Of1998(nn.Module):
    """LeNet-5 of the paper: 60,000 parameters on grey images, as stated there.

    Scaled tanh, subsampling with a trained coefficient and bias per map, table I's
    connections, weights uniform within +-2.4/fan-in. The output is the paper's: minus
    the squared distance of the 84 units of F6 from the fixed code of each class, so
    that cross-entropy is its criterion (equation 9) without the rubbish class.
    Deviations: `codes` are random signs, biases start at zero, and `Subsample` as a
    mean.
    """

    num_classes: int
    dtype: DTypeLike = "float32"

    @property
    def blocks(self) -> Blocks:
        """See `registry.blocks`."""
        return ((), ("c3", "s4", "c5", "f6"), ("c1", "s2"))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Images, float [N, H, W, C] -> logits, float32 [N, num_classes]."""
        del train
        x = pad_to_32(x)
        first = uniform(2.4 / (25 * x.shape[-1]))
        x = squash(conv(x, 6, 5, init=first, dtype=self.dtype, name="c1"))
        x = squash(Subsample(self.dtype, name="s2")(x))
        x = squash(C3(self.dtype, name="c3")(x))
        x = flatten(squash(Subsample(self.dtype, name="s4")(x)))
        for name, features in ("c5", 120), ("f6", 84):
            init = uniform(2.4 / x.shape[-1])
            x = squash(dense(x, features, init=init, dtype=self.dtype, name=name))
        x = as_logits(x)
        return -jnp.square(x[:, None] - codes(self.num_classes)).sum(-1)


def build(
    name: str,
    *,
    num_classes: int,
    dtype: DTypeLike = "float32",
    axis_name: str | None = None,
) -> LeNet5 | LeNet5Of1998:
    """LeNet-5: "lenet5" is the modern variant, "lenet5_1998" the paper's.

    Args:
        name: Which of the two.
        num_classes: Number of logits.
        dtype: Number format of the activations; parameters are float32.
        axis_name: Unused: there are no batch statistics.
    """
    del axis_name
    if name == "lenet5":
        return LeNet5(num_classes=num_classes, dtype=dtype)
    return LeNet5Of1998(num_classes=num_classes, dtype=dtype)
