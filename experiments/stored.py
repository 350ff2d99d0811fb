"""A finished run, read back from its directory: weights, data and all."""

import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

from experiments import cli
from jaxdl import config as settings
from jaxdl import runs, runtime
from jaxdl.config import Config
from jaxdl.data import sources
from jaxdl.data.sources import Dataset
from jaxdl.errors import InputError
from jaxdl.training import assemble, checkpoints, parallel
from jaxdl.training.assemble import DataFacts
from jaxdl.training.epoch import Evaluate
from jaxdl.training.state import Variables, evaluated_variables

Which = Literal["best", "latest"]


class Stored(NamedTuple):
    """A trained model and how it came about."""

    config: Config
    dataset: dict[str, Any]
    """The data really used: name and sizes."""
    facts: DataFacts
    variables: Variables
    """On the device."""
    step: int
    """Steps after which the checkpoint was taken."""
    evaluate: Evaluate


def load(directory: Path, which: Which, cache_dir: Path) -> Stored:
    """Reads a run's configuration and one of its checkpoints.

    Args:
      directory: the run.
      which: "best" by validation accuracy, or "latest".
      cache_dir: where compiled programs are kept.

    Raises:
      InputError: not a run, or its checkpoints are missing, damaged or of another
        model.
    """
    stored = runs.read_description(directory)
    dataset = stored["dataset"]
    config = settings.from_json(stored["config"])
    try:
        facts, train = _facts(dataset), int(dataset["train"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{directory / 'config.json'} is not the configuration of a run: {error!r}"
        ) from error
    cli.quiet_orbax()
    assemble.validate(config)
    runtime.start(cache_dir)
    steps = max(1, train // config.run.batch_size)
    devices = parallel.choose("jit", 1, 1, 1)
    parts = assemble.assemble(
        config, facts, steps * max(1, config.run.epochs), steps, devices
    )
    if not (directory / which).is_dir():
        raise InputError(f"{directory} has no {which} checkpoint")
    found = checkpoints.restore(
        checkpoints.open_manager(directory / which, config.run.keep),
        assemble.initial_state(config, parts, facts),
    )
    if found is None:
        raise InputError(f"{directory} has no {which} checkpoint")
    state, _ = found
    programs = assemble.compile_programs(config, parts, devices, resident=True)
    return Stored(
        config=config,
        dataset=dataset,
        facts=facts,
        variables=parallel.replicate(evaluated_variables(state), devices),
        step=int(state.step),
        evaluate=programs.evaluate,
    )


def _facts(dataset: dict[str, Any]) -> DataFacts:
    """What a run knows of its data; KeyError, TypeError or ValueError else."""
    facts = DataFacts(
        image_shape=tuple(dataset["image_shape"]),
        classes=tuple(dataset["classes"]),
        mean=tuple(float(value) for value in dataset["mean"]),
        std=tuple(float(value) for value in dataset["std"]),
    )
    numbers = [*facts.image_shape, dataset["train"]]
    if [*map(type, numbers)] != 4 * [int] or min(numbers) < 1:
        raise ValueError(f"image_shape and train are {numbers}")
    if type(dataset["name"]) is not str or not facts.classes:
        raise ValueError(f"name is {dataset['name']!r}, of {facts.classes}")
    if not len(facts.mean) == len(facts.std) == facts.image_shape[2]:
        raise ValueError(f"{len(facts.mean)} means, {len(facts.std)} deviations")
    if not all(0 < value < math.inf for value in facts.std):
        raise ValueError(f"std is {facts.std}")
    return facts


def data(run: Stored, raw_dir: Path | None, cache_dir: Path) -> Dataset:
    """The data set that a run used, split as it was.

    Raises:
      InputError: from `sources.load`.
    """
    return sources.load(
        run.dataset["name"],
        raw_dir=raw_dir,
        cache_dir=cache_dir,
        validation=run.config.data.validation,
        seed=run.config.run.seed,
    )
