"""Which settings mattered in a study: a forest's view of its results."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

from jaxdl.search.space import Choice, Domain, Settings, Space


class Importance(NamedTuple):
    """How much of the scores' variance a field accounts for."""

    field: str
    mean: float
    """Share of the variance that a forest no longer explains once the field's values
    are shuffled; 0 is none, and above 1 can be."""
    low: float
    """5th percentile over the shuffles."""
    high: float
    """95th percentile."""


class Forest(NamedTuple):
    """What a forest has made of a study."""

    fields: list[Importance]
    """The most important first."""
    explained: float
    """Share of the variance of the ranks that it explains out of bag (R^2): of each
    configuration, by the trees that were grown without it. Near or below 0 the order of
    the fields means nothing."""


def importances(
    space: Space, settings: Sequence[Settings], scores: Sequence[float]
) -> Forest | None:
    """Permutation importance (Breiman 2001, "Random Forests") in a regression forest.

    A forest learns the ranks of the scores from the settings, as in fANOVA (Hutter et
    al. 2014, "An Efficient Approach for Assessing Hyperparameter Importance"); then
    each field is shuffled in turn. Ranks, because a few trials that learn nothing would
    otherwise be all that there is to explain.

    Args:
      space: what varied. Fields of a single value are left out.
      settings: of each configuration.
      scores: of each.

    Returns:
      The fields and how well the forest does; None for fewer than 8 configurations, for
      equal scores, or where no field varies.
    """
    fields = [
        name
        for name, domain in space.items()
        if not isinstance(domain, Choice) or len(domain.values) > 1
    ]
    if len(settings) < 8 or len(set(scores)) < 2 or not fields:
        return None
    inputs = np.array([[position(space[f], s[f]) for f in fields] for s in settings])
    ranks = rankdata(scores)  # equal scores share one, whatever their order
    forest = RandomForestRegressor(
        200, random_state=0, min_samples_leaf=2, oob_score=True
    )
    forest.fit(inputs, ranks)
    shuffled = permutation_importance(
        forest, inputs, ranks, n_repeats=50, random_state=0, scoring="r2"
    ).importances
    found = [
        Importance(f, float(row.mean()), *map(float, np.quantile(row, [0.05, 0.95])))
        for f, row in zip(fields, shuffled, strict=True)
    ]
    found.sort(key=lambda one: -one.mean)
    return Forest(found, float(forest.oob_score_))


def position(domain: Domain, value: object) -> float:
    """Where a value lies in its domain, in [0, 1]; choices in their order."""
    if isinstance(domain, Choice):
        return domain.values.index(value) / max(1, len(domain.values) - 1)
    return domain.position(float(value))  # type: ignore[arg-type]
