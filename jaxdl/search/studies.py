"""A study: which trials run, for how long, and what they have come to.

Successive halving (Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification
and Hyperparameter Optimization") in its synchronous form: all configurations train for
the epochs of the first rung, the best 1/eta of them for those of the next, and so on.
The asynchronous form (ASHA; Li et al. 2018, "A System for Massively Parallel
Hyperparameter Tuning") saves workers the wait for the slowest; here trials that run
together end together, so there is nobody to wait for, and every promotion is made with
all results at hand.

A rung is a whole run of its length, schedule included, rather than a longer run cut
short: what is compared has been trained to its end, a rung's result is one that
`experiments.mnist` reproduces, and nothing but the journal is needed to go on. It costs
at most eta/(eta - 1) times as much.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxdl.config import Config
from jaxdl.search import programs
from jaxdl.search.programs import Chunks, Material, Program
from jaxdl.search.results import Epoch, Journaled, Result, Score, rank
from jaxdl.search.study import Study, Trial, trial_config

BATCH = 8
"""Configurations that Optuna proposes at a time, and that so run together."""


class Progressed(NamedTuple):
    """Some trials have an epoch more behind them."""

    epochs: int
    """Epochs of single trials since the event before."""


class Scored(NamedTuple):
    """Trials have ended a rung; their results are in the journal."""

    results: list[Result]
    known: bool
    """Whether they were in the journal before, so that nothing ran."""


class Ended(NamedTuple):
    """All trials have ended a rung."""

    rung: int
    """From 0."""
    results: list[Result]


Event = Progressed | Scored | Ended


def run(
    study: Study,
    data: Material,
    path: Path,
    also: Mapping[str, Chunks] = MappingProxyType({}),
) -> Iterator[Event]:
    """Runs a study, or what its journal says is still to be done.

    The trials that run together are those that would have run together without a stop,
    even where some of them need not run again; so the results have the same bits.

    Args:
      study: valid by `study.validate`.
      data: from `programs.material`.
      path: its journal; made where it is missing.
      also: further splits on which each trial is scored at its end; nothing is decided
        by them.

    Yields:
      What happens, in order. When `Scored` comes, its results are on the disk; for
      results that were there it comes as well.

    Raises:
      InputError: the journal cannot be written, or a drawn value is at fault.
    """
    known = Journaled(study, path)
    bench = _Bench(study, data, known, also, {})
    batch = BATCH if study.sampler == "optuna" else study.size
    for first in range(0, study.size, batch):
        some = range(first, min(first + batch, study.size))
        settings = known.settings(some)
        trials = [
            Trial(c, seed, s)
            for c, s in zip(some, settings, strict=True)
            for seed in study.seeds
        ]
        yield from _rung(bench, 0, trials)
    yield Ended(0, known.results(0))
    for rung in range(1, len(study.rungs)):
        field = rank(known.results(rung - 1))[: study.sizes[rung]]
        trials = [result.trial for one in field for result in one.results]
        yield from _rung(bench, rung, trials)
        yield Ended(rung, known.results(rung))


def score(
    study: Study,
    data: Material,
    trial: Trial,
    rung: int,
    chunks: Chunks,
    watch: Callable[[int], None] = lambda epoch: None,
) -> Score:
    """Trains a trial again, as in that rung, and scores it on another split.

    Args:
      study: the study.
      data: from `programs.material`.
      trial: of the study.
      rung: from 0.
      chunks: the split, from `programs.chunked`.
      watch: called after each epoch with its number, from 1.
    """
    whole = trial_config(study, trial, rung)
    shape = programs.shape_of(whole)
    program = programs.compile(shape, data, 1)
    states = None
    for epoch, states in enumerate(programs.epochs([whole], program, data), 1):  # noqa: B007
        watch(epoch)
    assert states is not None
    return _score(program.score(states, chunks), 0, bool(program.seen(states)[1][0]))


class _Bench(NamedTuple):
    """What all rungs of a study work with."""

    study: Study
    data: Material
    known: Journaled
    also: Mapping[str, Chunks]
    compiled: dict[tuple[Config, int], Program]


def _rung(bench: _Bench, rung: int, trials: Sequence[Trial]) -> Iterator[Event]:
    """Runs trials in lots that share a program."""
    study, data, known, _, compiled = bench
    groups: dict[Any, list[Trial]] = defaultdict(list)
    for trial in trials:
        whole = trial_config(study, trial, rung)
        groups[programs.shape_of(whole), whole.run.epochs].append(trial)
    for (shape, _), members in groups.items():
        lanes = programs.lanes(shape, data)
        if len(members) < lanes:
            lanes = 1  # a map would compute copies
        if (shape, lanes) not in compiled:
            compiled[shape, lanes] = programs.compile(shape, data, lanes)
        program = compiled[shape, lanes]
        for first in range(0, len(members), program.width):
            lot = members[first : first + program.width]
            there = all(known.has(rung, trial) for trial in lot)
            if not there:
                yield from _lot(bench, rung, lot, program)
            yield Scored(known.of(rung, lot), there)


def _lot(
    bench: _Bench, rung: int, lot: Sequence[Trial], program: Program
) -> Iterator[Event]:
    """Trains the trials of one call, and writes what they come to."""
    began = time.monotonic()
    curves: list[list[Epoch]] = [[] for _ in lot]
    diverged = [False] * len(lot)
    several = [trial_config(bench.study, trial, rung) for trial in lot]
    for states in programs.epochs(several, program, bench.data):
        train, bad = program.seen(states)
        validation = program.score(states, bench.data.validation)
        for i in range(len(lot)):
            diverged[i] |= bool(bad[i]) or not math.isfinite(validation.loss[i])
            seen, score = (_score(s, i, diverged[i]) for s in (train, validation))
            curves[i].append(Epoch(*seen, *score))
        yield Progressed(len(lot))
    also = {name: program.score(states, chunks) for name, chunks in bench.also.items()}
    seconds = round((time.monotonic() - began) / len(lot), 3)
    bench.known.add(
        [
            Result(
                trial,
                rung,
                tuple(curves[i]),
                diverged[i],
                {name: _score(s, i, diverged[i]) for name, s in also.items()},
                seconds,
            )
            for i, trial in enumerate(lot)
        ]
    )


def _score(scores: programs.Scores, i: int, diverged: bool) -> Score:
    """Of one trial; a network that has diverged predicts nothing."""
    if diverged:
        return Score(None, 0.0)
    return Score(float(scores.loss[i]), float(scores.accuracy[i]))
