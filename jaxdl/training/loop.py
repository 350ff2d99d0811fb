"""The training loop: a generator of events over a run that can stop at any moment.

It prints nothing and writes nothing but checkpoints; whoever iterates over it shows and
records what happens. An event is handled before the next checkpoint is saved, so a log
on disk is never behind the checkpoint that a run resumes from.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxdl.data import batches
from jaxdl.data.batches import Layout
from jaxdl.data.sources import Split
from jaxdl.training import checkpoints, parallel
from jaxdl.training.checkpoints import Manager
from jaxdl.training.epoch import Evaluate, Examples
from jaxdl.training.parallel import Devices
from jaxdl.training.state import NEVER, TrainState, evaluated_variables

SLICE_SECONDS = 0.3
"""A call into the device lasts about this long: the pace of the progress bar, and how
soon a signal is heeded."""
CHUNK_BYTES = 1 << 24
"""Images of about this many bytes travel to the device at once, when they stream."""


class Progressed(NamedTuple):
    """Some steps are done."""

    step: int
    """Steps done in the whole run."""


class Logged(NamedTuple):
    """A line of the log: means over the steps since the one before."""

    epoch: int
    """From 1."""
    batch: int
    """Steps done in this epoch."""
    step: int
    loss: float
    accuracy: float
    """In [0, 1], of the training batches as they were seen."""


class Validated(NamedTuple):
    """An epoch is over."""

    epoch: int
    step: int
    loss: float
    accuracy: float
    """In [0, 1], on the validation split."""
    best: bool
    """Whether no epoch before was better."""


class Record(NamedTuple):
    """What a checkpoint keeps beside the state."""

    best_accuracy: float = -1.0
    """Best validation accuracy so far."""
    best_epoch: int = 0
    """Last epoch that reached it, from 1."""
    improved_epoch: int = 0
    """First epoch that reached it: patience counts from there."""
    seconds: float = 0.0
    """Time spent on the run, over all its sessions."""
    timed_steps: int = 0
    """Steps whose time was taken: all but those of a session's first call into the
    device, which compiles."""
    timed_seconds: float = 0.0
    """The time of those steps, without evaluation."""


class Finished(NamedTuple):
    """The run is over, or stopped; its last checkpoint is saved."""

    state: TrainState
    record: Record
    reason: str
    """"done", "patience" or "stopped"."""


Event = Progressed | Logged | Validated | Finished


class DivergedError(RuntimeError):
    """The loss or a parameter is no longer a finite number."""


class Schedule(NamedTuple):
    """How long a run is, and when it reports and saves."""

    epochs: int
    steps_per_epoch: int
    log_every: int
    checkpoint_seconds: float
    patience: int | None


class Programs(NamedTuple):
    """The run's compiled functions; `train` fits where the training split lies."""

    train: Callable[..., TrainState]
    """A `RunResident`, or a `RunStreamed`."""
    evaluate: Evaluate
    devices: Devices
    layout: Layout


