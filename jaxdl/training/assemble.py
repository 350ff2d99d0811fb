"""From a configuration and the facts about its data to the parts of a run."""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from jaxdl import runs
from jaxdl.config import Config
from jaxdl.data import augment
from jaxdl.data.batches import Layout
from jaxdl.data.sources import Split
from jaxdl.errors import InputError
from jaxdl.losses import LOSSES
from jaxdl.models import registry
from jaxdl.training import epoch, optim, state, steps
from jaxdl.training.loop import Programs
from jaxdl.training.parallel import Devices
from jaxdl.training.state import TrainState
from jaxdl.training.steps import PerExampleLoss, Predict, Preprocess, TrainStep

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
    for name, value, least in (
        ("epochs", run.epochs, 1),
        ("batch-size", run.batch_size, 1),
        ("log-every", run.log_every, 1),
        ("checkpoint-seconds", run.checkpoint_seconds, 0),
        ("keep", run.keep, 1),
        ("patience", run.patience, 1),
        ("devices", run.devices, 1),
        ("validation", config.data.validation, 1),
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
      InputError: the architecture cannot take such images, or such options.
    """
    options = registry.options_for(config.model.arch, config.model)
    height, width, _ = data.image_shape
    registry.check_input(config.model.arch, config.model.layout, height, width)
    dtype = config.model.precision
    model = registry.build(
        config.model.arch,
        num_classes=len(data.classes),
        dtype=dtype,
        axis_name=devices.axis_name,
        **options,
    )
    if schedule is None:
        schedule = optim.make_schedule(config.optim, total_steps, steps_per_epoch)
    optimizer = optim.make_optimizer(
        config.optim, total_steps, steps_per_epoch, schedule
    )
    loss = LOSSES[config.optim.loss]
    preprocess: Preprocess = partial(
        augment.normalise, mean=data.mean, std=data.std, dtype=dtype
    )
    train_step = steps.make_train_step(
        model,
        optimizer,
        partial(loss, label_smoothing=config.optim.label_smoothing),
        preprocess,
        augment=augment.AUGMENTATIONS[config.data.augment],
        ema=config.optim.ema,
        axis_name=devices.axis_name,
    )
    return Parts(
        model=model,
        optimizer=optimizer,
        learning_rate=schedule,
        train_step=train_step,
        predict=steps.make_predict(model, preprocess),
        loss=loss,
    )


def initial_state(config: Config, parts: Parts, data: DataFacts) -> TrainState:
    """The state before the first step, a function of the configuration's seed."""
    return state.create(
        parts.model,
        parts.optimizer,
        data.image_shape,
        jax.random.key(config.run.seed),
        ema=config.optim.ema is not None,
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
