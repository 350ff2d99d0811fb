"""From a configuration and the facts about its data to the parts of a run."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from jaxdl import runs
from jaxdl.config import Config, spelled_out
from jaxdl.data import augment
from jaxdl.data.batches import Layout
from jaxdl.data.sources import Split
from jaxdl.errors import InputError
from jaxdl.losses import LOSSES
from jaxdl.models import pretrained, registry
from jaxdl.training import epoch, finetune, optim, state, steps
from jaxdl.training.finetune import Layers
from jaxdl.training.loop import Programs
from jaxdl.training.parallel import Devices
from jaxdl.training.state import TrainState
from jaxdl.training.steps import (
    Augment,
    PerExampleLoss,
    Predict,
    Preprocess,
    TrainStep,
)

EVALUATION_BATCH = 256
"""Examples per device and call in evaluation."""


class DataFacts(NamedTuple):
    """What a model must know of its data; stored with every run."""

    image_shape: tuple[int, int, int]
    """(height, width, channels) of the stored images."""
    classes: tuple[str, ...]
    """Names of the classes, in the order of their labels."""
    mean: tuple[float, ...]
    """Mean of each channel over the training images, in [0, 1]."""
    std: tuple[float, ...]
    """Standard deviation of each channel, likewise."""


class Parts(NamedTuple):
    """Pure functions and modules of a run; nothing is compiled yet."""

    model: nn.Module
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    train_step: TrainStep
    predict: Predict
    loss: PerExampleLoss
    """The loss that is reported: without label smoothing."""
    trained: Layers | None
    """Layers that are trained; None if all are."""


def facts(train: Split, classes: tuple[str, ...]) -> DataFacts:
    """Measures the training images; 10,000 of them, evenly spread, are enough."""
    images = train.images[:: max(1, len(train.images) // 10_000)]
    height, width, channels = images.shape[1:]
    pixels = images.reshape(-1, channels)
    counts = [np.bincount(pixels[:, c], minlength=256) for c in range(channels)]
    levels = np.arange(256) / 255
    mean = [np.average(levels, weights=count) for count in counts]
    variance = [
        np.average((levels - m) ** 2, weights=count)
        for m, count in zip(mean, counts, strict=True)
    ]
    return DataFacts(
        image_shape=(height, width, channels),
        classes=classes,
        mean=tuple(float(m) for m in mean),
        # An image set of one colour has no spread to divide by.
        std=tuple(float(np.sqrt(v)) or 1.0 for v in variance),
    )


def validate(config: Config) -> None:
    """Checks all that can be checked before data is loaded and JAX is started.

    Raises:
      InputError: a setting at fault.
    """
    registry.options_for(config.model.arch, config.model)
    optim.validate(config.optim, epochs=config.run.epochs)
    run = config.run
    if config.model.pretrained == "":
        raise InputError('--pretrained must be "imagenet" or a weight file, not empty')
    if config.optim.finetune != "all":
        if config.model.pretrained is None:
            raise InputError(
                f"--finetune={config.optim.finetune} needs --pretrained: what is not "
                f"trained would stay as it was drawn at random"
            )
        _trained(config)
    for name, value, least in (
        ("epochs", run.epochs, 1),
        ("batch-size", run.batch_size, 1),
        ("log-every", run.log_every, 1),
        ("checkpoint-seconds", run.checkpoint_seconds, 0),
        ("keep", run.keep, 1),
        ("patience", run.patience, 1),
        ("devices", run.devices, 1),
        ("validation", config.data.validation, 1),
        ("image-size", config.data.image_size, 1),
    ):
        if value is not None and not value >= least:
            raise InputError(f"--{name} must be at least {least}, not {value}")
    runs.check_seed("--seed", run.seed)
    runs.check_name(run.name)


def assemble(
    config: Config,
    data: DataFacts,
    total_steps: int,
    steps_per_epoch: int,
    devices: Devices,
    schedule: optax.Schedule | None = None,
) -> Parts:
    """Builds the model, the optimiser and the step of a configuration.

    Args:
      config: valid by `validate`; some numbers may be traced (`jaxdl.traced`): dropout,
        momentum, weight decay, label smoothing, and those of clipping and averaging.
      data: what the images are like.
      total_steps: updates in the whole run, for the schedule.
      steps_per_epoch: updates in an epoch.
      devices: from `parallel.choose`.
      schedule: learning rate, in the place of the one that is configured.

    Raises:
      InputError: the architecture cannot take such images, or such options, or be
        trained on single images.
    """
    options = registry.options_for(config.model.arch, config.model)
    height, width, channels = input_shape(config, data)
    registry.check_input(config.model.arch, options.get("layout"), height, width)
    dtype = config.model.precision
    build = partial(
        registry.build,
        config.model.arch,
        num_classes=len(data.classes),
        dtype=dtype,
        **options,
    )
    trained = _trained(config)
    if config.run.batch_size == config.optim.accumulate:
        _try_single_image(build(), (height, width, channels), trained)
    model = build(axis_name=devices.axis_name)
    if schedule is None:
        schedule = optim.make_schedule(config.optim, total_steps, steps_per_epoch)
    optimizer = optim.make_optimizer(
        config.optim, total_steps, steps_per_epoch, schedule, _rates(config)
    )
    loss = LOSSES[config.optim.loss]
    mean, std = normalisation(config, data)
    preprocess: Preprocess = partial(augment.normalise, mean=mean, std=std, dtype=dtype)
    resize = _resize(config, data)
    train_step = steps.make_train_step(
        model,
        optimizer,
        partial(loss, label_smoothing=config.optim.label_smoothing),
        preprocess,
        augment=_then(augment.AUGMENTATIONS[config.data.augment], resize),
        ema=config.optim.ema,
        axis_name=devices.axis_name,
        trained=trained,
    )
    return Parts(
        model=model,
        optimizer=optimizer,
        learning_rate=schedule,
        train_step=train_step,
        predict=steps.make_predict(
            model, preprocess if resize is None else lambda x: resize(preprocess(x))
        ),
        loss=loss,
        trained=trained,
    )


def _try_single_image(
    model: nn.Module, shape: tuple[int, int, int], trained: Layers | None
) -> None:
    """Traces a step's forward pass on one image, which batch norm may refuse.

    So it is refused before a run has left anything behind. Frozen layers take it.

    Raises:
      InputError: a batch norm would have no variance.
    """

    def forward(key: jax.Array, image: jax.Array) -> object:
        variables = model.init(key, image, train=False)
        params, rngs = variables["params"], {"dropout": key}
        frozen = params.keys() - finetune.part(params, trained).keys()
        with finetune.evaluating(frozen):
            return model.apply(
                variables, image, train=True, rngs=rngs, mutable=["batch_stats"]
            )

    image = jax.ShapeDtypeStruct((1, *shape), "float32")
    jax.eval_shape(forward, jax.eval_shape(jax.random.key, 0), image)


def input_shape(config: Config, data: DataFacts) -> tuple[int, int, int]:
    """Height, width and channels of what the model sees: the stored images, resized."""
    height, width, channels = data.image_shape
    side = config.data.image_size
    return (height, width, channels) if side is None else (side, side, channels)


def normalisation(
    config: Config, data: DataFacts
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel by which images are normalised.

    Those of the training images, or ImageNet's. Grey images have the mean of ImageNet's
    three means and that of its three deviations: then a kernel that was summed over its
    colours (`pretrained.load`) gives what it gave in colour for the image in three
    equal channels, all three normalised by these same two numbers.

    Raises:
      InputError: ImageNet's, for images that are neither grey nor in three colours.
    """
    if spelled_out(config).data.normalise in (None, "data"):
        return data.mean, data.std
    channels = data.image_shape[-1]
    if channels == 3:
        return augment.IMAGENET_MEAN, augment.IMAGENET_STD
    if channels == 1:
        mean, std = sum(augment.IMAGENET_MEAN) / 3, sum(augment.IMAGENET_STD) / 3
        return (mean,), (std,)
    raise InputError(
        f"--normalise=imagenet is for images of 1 or 3 channels, not {channels}"
    )


