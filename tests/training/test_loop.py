"""The loop's events, its choices, and that stopping changes nothing."""

import functools
import itertools
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from tiny_run import STEPS, bits

from jaxdl.data.sources import Split
from jaxdl.losses import cross_entropy
from jaxdl.training import checkpoints, epoch, loop, parallel, steps
from jaxdl.training.epoch import Examples, Scores
from jaxdl.training.loop import (
    DivergedError,
    Finished,
    Logged,
    Progressed,
    Record,
    Schedule,
    Validated,
)

SCHEDULE = Schedule(
    epochs=3, steps_per_epoch=STEPS, log_every=4, checkpoint_seconds=1e9, patience=None
)
CONFIG = tiny_run.with_(ema=0.9, augment="digits", dropout=0.2, devices=2)


@functools.cache
def made(resident: bool) -> tiny_run.Tiny:
    return tiny_run.make(CONFIG, resident=resident)


def tiny(resident: bool = True) -> tiny_run.Tiny:
    return made(resident)


class Session(NamedTuple):
    """What one call of `fit` did."""

    events: list
    latest: list[int]
    """Steps of its checkpoints, at the end."""
    best: list[int]


def session(
    folder: Path,
    schedule: Schedule = SCHEDULE,
    *,
    stop_at: int | None = None,
    programs=None,
    resident: bool = True,
    data=None,
) -> Session:
    """Runs, or resumes, until the end or until `stop_at` steps are done."""
    run = tiny(resident)
    done = 0

    def stop() -> bool:
        return stop_at is not None and done >= stop_at

    with (
        checkpoints.open_manager(folder / "latest", 2) as latest,
        checkpoints.open_manager(folder / "best", 1) as best,
    ):
        found = checkpoints.restore(latest, run.state)
        state, record = (run.state, Record()) if found is None else found
        record = Record(**record) if isinstance(record, dict) else record
        events = []
        for event in loop.fit(
            run.start(state),
            record,
            run.data if data is None else data,
            tiny_run.VALIDATION,
            run.programs if programs is None else programs,
            schedule,
            latest,
            best,
            stop,
        ):
            if isinstance(event, Progressed):
                done = event.step
            events.append(event)
        return Session(events, sorted(latest.all_steps()), sorted(best.all_steps()))


def of(kind, events) -> list:
    return [event for event in events if isinstance(event, kind)]


def finished(events) -> Finished:
    assert len(of(Finished, events)) == 1
    assert isinstance(events[-1], Finished)
    return events[-1]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Session:
    return session(tmp_path_factory.mktemp("uninterrupted"))


def test_events_come_in_order(uninterrupted) -> None:
    events = uninterrupted.events
    steps = [event.step for event in events[:-1]]
    assert steps == sorted(steps)
    progressed = [event.step for event in of(Progressed, events)]
    assert progressed == sorted(set(progressed))
    assert progressed[-1] == 3 * STEPS
    lines = [(e.epoch, e.batch, e.step) for e in of(Logged, events)]
    assert lines == [
        (1, 4, 4),
        (1, 6, 6),
        (2, 4, 10),
        (2, 6, 12),
        (3, 4, 16),
        (3, 6, 18),
    ]
    validated = [(e.epoch, e.step) for e in of(Validated, events)]
    assert validated == [(1, 6), (2, 12), (3, 18)]
    for before, event in itertools.pairwise(events):
        if isinstance(event, Logged):  # a line follows the progress it reports
            assert isinstance(before, Progressed) and before.step == event.step
        if isinstance(event, Validated):
            assert isinstance(before, Logged) and before.step == event.step
    assert finished(events).reason == "done"
    assert int(finished(events).state.step) == 3 * STEPS


def test_lines_are_means_since_the_line_before(uninterrupted) -> None:
    """Recomputed by plain calls of the step, one at a time."""
    run = tiny()
    state, sums = run.start(), []
    for s in range(STEPS):
        state = run.programs.train(state, run.data, run.order(), s, 1)
        if (s + 1) % 4 == 0 or s + 1 == STEPS:
            totals = jax.device_get(state.totals)
            sums.append(
                (totals.loss / totals.examples, totals.correct, totals.examples)
            )
    assert [int(examples) for _, _, examples in sums] == [64, 32]
    lines = of(Logged, uninterrupted.events)[:2]
    for line, (loss, correct, examples) in zip(lines, sums, strict=True):
        assert line.loss == pytest.approx(float(loss), rel=1e-6)
        assert line.accuracy == pytest.approx(int(correct) / int(examples))


