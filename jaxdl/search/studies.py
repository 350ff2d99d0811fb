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

import dataclasses
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from jaxdl.config import Config
from jaxdl.errors import InputError
from jaxdl.search import journal, programs, samplers, space
from jaxdl.search.programs import Chunks, Material, Program
from jaxdl.search.samplers import Sampler, Tried
from jaxdl.search.space import Settings, Space
from jaxdl.training import assemble

BATCH = 8
"""Configurations that Optuna proposes at a time, and that so run together."""


@dataclasses.dataclass(frozen=True)
class Study:
    """What is searched, and how."""

    base: Config
    """Every setting that the space leaves alone."""
    space: Space
    sampler: Sampler
    configurations: int
    """How many are tried; of a grid, all."""
    seeds: tuple[int, ...]
    """Each configuration runs with each of these; their mean ranks it."""
    rungs: tuple[int, ...]
    """Epochs of each rung, ascending. None: one rung, of the run's own epochs."""
    eta: int
    """One in so many configurations is promoted to the next rung."""
    seed: int
    """Of the sampler."""

    @property
    def size(self) -> int:
        """Configurations in the first rung."""
        return (
            len(space.grid(self.space))
            if self.sampler == "grid"
            else self.configurations
        )

    @property
    def sizes(self) -> list[int]:
        """Configurations in each rung."""
        sizes = [self.size]
        for _ in self.rungs[1:]:
            sizes.append(max(1, sizes[-1] // self.eta))
        return sizes


class Trial(NamedTuple):
    """A configuration with a seed."""

    configuration: int
    seed: int
    settings: Settings


class Epoch(NamedTuple):
    """What a trial had come to after an epoch."""

    train_loss: float | None
    train_accuracy: float
    loss: float | None
    """On the validation split; None where it is not finite."""
    accuracy: float
    """In [0, 1], on the validation split; 0 where it diverged."""


class Score(NamedTuple):
    """How a trial does on a split."""

    loss: float | None
    accuracy: float


class Result(NamedTuple):
    """What a trial has come to in a rung."""

    trial: Trial
    rung: int
    """From 0."""
    curve: tuple[Epoch, ...]
    diverged: bool
    """Whether a loss was not finite, which ends a trial."""
    also: dict[str, Score]
    """On further splits, at the end."""
    seconds: float
    """Wall time, the trials beside it included, over their number."""

    @property
    def key(self) -> tuple[float, float]:
        """By what it is ranked: accuracy, and among equals the loss."""
        last = self.curve[-1]
        return (last.accuracy, -math.inf if last.loss is None else -last.loss)


class Proposed(NamedTuple):
    """Configurations are about to be tried."""

    settings: list[Settings]


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


Event = Proposed | Progressed | Scored | Ended


class Ranked(NamedTuple):
    """A configuration in a rung."""

    configuration: int
    settings: Settings
    results: list[Result]
    """One for each seed."""

    @property
    def accuracy(self) -> float:
        """Mean over the seeds, on the validation split, in [0, 1]."""
        return float(np.mean([result.key[0] for result in self.results]))

    @property
    def key(self) -> tuple[float, float, int]:
        """By what it is ranked."""
        losses = [result.key[1] for result in self.results]
        return (self.accuracy, float(np.mean(losses)), -self.configuration)


def validate(study: Study) -> None:
    """Checks a study before data is loaded.

    Raises:
      InputError: a number out of range, rungs that do not ascend, or a value in the
        space that no run could have.
    """
    samplers.check(study.sampler)
    if study.configurations < 1:
        raise InputError(f"--trials must be at least 1, not {study.configurations}")
    if study.eta < 2:
        raise InputError(f"--eta must be at least 2, not {study.eta}")
    rungs = study.rungs
    if any(a >= b for a, b in zip((0, *rungs), rungs, strict=False)):
        raise InputError(
            f"--rungs must be ascending numbers of epochs, not "
            f"{' '.join(map(str, rungs))}"
        )
    if "epochs" in study.space and rungs:
        raise InputError(
            "--space has epochs, of which the rungs decide: leave one of them out "
            "(--rungs without numbers makes one rung of each trial's own epochs)"
        )
    if not study.seeds or len(set(study.seeds)) < len(study.seeds):
        raise InputError("--seeds must be one or more numbers, each of them once")
    for seed in study.seeds:
        if not 0 <= seed < 2**32:
            raise InputError(f"--seeds must be at least 0 and below 2**32, not {seed}")
    if study.sampler == "grid":
        space.grid(study.space)
    firsts = {
        name: domain.values[0] if isinstance(domain, space.Choice) else domain.at(0.0)
        for name, domain in study.space.items()
    }
    for name, domain in study.space.items():
        ends = (
            domain.values
            if isinstance(domain, space.Choice)
            else (domain.at(0.0), domain.at(1.0))
        )
        for value in ends:
            settings = {**firsts, name: value}
            for config in configs(study, Trial(0, 0, settings)):
                _check(config, f"{name}={space.written(value)}")


def configs(study: Study, trial: Trial) -> list[Config]:
    """The whole configuration of a trial, for each rung."""
    config = space.applied(study.base, trial.settings)
    config = dataclasses.replace(
        config, run=dataclasses.replace(config.run, seed=trial.seed)
    )
    return [
        dataclasses.replace(config, run=dataclasses.replace(config.run, epochs=epochs))
        for epochs in study.rungs or (config.run.epochs,)
    ]


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
      study: valid by `validate`.
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
    known = _Known(study, path)
    bench = _Bench(study, data, known, also, {})
    batch = BATCH if study.sampler == "optuna" else study.size
    for first in range(0, study.size, batch):
        some = range(first, min(first + batch, study.size))
        settings = known.settings(some)
        yield Proposed(settings)
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


def rank(results: Sequence[Result]) -> list[Ranked]:
    """The configurations of a rung, the best first."""
    grouped: dict[int, list[Result]] = defaultdict(list)
    for result in results:
        grouped[result.trial.configuration].append(result)
    found = [Ranked(c, some[0].trial.settings, some) for c, some in grouped.items()]
    return sorted(found, key=lambda one: one.key, reverse=True)


def read(study: Study, path: Path) -> list[list[Result]]:
    """The results in a journal, by rung, in the order of their configurations."""
    known = _Known(study, path)
    return [known.results(rung) for rung in range(len(study.rungs) or 1)]


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
    config = configs(study, trial)[rung]
    shape = programs.shape_of(config)
    program = programs.compile(shape, data, 1)
    states = None
    for epoch, states in enumerate(programs.epochs([config], program, data), 1):  # noqa: B007
        watch(epoch)
    assert states is not None
    return _score(program.score(states, chunks), 0, bool(program.seen(states)[1][0]))


class _Known:
    """The journal in memory: what was proposed, and what came out."""

    def __init__(self, study: Study, path: Path) -> None:
        self._study, self._path = study, path
        self._proposed: list[Settings] = []
        self._results: dict[tuple[int, int, int], Result] = {}
        for line in journal.mend(path):
            if line["kind"] == "proposed":
                self._proposed.append(_settings(line["settings"]))
            elif line["kind"] == "result":
                trial = Trial(
                    line["configuration"],
                    line["seed"],
                    self._proposed[line["configuration"]],
                )
                self._keep(
                    Result(
                        trial,
                        line["rung"],
                        tuple(Epoch(**epoch) for epoch in line["curve"]),
                        line["diverged"],
                        {name: Score(**score) for name, score in line["also"].items()},
                        line["seconds"],
                    )
                )

    def settings(self, indices: Sequence[int]) -> list[Settings]:
        """Settings of these configurations; asks the sampler for what is missing."""
        scores = {one.configuration: one.accuracy for one in rank(self.results(0))}
        for index in indices[max(0, len(self._proposed) - indices[0]) :]:
            # What this batch has scored already was not known when it was proposed.
            tried = [
                Tried(settings, scores.get(i) if i < indices[0] else None)
                for i, settings in enumerate(self._proposed)
            ]
            study = self._study
            found = samplers.propose(
                study.sampler, study.space, study.seed, index, tried
            )
            _check(space.applied(study.base, found), f"configuration {index}")
            journal.append(
                self._path,
                [
                    {
                        "kind": "proposed",
                        "configuration": index,
                        "settings": found,
                        "sampler": {
                            "name": study.sampler,
                            "seed": study.seed,
                            "index": index,
                            "told": min(len(scores), indices[0]),
                        },
                    }
                ],
            )
            self._proposed.append(found)
        return [self._proposed[index] for index in indices]

    def results(self, rung: int) -> list[Result]:
        """All of a rung, by configuration and seed."""
        keys = sorted(key for key in self._results if key[0] == rung)
        order = {seed: i for i, seed in enumerate(self._study.seeds)}
        keys.sort(key=lambda key: (key[1], order[key[2]]))
        return [self._results[key] for key in keys]

    def has(self, rung: int, trial: Trial) -> bool:
        """Whether the trial has ended that rung."""
        return (rung, trial.configuration, trial.seed) in self._results

    def add(self, results: Sequence[Result]) -> None:
        """Writes results that are not there yet."""
        new = [r for r in results if not self.has(r.rung, r.trial)]
        journal.append(self._path, [_line(result) for result in new])
        for result in new:
            self._keep(result)

    def of(self, rung: int, trials: Sequence[Trial]) -> list[Result]:
        """The results of these trials, all of which have ended the rung."""
        return [self._results[rung, t.configuration, t.seed] for t in trials]

    def _keep(self, result: Result) -> None:
        key = (result.rung, result.trial.configuration, result.trial.seed)
        self._results[key] = result


class _Bench(NamedTuple):
    """What all rungs of a study work with."""

    study: Study
    data: Material
    known: _Known
    also: Mapping[str, Chunks]
    compiled: dict[tuple[Config, int], Program]


def _rung(bench: _Bench, rung: int, trials: Sequence[Trial]) -> Iterator[Event]:
    """Runs trials in lots that share a program."""
    study, data, known, _, compiled = bench
    groups: dict[Any, list[Trial]] = defaultdict(list)
    for trial in trials:
        config = configs(study, trial)[rung]
        groups[programs.shape_of(config), config.run.epochs].append(trial)
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
    several = [configs(bench.study, trial)[rung] for trial in lot]
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


def _line(result: Result) -> dict[str, Any]:
    return {
        "kind": "result",
        "rung": result.rung,
        "configuration": result.trial.configuration,
        "seed": result.trial.seed,
        "curve": [epoch._asdict() for epoch in result.curve],
        "diverged": result.diverged,
        "also": {name: score._asdict() for name, score in result.also.items()},
        "seconds": result.seconds,
    }


def _settings(stored: dict[str, Any]) -> Settings:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}


def _check(config: Config, where: str) -> None:
    """Raises InputError for a configuration that no run could have."""
    try:
        assemble.validate(config)
    except InputError as error:
        raise InputError(f"--space: {where}: {error}") from None
