"""ResNet-18/34/50/101/152 (He et al. 2016), version 1.5 as in torchvision.

"v1.5": the stride of a bottleneck sits in its 3x3 convolution, not in the first 1x1.
Initialised as torchvision: He's normal by fan-out in convolutions, scale 1 in batch
norm, torch's default in the classifier. One thing differs: a bottleneck's last batch
norm starts with scale 1/sqrt(blocks) (Hayou et al. 2021, "Stable ResNet"). With scale 1
the gradients of ResNet-50 begin twenty times as large as ResNet-18's, and with
ImageNet's stem on 32x32 images it does not learn. With scale 0 (Goyal et al. 2017) it
had not begun to after 150 steps, when from here the loss was 1.5: the shortcuts, alone
at first, drop three of four pixels at each new stage. Layers bear torchvision's names.
"""

import flax.linen as nn
import jax
from jax.typing import DTypeLike

from jaxdl.models.layers import as_logits, conv, dense, he_fan_out, max_pool, relu
from jaxdl.models.norm import BatchNorm
from jaxdl.models.registry import Blocks

STAGES = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
"""Blocks of each stage."""


class Block(nn.Module):
    """Two 3x3 convolutions, or a bottleneck of 1x1, 3x3 and 1x1, beside a shortcut."""

    width: int
    stride: int
    bottleneck: bool
    last_scale: float
    dtype: DTypeLike
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[N, H, W, C] -> [N, H/stride, W/stride, width (4 width for bottlenecks)]."""

        def conv_norm(x, features, size, stride, names, scale):  # type: ignore[no-untyped-def]
            x = conv(
                x,
                features,
                size,
                stride,
                size // 2,
                bias=False,
                init=he_fan_out,
                dtype=self.dtype,
                name=names[0],
            )
            norm = BatchNorm(
                axis_name=self.axis_name,
                dtype=self.dtype,
                initial_scale=scale,
                name=names[1],
            )
            return norm(x, train=train)

        out = self.width * (4 if self.bottleneck else 1)
        plan = [(self.width, 3, self.stride), (out, 3, 1)]
        if self.bottleneck:
            plan = [(self.width, 1, 1), (self.width, 3, self.stride), (out, 1, 1)]

        y = x
        for i, (features, size, stride) in enumerate(plan, 1):
            last = i == len(plan)
            scale = self.last_scale if last else 1.0
            y = conv_norm(y, features, size, stride, (f"conv{i}", f"bn{i}"), scale)
            y = y if last else relu(y, train=train)
        if x.shape != y.shape:
            x = conv_norm(x, out, 1, self.stride, ("downsample_0", "downsample_1"), 1.0)
        return relu(x + y, train=train)


class ResNet(nn.Module):
    """Residual network; see `build`."""

    num_classes: int
    stages: tuple[int, ...]
    bottleneck: bool
    layout: str = "small"
    dtype: DTypeLike = "float32"
    axis_name: str | None = None

    @property
    def blocks(self) -> Blocks:
        """See `registry.blocks`."""
        stages = [
            tuple(f"layer{stage}_{block}" for block in range(count))
            for stage, count in enumerate(self.stages, 1)
        ]
        return (("fc",), *reversed(stages), ("conv1", "bn1"))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Images, float [N, H, W, C] -> logits, float32 [N, num_classes]."""
        size, stride = (7, 2) if self.layout == "torchvision" else (3, 1)
        x = conv(
            x,
            64,
            size,
            stride,
            size // 2,
            bias=False,
            init=he_fan_out,
            dtype=self.dtype,
            name="conv1",
        )
        x = BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name="bn1")(
            x, train=train
        )
        x = relu(x, train=train)
        if self.layout == "torchvision":
            x = max_pool(x, 3, 2, 1)
        last_scale = sum(self.stages) ** -0.5 if self.bottleneck else 1.0
        for stage, blocks in enumerate(self.stages):
            for block in range(blocks):
                x = Block(
                    width=64 * 2**stage,
                    stride=2 if stage > 0 and block == 0 else 1,
                    bottleneck=self.bottleneck,
                    last_scale=last_scale,
                    dtype=self.dtype,
                    axis_name=self.axis_name,
                    name=f"layer{stage + 1}_{block}",
                )(x, train=train)
        x = x.mean((1, 2))
        return as_logits(dense(x, self.num_classes, dtype=self.dtype, name="fc"))


def build(
    name: str,
    *,
    num_classes: int,
    dtype: DTypeLike = "float32",
    axis_name: str | None = None,
    layout: str = "small",
) -> ResNet:
    """A ResNet by torchvision's name.

    Args:
        name: A key of `STAGES`.
        num_classes: Number of logits.
        dtype: Number format of the activations; parameters are float32.
        axis_name: Mapped axis over which batch statistics are taken, if any.
        layout: "torchvision" starts with a 7x7 convolution of stride 2 and a max-pool;
            "small" with a 3x3 convolution of stride 1 (He et al. 2016, section 4.2).
    """
    return ResNet(
        num_classes=num_classes,
        stages=STAGES[name],
        bottleneck=int(name.removeprefix("resnet")) >= 50,
        layout=layout,
        dtype=dtype,
        axis_name=axis_name,
    )