def test_the_moving_average_is_what_is_validated(uninterrupted) -> None:
    state = finished(uninterrupted.events).state
    last = of(Validated, uninterrupted.events)[-1]
    expected = tiny().programs.evaluate(state.ema, tiny_run.VALIDATION)
    assert (last.loss, last.accuracy) == (expected.loss, expected.accuracy)
    other = tiny().programs.evaluate(state.variables, tiny_run.VALIDATION)
    assert last.loss != other.loss


def test_the_last_checkpoints_are_of_the_last_epochs(uninterrupted) -> None:
    assert uninterrupted.latest == [2 * STEPS, 3 * STEPS]


def told(events) -> list:
    """All that a log keeps: no progress, no clock."""
    return of((Logged, Validated), events)


@pytest.mark.parametrize(
    ("stops", "resident", "chunk"),
    [
        *(([step], True, 1) for step in (1, 4, 6, 17, 18)),
        ([3, 8, 13], True, 1),
        ([3, 8, 13], False, 1),
        ([3, 8, 13], False, 1 << 24),
    ],
)
def test_a_run_stopped_and_resumed_is_the_uninterrupted_one(
    tmp_path, monkeypatch, uninterrupted, stops, resident, chunk
) -> None:
    """In the middle of an epoch too: same bits, same log, same checkpoints."""
    monkeypatch.setattr(loop, "SLICE_SECONDS", 0.0)  # slices of one step
    monkeypatch.setattr(loop, "CHUNK_BYTES", chunk)  # where they are streamed
    log = []
    for stop_at in [*stops, None]:
        part = session(tmp_path, stop_at=stop_at, resident=resident)
        log += told(part.events)
        if stop_at is not None and stop_at < 3 * STEPS:
            assert finished(part.events).reason == "stopped"
            assert int(finished(part.events).state.step) == stop_at
            assert part.latest[-1] == stop_at
    assert finished(part.events).reason == "done"
    assert bits(finished(part.events).state) == bits(
        finished(uninterrupted.events).state
    )
    assert log == told(uninterrupted.events)
    assert part.best == uninterrupted.best
    assert part.latest[-1] == uninterrupted.latest[-1]
    record, expected = (
        finished(s.events).record._replace(seconds=0, timed_steps=0, timed_seconds=0)
        for s in (part, uninterrupted)
    )
    assert record == expected


def test_a_run_killed_without_a_word_is_the_uninterrupted_one(
    tmp_path, monkeypatch, uninterrupted
) -> None:
    """The iteration is abandoned between two checkpoints; nothing says goodbye."""
    monkeypatch.setattr(loop, "SLICE_SECONDS", 0.0)
    run = tiny()
    with (
        checkpoints.open_manager(tmp_path / "latest", 2) as latest,
        checkpoints.open_manager(tmp_path / "best", 1) as best,
    ):
        events = loop.fit(
            run.start(),
            Record(),
            run.data,
            tiny_run.VALIDATION,
            run.programs,
            SCHEDULE,
            latest,
            best,
        )
        for event in events:
            if isinstance(event, Progressed) and event.step == STEPS + 3:
                break
        events.close()
    resumed = session(tmp_path)
    assert resumed.events[0] == Progressed(STEPS + 1)
    assert bits(finished(resumed.events).state) == bits(
        finished(uninterrupted.events).state
    )


def test_a_finished_run_has_nothing_left_to_do(tmp_path, uninterrupted) -> None:
    first = session(tmp_path)
    again = session(tmp_path)
    assert len(again.events) == 1
    assert finished(again.events).reason == "done"
    assert finished(again.events).record == finished(first.events).record
    assert bits(finished(again.events).state) == bits(finished(first.events).state)


def test_checkpoints_are_saved_in_time(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "SLICE_SECONDS", 0.0)
    seen = []
    save = checkpoints.save

    def note(manager, state, record) -> None:
        seen.append((Path(manager.directory).name, int(state.step)))
        save(manager, state, record)

    monkeypatch.setattr(checkpoints, "save", note)
    session(tmp_path, SCHEDULE._replace(epochs=1, checkpoint_seconds=0.0))
    assert seen == [
        *(("latest", step) for step in range(1, STEPS)),
        ("best", STEPS),
        ("latest", STEPS),
    ]


def scripted(accuracies: list[float]):
    """Programs that really train, and whose validation says what the script says."""
    script = iter(accuracies)

    def evaluate(variables, split: Split) -> Scores:
        right = round(next(script) * 10)
        logits = np.zeros((10, 3), np.float32)
        logits[:, 1] = 1
        return Scores(logits, np.ones(10), np.array([1] * right + [0] * (10 - right)))

    return tiny().programs._replace(evaluate=evaluate)


