"""What `experiments.convexity` finds, and what that makes of the statement.

Import it late: it brings JAX.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments import convexity_table as table
from experiments.convexity_linear import Descents
from experiments.convexity_networks import Spectra
from jaxdl.convexity import spectrum


class Findings(NamedTuple):
    """All that a study computes."""

    rows: Sequence[table.Row]
    descents: Sequence[Descents]
    spectra: Sequence[Spectra]

    def verdicts(self) -> dict[str, str]:
        """The verdict on each loss, in a word or two."""
        return {row.name: row.word for row in self.rows}


class Answer(NamedTuple):
    """The assignment's statement, in two parts, and what has become of each."""

    mse: str
    """Of "with linear activations MSE guarantees a convex problem"."""
    cross_entropy: str
    """Of "cross-entropy does not, because the logarithm is non-linear"."""
    whole: str
    """Of both together."""


def answer(verdicts: Mapping[str, str]) -> Answer:
    """What the verdicts of the table say about the statement."""
    depths = ("linear", "deep linear 2", "deep linear 3")
    mse, ce = (
        [verdicts[f"{depth} + {loss}"] for depth in depths] for loss in ("MSE", "CE")
    )
    refuted = "not convex" in mse or ce[0] == "convex"
    same = mse == ce and "undecided" not in mse
    return Answer(
        mse=_by_depth(*mse),
        cross_entropy=_by_depth(*ce),
        whole=(
            "The statement is refuted: depth decides, not the choice of the loss"
            if refuted and same
            else "The statement is refuted"
            if refuted
            else "This run does not decide the statement"
        ),
    )


def negative(one: Spectra) -> spectrum.Estimate:
    """The part of the eigenvalues that are clearly negative."""
    found = spectrum.share_below(one.hessian, -1e-3 * float(one.values[1]))
    return spectrum.Estimate(*map(float, found))  # type: ignore[arg-type]


def trace(one: Spectra) -> spectrum.Estimate:
    """Of the Hessian."""
    found = spectrum.trace(one.hessian, one.parameters)
    return spectrum.Estimate(*map(float, found))  # type: ignore[arg-type]


def zeros(one: Descents) -> int:
    """Eigenvalues that cannot be told from zero, for a loss in float32."""
    return int(np.sum(np.abs(one.eigenvalues) < 1e-6 * one.eigenvalues[-1]))


def _by_depth(one: str, two: str, three: str) -> str:
    if two == three:
        return f"one layer: {one}; two or three layers: {two}"
    return f"one layer: {one}; two: {two}; three: {three}"
