"""Trains what `experiments.lenet_failure` lists, and writes its report.

Import it late: it brings JAX.
"""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from experiments import job, lenet_report, recipes
from experiments.lenet_failure import Config
from experiments.lenet_report import Tried
from experiments.lenet_settings import SETTINGS, Pixels, Setting
from jaxdl import config as settings
from jaxdl import runs, runtime
from jaxdl.config import DataConfig, ModelConfig, RunConfig
from jaxdl.data import batches, sources
from jaxdl.data.sources import Dataset, Split
from jaxdl.errors import InputError
from jaxdl.search import journal
from jaxdl.training import assemble, parallel
from jaxdl.training.assemble import DataFacts
from jaxdl.training.epoch import Examples, Scores
from jaxdl.training.state import NEVER, Variables, evaluated_variables

BATCH = recipes.RECIPES["lenet5"].run.batch_size
MNIST_EPOCHS = 5
"""Passes over the embedded part of MNIST, for the networks that come from there."""


class Trained(NamedTuple):
    """A network after its training."""

    variables: Variables
    """To evaluate."""
    diverged: bool


def run(config: Config) -> None:
    """Tries what the journal does not have yet, and writes the report.

    Raises:
      InputError: something in the configuration or on the disk is at fault.
    """
    validate(config)
    runtime.start(config.cache_dir)
    dataset = load(config)
    folder = config.out / "lenet_failure" / config.name
    _open(folder, config, dataset)
    with runs.claimed(folder):
        tqdm.write("\n".join([*job.data_lines(dataset), f"Study:   {folder}"]))
        path = folder / "journal.jsonl"
        known = {(e["setting"], e["seed"]): e for e in journal.mend(path)}
        todo = [
            (setting, seed)
            for setting in SETTINGS
            for seed in config.seeds
            if (setting.name, seed) not in known
        ]
        for setting, seed in tqdm(todo, unit=" trainings", disable=None):
            entry = attempt(setting, seed, config, dataset)
            journal.append(path, [entry])
            known[setting.name, seed] = entry
            if seed == config.seeds[-1]:
                shown = [known[setting.name, s]["accuracy"] for s in config.seeds]
                tqdm.write(f"{setting.name}: {100 * np.mean(shown):.2f}")
        tried = [
            Tried(
                setting,
                tuple(known[setting.name, s]["accuracy"] for s in config.seeds),
                sum(known[setting.name, s]["diverged"] for s in config.seeds),
            )
            for setting in SETTINGS
        ]
        seconds = sum(entry["seconds"] for entry in known.values())
        page = lenet_report.write(folder, tried, dataset, config, seconds)
        tqdm.write(f"Report: {page}")


def validate(config: Config) -> None:
    """Checks all that can be checked before data is loaded.

    Raises:
      InputError: an option is out of range.
    """
    runs.check_name(config.name)
    if config.epochs < 1:
        raise InputError(f"--epochs must be at least 1, not {config.epochs}")
    if len(set(config.seeds)) < max(2, len(config.seeds)):
        raise InputError("--seeds needs two different ones at least, each once")
    for seed in config.seeds:
        assemble.validate(config_of(SETTINGS[0], seed, config.epochs))


