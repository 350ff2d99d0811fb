"""Fully connected network with any hidden layers.

Initialised by He et al. 2015 (fan-in, normal) for ReLU and GELU, by Glorot and Bengio
2010 (uniform) for tanh and the sigmoid; LeCun's normal in the last layer; biases zero.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
from jax.typing import DTypeLike

from jaxdl.models.dropout import Dropout
from jaxdl.models.layers import as_logits, dense
from jaxdl.models.norm import BatchNorm
from jaxdl.models.registry import Blocks

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "gelu": functools.partial(nn.gelu, approximate=False),
    "tanh": nn.tanh,
    "sigmoid": nn.sigmoid,
}
"""Activations by name; GELU is the exact one, as torch's."""


class FNN(nn.Module):
    """Dense layers with an activation between them; see `build`."""

    num_classes: int
    hidden: tuple[int, ...] = (512, 256)
    activation: str = "relu"
    batch_norm: bool = False
    dropout: float = 0.0
    dtype: DTypeLike = "float32"
    axis_name: str | None = None

    @property
    def blocks(self) -> Blocks:
        """See `registry.blocks`."""
        names = ("hidden", "norm") if self.batch_norm else ("hidden",)
        hidden = [
            tuple(f"{name}_{i}" for name in names) for i in range(len(self.hidden))
        ]
        return (("head",), *reversed(hidden))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Float [N, ...], flattened here -> logits, float32 [N, num_classes]."""
        rectifies = self.activation in ("relu", "gelu")
        init = (
            nn.initializers.he_normal if rectifies else nn.initializers.glorot_uniform
        )
        x = x.reshape(x.shape[0], -1)
        for i, features in enumerate(self.hidden):
            x = dense(
                x,
                features,
                bias=not self.batch_norm,  # the norm's own bias takes its place
                init=init(),
                dtype=self.dtype,
                name=f"hidden_{i}",
            )
            if self.batch_norm:
                norm = BatchNorm(
                    axis_name=self.axis_name, dtype=self.dtype, name=f"norm_{i}"
                )
                x = norm(x, train=train)
            x = ACTIVATIONS[self.activation](x)
            x = Dropout(self.dropout, self.axis_name)(x, train=train)
        last = nn.initializers.lecun_normal()
        return as_logits(
            dense(x, self.num_classes, init=last, dtype=self.dtype, name="head")
        )


def build(
    name: str,
    *,
    num_classes: int,
    dtype: DTypeLike = "float32",
    axis_name: str | None = None,
    hidden: tuple[int, ...] = (512, 256),
    activation: str = "relu",
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> FNN:
    """A fully connected network.

    Args:
        name: "fnn".
        num_classes: Number of logits.
        dtype: Number format of the activations; parameters are float32.
        axis_name: Mapped axis over which the batch is spread, if any.
        hidden: Sizes of the hidden layers; () is a linear classifier.
        activation: A key of `ACTIVATIONS`.
        batch_norm: Whether each hidden layer is normalised before its activation.
        dropout: Probability of dropping a hidden unit.
    """
    del name
    return FNN(
        num_classes=num_classes,
        hidden=tuple(hidden),
        activation=activation,
        batch_norm=batch_norm,
        dropout=dropout,
        dtype=dtype,
        axis_name=axis_name,
    )
