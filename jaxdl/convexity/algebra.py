"""Finds what exact algebra says of polynomials: a proof, or a direction against it."""

import itertools
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from flint import fmpq, fmpq_mat

from jaxdl.convexity import polynomial
from jaxdl.convexity.program import Program, float_of
from jaxdl.convexity.proof import Claim, Proof, Step

Ends: TypeAlias = tuple[np.ndarray, np.ndarray]
_LENGTHS = tuple(2.0**-k for k in range(0, 60, 4))
"""Half lengths of segments about a point at which a second derivative is negative."""


def algebraic(program: Program) -> Proof | list[Ends]:
    """The verdict of exact algebra on a polynomial of degree 2, or in one variable.

    Returns:
        A proof, to be checked; or else pairs of points, float64 [n] each, that should
        be a witness; none if the loss is no such polynomial.
    """
    f = polynomial.expand(program, program.output)
    claim = Claim(program.output, "convex")
    if f is None:
        return []
    if program.size == 1:
        second = polynomial.alone(f).derivative().derivative()
        if polynomial.never_negative(second):
            return Proof(program, (Step(claim, "algebra"),))
        ends = itertools.product(polynomial.negative_points(second), _LENGTHS)
        return [(np.array([x - h]), np.array([x + h])) for x, h in ends]
    matrix = polynomial.hessian(f)
    if matrix is None:
        return []
    factors, direction = factor(matrix)
    if direction is None:
        return Proof(program, (Step(claim, "algebra", (), factors),))
    most = max(abs(x) for x in direction)
    floats = np.array([float_of(x / most) for x in direction])
    return [(-floats, floats)]


def factor(matrix: fmpq_mat) -> tuple[fmpq_mat | None, list[fmpq] | None]:
    """Factors of a positive semidefinite matrix, or else a direction that is negative.

    Args:
        matrix: Symmetric, [n, n], of rationals.

    Returns:
        (factors, None) where the first n rows are unit lower triangular L and the last
        is d >= 0, with L diag(d) L^T = matrix; or (None, x) with x^T matrix x < 0.
    """
    n = matrix.nrows()
    rest = [[matrix[i, j] for j in range(n)] for i in range(n)]
    lower = [[fmpq(i == j) for j in range(n)] for i in range(n)]
    d = [fmpq(0)] * n
    for k in range(n):
        pivot = d[k] = rest[k][k]
        if pivot < 0:
            return None, _against(lower, {k: fmpq(1)})
        if pivot == 0:
            for j in range(k + 1, n):
                if b := rest[j][k]:  # [[0, b], [b, c]] is negative at (t, 1)
                    t = -(rest[j][j] + 1) / (2 * b)
                    return None, _against(lower, {k: t, j: fmpq(1)})
            continue
        for i in range(k + 1, n):
            if not rest[i][k]:
                continue
            ratio = lower[i][k] = rest[i][k] / pivot
            for j in range(k + 1, i + 1):
                rest[i][j] -= ratio * rest[j][k]
                rest[j][i] = rest[i][j]
    return fmpq_mat([*lower, d]), None


def _against(lower: list[list[fmpq]], right: Mapping[int, fmpq]) -> list[fmpq]:
    """Solves L^T x = right, by back substitution."""
    n = len(lower)
    x = [right.get(k, fmpq(0)) for k in range(n)]
    for k in reversed(range(n)):
        for j in range(k + 1, n):
            if lower[j][k] and x[j]:
                x[k] -= lower[j][k] * x[j]
    return x
