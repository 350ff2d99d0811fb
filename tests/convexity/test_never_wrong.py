"""Hundreds of functions of known status: no verdict may be the wrong one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from convexity.functions import N, convex_functions, functions_not_convex, quadratics
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.convexity import Convex, NotConvex, Undecided, certify, domain, exact
from jaxdl.convexity.tracing import trace

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


TEMPTING = {
    "softplus - relu": lambda x: (jax.nn.softplus(x) - jax.nn.relu(x)).sum(),
    "log-sum-exp - max": lambda x: jax.nn.logsumexp(x) - x.max(),
    "relu - a little more of it": lambda x: (
        jax.nn.relu(x) - 1.0000001 * jax.nn.relu(x - 1)
    ).sum(),
    "norm of what is not positive": lambda x: jnp.linalg.norm(jnp.abs(x) - 1),
    "square of what is not positive": lambda x: (jnp.exp(x) - 2).sum() ** 2,
    "abs of a bowl": lambda x: jnp.abs((x**2).sum() - 1),
    "log-sum-exp, one weight negative": lambda x: jax.nn.logsumexp(
        x, b=jnp.array([1.0, 1.0, -1e-3])
    ),
    "maximum taken off, and a square": lambda x: (
        x[0] + jnp.log(jnp.exp(x - x[0]).sum()) - 1e-6 * x[1] ** 2
    ),
    "softplus of both sides": lambda x: jax.nn.softplus(x[0]) * jax.nn.softplus(-x[0]),
    "focal": lambda x: optax.sigmoid_focal_loss(x, jnp.array([1.0, 0, 1])).sum(),
    "a steep leak": lambda x: jax.nn.leaky_relu(x, 1.5).sum(),
    "a leak into another": lambda x: jnp.where(x > 0, x[::-1], -x).sum(),
    "a leak beside zero": lambda x: jnp.where(x > 1, x, -x).sum(),
    "a leak, mirrored": lambda x: jnp.where(x < 0, 2 * x, 0.5 * x).sum(),
    "triplet": lambda x: jax.nn.relu(
        jnp.linalg.norm(x - 1) - jnp.linalg.norm(x + 1) + 0.5
    ),
    "second largest": lambda x: x.sum() - x.max() - x.min(),
    "Tukey": lambda x: jnp.where(
        jnp.abs(x) < 3, 1 - (1 - (x / 3) ** 2) ** 3, 1.0
    ).sum(),
    "cosh - a little more than its square": lambda x: (
        jnp.cosh(x) - 1.01 * x**2 / 2
    ).sum(),
}
"""They look convex, or nearly are."""


@pytest.mark.parametrize("name", TEMPTING)
def test_what_looks_convex_is_seen_through(name):
    verdict = certify(TEMPTING[name], START, key=KEY)
    assert isinstance(verdict, NotConvex), verdict


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jax.nn.leaky_relu(x, 0.1).sum(),
        lambda x: jnp.where(x > 0, x, -x).sum(),
        lambda x: jnp.where(x < 0, -2 * x, 0.5 * x).sum(),
        lambda x: jnp.where(x >= 0, x, -x).sum(),
        lambda x: jnp.cosh(x).sum(),
        lambda x: jnp.log(jnp.cosh(x)).sum(),
        lambda x: x[0] + jnp.log(jnp.exp(x - x[0]).sum()),
        lambda x: jnp.sqrt(x[0] ** 2 + x[1] ** 2) + jnp.abs(x[2]),
        lambda x: x.sum() - x.min(),
    ],
)
def test_more_that_is_proven(function):
    assert isinstance(certify(function, START, key=KEY), Convex)


def test_a_window_of_nothing_but_padding_has_no_maximum():
    """It is -inf, which no real number is."""

    def function(x):
        pooled = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2,), (1,), ((3, 0),))
        return jnp.maximum(pooled, 0.0).sum()

    verdict = certify(function, START, key=KEY)
    assert not isinstance(verdict, Convex | NotConvex), verdict


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jnp.where(jnp.isfinite(1 / x), x**2, 5.0).sum(),
        lambda x: jnp.where(jnp.isnan(jnp.log(x)), 5.0, x**2).sum(),
        lambda x: jnp.where(jnp.isfinite(jnp.log(-1 - x**2)), -(x**2), x**2).sum(),
        lambda x: (jnp.where(jnp.isfinite(x.at[0].set(-jnp.inf)), 1, -2) * x).sum(),
        lambda x: (jnp.where(jnp.isnan(x.at[0].set(jnp.nan)), -2, 1) * x**2).sum(),
        lambda x: (x**2 + jnp.sqrt(x) - jnp.sqrt(x)).sum(),
        lambda x: jnp.log(x[0]) + jnp.log(jnp.exp(x - jnp.log(x[0])).sum()),
        lambda x: (x**2).sum() + jnp.log(x[:0].sum()) - jnp.log(x[:0].sum()),
        lambda x: (jnp.abs(x) - jnp.minimum(jnp.abs(x), 1)).sum() * jnp.inf,
    ],
)
def test_what_is_no_real_number_everywhere_is_not_taken_for_one(function):
    """v - v is not 0, v is not v and not finite, where v is NaN or infinite."""
    verdict = certify(function, START, key=KEY)
    assert isinstance(verdict, Undecided), verdict


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda x: (x * jnp.arange(3.0)).sum() ** 2, Convex),
        (lambda x: ((x - jnp.linspace(0, 1, 3)) ** 2).sum(), Convex),
        (lambda x: -((x * 1e150) ** 2).sum() * 1e150, NotConvex),
        (lambda x: (x * jnp.abs(jnp.asarray(1 + 1j))).sum(), Undecided),
        (lambda x: (jnp.prod(x[:0]) * x.sum() + x[:0].sum()) ** 2, Convex),
        (lambda x: jax.lax.reduce_max(x[:0], (0,)), Undecided),
        (lambda x: jax.lax.scan(lambda c, y: (c + y, y), x, x[:0])[0].sum(), Undecided),
        (
            lambda x: jax.lax.reduce_window(
                x, 0.0, jax.lax.add, (2,), (1,), ((-1, 0),)
            ).sum(),
            Undecided,
        ),
    ],
)
def test_what_is_rare_has_a_verdict_too(function, kind):
    verdict = certify(function, START, key=KEY)
    assert isinstance(verdict, kind), verdict


@given(st.one_of(convex_functions(), functions_not_convex()), st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_what_is_called_real_is_so_at_random_points(function, seed):
    program = trace(function, START)
    claimed = [v for v, is_so in domain.real(program).items() if is_so]
    assert claimed
    point = 2 * np.random.default_rng(seed).standard_normal(N)
    for v in claimed:
        there = dataclasses.replace(program, output=v)
        assert exact.finite(exact.evaluate(there, [point])).all(), v


def _true(x):
    """So it is over the reals, though balls tell nowhere but at 0."""
    return jnp.log(jnp.exp(x)) >= x


def _false(x):
    """Likewise."""
    return jnp.log(jnp.exp(x)) > x


def _never(x):
    return x > x + 1


def _number(x):
    return jnp.where(x > 0, jnp.int32(1), jnp.int32(2))


ALWAYS = {
    "== True": lambda x: jnp.equal(_true(x), True),
    "True ==": lambda x: np.True_ == _true(x),
    "!= False": lambda x: jnp.not_equal(_true(x), False),
    "== undetermined": lambda x: ~(_true(x) == _false(x)),
    "!= undetermined": lambda x: _true(x) != _false(x),
    "not below True": lambda x: ~(_true(x) < ~_never(x)),
    "chosen": lambda x: jnp.where(_never(x), False, _true(x)),
    "chosen by it": lambda x: jnp.where(_true(x), True, _never(x)),
    "chosen, negated": lambda x: ~jnp.where(_never(x), True, jnp.array(False)),
    "chosen, and": lambda x: ~(jnp.where(~_never(x), False, x > 0) & ~_never(x)),
    "chosen, or": lambda x: jnp.where(~_never(x), True, x > 0) | _never(x),
    "larger of conditions": lambda x: jax.lax.max(_true(x), _never(x)),
    "largest of conditions": lambda x: jnp.stack([_true(x), _never(x)]).max(),
    "the larger, chosen": lambda x: jnp.where(
        _true(x) > _never(x), _true(x), _never(x)
    ),
    "product of conditions": lambda x: jnp.equal(
        jnp.stack([~_never(x), ~_never(x)]) @ jnp.stack([~_never(x), ~_never(x)]),
        True,
    ),
    "bits": lambda x: (_number(x) & 4) != 1,
    "other bits": lambda x: ~_number(x) != 0,
    "whole quotient": lambda x: jax.lax.div(_number(x) + 2, jnp.int32(3)) == 1,
    "wrapped": lambda x: jnp.int32(2**31 - 3) + _number(x) + 2 < 0,
}
"""Conditions that hold for every x, though exact arithmetic may not see it."""


@pytest.mark.parametrize("name", ALWAYS)
def test_conditions_that_cannot_be_told_are_not_guessed(name):
    """The loss is 0 everywhere."""

    def loss(x):
        return jnp.where(ALWAYS[name](x), 0.0, 1 - x * x)

    verdict = certify(loss, np.float64(0.5), key=KEY)
    assert not isinstance(verdict, NotConvex), verdict


def test_what_a_condition_on_data_leaves_open_does_not_matter():
    """The weight is 1 or 2."""

    def loss(x):
        weight = jnp.where(_true(jnp.asarray(0.3)), 1.0, 2.0)
        return weight * x**2

    assert isinstance(certify(loss, np.float64(0.5), key=KEY), Convex)
