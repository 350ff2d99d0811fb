"""AlexNet, one column (Krizhevsky 2014), as in torchvision; and one for small images.

Layers bear the names (that is, the places in `features` and `classifier`) that they
have in torchvision. Layout "torchvision" is initialised as there, by torch's
defaults: eight layers shrink the signal so far that training stands still for hundreds
of steps. "small" is initialised by He et al. 2015, who keep its size, and small logits.
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
    max_pool,
    relu,
)
from jaxdl.models.registry import Blocks


class AlexNet(nn.Module):
    """Five convolutions and three dense layers; see `build`."""

    num_classes: int
    layout: str = "small"
    dropout: float = 0.5
    dtype: DTypeLike = "float32"
    axis_name: str | None = None

    @property
    def blocks(self) -> Blocks:
        """See `registry.blocks`."""
        last = ("features_10", "classifier_1", "classifier_4")
        before = tuple((f"features_{i}",) for i in (8, 6, 3, 0))
        return (("classifier_6",), last, *before)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Images, float [N, H, W, C] -> logits, float32 [N, num_classes]."""
        large = self.layout == "torchvision"
        stem = (64, 11, 4, 2) if large else (64, 5, 1, 2)
        init = None if large else nn.initializers.he_normal()
        for index, window, pool in (
            (0, stem, True),
            (3, (192, 5, 1, 2), True),
            (6, (384, 3, 1, 1), False),
            (8, (256, 3, 1, 1), False),
            (10, (256, 3, 1, 1), True),
        ):
            name = f"features_{index}"
            x = conv(x, *window, init=init, dtype=self.dtype, name=name)
            x = relu(x, train=train)
            x = max_pool(x, 3, 2) if pool else x
        x = flatten(adaptive_mean(x, 6) if large else x)
        for name in ("classifier_1", "classifier_4"):
            x = Dropout(self.dropout, self.axis_name)(x, train=train)
            width = 4096 if large else 1024
            x = dense(x, width, init=init, dtype=self.dtype, name=name)
            x = relu(x, train=train)
        init = None if large else nn.initializers.normal(0.01)
        x = dense(x, self.num_classes, init=init, dtype=self.dtype, name="classifier_6")
        return as_logits(x)


def build(
    name: str,
    *,
    num_classes: int,
    dtype: DTypeLike = "float32",
    axis_name: str | None = None,
    layout: str = "small",
    dropout: float = 0.5,
) -> AlexNet:
    """AlexNet.

    Args:
        name: "alexnet".
        num_classes: Number of logits.
        dtype: Number format of the activations; parameters are float32.
        axis_name: Mapped axis over which the batch is spread, if any.
        layout: "torchvision", or "small" for images of about 32x32: the first
            convolution is 5x5 with stride 1 instead of 11x11 with stride 4, and the
            hidden dense layers have 1024 units instead of 4096.
        dropout: Probability of dropping an input of the first two dense layers.
    """
    del name
    return AlexNet(
        num_classes=num_classes,
        layout=layout,
        dropout=dropout,
        dtype=dtype,
        axis_name=axis_name,
    )
