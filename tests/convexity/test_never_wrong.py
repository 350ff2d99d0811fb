"""Hundreds of functions of known status: no verdict may be the wrong one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convexity.functions import N, convex_functions, functions_not_convex, quadratics
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.convexity import Convex, NotConvex, certify

KEY = jax.random.key(0)
START = np.array([0.3, -0.2, 0.1])


@given(convex_functions())
@settings(max_examples=150, deadline=None)
def test_convex_functions_are_proven(function):
    assert START.shape == (N,)
    verdict = certify(function, START, key=KEY)
    assert isinstance(verdict, Convex), verdict


@given(functions_not_convex())
@settings(max_examples=12, deadline=None)
def test_functions_that_are_not_convex_are_never_proven(function):
    verdict = certify(function, START, key=KEY)
    assert not isinstance(verdict, Convex), verdict


@given(st.sampled_from([9 * 2.0**-33, 0.0, -9 * 2.0**-33]), st.data())
@settings(max_examples=100, deadline=None)
def test_quadratics_are_decided_exactly(least, data):
    """The least is 1e-9, 0 or -1e-9, up to a few percent that make it exact."""
    n, matrix, centre = data.draw(quadratics(least))
    verdict = certify(
        lambda x: (x - centre) @ matrix @ (x - centre), np.ones(n), key=KEY
    )
    assert isinstance(verdict, Convex if least >= 0 else NotConvex), verdict


@given(st.sampled_from([1e-9, 1e-12, 0.0, -1e-12, -1e-9]), st.booleans())
@settings(deadline=None)
def test_squares_that_nearly_cancel(difference, logistic):
    def function(x):
        squares = (x**2).sum() * (1 + difference) - (x**2).sum()
        return squares + (jax.nn.softplus(x[0]) if logistic else 0.0)

    verdict = certify(function, np.zeros(2), key=KEY)
    wrong = NotConvex if difference >= 0 else Convex
    assert not isinstance(verdict, wrong), verdict
    if not logistic:
        right = Convex if difference >= 0 else NotConvex
        assert isinstance(verdict, right), verdict


@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=3),
    st.lists(st.integers(0, 2), min_size=0, max_size=2),
    st.sampled_from([1.0, 1e-9, 0.0, -1e-9]),
)
@settings(max_examples=100, deadline=None)
def test_polynomials_in_one_variable(roots, others, more):
    """Their second derivative is prod (x - r)^2 prod (x^2 + s) + more, by hand."""
    second = np.polynomial.Polynomial([1.0])
    for root in roots:
        second *= np.polynomial.Polynomial([-root, 1.0]) ** 2
    for other in others:
        second *= np.polynomial.Polynomial([other, 0.0, 1.0])
    coefficients = (second + more).coef
    # the loss divides by (k + 1)(k + 2), which the certifier does in rationals
    k = np.arange(len(coefficients))

    def function(x):
        powers = [
            c * x ** int(d + 2) / ((d + 1.0) * (d + 2.0))
            for c, d in zip(coefficients, k, strict=True)
        ]
        return sum(powers)

    verdict = certify(function, np.float64(0.5), key=KEY)
    assert isinstance(verdict, Convex if more >= 0 else NotConvex), verdict


@pytest.mark.parametrize("size", [1.0, 1e-9])
def test_tiny_bumps_on_flat_ground(size):
    verdict = certify(
        lambda x: jax.nn.softplus(x[0]) + size * jnp.sin(x[1]), np.zeros(2), key=KEY
    )
    assert isinstance(verdict, NotConvex), verdict
