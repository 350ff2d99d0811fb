"""What `certify` returns: one of three verdicts, each with its evidence."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from jaxdl.convexity.proof import Proof


@dataclasses.dataclass(frozen=True)
class Witness:
    """Two points between which the loss rises above its chord: it is not convex.

    f((a + b) / 2) - (f(a) + f(b)) / 2 is at least `gap` > 0. That was computed in ball
    arithmetic, so it holds of the real numbers; `witness.verify` repeats it.
    """

    a: Any
    """A point: a pytree like the parameters, of float64 NumPy arrays, to be read as the
    exact binary fractions that they are."""
    b: Any
    """The other; the midpoint (a + b) / 2 is not rounded."""
    gap: float
    """A lower bound of f at the midpoint less the mean of f at the ends; positive."""
    at_a: tuple[float, float]
    """Bounds of f(a), from below and above."""
    at_b: tuple[float, float]
    """Bounds of f(b)."""
    at_midpoint: tuple[float, float]
    """Bounds of f((a + b) / 2)."""
    bits: int
    """Precision at which this could be told."""

    def __str__(self) -> str:
        mean = (self.at_a[0] + self.at_b[0]) / 2
        return (
            f"f(mid) = {self.at_midpoint[0]:.6g} > {mean:.6g} = (f(a) + f(b)) / 2, "
            f"by {self.gap:.3g} or more ({self.bits} bits)"
        )


@dataclasses.dataclass(frozen=True)
class Convex:
    """The loss is convex over the whole parameter space."""

    proof: Proof
    """Its proof, which `checker.check` has accepted."""

    def __str__(self) -> str:
        return f"convex: {self.proof.summary()}"


@dataclasses.dataclass(frozen=True)
class NotConvex:
    """The loss is not convex."""

    witness: Witness
    """Two points that show it, verified rigorously."""

    def __str__(self) -> str:
        return f"not convex: {self.witness}"


@dataclasses.dataclass(frozen=True)
class Undecided:
    """Neither a proof nor a witness was found; the loss may be either."""

    tried: str
    """What was tried, and what was in the way."""

    def __str__(self) -> str:
        return f"undecided: {self.tried}"


Verdict: TypeAlias = Convex | NotConvex | Undecided
