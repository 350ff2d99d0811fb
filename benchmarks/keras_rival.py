"""Keras on the JAX backend, as its users have it."""

from importlib import metadata
from typing import Any

import keras
import numpy as np

from benchmarks.cases import CLASSES, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Network
from benchmarks.worker import Prepared

assert keras.backend.backend() == "jax"
layers = keras.layers


def versions() -> dict[str, str]:
    """Versions of what computes."""
    return {name: metadata.version(name) for name in ("keras", "jax", "jaxlib")}


def step(case: Network) -> Prepared:
    """Training steps on one batch, by `train_on_batch`."""
    model, images, labels = _model(case)
    model.compile(
        optimizer=keras.optimizers.SGD(
            LEARNING_RATE, MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )

    def run(count: int) -> float:
        for _ in range(count):
            loss = model.train_on_batch(images, labels)
        return float(loss)

    return Prepared(run, _size(model))


def inference(case: Network) -> Prepared:
    """Logits of one batch, by `predict_on_batch`."""
    model, images, _ = _model(case)

    def run(count: int) -> float:
        for _ in range(count):
            logits = model.predict_on_batch(images)
        return float(np.sum(logits, dtype=np.float64))

    return Prepared(run, _size(model))


def _size(model: Any) -> int:
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def _model(case: Network) -> tuple[Any, Any, Any]:
    mixed = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
    keras.config.set_dtype_policy(mixed[case.precision])
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input(case.image_shape)
    body = {"fnn": _fnn, "lenet5": _lenet, "alexnet": _alexnet}
    default = _vgg if case.arch.startswith("vgg") else _resnet
    x = body.get(case.arch, default)(x, case)
    model = keras.Model(inputs, layers.Dense(CLASSES, dtype="float32")(x))
    random = np.random.default_rng(0)
    images = random.standard_normal((case.batch, *case.image_shape), np.float32)
    return model, images, random.integers(0, CLASSES, case.batch, np.int32)


def _conv(x: Any, features: int, size: int, stride: int = 1, bias: bool = True) -> Any:
    """A convolution; padding by half the kernel, as torch's, before strides."""
    if stride > 1 and size > 1:
        x = layers.ZeroPadding2D(size // 2)(x)
    pad = "same" if stride == 1 else "valid"
    return layers.Conv2D(features, size, stride, pad, use_bias=bias)(x)


def _norm(x: Any) -> Any:
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def _fnn(x: Any, case: Network) -> Any:
    x = layers.Flatten()(x)
    for features in (512, 256):
        x = layers.Dense(features, "relu")(x)
    return x


def _lenet(x: Any, case: Network) -> Any:
    for features in (6, 16):
        x = layers.MaxPooling2D(2)(layers.Conv2D(features, 5, activation="relu")(x))
    x = layers.Flatten()(x)
    for features in (120, 84):
        x = layers.Dense(features, "relu")(x)
    return x


def _alexnet(x: Any, case: Network) -> Any:
    for features, size in (64, 5), (192, 5), (384, 3), (256, 3), (256, 3):
        x = layers.ReLU()(_conv(x, features, size))
        x = layers.MaxPooling2D(3, 2)(x) if features in (64, 192) else x
    x = layers.Flatten()(layers.MaxPooling2D(3, 2)(x))
    for _ in range(2):
        x = layers.Dense(1024, "relu")(layers.Dropout(0.5)(x))
    return x


def _vgg(x: Any, case: Network) -> Any:
    for features, count in (64, 2), (128, 2), (256, 3), (512, 3), (512, 3):
        for _ in range(count):
            x = _conv(x, features, 3)
            x = layers.ReLU()(_norm(x) if case.arch.endswith("_bn") else x)
        x = layers.MaxPooling2D(2)(x)
    return layers.GlobalAveragePooling2D()(x)


def _resnet(x: Any, case: Network) -> Any:
    small = case.layout == "small"
    x = _conv(x, 64, 3, 1, False) if small else _conv(x, 64, 7, 2, False)
    x = layers.ReLU()(_norm(x))
    if not small:
        x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))  # of a ReLU: >= 0
    stages = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}
    stages["resnet101"] = (3, 4, 23, 3)
    for stage, blocks in enumerate(stages[case.arch]):
        for block in range(blocks):
            width, stride = 64 * 2**stage, 2 if stage > 0 and block == 0 else 1
            if case.arch == "resnet18":
                plan = [(width, 3, stride), (width, 3, 1)]
            else:
                plan = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
            y = x
            for i, (features, size, by) in enumerate(plan):
                y = _norm(_conv(y, features, size, by, False))
                y = layers.ReLU()(y) if i < len(plan) - 1 else y
            if x.shape != y.shape:
                x = _norm(_conv(x, plan[-1][0], 1, stride, False))
            x = layers.ReLU()(layers.add([x, y]))
    return layers.GlobalAveragePooling2D()(x)