def load(config: Config) -> Dataset:
    """The data, cut to the images that are asked for.

    Raises:
      InputError: it cannot be had, the images are not such as SVHN's, or fewer, or
        fewer epochs, are asked for than each setting needs.
    """
    dataset = sources.load(
        config.dataset,
        raw_dir=config.raw_dir,
        cache_dir=config.cache_dir,
        validation=None,
        seed=0,
        default_for="svhn",
    )
    if dataset.train.images.shape[1:] != (32, 32, 3):
        raise InputError(
            f"--dataset must have images such as SVHN's, 32x32 in colour, unlike "
            f"{dataset.name}"
        )
    train = dataset.train
    if config.images is not None and config.images < (least := _least(train)):
        raise InputError(
            f"--images must be at least {least}, so that a batch of {BATCH} is left to "
            f"the setting without zeros, not {config.images}"
        )
    if config.images is not None and config.images > len(train.labels):
        raise InputError(
            f"--images must be at most {len(train.labels)}, the training images of "
            f"{dataset.name}, not {config.images}"
        )
    cut = Split(train.images[: config.images], train.labels[: config.images])
    most = max(setting.steps or 0 for setting in SETTINGS)
    if (total := len(cut.labels) // BATCH * config.epochs) <= most:
        raise InputError(
            f"--images and --epochs must make more than {most} steps, after which a "
            f"setting stops, not {total}: {len(cut.labels):,} images in batches of "
            f"{BATCH} for {config.epochs} epochs"
        )
    return dataclasses.replace(dataset, train=cut)


def config_of(setting: Setting, seed: int, epochs: int) -> settings.Config:
    """The settings of a training, as the library has them."""
    return settings.Config(
        data=DataConfig(augment=setting.augment),
        model=ModelConfig(arch=setting.arch),
        optim=setting.optim,
        run=RunConfig(epochs=epochs, batch_size=BATCH, seed=seed),
    )


def attempt(
    setting: Setting, seed: int, config: Config, dataset: Dataset
) -> dict[str, Any]:
    """Trains and tests LeNet-5 under a setting; returns a line for the journal."""
    began = time.monotonic()
    facts = assemble.facts(dataset.train, dataset.classes)
    start = None if setting.start == "random" else _from_mnist(seed)
    if setting.start == "mnist" and start is not None:
        found = start
    else:
        found = train(
            config_of(setting, seed, config.epochs),
            _seen(facts, setting.pixels),
            _mislabelled(dataset.train, setting),
            steps=setting.steps,
            start=None if start is None else start.variables,
        )
    scores = test(setting, _seen(facts, setting.test_pixels), found, dataset.test)
    return {
        "setting": setting.name,
        "seed": seed,
        "accuracy": scores.accuracy,
        "diverged": found.diverged,
        "seconds": round(time.monotonic() - began, 3),
    }


def train(
    config: settings.Config,
    facts: DataFacts,
    data: Split,
    *,
    steps: int | None = None,
    start: Variables | None = None,
) -> Trained:
    """Trains a network, without checkpoints: a few epochs of LeNet-5 take seconds.

    Args:
      config: the run.
      facts: say how pixels are normalised.
      data: to train on.
      steps: stop after so many; by default after the epochs of the configuration.
      start: variables to begin with, in the place of random ones.
    """
    per_epoch = len(data.labels) // config.run.batch_size
    total = min(steps or per_epoch * config.run.epochs, per_epoch * config.run.epochs)
    devices = parallel.choose("jit", None, config.run.batch_size, 1)
    parts = assemble.assemble(config, facts, total, per_epoch, devices)
    programs = assemble.compile_programs(config, parts, devices, resident=True)
    state = assemble.initial_state(config, parts, facts)
    if start is not None:
        state = state._replace(variables=jax.device_get(start))
    state = parallel.replicate(state, devices)
    examples = Examples(*parallel.replicate((data.images, data.labels), devices))
    for done in range(0, total, per_epoch):
        order = batches.epoch_order(state.key, done // per_epoch, len(data.labels))
        state = programs.train(
            state,
            examples,
            parallel.replicate(order, devices),
            0,
            min(per_epoch, total - done),
        )
    return Trained(evaluated_variables(state), int(state.bad_step) != NEVER)


def test(setting: Setting, facts: DataFacts, found: Trained, data: Split) -> Scores:
    """How a network does on images whose pixels come as `facts` says."""
    config = config_of(setting, 0, 1)
    devices = parallel.choose("jit", None, BATCH, 1)
    parts = assemble.assemble(config, facts, 1, 1, devices)
    programs = assemble.compile_programs(config, parts, devices, resident=True)
    return programs.evaluate(found.variables, data)


@functools.cache  # two settings begin with it
def _from_mnist(seed: int) -> Trained:
    """LeNet-5 trained on the embedded part of MNIST, in grey on three channels."""
    (images, labels), _ = sources.mnist_embedded()
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))).repeat(3, axis=-1)
    data = Split(padded, labels)
    facts = assemble.facts(data, tuple("0123456789"))
    return train(config_of(Setting("mnist"), seed, MNIST_EPOCHS), facts, data)


def _seen(facts: DataFacts, pixels: Pixels) -> DataFacts:
    """Facts that make the network see the pixels so: it gets (x / 255 - mean) / std."""
    if pixels == "normalised":
        return facts
    channels, scale = len(facts.mean), 1.0 if pixels == "0 to 1" else 1 / 255
    return facts._replace(mean=(0.0,) * channels, std=(scale,) * channels)


def _mislabelled(data: Split, setting: Setting) -> Split:
    match setting.labels:
        case "one less":  # the file's 1 .. 9, 10 become 0 .. 8, 9
            return Split(data.images, ((data.labels - 1) % 10).astype(np.int32))
        case "no zeros":
            some = data.labels != 0
            return Split(data.images[some], data.labels[some])
        case _:
            return data


def _least(data: Split) -> int:
    """How many of the images hold a batch without zeros, as one setting needs it."""
    return int(np.flatnonzero(data.labels)[:BATCH].max()) + 1


def _open(folder: Path, config: Config, dataset: Dataset) -> None:
    """Makes the folder, or sees that the study in it is the same one.

    Raises:
      InputError: it is another one, or the folder cannot be made.
    """
    described = {
        "epochs": config.epochs,
        "seeds": list(config.seeds),
        "images": config.images,
        "dataset": job.described(dataset),
        "settings": [_plain(setting) for setting in SETTINGS],
    }
    if not folder.exists():
        runs.create(folder, {**described, "versions": runs.versions()})
        return
    stored = runs.read_json(folder / "config.json")
    if changed := [key for key in described if stored.get(key) != described[key]]:
        raise InputError(
            f"the study {folder} was begun with other {', '.join(changed)}: choose "
            f"another --name"
        )


def _plain(setting: Setting) -> dict[str, Any]:
    """As JSON gives it back."""
    values = dataclasses.asdict(setting)
    values["optim"]["step_epochs"] = list(values["optim"]["step_epochs"])
    return values
