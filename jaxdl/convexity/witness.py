"""Verifies that two points show a loss not to be convex.

f is convex only if f((a + b) / 2) <= (f(a) + f(b)) / 2 for all a, b. The three values
are enclosed in balls; if even the least value at the midpoint exceeds the greatest mean
of the ends, the inequality fails for the real numbers, whatever floating point says.
Verdicts and tests trust this, not the search.
"""

from typing import Any

import flint
import numpy as np
from flint import arb

from jaxdl.convexity.exact import balls, enclose
from jaxdl.convexity.program import Program
from jaxdl.convexity.verdict import Witness

PRECISIONS = (64, 128, 256, 512, 1024)
"""Bits that are tried in turn until the balls tell."""


def verify(program: Program, a: Any, b: Any) -> Witness | None:
    """The witness that `a` and `b` are, or None if they are none.

    Args:
        program: The loss.
        a: A pytree like the parameters; read as float64.
        b: Another.

    Raises:
        InputError: A point is not like the parameters, or not finite.
        UnknownPrimitiveError: The loss uses what the interpreter does not know.
    """
    ends = [program.leaves(a), program.leaves(b)]
    for bits in PRECISIONS:
        with flint.ctx.workprec(bits):
            exact = [[balls(leaf) for leaf in leaves] for leaves in ends]
            middle = [(x + y) / 2 for x, y in zip(*exact, strict=True)]
            points = (*exact, middle)
            at_a, at_b, at_middle = (enclose(program, x, bits) for x in points)
            gap = at_middle - (at_a + at_b) / 2
            if gap > 0:
                return Witness(
                    a=program.treedef.unflatten(ends[0]),
                    b=program.treedef.unflatten(ends[1]),
                    gap=_bounds(gap)[0],
                    at_a=_bounds(at_a),
                    at_b=_bounds(at_b),
                    at_midpoint=_bounds(at_middle),
                    bits=bits,
                )
            if gap <= 0:
                return None
    return None


def _bounds(ball: arb) -> tuple[float, float]:
    """Float64 numbers below and above everything in the ball."""
    low, high = float(ball.lower()), float(ball.upper())
    while not arb(low) <= ball:
        low = float(np.nextafter(low, -np.inf))
    while not arb(high) >= ball:
        high = float(np.nextafter(high, np.inf))
    return low, high
