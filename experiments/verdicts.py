"""From paired measurements over seeds to a verdict on a claim, by a stated rule."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from scipy import stats
from tqdm import tqdm

from jaxdl.config import Loss

T = TypeVar("T")

Finding = Literal["for", "against", "equal", "open"]
Verdict = Literal[
    "supported", "supported with conditions", "refuted", "not decided by this run"
]

LOSSES: tuple[Loss, Loss] = ("cross_entropy", "mse")

RULE = """\
Each comparison is paired: both losses see the same data, splits and starts of a seed.
Its interval is Student's t over the seeds; the intervals of one claim hold *together*
with 95 % (Bonferroni). Where test sets of one table overlap between the seeds, the
variance is enlarged after Nadeau and Bengio (2003). Beside the interval stands the
smallest difference that matters, a setting of the program; where a quantity is compared
relatively, gains are factors. A comparison counts as

- **for** the claim, where the interval lies on cross-entropy's side of 0 and the mean
  difference is large enough to matter;
- **against** it, where the same is so on the other side;
- **equal**, where the whole interval is too small to matter;
- **open** otherwise.

A claim is *supported* if every comparison is for it, and *refuted* if none is for it or
more are against it than for it; but *not decided* if none is for it, none against it,
and more than half are open. Otherwise it is *supported with conditions*: they are those
of the comparisons that are for it."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One quantity under both losses, over the same seeds."""

    setting: str
    """Data and circumstances."""
    measure: str
    """What was measured."""
    values: Mapping[Loss, np.ndarray]
    """Float [S] under each loss, of the same seeds."""
    matters: float
    """The smallest difference that matters."""
    higher_is_better: bool = False
    overlap: float = 0.0
    """Test over training examples, where the seeds are splits of one table; else 0."""
    ratio: bool = False
    """The values are logarithms to the base 2, so that differences are factors: for
    quantities that are compared relatively."""

    @property
    def gains(self) -> np.ndarray:
        """By how much cross-entropy is better, for each seed [S]."""
        difference = self.values["mse"] - self.values["cross_entropy"]
        return -difference if self.higher_is_better else difference


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What was measured for a claim."""

    comparisons: list[Comparison]
    """These decide the verdict."""
    shown: Mapping[str, Any]
    """Numbers behind the figures and sentences of the report."""


@dataclasses.dataclass(frozen=True)
class Judged:
    """A comparison with its interval, effect size and finding."""

    comparison: Comparison
    mean: float
    """Mean gain of cross-entropy."""
    low: float
    high: float
    effect: float
    """Mean over standard deviation of the paired gains (Cohen's d_z)."""
    finding: Finding


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim with what was found."""

    statement: str
    judged: Sequence[Judged]
    verdict: Verdict
    shown: Mapping[str, Any]
    """As in `Evidence`."""


def claim(statement: str, evidence: Evidence) -> Claim:
    """The claim with its verdict."""
    judged = judge(evidence.comparisons)
    return Claim(statement, judged, verdict(judged), evidence.shown)


def judge(comparisons: Sequence[Comparison]) -> list[Judged]:
    """Intervals that hold together with 95 %, and what each comparison says."""
    level = 1 - 0.05 / max(len(comparisons), 1)
    return [_judged(comparison, level) for comparison in comparisons]


def verdict(judged: Sequence[Judged]) -> Verdict:
    """The verdict by `RULE`."""
    findings = [one.finding for one in judged]
    count = {name: findings.count(name) for name in ("for", "against", "open")}
    if findings and count["for"] == len(findings):
        return "supported"
    if count["for"] == 0:
        if count["against"] == 0 and 2 * count["open"] > len(findings):
            return "not decided by this run"
        return "refuted" if findings else "not decided by this run"
    return "refuted" if count["against"] > count["for"] else "supported with conditions"


def tally(judged: Iterable[Judged]) -> str:
    """How many comparisons have found what, in words."""
    findings = [one.finding for one in judged]
    return ", ".join(
        f"{findings.count(kind)} {kind}"
        for kind in get_args(Finding)
        if kind in findings
    )


def _judged(comparison: Comparison, level: float) -> Judged:
    gains = comparison.gains
    count = len(gains)
    mean, spread = float(gains.mean()), float(gains.std(ddof=1))
    error = spread * np.sqrt(1 / count + comparison.overlap)
    reach = float(stats.t.ppf((1 + level) / 2, count - 1) * error)
    low, high = mean - reach, mean + reach
    matters = comparison.matters
    finding: Finding = "open"
    if -matters < low and high < matters:
        finding = "equal"
    elif low > 0 and mean >= matters:
        finding = "for"
    elif high < 0 and mean <= -matters:
        finding = "against"
    # Gains that are the same for all seeds have no spread; their effect has no size.
    effect = mean / spread if spread > 1e-12 * max(1.0, abs(mean)) else float("nan")
    return Judged(comparison, mean, low, high, effect, finding)


def progress(settings: Iterable[T], claim: str) -> Iterable[T]:
    """The settings, with a bar on stderr where that is a terminal."""
    return tqdm(list(settings), desc=claim, disable=None, dynamic_ncols=True)