def fit(
    state: TrainState,
    record: Record,
    train: Examples | Split,
    validation: Split,
    programs: Programs,
    schedule: Schedule,
    latest: Manager,
    best: Manager,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Trains until the end of the schedule, until it stops improving, or until told.

    Args:
      state: a new state, or one from `checkpoints.restore`; on the devices.
      record: the record that came with it.
      train: training split, on the devices (`Examples`, for a resident program) or on
        the host (`Split`, for a streamed one).
      validation: split that decides which checkpoint is best.
      programs: compiled functions.
      schedule: length of the run and its rhythm.
      latest: gets a checkpoint after every epoch, from time to time, and at the end.
      best: gets the checkpoints of the best epochs.
      stop: asked between calls into the device; True saves and ends the run. With
        several processes the run ends if any of them says so.

    Yields:
      What happens, in order; `Finished` is the last.

    Raises:
      DivergedError: a loss or a parameter is NaN or infinite. Nothing is saved after
        such a step.
      InputError: a checkpoint cannot be written.
    """
    began = time.monotonic() - record.seconds
    per_epoch = schedule.steps_per_epoch
    step = int(state.step)
    saved = time.monotonic()
    compiled = stopping = False

    def save(manager: Manager) -> None:
        checkpoints.save(manager, state, record._asdict())

    while step < schedule.epochs * per_epoch:
        epoch, batch = divmod(step, per_epoch)
        if epoch - record.improved_epoch >= (schedule.patience or schedule.epochs):
            break
        slices = _slices(state, batch, epoch, train, programs, schedule)
        asked = time.monotonic()
        for state in slices:
            before, step = step, int(state.step)
            if compiled:
                record = record._replace(
                    timed_steps=record.timed_steps + step - before,
                    timed_seconds=record.timed_seconds + time.monotonic() - asked,
                )
            compiled = True
            batch = step - epoch * per_epoch
            _refuse_divergence(state, latest)
            yield Progressed(step)
            if batch % schedule.log_every == 0 or batch == per_epoch:
                yield _logged(state, epoch, batch)
            record = record._replace(seconds=time.monotonic() - began)
            due = time.monotonic() - saved > schedule.checkpoint_seconds
            due, stopping = _agree(due, stop())
            if batch < per_epoch and (due or stopping):
                save(latest)
                saved = time.monotonic()
                if stopping:
                    checkpoints.wait(latest)
                    yield Finished(state, record, "stopped")
                    return
            asked = time.monotonic()

        scores = programs.evaluate(evaluated_variables(state), validation)
        # With equal accuracy the later epoch counts: the rate has fallen further.
        better = scores.accuracy >= record.best_accuracy
        if scores.accuracy > record.best_accuracy:
            record = record._replace(improved_epoch=epoch + 1)
        if better:
            record = record._replace(
                best_accuracy=scores.accuracy, best_epoch=epoch + 1
            )
        yield Validated(epoch + 1, step, scores.loss, scores.accuracy, better)
        record = record._replace(seconds=time.monotonic() - began)
        if better:
            save(best)
            # Only then may a checkpoint that remembers this best one be saved.
            checkpoints.wait(best)
        save(latest)
        saved = time.monotonic()
        (stopping,) = _agree(stop())
        if stopping:
            break

    checkpoints.wait(latest)
    if step == schedule.epochs * per_epoch:
        yield Finished(state, record, "done")
    else:
        yield Finished(state, record, "stopped" if stopping else "patience")


class _Stretch(NamedTuple):
    """Steps whose data lie on the devices."""

    first: int
    end: int
    data: tuple[Any, ...]
    """What the program takes between the state and the steps."""


def _slices(
    state: TrainState,
    first: int,
    epoch: int,
    train: Examples | Split,
    programs: Programs,
    schedule: Schedule,
) -> Iterator[TrainState]:
    """Runs an epoch from step `first` on, yielding the state after every slice.

    Slices last about `SLICE_SECONDS` and are cut at the lines of the log. How an epoch
    is cut does not change its bits, so the clock may decide.
    """
    order = batches.epoch_order(state.key, epoch, len(train.labels))
    place = _resident if isinstance(train, Examples) else _streamed
    pace, measured = 1, False
    for stretch in place(first, schedule.steps_per_epoch, order, train, programs):
        first = stretch.first
        while first < stretch.end:
            count = min(pace, _to_next_line(first, schedule), stretch.end - first)
            began = time.monotonic()
            state = jax.block_until_ready(
                programs.train(state, *stretch.data, first, count)
            )
            seconds = (time.monotonic() - began) / count
            # The first call compiles, and tells nothing of the pace.
            if measured:
                pace = _common(max(1, min(round(SLICE_SECONDS / seconds), 10 * pace)))
            measured = True
            first += count
            yield state


def _resident(
    first: int, end: int, order: jax.Array, train: Any, programs: Programs
) -> Iterator[_Stretch]:
    data = (train, parallel.replicate(order, programs.devices))
    yield _Stretch(first, end, data)


def _streamed(
    first: int, end: int, order: jax.Array, train: Any, programs: Programs
) -> Iterator[_Stretch]:
    layout = programs.layout
    step_bytes = train.images[0].nbytes * layout.batch_size
    steps = max(1, min(CHUNK_BYTES // step_bytes, end))
    pieces = [(at, min(steps, end - at)) for at in range(first, end, steps)]
    chunks = batches.chunks(train, np.asarray(order), pieces, layout, steps)
    for (start, count), chunk in zip(pieces, chunks, strict=True):
        images, labels = parallel.shard(chunk, programs.devices)
        yield _Stretch(start, start + count, (images, labels, start))


def _to_next_line(batch: int, schedule: Schedule) -> int:
    """Steps until the log gets its next line, or the epoch ends."""
    to_line = schedule.log_every - batch % schedule.log_every
    return min(to_line, schedule.steps_per_epoch - batch)


def _logged(state: TrainState, epoch: int, batch: int) -> Logged:
    totals = jax.device_get(state.totals)
    count = int(totals.examples)
    return Logged(
        epoch=epoch + 1,
        batch=batch,
        step=int(state.step),
        loss=float(totals.loss) / count,
        accuracy=int(totals.correct) / count,
    )


def _refuse_divergence(state: TrainState, latest: Manager) -> None:
    bad_step = int(state.bad_step)
    if bad_step == NEVER:
        return
    checkpoints.wait(latest)
    good = latest.latest_step()
    where = "there is none" if good is None else f"step {good}"
    raise DivergedError(
        f"the loss or a parameter is not finite at step {bad_step} (last good "
        f"checkpoint: {where}). "
        f"Try a smaller --learning-rate, a longer --warmup-epochs, or --clip-norm, "
        f"under another --name"
    )


def _agree(*flags: bool) -> list[bool]:
    """Each flag, or-ed over the processes: they must save and stop at the same step."""
    if jax.process_count() == 1:
        return list(flags)
    everyone = multihost_utils.process_allgather(np.array(flags))
    return [bool(flag) for flag in everyone.any(axis=0)]


def _common(pace: int) -> int:
    """The first process's pace, everywhere: all must make the same calls."""
    if jax.process_count() == 1:
        return pace
    return int(multihost_utils.broadcast_one_to_all(np.int32(pace)))
