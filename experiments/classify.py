"""Train a classifier, evaluate it once on the test set, and leave a run directory.

The common part of `experiments.mnist` and `experiments.svhn`: it shows and records what
`jaxdl.training.loop.fit` yields. Import it late: it brings JAX.
"""

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
from jax.experimental import multihost_utils
from tensorboardX.event_file_writer import EventsWriter
from tqdm import tqdm

from experiments import board as tensorboard
from experiments.cli import StopOnSignal, quiet_orbax
from jaxdl import config as settings
from jaxdl import runs, runtime
from jaxdl.config import Config
from jaxdl.data import batches, sources
from jaxdl.data.sources import Dataset, Split
from jaxdl.errors import InputError
from jaxdl.models import cost
from jaxdl.training import assemble, checkpoints, loop, parallel
from jaxdl.training.assemble import DataFacts, Parts
from jaxdl.training.checkpoints import Manager
from jaxdl.training.epoch import Examples, Scores
from jaxdl.training.loop import Programs
from jaxdl.training.parallel import Devices
from jaxdl.training.state import TrainState, evaluated_variables

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


def run(experiment: str, family: Family, config: Config) -> None:
    """Trains from the configuration to a printed test accuracy, or resumes that.

    Args:
      experiment: name of the experiment's module and of its folder of runs.
      family: "mnist" or "svhn": what --dataset=auto stands for.
      config: the run.

    Raises:
      InputError: something in the configuration or on the disk is at fault.
      DivergedError: the loss is not finite.
    """
    quiet_orbax()
    assemble.validate(config)
    runtime.start(config.data.cache_dir)
    name = config.data.dataset
    if config.run.resume:  # "auto" could mean another set by now
        directory = config.run.out / experiment / str(config.run.name)
        name = runs.read_json(directory / "config.json")["dataset"]["name"]
    job = prepare(experiment, family, config, name)
    state, record = assemble.initial_state(config, job.parts, job.facts), loop.Record()
    folder = open_folder(job)
    if config.run.resume and (found := checkpoints.restore(folder.latest, state)):
        state, stored = found
        record = loop.Record(**stored)
        checkpoints.forget_after(folder.latest, int(state.step))
    if jax.process_index() == 0:
        runs.rewind_metrics(folder.path, int(state.step))
    say(header(job, folder.path, state))
    with StopOnSignal() as stop, saying_what_is_safe(folder.path):
        finished = train(job, folder, state, record, stop)
    if finished.reason == "stopped":
        say(
            f"Stopped after step {int(finished.state.step)}; it is saved. Go on with:\n"
            f"  {resume_command(job, folder.path)}"
        )
        raise SystemExit(128 + (stop.signal or 0))
    say("Finished Training")
    with saying_what_is_safe(folder.path):
        report(job, folder, finished)


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
    if run.resume and jax.process_index() == 0:
        sweep(path)
    if not run.resume and jax.process_index() == 0:
        runs.create(path)
        config = settings.renamed(job.config, name, resume=False)
        description = {
            "experiment": job.experiment,
            "config": settings.to_json(config),
            "dataset": {**described(job.dataset), **job.facts._asdict()},
            "versions": runs.versions(),
        }
        try:
            runs.write_json(path / "config.json", description)
        except InputError:
            path.rmdir()  # without it this is no run
            raise
    if jax.process_count() > 1:  # the others wait for the first to make the folder
        multihost_utils.sync_global_devices("run folder")
    return Folder(
        path,
        checkpoints.open_manager(path / "latest", run.keep),
        checkpoints.open_manager(path / "best", 1),
    )


def sweep(path: Path) -> None:
    """Deletes what a killed process has left half written: Orbax does not, for good."""
    for unfinished in path.glob("*/*.orbax-checkpoint-tmp"):
        shutil.rmtree(unfinished, ignore_errors=True)
    for scratch in path.glob(".*.json*.*"):
        scratch.unlink(missing_ok=True)


