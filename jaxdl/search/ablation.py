"""What two switches change: effects in a 2x2 design with repeated seeds."""

from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

Verdict = Literal["supported", "refuted", "not shown"]


class Effect(NamedTuple):
    """A mean difference with its 95 % interval."""

    mean: float
    low: float
    high: float


def mean(values: np.ndarray) -> Effect:
    """Mean of independent values with Student's interval.

    Args:
      values: float [n], n at least 2.
    """
    centre = float(np.mean(values))
    margin = float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1))
    return Effect(centre, centre - margin, centre + margin)


def effects(values: np.ndarray) -> dict[str, Effect]:
    """Effects of the first and the second switch, and their interaction.

    The cells of a seed share its first weights, as far as shapes allow, and its order
    of the data; so each effect is taken seed by seed, and Student's interval is that of
    the paired differences.

    Args:
      values: float [2, 2, seeds]: off and on of the first switch, of the second.

    Returns:
      "first" and "second": on minus off, averaged over the other switch; "first alone"
      and "second alone": with the other one off; "both": both on minus both off;
      "interaction": what the second switch adds to the effect of the first.
    """
    contrasts = {
        "first": (values[1] - values[0]).mean(0),
        "second": (values[:, 1] - values[:, 0]).mean(0),
        "first alone": values[1, 0] - values[0, 0],
        "second alone": values[0, 1] - values[0, 0],
        "both": values[1, 1] - values[0, 0],
        "interaction": values[1, 1] - values[0, 1] - values[1, 0] + values[0, 0],
    }
    return {name: mean(differences) for name, differences in contrasts.items()}


def verdict(effect: Effect, wanted: Literal["rise", "fall"]) -> Verdict:
    """Whether a quantity moves as claimed: its interval leaves 0 on that side."""
    low, high = (
        (effect.low, effect.high) if wanted == "rise" else (-effect.high, -effect.low)
    )
    if low > 0:
        return "supported"
    return "refuted" if high < 0 else "not shown"
