"""The networks of jaxdl as any Flax user writes them, of `flax.linen` alone."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from benchmarks.cases import CLASSES, Network


class Plain(nn.Module):
    """The network of a case; channels last."""

    network: Network

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Images, float [N, H, W, C] -> logits, float32 [N, CLASSES]."""
        dtype = jnp.dtype(self.network.precision)
        small = self.network.layout == "small"
        bodies = (fnn, lenet, alexnet, vgg, resnet)
        arch = self.network.arch
        body: Any = next(b for b in bodies if arch.startswith(b.__name__))
        dense = functools.partial(nn.Dense, dtype=dtype)
        conv = functools.partial(conv_layer, dtype=dtype)
        norm = functools.partial(
            nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=dtype
        )
        drop = nn.Dropout(0.5, deterministic=not train)
        kit = {"conv": conv, "dense": dense, "norm": norm, "drop": drop}
        x = body(x, arch, small, **kit)
        return dense(CLASSES)(x).astype(jnp.float32)


def conv_layer(
    features: int, size: int, stride: int = 1, pad: int = 0, **options: Any
) -> nn.Conv:
    """`nn.Conv` with a square kernel and symmetric padding."""
    return nn.Conv(
        features, (size, size), (stride, stride), [(pad, pad), (pad, pad)], **options
    )


def pool(x: jax.Array, size: int, stride: int, pad: int = 0) -> jax.Array:
    """`nn.max_pool` with square windows."""
    return nn.max_pool(x, (size, size), (stride, stride), [(pad, pad), (pad, pad)])


def fnn(x: Any, arch: str, small: bool, *, dense: Any, **_: Any) -> jax.Array:
    """784-512-256 units."""
    x = x.reshape(len(x), -1)
    for features in (512, 256):
        x = nn.relu(dense(features)(x))
    return x


def lenet(x: Any, arch: str, small: bool, *, conv: Any, dense: Any, **_: Any) -> Any:
    """Two convolutions and two dense layers; smaller images are padded to 32x32."""
    side = (32 - x.shape[1]) // 2
    x = jnp.pad(x, ((0, 0), (side, side), (side, side), (0, 0)))
    for features in (6, 16):
        x = pool(nn.relu(conv(features, 5)(x)), 2, 2)
    x = x.reshape(len(x), -1)
    for features in (120, 84):
        x = nn.relu(dense(features)(x))
    return x


def alexnet(
    x: Any, arch: str, small: bool, *, conv: Any, dense: Any, drop: Any, **_: Any
) -> jax.Array:
    """The layout for small images."""
    for features, size in (64, 5), (192, 5), (384, 3), (256, 3), (256, 3):
        x = nn.relu(conv(features, size, pad=size // 2)(x))
        x = pool(x, 3, 2) if features in (64, 192) else x
    x = pool(x, 3, 2).reshape(len(x), -1)
    for _index in range(2):
        x = nn.relu(dense(1024)(drop(x)))
    return x


def vgg(x: Any, arch: str, small: bool, *, conv: Any, norm: Any, **_: Any) -> Any:
    """VGG-16 up to the mean over all pixels."""
    for features, count in (64, 2), (128, 2), (256, 3), (512, 3), (512, 3):
        for _index in range(count):
            x = conv(features, 3, pad=1)(x)
            x = nn.relu(norm()(x) if arch.endswith("_bn") else x)
        x = pool(x, 2, 2)
    return x.mean((1, 2))


def resnet(x: Any, arch: str, small: bool, *, conv: Any, norm: Any, **_: Any) -> Any:
    """Version 1.5, as torchvision's, up to the mean over all pixels."""
    conv = functools.partial(conv, use_bias=False)
    x = conv(64, 3, pad=1)(x) if small else conv(64, 7, 2, 3)(x)
    x = nn.relu(norm()(x))
    x = x if small else pool(x, 3, 2, 1)
    stages = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}
    stages["resnet101"] = (3, 4, 23, 3)
    for stage, blocks in enumerate(stages[arch]):
        for block in range(blocks):
            width = 64 * 2**stage
            stride = 2 if stage > 0 and block == 0 else 1
            if arch == "resnet18":
                plan = [(width, 3, stride), (width, 3, 1)]
            else:
                plan = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
            y = x
            for i, (features, size, by) in enumerate(plan):
                y = norm()(conv(features, size, by, size // 2)(y))
                y = nn.relu(y) if i < len(plan) - 1 else y
            if x.shape != y.shape:
                x = norm()(conv(plan[-1][0], 1, stride)(x))
            x = nn.relu(x + y)
    return x.mean((1, 2))
