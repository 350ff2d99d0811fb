"""What is decided before the first step of a run: data, model, devices, folder.

Import it late: it brings JAX.
"""

import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
from jax.experimental import multihost_utils

from jaxdl import config as settings
from jaxdl import runs
from jaxdl.config import Config
from jaxdl.data import batches, sources
from jaxdl.data.sources import Dataset
from jaxdl.errors import InputError
from jaxdl.models import cost
from jaxdl.ops import engine
from jaxdl.training import assemble, checkpoints, parallel
from jaxdl.training.assemble import DataFacts, Parts
from jaxdl.training.checkpoints import Manager
from jaxdl.training.loop import Programs
from jaxdl.training.parallel import Devices
from jaxdl.training.state import TrainState

Family = Literal["mnist", "svhn"]
"""What --dataset=auto stands for."""


class Job(NamedTuple):
    """Everything that is decided before the first step."""

    experiment: str
    config: Config
    dataset: Dataset
    facts: DataFacts
    devices: Devices
    parts: Parts
    resident: bool
    """Whether the training split lies on the devices; otherwise it streams."""
    programs: Programs
    steps_per_epoch: int


class Folder(NamedTuple):
    """The run's directory and the checkpoints in it."""

    path: Path
    latest: Manager
    best: Manager


def prepare(experiment: str, family: Family, config: Config, name: str) -> Job:
    """Loads the data set `name` and builds the parts of a run; writes nothing.

    Raises:
      InputError: the data cannot be had, or does not suit the rest.
    """
    run = config.run
    devices = parallel.choose(
        run.parallel, run.devices, run.batch_size, config.optim.accumulate
    )
    dataset = sources.load(
        name,
        raw_dir=config.data.raw_dir,
        cache_dir=config.data.cache_dir,
        validation=config.data.validation,
        seed=run.seed,
        default_for=family,
    )
    size = len(dataset.train.labels)
    steps_per_epoch = size // run.batch_size
    if steps_per_epoch == 0:
        raise InputError(
            f"--batch-size must be at most {size}, the training images of "
            f"{dataset.name}, not {run.batch_size}"
        )
    facts = assemble.facts(dataset.train, dataset.classes)
    parts = assemble.assemble(
        config, facts, steps_per_epoch * run.epochs, steps_per_epoch, devices
    )
    placement = config.data.placement
    images = dataset.train.images
    resident = placement == "device" or (
        placement == "auto"
        and batches.fits(images.nbytes, jax.local_devices()[0], devices.size)
    )
    return Job(
        experiment=experiment,
        config=config,
        dataset=dataset,
        facts=facts,
        devices=devices,
        parts=parts,
        resident=resident,
        programs=assemble.compile_programs(config, parts, devices, resident=resident),
        steps_per_epoch=steps_per_epoch,
    )


def open_folder(job: Job) -> Folder:
    """Makes the run's directory, or opens that of the run to resume.

    Raises:
      InputError: the run is there already, or the folder cannot be written.
    """
    run = job.config.run
    if run.name is None and jax.process_count() > 1:
        raise InputError("--name must be given with several processes, the same to all")
    name = run.name or f"{job.config.model.arch}-{time.strftime('%Y%m%d-%H%M%S')}"
    path = run.out / job.experiment / name
    if not run.resume and jax.process_index() == 0:
        config = settings.renamed(job.config, name, resume=False)
        runs.create(
            path,
            {
                "experiment": job.experiment,
                "config": settings.to_json(config),
                "dataset": {**described(job.dataset), **job.facts._asdict()},
                "versions": runs.versions(),
            },
        )
    if jax.process_count() > 1:  # the others wait for the first to make the folder
        multihost_utils.sync_global_devices("run folder")
    return Folder(
        path,
        checkpoints.open_manager(path / "latest", run.keep),
        checkpoints.open_manager(path / "best", 1),
    )


def header(job: Job, path: Path, state: TrainState) -> str:
    """The head of the log: which data, which model, on what."""
    run = job.config.run
    lines = [
        *data_lines(job.dataset),
        f"Model:   {job.config.model.arch}, {parameters(job):,} parameters",
        f"Device:  {runs.device_name()}, {run.parallel} over {job.devices.size}",
        f"Run:     {path}",
    ]
    if jax.default_backend() == "cpu":
        lines.insert(-1, f"Engine:  {engine.described()}")
    if int(state.step):
        lines.append(f"Resumed: after step {int(state.step):,}")
    return "\n".join(lines)


def data_lines(dataset: Dataset) -> list[str]:
    """The first lines of a log: the data's notice, if there is one, name and sizes."""
    lines = [] if dataset.notice is None else [dataset.notice, ""]
    sizes = ", ".join(
        f"{len(split.labels):,} {name}"
        for name, split in (
            ("train", dataset.train),
            ("validation", dataset.validation),
            ("test", dataset.test),
        )
    )
    return [*lines, f"Data:    {dataset.name} ({sizes})"]


def parameters(job: Job) -> int:
    """Trainable parameters of the job's model."""
    return cost.parameters(job.parts.model, (1, *job.facts.image_shape))


def flops(job: Job) -> int:
    """Floating-point operations of the job's model for one image, forward."""
    return cost.flops(job.parts.model, (1, *job.facts.image_shape))


def described(dataset: Dataset) -> dict[str, Any]:
    """The data really used, for files."""
    return {
        "name": dataset.name,
        "train": len(dataset.train.labels),
        "validation": len(dataset.validation.labels),
        "test": len(dataset.test.labels),
    }


def resume_command(job: Job, path: Path) -> str:
    """The command that goes on with a stopped run."""
    out = job.config.run.out
    where = "" if out == settings.RunConfig().out else f" --out={out}"
    return f"python -m experiments.{job.experiment} --resume --name={path.name}{where}"