@pytest.mark.parametrize(
    ("accuracies", "patience", "best", "marks", "reason"),
    [
        ([0.3, 0.5, 0.4, 0.2], None, 2, [True, True, False, False], "done"),
        ([0.5, 0.3, 0.9, 0.1], None, 3, [True, False, True, False], "done"),
        ([0.3, 0.5, 0.5, 0.2], None, 3, [True, True, True, False], "done"),
        ([0.5, 0.4, 0.9, 0.9], 1, 1, [True, False], "patience"),
        ([0.5, 0.4, 0.3, 0.9], 2, 1, [True, False, False], "patience"),
        ([0.5, 0.4, 0.6, 0.5], 2, 3, [True, False, True, False], "done"),
        ([0.0, 0.0, 0.0, 0.0], None, 4, [True] * 4, "done"),
        ([0.1, 0.1, 0.1, 0.1], 2, 3, [True] * 3, "patience"),
    ],
)
def test_best_and_patience(tmp_path, accuracies, patience, best, marks, reason) -> None:
    schedule = SCHEDULE._replace(epochs=4, patience=patience)
    run = session(tmp_path, schedule, programs=scripted(accuracies))
    validated = of(Validated, run.events)
    assert [event.best for event in validated] == marks
    assert [event.accuracy for event in validated] == accuracies[: len(marks)]
    end = finished(run.events)
    assert end.reason == reason
    assert end.record.best_epoch == best
    assert end.record.best_accuracy == accuracies[best - 1]
    assert run.best == [best * STEPS]
    assert run.latest[-1] == len(marks) * STEPS
    with checkpoints.open_manager(tmp_path / "best", 1) as manager:
        state, record = checkpoints.restore(manager, tiny().state)
    assert int(state.step) == best * STEPS
    assert record["best_accuracy"] == accuracies[best - 1]


def test_patience_that_ran_out_stays_so_on_resume(tmp_path) -> None:
    schedule = SCHEDULE._replace(epochs=4, patience=1)
    session(tmp_path, schedule, programs=scripted([0.5, 0.4]))
    again = session(tmp_path, schedule, programs=scripted([]))
    assert finished(again.events).reason == "patience"
    assert len(again.events) == 1


def poisoned(epoch_of_step: int):
    """Training data whose example at that step of the first epoch has no class."""
    run = tiny()
    order = np.asarray(run.order())
    labels = tiny_run.TRAIN.labels.copy()
    labels[order[(epoch_of_step - 1) * tiny_run.BATCH]] = 99
    data = Examples(tiny_run.TRAIN.images, labels)
    return parallel.replicate(data, run.devices)


@pytest.mark.parametrize("bad", [1, 3, STEPS])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch, bad) -> None:
    monkeypatch.setattr(loop, "SLICE_SECONDS", 0.0)
    schedule = SCHEDULE._replace(checkpoint_seconds=0.0)
    with pytest.raises(DivergedError) as caught:
        session(tmp_path, schedule, data=poisoned(bad))
    message = str(caught.value)
    assert "\n" not in message
    assert f"step {bad}" in message
    where = "there is none" if bad == 1 else f"checkpoint: step {bad - 1}"
    assert where in message
    with checkpoints.open_manager(tmp_path / "latest", 2) as latest:
        assert latest.latest_step() == (bad - 1 or None)
    assert not list((tmp_path / "best").iterdir())


def test_the_step_is_exact_however_long_the_slice(tmp_path) -> None:
    """The first slice is one step, the second runs on to the line: over step 3."""
    with pytest.raises(DivergedError, match="step 3 "):
        session(tmp_path, data=poisoned(3))


def test_parameters_that_are_not_finite_are_not_saved(tmp_path) -> None:
    """The last loss of an epoch is finite and its gradient is not: no later loss tells
    before the checkpoint."""
    run = tiny()

    def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        root = jnp.sqrt(jnp.where(labels == 99, 0 * logits.sum(-1), 1))
        # Zero where the label is 99, and of slope NaN there.
        return jnp.where(labels == 99, root, cross_entropy(logits, labels % 3))

    train_step = steps.make_train_step(
        run.parts.model,
        run.parts.optimizer,
        loss,
        lambda images: images / 255,
        ema=0.9,
        axis_name=run.devices.axis_name,
    )
    train = epoch.compile_resident(train_step, run.programs.layout, run.devices, 4)
    with pytest.raises(DivergedError, match=f"step {STEPS} "):
        session(
            tmp_path,
            programs=run.programs._replace(train=train),
            data=poisoned(STEPS),
        )
    with checkpoints.open_manager(tmp_path / "latest", 2) as latest:
        assert latest.latest_step() is None


def test_no_epochs_is_no_work(tmp_path) -> None:
    run = session(tmp_path, SCHEDULE._replace(epochs=0))
    assert [type(event) for event in run.events] == [Finished]
    assert finished(run.events).reason == "done"
