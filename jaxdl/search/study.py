"""What a study searches, and the whole configuration of each of its trials."""

import dataclasses
import itertools
from typing import NamedTuple

from jaxdl import runs
from jaxdl.config import Config
from jaxdl.errors import InputError
from jaxdl.search import Sampler, samplers, space
from jaxdl.search.space import Settings, Space
from jaxdl.training import assemble


@dataclasses.dataclass(frozen=True)
class Study:
    """What is searched, and how."""

    base: Config
    """Every setting that the space leaves alone."""
    space: Space
    sampler: Sampler
    configurations: int
    """How many are tried; of a grid, all. At random no more than there are."""
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
        match self.sampler:
            case "grid":
                return len(space.grid(self.space))
            case "random":
                there_are = space.combinations(self.space) or self.configurations
                return min(self.configurations, there_are)
        return self.configurations

    @property
    def stages(self) -> int:
        """How many rungs there are."""
        return len(self.rungs) or 1

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
        given = " ".join(map(str, study.seeds)) or "none"
        raise InputError(
            f"--seeds must be one or more numbers, each of them once, not {given}"
        )
    for seed in study.seeds:
        runs.check_seed("--seeds", seed)
    if study.sampler == "grid":
        space.grid(study.space)
    ends = {name: space.ends(domain) for name, domain in study.space.items()}
    firsts = {name: values[0] for name, values in ends.items()}
    # Each value, then each two: what forbids a third was not seen so far.
    for several in (1, 2):
        for names in itertools.combinations(ends, several):
            lists = [ends[n] if several == 1 else _decisive(ends[n]) for n in names]
            for values in itertools.product(*lists):
                chosen = dict(zip(names, values, strict=True))
                said = " ".join(f"{n}={space.written(v)}" for n, v in chosen.items())
                for rung in range(study.stages):
                    trial = Trial(0, 0, {**firsts, **chosen})
                    check(trial_config(study, trial, rung), said)
    if isinstance(study.space.get("batch_size"), space.Range) and (
        {*ends.get("accumulate", (study.base.optim.accumulate,))} != {1}
    ):
        raise InputError(
            "--space: batch_size must be a list of multiples of accumulate, not a range"
        )


def _decisive(values: tuple[space.Value, ...]) -> tuple[space.Value, ...]:
    """Those by which two values can be at odds: of fractions, least and largest.

    Lists can have thousands, and their pairs would be checked for minutes.
    """
    fractions = [value for value in values if type(value) is float]
    if len(fractions) < len(values):
        return values
    return min(fractions), max(fractions)


def trial_config(study: Study, trial: Trial, rung: int) -> Config:
    """The whole configuration of a trial in a rung, from 0."""
    whole = space.applied(study.base, trial.settings)
    epochs = study.rungs[rung] if study.rungs else whole.run.epochs
    run = dataclasses.replace(whole.run, seed=trial.seed, epochs=epochs)
    return dataclasses.replace(whole, run=run)


def check(whole: Config, where: str) -> None:
    """Raises InputError for a configuration that no run could have."""
    try:
        assemble.validate(whole)
        if whole.run.batch_size % whole.optim.accumulate:
            raise InputError(
                f"--batch-size must be a multiple of --accumulate="
                f"{whole.optim.accumulate}, not {whole.run.batch_size}"
            )
    except InputError as error:
        raise InputError(f"--space: {where}: {error}") from None
