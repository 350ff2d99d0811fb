"""What trials have come to, and the journal that keeps it.

The journal is all the state of a study: `Journaled` reads it, hands out what it has,
and writes what is new.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdl.search import journal, samplers, space
from jaxdl.search.samplers import Tried
from jaxdl.search.space import Settings
from jaxdl.search.study import Study, Trial, check


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


def rank(results: Sequence[Result]) -> list[Ranked]:
    """The configurations of a rung, the best first."""
    grouped: dict[int, list[Result]] = defaultdict(list)
    for result in results:
        grouped[result.trial.configuration].append(result)
    found = [Ranked(c, some[0].trial.settings, some) for c, some in grouped.items()]
    return sorted(found, key=lambda one: one.key, reverse=True)


class Journaled:
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
            of = self._study
            found = samplers.propose(of.sampler, of.space, of.seed, index, tried)
            check(space.applied(of.base, found), f"configuration {index}")
            journal.append(
                self._path,
                [
                    {
                        "kind": "proposed",
                        "configuration": index,
                        "settings": found,
                        "sampler": {
                            "name": of.sampler,
                            "seed": of.seed,
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