def train(
    job: Job,
    folder: Folder,
    state: TrainState,
    record: loop.Record,
    stop: StopOnSignal,
) -> loop.Finished:
    """Runs the loop, with a line, a record and a progress bar for what it yields."""
    run = job.config.run
    data: Examples | Split = job.dataset.train
    if job.resident:
        data = Examples(*parallel.replicate((data.images, data.labels), job.devices))
    events = loop.fit(
        parallel.replicate(state, job.devices),
        record,
        data,
        job.dataset.validation,
        job.programs,
        loop.Schedule(
            epochs=run.epochs,
            steps_per_epoch=job.steps_per_epoch,
            log_every=run.log_every,
            checkpoint_seconds=run.checkpoint_seconds,
            patience=run.patience,
        ),
        folder.latest,
        folder.best,
        stop,
    )
    first = int(state.step)
    bar = tqdm(
        total=run.epochs * job.steps_per_epoch * run.batch_size,
        initial=first * run.batch_size,
        unit=" images",
        unit_scale=True,
        dynamic_ncols=True,
        disable=None if jax.process_index() == 0 else True,
    )
    with (
        bar,
        tensorboard.opened(folder.path / "tensorboard", first) as board,
    ):
        for event in events:
            match event:
                case loop.Progressed(step):
                    bar.update(step * run.batch_size - bar.n)
                case loop.Logged():
                    say(
                        f"Epoch {event.epoch}, Batch {event.batch}, "
                        f"Loss: {event.loss:.3f}"
                    )
                    rate = float(job.parts.learning_rate(event.step - 1))
                    entry = {**event._asdict(), "learning_rate": rate}
                    keep(folder.path, board, "train", entry)
                case loop.Validated():
                    mark = " (best so far)" if event.best else ""
                    say(
                        f"Epoch {event.epoch}, accuracy on the validation set: "
                        f"{100 * event.accuracy:.2f}{mark}"
                    )
                    keep(folder.path, board, "validation", event._asdict())
                case loop.Finished():
                    return event
    raise AssertionError("the loop ends with Finished")


def report(job: Job, folder: Folder, finished: loop.Finished) -> None:
    """Reads the test set, once, with the best checkpoint; prints, records, draws."""
    record = finished.record
    state = best_state(folder.best, finished.state)
    variables = parallel.replicate(evaluated_variables(state), job.devices)
    scores = job.programs.evaluate(variables, job.dataset.test)
    say(f"Accuracy on the test set: {100 * scores.accuracy:.2f}")
    if jax.process_index() != 0:
        return
    steps = int(finished.state.step)
    runs.write_json(
        folder.path / "result.json",
        {
            "experiment": job.experiment,
            "arch": job.config.model.arch,
            "dataset": described(job.dataset),
            "seed": job.config.run.seed,
            "epochs": steps / job.steps_per_epoch,
            "steps": steps,
            "ended": finished.reason,
            "test": summary(scores),
            "validation": {
                "accuracy": record.best_accuracy,
                "epoch": record.best_epoch,
                "count": len(job.dataset.validation.labels),
            },
            "parameters": parameters(job),
            "wall_seconds": round(record.seconds, 3),
            "images_per_second": round(
                steps * job.config.run.batch_size / record.seconds, 1
            ),
            "device": runs.device_name(),
            "versions": runs.versions(),
        },
    )
    draw(folder.path, job.dataset, scores, runs.read_metrics(folder.path), job.config)
    say(f"Results and figures: {folder.path}")


def best_state(best: Manager, like: TrainState) -> TrainState:
    """The best checkpoint, or `like` where no epoch was ever validated."""
    found = checkpoints.restore(best, like)
    return like if found is None else found[0]


