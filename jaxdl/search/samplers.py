"""Which configurations a study tries: all of a grid, random ones, or Optuna's.

Each sampler is a function of the study's seed, the index of the configuration and the
results so far, and of nothing else. Optuna keeps its sampler's state in the process
(https://github.com/optuna/optuna/issues/3255), so that a study resumed by its own means
repeats itself; here a sampler is made anew for each proposal, seeded by its index, and
told the journal.
"""

import importlib
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxdl.errors import InputError
from jaxdl.search import Sampler, space
from jaxdl.search.space import Choice, Domain, Settings, Space


class Tried(NamedTuple):
    """A configuration that was proposed before."""

    settings: Settings
    score: float | None
    """To be made large; None while it is not known."""


def check(sampler: Sampler) -> None:
    """Whether the sampler can be had.

    Raises:
      InputError: Optuna is not installed.
    """
    if sampler == "optuna":
        _optuna()


def propose(
    sampler: Sampler, of: Space, seed: int, index: int, tried: Sequence[Tried]
) -> Settings:
    """Settings of configuration number `index`.

    Args:
      sampler: "random" draws independently; "optuna" is Optuna's TPE (Bergstra et al.
        2011, "Algorithms for Hyper-Parameter Optimization"), with what is still being
        computed counted as bad, so that proposals of one batch differ.
      of: what may vary.
      seed: of the study.
      index: from 0.
      tried: all that came before, in order.

    Raises:
      InputError: Optuna is not installed, or the grid is at its end.
    """
    if sampler == "random":
        return space.draw(of, seed, index)
    if sampler == "grid":
        points = space.grid(of)
        if index >= len(points):
            raise InputError(f"the grid has {len(points)} points, not {index + 1}")
        return points[index]
    return _by_optuna(of, seed, index, tried)


def _by_optuna(of: Space, seed: int, index: int, tried: Sequence[Tried]) -> Settings:
    optuna = _optuna()
    distributions = {name: _distribution(optuna, d) for name, d in of.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=(seed * 1_000_003 + index) % 2**32,
            multivariate=True,
            constant_liar=True,
        )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    states = optuna.trial.TrialState
    for one in tried:
        study.add_trial(
            optuna.trial.create_trial(
                params={
                    name: _encoded(of[name], v) for name, v in one.settings.items()
                },
                distributions=distributions,
                value=one.score,
                state=states.RUNNING if one.score is None else states.COMPLETE,
            )
        )
    found = study.ask(distributions).params
    return {name: _decoded(domain, found[name]) for name, domain in of.items()}


def _distribution(optuna: Any, domain: Domain) -> Any:
    distributions = optuna.distributions
    if isinstance(domain, Choice):  # by number: Optuna takes no tuples
        return distributions.CategoricalDistribution(range(len(domain.values)))
    if domain.integer:
        return distributions.IntDistribution(
            int(domain.low), int(domain.high), log=domain.log
        )
    return distributions.FloatDistribution(domain.low, domain.high, log=domain.log)


def _encoded(domain: Domain, value: space.Value) -> Any:
    return domain.values.index(value) if isinstance(domain, Choice) else value


def _decoded(domain: Domain, value: Any) -> space.Value:
    return domain.values[value] if isinstance(domain, Choice) else value


def _optuna() -> Any:
    try:
        optuna = importlib.import_module("optuna")
    except ImportError:
        raise InputError(
            "--sampler=optuna needs Optuna: pip install optuna, or take "
            "--sampler=random"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
