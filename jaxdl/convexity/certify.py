"""Decides whether a loss is convex in its parameters, and says why."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxdl.convexity import search, witness
from jaxdl.convexity.algebra import Ends, algebraic
from jaxdl.convexity.checker import ProofError, check
from jaxdl.convexity.exact import PRIMITIVES
from jaxdl.convexity.proof import Proof
from jaxdl.convexity.prove import prove
from jaxdl.convexity.tracing import trace
from jaxdl.convexity.verdict import Convex, NotConvex, Undecided, Verdict


def certify(loss: Callable[[Any], Any], example: Any, *, key: jax.Array) -> Verdict:
    """Proves the loss convex, shows that it is not, or says that it could do neither.

    The verdict is about the function over the real numbers that the loss's jaxpr
    denotes, over the whole parameter space; float literals and closed-over data stand
    for the exact binary fractions that they are.

    Args:
        loss: From a pytree like `example` to a real scalar.
        example: A pytree of finite float arrays. With float64 NumPy leaves the loss is
            traced in double precision.
        key: For the search for a witness; the verdict is right whatever it is.

    Raises:
        InputError: Parameters that are not finite floats, or a loss that is no scalar.
    """
    program = trace(loss, example)
    unknown = {e.primitive for e in program.equations} - set(PRIMITIVES)
    if unknown:
        names = ", ".join(sorted(unknown))
        return Undecided(
            f"the loss uses {names}, of which the meaning is not known here"
        )
    exactly: Proof | list[Ends] = []
    proof = prove(program)
    if proof is None:
        exactly = algebraic(program)
        proof = exactly if isinstance(exactly, Proof) else prove(program, algebra=True)
    proofs = "no composition of known rules proves it convex"
    if proof is not None:
        try:
            check(program, proof)
            return Convex(proof)
        except ProofError as refused:
            proofs = f"the checker refused the proof that was found ({refused})"
    leaves = jax.tree.leaves(example)
    start = np.concatenate([np.asarray(x, np.float64).reshape(-1) for x in leaves])
    ends = exactly if isinstance(exactly, list) else []
    tried = 0
    for a, b in itertools.chain(ends, search.candidates(program, start, key)):
        tried += 1
        found = witness.verify(program, program.point(a), program.point(b))
        if found:
            return NotConvex(found)
    return Undecided(
        f"{proofs}, and the loss rises above its chord on none of {tried} segments, "
        f"along negative curvature at {search.POINTS} points and between random points"
    )
