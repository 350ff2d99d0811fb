"""Train a classifier, evaluate it once on the test set, and leave a run directory.

The common part of `experiments.mnist` and `experiments.svhn`: it shows and records what
`jaxdl.training.loop.fit` yields. Import it late: it brings JAX.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from experiments import board as tensorboard
from experiments import job as jobs
from experiments import profile, weights
from experiments.cli import StopOnSignal, quiet_orbax
from experiments.job import Family, Folder, Job
from jaxdl import runs, runtime
from jaxdl.config import Config
from jaxdl.data.sources import Split
from jaxdl.errors import InputError
from jaxdl.training import assemble, checkpoints, loop, parallel
from jaxdl.training.epoch import Examples, Scores
from jaxdl.training.state import TrainState, evaluated_variables


def run(
    experiment: str, family: Family, config: Config, again: str | None = None
) -> None:
    """Trains from the configuration to a printed test accuracy, or resumes that.

    Args:
      experiment: name of the experiment's module and of its folder of runs.
      family: "mnist" or "svhn": what --dataset=auto stands for.
      config: the run.
      again: the command that goes on with it, where that is not --resume.

    Raises:
      InputError: something in the configuration or on the disk is at fault.
      DivergedError: the loss is not finite.
    """
    quiet_orbax()
    assemble.validate(config)
    runtime.start(config.data.cache_dir)
    name, began_with = config.data.dataset, None
    if config.run.resume:  # "auto" could mean another set by now
        directory = config.run.out / experiment / str(config.run.name)
        stored = runs.read_description(directory)
        name = stored["dataset"]["name"]
        began_with = weights.from_json(stored.get("pretrained"))
    job = jobs.prepare(experiment, family, config, name, began_with)
    new = assemble.initial_state(config, job.parts, job.facts, job.file)
    folder = jobs.open_folder(job)
    first = jax.process_index() == 0
    with runs.claimed(folder.path) if first else contextlib.nullcontext():
        state, record = begin(job, folder, new)
        say(jobs.header(job, folder.path, state))
        with saying_what_is_safe(folder.path), StopOnSignal() as stop:
            finished = train(job, folder, state, record, stop)
        if finished.reason == "stopped":
            say(
                f"Stopped after step {int(finished.state.step)}; it is saved. Go on "
                f"with:\n  {again or jobs.resume_command(job, folder.path)}"
            )
            raise SystemExit(128 + (stop.signal or 0))
        say("Finished Training")
        if config.run.profile:
            say(profile.told(folder.path / "trace"))
        with saying_what_is_safe(folder.path):
            scores = test(job, folder, finished.state)
            if first:
                # Matplotlib is imported only now, when the accuracy is on the screen.
                from experiments import report

                report.write(job, folder.path, finished, scores)
        say(f"Results and figures: {folder.path}")


def begin(
    job: Job, folder: Folder, state: TrainState
) -> tuple[TrainState, loop.Record]:
    """State and record to start from: new ones, or those of the last checkpoint.

    Args:
      job: from `jobs.prepare`.
      folder: the run's.
      state: the initial one; of a resumed run, its pretrained weights are not in it.

    Raises:
      InputError: there are checkpoints, and none can be restored; or there is none, and
        the file of pretrained weights is not what it was.
    """
    record = loop.Record()
    if job.config.run.resume:
        if jax.process_index() == 0:
            runs.sweep(folder.path)
        if found := newest(folder, state):
            state, stored = found
            record = loop.Record(**stored)
            checkpoints.forget_after(folder.latest, int(state.step))
        elif job.weights is not None:  # killed before its first checkpoint
            file = weights.obtain_again(job.config, job.weights)
            state = assemble.initial_state(job.config, job.parts, job.facts, file)
    if jax.process_index() == 0:
        runs.rewind_metrics(folder.path, int(state.step))
    return state, record


def newest(
    folder: Folder, like: TrainState
) -> tuple[TrainState, dict[str, Any]] | None:
    """The last state that was saved, and its record; None where there is none.

    Afterwards it is the latest checkpoint.

    That is the best one where a run was killed between the two: `loop.fit` saves the
    best before the latest. To go on from an older one could end, on another machine, in
    other bits, and with a best state that the run's record does not know.

    Raises:
      InputError: there are checkpoints, and none can be restored.
    """
    found = checkpoints.restore(folder.latest, like)
    last = -1 if found is None else int(found[0].step)
    if (folder.best.latest_step() or 0) > last:
        # A damaged one may yet be bettered; if not, the test at the end says so.
        ahead = None
        with contextlib.suppress(InputError):
            ahead = checkpoints.restore(folder.best, like)
        if ahead is not None:
            checkpoints.save(folder.latest, *ahead)
            return ahead
    return found


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
    if run.profile and jax.process_index() == 0:
        events = profile.traced(events, folder.path / "trace")
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


def test(job: Job, folder: Folder, last: TrainState) -> Scores:
    """Reads the test set, once, with the best checkpoint by validation accuracy.

    Raises:
      InputError: that checkpoint is gone, or damaged.
    """
    found = checkpoints.restore(folder.best, last)
    if found is None:
        raise InputError(
            f"the best checkpoint is gone from {folder.best.directory}: put it back, "
            f"or start a new run"
        )
    variables = parallel.replicate(evaluated_variables(found[0]), job.devices)
    scores = job.programs.evaluate(variables, job.dataset.test)
    say(f"Accuracy on the test set: {100 * scores.accuracy:.2f}")
    return scores


def keep(
    path: Path, board: tensorboard.EventsWriter | None, kind: str, entry: dict[str, Any]
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