def draw(
    path: Path,
    dataset: Dataset,
    scores: Scores,
    metrics: list[dict[str, Any]],
    config: Config,
) -> None:
    """Writes the figures of a run; their titles say which data it really used."""
    from jaxdl import plots

    title = f"{config.model.arch}, {dataset.name} test ({len(scores.labels):,} images)"
    trained = (
        f"{config.model.arch}, {dataset.name} ({len(dataset.train.labels):,} images)"
    )
    probabilities = jax.device_get(jax.nn.softmax(scores.logits))
    matrix = scores.confusion
    figures = {
        "curves": plots.curves(metrics, trained),
        "confusion": plots.confusion(matrix, dataset.classes, title),
        "per_class": plots.per_class(matrix, dataset.classes, title),
        "mistakes": plots.mistakes(
            dataset.test.images,
            scores.labels,
            scores.predictions,
            probabilities,
            dataset.classes,
            title,
        ),
    }
    (path / "figures").mkdir(exist_ok=True)
    for name, figure in figures.items():
        plots.save(figure, path / "figures" / f"{name}.png")


def header(job: Job, path: Path, state: TrainState) -> str:
    """The head of the log: which data, which model, on what."""
    dataset, run = job.dataset, job.config.run
    lines = [] if dataset.notice is None else [dataset.notice, ""]
    sizes = ", ".join(
        f"{len(split.labels):,} {name}"
        for name, split in (
            ("train", dataset.train),
            ("validation", dataset.validation),
            ("test", dataset.test),
        )
    )
    lines += [
        f"Data:    {dataset.name} ({sizes})",
        f"Model:   {job.config.model.arch}, {parameters(job):,} parameters",
        f"Device:  {runs.device_name()}, {run.parallel} over {job.devices.size}",
        f"Run:     {path}",
    ]
    if int(state.step):
        lines.append(f"Resumed: after step {int(state.step):,}")
    return "\n".join(lines)


def parameters(job: Job) -> int:
    """Trainable parameters of the job's model."""
    return cost.parameters(job.parts.model, (1, *job.facts.image_shape))


def described(dataset: Dataset) -> dict[str, Any]:
    """The data really used, for files."""
    return {
        "name": dataset.name,
        "train": len(dataset.train.labels),
        "validation": len(dataset.validation.labels),
        "test": len(dataset.test.labels),
    }


def summary(scores: Scores) -> dict[str, Any]:
    """Accuracy and loss over a split, for files."""
    return {
        "accuracy": scores.accuracy,
        "loss": scores.loss,
        "count": len(scores.labels),
    }


def resume_command(job: Job, path: Path) -> str:
    """The command that goes on with a stopped run."""
    out = job.config.run.out
    where = "" if out == settings.RunConfig().out else f" --out={out}"
    return f"python -m experiments.{job.experiment} --resume --name={path.name}{where}"


def keep(
    path: Path, board: EventsWriter | None, kind: str, entry: dict[str, Any]
) -> None:
    """Records an event in metrics.jsonl and, where there is one, on the board."""
    if board is None:  # not the first process
        return
    runs.append_metrics(path, {"kind": kind, **entry})
    names = entry.keys() & {"loss", "accuracy", "learning_rate"}
    tensorboard.write(
        board, entry["step"], {f"{kind}/{name}": entry[name] for name in sorted(names)}
    )


@contextlib.contextmanager
def saying_what_is_safe(path: Path) -> Iterator[None]:
    """Adds to an error of the disk which checkpoint can still be used.

    Raises:
      InputError: in the place of an error of the disk.
    """
    try:
        yield
    except BrokenPipeError:  # of the terminal, not of the disk
        raise
    except (InputError, OSError) as error:
        said = (
            f"cannot write to {path}: {error.strerror}; make room, and go on with "
            f"--resume"
            if isinstance(error, OSError)
            else str(error)
        )
        steps = [int(p.name) for p in path.glob("latest/*") if p.name.isdigit()]
        safe = (
            f"the checkpoint of step {max(steps)} is safe"
            if steps
            else "nothing was saved"
        )
        raise InputError(f"{said} ({safe})") from error


def say(line: str) -> None:
    """Prints a line beside the progress bar, in the first process only."""
    if jax.process_index() == 0:
        tqdm.write(line)