def _resize(config: Config, data: DataFacts) -> Callable[[jax.Array], jax.Array] | None:
    """What brings normalised images to the size that the model sees; None if nothing.

    It comes last, in training after the augmentation. That works on the pixels that
    there are: on 32x32 rather than on 224x224 pixels it costs a fiftieth.
    """
    height, width, _ = input_shape(config, data)
    if (height, width) == data.image_shape[:2]:
        return None
    return partial(augment.resize, size=(height, width))


def _then(
    change: Augment | None, resize: Callable[[jax.Array], jax.Array] | None
) -> Augment | None:
    """The one after the other, where they exist."""
    if resize is None:
        return change

    def both(key: jax.Array, images: jax.Array, positions: jax.Array) -> jax.Array:
        if change is not None:
            images = change(key, images, positions)
        return resize(images)

    return both


def _blocks(config: Config) -> registry.Blocks:
    options = registry.options_for(config.model.arch, config.model)
    return registry.blocks(config.model.arch, **options)


def _trained(config: Config) -> Layers | None:
    which = config.optim.finetune
    return None if which == "all" else finetune.trained_layers(which, _blocks(config))


def _rates(config: Config) -> dict[str, float] | None:
    decay = config.optim.layer_decay
    return None if decay == 1 else finetune.rates(decay, _blocks(config))


def initial_state(
    config: Config, parts: Parts, data: DataFacts, weights: Path | None = None
) -> TrainState:
    """The state before the first step, a function of the configuration's seed.

    Args:
      config: the configuration.
      parts: from `assemble`.
      data: what the images are like.
      weights: a file of weights to start from; a head for other classes begins as that
        of a new network of that seed.

    Raises:
      InputError: the file does not fit the model.
    """
    key, shape = jax.random.key(config.run.seed), input_shape(config, data)
    variables = None
    if weights is not None:
        variables = pretrained.load(
            weights,
            config.model.arch,
            image_shape=shape,
            num_classes=len(data.classes),
            key=state.keys(key)[0],
            **registry.options_for(config.model.arch, config.model),
        )
    return state.create(
        parts.model,
        parts.optimizer,
        shape,
        key,
        ema=config.optim.ema is not None,
        trained=parts.trained,
        variables=variables,
    )


def compile_programs(
    config: Config, parts: Parts, devices: Devices, *, resident: bool
) -> Programs:
    """Compiles the run's step and evaluation, lazily: at their first call.

    Args:
      config: the configuration.
      parts: from `assemble`.
      devices: from `parallel.choose`.
      resident: the training split lies on the devices; otherwise it streams.
    """
    layout = Layout(config.run.batch_size, config.optim.accumulate, devices.size)
    compile_train = epoch.compile_resident if resident else epoch.compile_streamed
    return Programs(
        train=compile_train(parts.train_step, layout, devices, config.run.log_every),
        evaluate=epoch.compile_evaluate(
            parts.predict, parts.loss, devices, EVALUATION_BATCH
        ),
        devices=devices,
        layout=layout,
    )
