"""VGG-11/13/16/19, without and with batch norm (Simonyan and Zisserman 2015).

Initialised as torchvision: He's normal by fan-out in convolutions, normal of deviation
0.01 in dense layers, biases zero. Layers bear the names (that is, the places in
`features` and `classifier`) that they have in torchvision.
"""

import flax.linen as nn
import jax
from jax.typing import DTypeLike

from jaxdl.models.dropout import Dropout
from jaxdl.models.layers import (
    adaptive_mean,
    as_logits,
    conv,
    dense,
    flatten,
    he_fan_out,
    max_pool,
    relu,
)
from jaxdl.models.norm import BatchNorm
from jaxdl.models.registry import Blocks

CONVOLUTIONS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
"""3x3 convolutions in each of the five stages; a 2x2 max-pool ends a stage."""

WIDTHS = (64, 128, 256, 512, 512)
"""Channels of the stages."""


class VGG(nn.Module):
    """Plain deep convolutional network; see `build`."""

    num_classes: int
    convolutions: tuple[int, ...]
    batch_norm: bool
    layout: str = "small"
    dropout: float = 0.0
    dtype: DTypeLike = "float32"
    axis_name: str | None = None

    @property
    def places(self) -> list[list[int]]:
        """The place in `features` of each convolution, stage by stage."""
        step, index, stages = 3 if self.batch_norm else 2, 0, []
        for count in self.convolutions:
            stages.append([index + step * i for i in range(count)])
            index += step * count + 1  # the max-pool
        return stages

    @property
    def blocks(self) -> Blocks:
        """See `registry.blocks`."""
        stages = [
            [f"features_{i + j}" for i in stage for j in range(1 + self.batch_norm)]
            for stage in self.places
        ]
        head = "classifier"
        if self.layout == "torchvision":
            head = "classifier_6"
            stages[-1] += ["classifier_0", "classifier_3"]
        return ((head,), *map(tuple, reversed(stages)))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Images, float [N, H, W, C] -> logits, float32 [N, num_classes]."""
        large = self.layout == "torchvision"
        # torchvision's backward form of He's weights lets the signal shrink wherever
        # the maps become more; without batch norm, learning then starts later.
        init = he_fan_out if large else nn.initializers.he_normal()
        for width, stage in zip(WIDTHS, self.places, strict=True):
            for index in stage:
                name = f"features_{index}"
                x = conv(x, width, 3, 1, 1, init=init, dtype=self.dtype, name=name)
                if self.batch_norm:
                    x = BatchNorm(
                        axis_name=self.axis_name,
                        dtype=self.dtype,
                        name=f"features_{index + 1}",
                    )(x, train=train)
                x = relu(x, train=train)
            x = max_pool(x, 2, 2)

        if large:
            name, init = "classifier_6", nn.initializers.normal(0.01)
            x = flatten(adaptive_mean(x, 7))
            for hidden in ("classifier_0", "classifier_3"):
                x = dense(x, 4096, init=init, dtype=self.dtype, name=hidden)
                x = relu(x, train=train)
                x = Dropout(self.dropout, self.axis_name)(x, train=train)
        else:
            name, init = "classifier", nn.initializers.lecun_normal()
            x = x.mean((1, 2))
            x = Dropout(self.dropout, self.axis_name)(x, train=train)
        x = dense(x, self.num_classes, init=init, dtype=self.dtype, name=name)
        return as_logits(x)


def build(
    name: str,
    *,
    num_classes: int,
    dtype: DTypeLike = "float32",
    axis_name: str | None = None,
    layout: str = "small",
    dropout: float | None = None,
) -> VGG:
    """A VGG by torchvision's name.

    Args:
        name: A key of `CONVOLUTIONS`, with "_bn" after it for batch norm.
        num_classes: Number of logits.
        dtype: Number format of the activations; parameters are float32.
        axis_name: Mapped axis over which the batch is spread, if any.
        layout: "torchvision" ends in a 7x7 adaptive mean and three dense layers of
            4096, 4096 and `num_classes`; "small" in the mean over all pixels and one.
        dropout: Probability of dropping an input of a dense layer (for "torchvision"
            those of the last two); by default 0.5 for "torchvision", 0 for "small".
    """
    if dropout is None:
        dropout = 0.5 if layout == "torchvision" else 0.0
    return VGG(
        num_classes=num_classes,
        convolutions=CONVOLUTIONS[name.removesuffix("_bn")],
        batch_norm=name.endswith("_bn"),
        layout=layout,
        dropout=dropout,
        dtype=dtype,
        axis_name=axis_name,
    )
