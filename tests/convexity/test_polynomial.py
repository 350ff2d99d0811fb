"""Exact algebra against NumPy's and SymPy's."""

import jax.numpy as jnp
import numpy as np
import pytest
from flint import fmpq, fmpq_mat, fmpq_poly
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.convexity import polynomial
from jaxdl.convexity.algebra import factor
from jaxdl.convexity.tracing import trace

ROOTS = st.lists(st.integers(-3, 3), max_size=4)


def expanded(roots, lead=1) -> fmpq_poly:
    p = fmpq_poly([lead])
    for root in roots:
        p *= fmpq_poly([-root, 1])
    return p


@given(ROOTS, ROOTS, st.sampled_from([1, -1]))
@settings(deadline=None)
def test_never_negative_as_the_roots_say(odd, twice, lead):
    """A polynomial with real roots alone is never negative if all are even."""
    p = expanded([*odd, *twice, *twice], lead)
    even = all(odd.count(root) % 2 == 0 for root in odd)
    assert polynomial.never_negative(p) == (lead > 0 and even)
    points = polynomial.negative_points(p)
    assert bool(points) == (not polynomial.never_negative(p))
    assert all(p(fmpq(*x.as_integer_ratio())) < 0 for x in points)


@pytest.mark.parametrize("size", [fmpq(1, 10**30), fmpq(1, 10**300)])
def test_never_negative_tells_the_least_differences_apart(size):
    p = expanded([1, 1, -2, -2])
    assert polynomial.never_negative(p)
    assert polynomial.never_negative(p + size)
    assert not polynomial.never_negative(p - size)
    assert polynomial.never_negative(fmpq_poly([]))
    assert not polynomial.never_negative(fmpq_poly([-size]))


@given(st.integers(1, 5), st.data())
@settings(deadline=None)
def test_factors_or_a_negative_direction(n, data):
    entries = data.draw(st.lists(st.integers(-3, 3), min_size=n * n, max_size=n * n))
    b = np.array(entries).reshape(n, n)
    matrix = b @ b.T if data.draw(st.booleans()) else b + b.T
    m = fmpq_mat(matrix.tolist())
    factors, direction = factor(m)
    if factors is None:
        x = fmpq_mat([direction])
        assert (x * m * x.transpose())[0, 0] < 0
        assert np.linalg.eigvalsh(matrix)[0] < 1e-9
    else:
        *rows, d = factors.tolist()
        lower = fmpq_mat(rows)
        diagonal = fmpq_mat(
            [[d[i] if i == j else 0 for j in range(n)] for i in range(n)]
        )
        assert lower * diagonal * lower.transpose() == m
        assert min(d) >= 0
        assert np.linalg.eigvalsh(matrix)[0] > -1e-9


@given(st.lists(st.integers(-4, 4), min_size=9, max_size=9))
@settings(deadline=None)
def test_the_hessian_of_a_quadratic(entries):
    matrix = np.array(entries).reshape(3, 3) / 8
    program = trace(lambda x: (x + 1) @ matrix @ x / 3 + x[0] - 2, np.ones(3))
    h = polynomial.hessian(polynomial.expand(program, program.output))
    exact = fmpq_mat([[fmpq(int(8 * x), 8) for x in row] for row in matrix + matrix.T])
    assert h == exact * fmpq(1, 3)


def test_what_is_no_such_polynomial():
    for loss in (
        lambda x: jnp.exp(x).sum(),
        lambda x: (x**3).sum(),
        lambda x: x[0] * x[1] * x[2],
        lambda x: (x / (1 + x)).sum(),
        lambda x: jnp.log(2.0) * (x**2).sum(),  # no rational
    ):
        program = trace(loss, np.ones(3))
        assert polynomial.expand(program, program.output) is None
