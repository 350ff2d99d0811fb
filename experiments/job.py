"""What is decided before the first step of a run: data, model, devices, folder.

Import it late: it brings JAX.
"""

import shlex
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
from jax.experimental import multihost_utils

from experiments import weights
from experiments.weights import Weights
from jaxdl import config as settings
from jaxdl import runs
from jaxdl.config import Config
from jaxdl.data import batches, sources
from jaxdl.data.sources import Dataset
from jaxdl.errors import InputError
from jaxdl.models import cost
from jaxdl.ops import engine
from jaxdl.training import assemble, checkpoints, finetune, parallel
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
    weights: Weights | None
    """What the run starts from, or started from; None for new weights."""
    file: Path | None
    """Where those weights are; None for a run that is resumed."""


class Folder(NamedTuple):
    """The run's directory and the checkpoints in it."""

    path: Path
    latest: Manager
    best: Manager


def prepare(
    experiment: str,
    family: Family,
    config: Config,
    name: str,
    began_with: Weights | None = None,
) -> Job:
    """Loads the data set `name` and builds the parts of a run; writes nothing.

    Args:
      experiment: name of the experiment's module.
      family: what --dataset=auto stands for.
      config: the run.
      name: what to load.
      began_with: the weights of a run that is resumed.

    Raises:
      InputError: the data or the weights cannot be had, or do not suit the rest.
    """
    run = config.run
    if not run.resume:
        weights.check(config)
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
    file = None
    if config.model.pretrained is not None and not run.resume:
        file, began_with = weights.obtain(config)
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
        weights=began_with,
        file=file,
    )


def open_folder(job: Job) -> Folder:
    """Makes the run's directory, or opens that of the run to resume.

    Raises:
      InputError: the run is there already, or the folder cannot be written.
    """
    run = job.config.run
    if run.name is None and jax.process_count() > 1:
        raise InputError("--name must be given with several processes, the same to all")
    folder = run.out / job.experiment
    name = run.name or runs.stamped(folder, f"{job.config.model.arch}-")
    path = folder / name
    if not run.resume and jax.process_index() == 0:
        config = settings.renamed(job.config, name, resume=False)
        runs.create(
            path,
            {
                "experiment": job.experiment,
                "config": settings.to_json(config),
                "dataset": {**described(job.dataset), **job.facts._asdict()},
                "pretrained": job.weights and job.weights._asdict(),
                "surroundings": surroundings(job),
            },
        )
    if jax.process_count() > 1:  # the others wait for the first to make the folder
        multihost_utils.sync_global_devices("run folder")
    return Folder(
        path,
        checkpoints.open_manager(path / "latest", run.keep),
        checkpoints.open_manager(path / "best", 1),
    )


def surroundings(job: Job) -> dict[str, str]:
    """What the bits of a run depend on beside its settings, by name."""
    found = {"device": runs.device_name(job.devices.size), **runs.versions()}
    if jax.default_backend() == "cpu":
        found["engine"] = engine.described()
    return found


def header(job: Job, path: Path, state: TrainState) -> str:
    """The head of the log: which data, which model, on what."""
    run = job.config.run
    lines = [
        *data_lines(job.dataset),
        f"Model:   {job.config.model.arch}, {parameters(job):,} parameters",
        *_transfer_lines(job, state),
        f"Device:  {runs.device_name()}, {run.parallel} over {job.devices.size}",
        f"Run:     {path}",
    ]
    if jax.default_backend() == "cpu":
        lines.insert(-1, f"Engine:  {engine.described()}")
    if int(state.step):
        lines.append(f"Resumed: after step {int(state.step):,}")
        before = runs.read_description(path).get("surroundings", {})
        changed = [
            f"{name} was {before[name]}, is {value}"
            for name, value in surroundings(job).items()
            if before.get(name, value) != value
        ]
        if changed:
            lines.append(
                f"Changed: {'; '.join(changed)}. From here on the bits may be others "
                f"than those of a run that was never stopped"
            )
    return "\n".join(lines)


def data_lines(dataset: Dataset) -> list[str]:
    """The first lines of a log: the data's notice, if there is one, name and sizes."""
    lines = [] if dataset.notice is None else [dataset.notice, ""]
    return [*lines, f"Data:    {dataset.name} ({sizes(dataset)})"]


def sizes(dataset: Dataset) -> str:
    """How many images there are, as "55,000 train, 5,000 validation, 10,000 test"."""
    counts = described(dataset)
    return ", ".join(
        f"{counts[name]:,} {name}" for name in ("train", "validation", "test")
    )


def parameters(job: Job) -> int:
    """Parameters of the job's model."""
    shape = assemble.input_shape(job.config, job.facts)
    return cost.parameters(job.parts.model, (1, *shape))


def trained_parameters(job: Job, state: TrainState) -> int:
    """Those of them that are trained."""
    params = finetune.part(state.variables["params"], job.parts.trained)
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _transfer_lines(job: Job, state: TrainState) -> list[str]:
    """What the log's head says of weights, of frozen layers, and of other images."""
    config, lines = job.config, []
    if job.weights is not None:
        lines.append(f"Weights: {weights.described(job.weights)}")
    if job.parts.trained is not None:
        what = config.optim.finetune.replace("last-block", "head and last block")
        count = trained_parameters(job, state)
        lines.append(f"Trained: {what}, {count:,} parameters; the rest is frozen")
    if assemble.input_shape(config, job.facts) != job.facts.image_shape:
        old, new = job.facts.image_shape, config.data.image_size
        lines.append(f"Images:  resized from {old[0]}x{old[1]} to {new}x{new}")
    return lines


def flops(job: Job) -> int:
    """Floating-point operations of the job's model for one image, forward."""
    shape = assemble.input_shape(job.config, job.facts)
    return cost.flops(job.parts.model, (1, *shape))


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
    out, cache = job.config.run.out, job.config.data.cache_dir
    command = ["python", "-m", f"experiments.{job.experiment}", "--resume"]
    command.append(f"--name={path.name}")
    if out != settings.RunConfig().out:
        command.append(f"--out={out}")
    if cache != settings.default_cache_dir():
        command.append(f"--cache-dir={cache}")
    return shlex.join(command)
