"""What CVXPY proves by the same rules, is proven here; and never the opposite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.convexity import Convex, certify
from jaxdl.convexity.prove import prove
from jaxdl.convexity.tracing import trace

cvxpy = pytest.importorskip("cvxpy", reason="the comparison with CVXPY needs cvxpy")

A = np.array([[1.0, -2, 0.5], [0.25, 1, -1]])
B = np.array([0.5, -1.0])
P = np.array([[2.0, -1, 0], [-1, 2, -1], [0, -1, 2]])

AFFINE = (lambda x: A @ x + B, lambda x: A @ x + B)
ATOMS = {
    "squares": (lambda z: (z**2).sum(), lambda z: cvxpy.sum_squares(z)),
    "cubes of relu": (
        lambda z: (jax.nn.relu(z) ** 3).sum(),
        lambda z: cvxpy.sum(cvxpy.power(cvxpy.pos(z), 3)),
    ),
    "l1": (lambda z: jnp.abs(z).sum(), lambda z: cvxpy.norm1(z)),
    "l2": (jnp.linalg.norm, lambda z: cvxpy.norm(z)),
    "max": (jnp.max, lambda z: cvxpy.max(z)),
    "min": (jnp.min, lambda z: cvxpy.min(z)),
    "exp": (lambda z: jnp.exp(z).sum(), lambda z: cvxpy.sum(cvxpy.exp(z))),
    "log-sum-exp": (jax.nn.logsumexp, lambda z: cvxpy.log_sum_exp(z)),
    "logistic": (
        lambda z: jax.nn.softplus(z).sum(),
        lambda z: cvxpy.sum(cvxpy.logistic(z)),
    ),
    "hinge": (
        lambda z: jax.nn.relu(1 - z).sum(),
        lambda z: cvxpy.sum(cvxpy.pos(1 - z)),
    ),
    "sum": (jnp.sum, lambda z: cvxpy.sum(z)),
}
OUTER = {
    "itself": (lambda y: y, lambda y: y),
    "minus": (lambda y: -y, lambda y: -y),
    "exp": (jnp.exp, cvxpy.exp),
    "relu": (jax.nn.relu, cvxpy.pos),
    "softplus": (jax.nn.softplus, cvxpy.logistic),
    "square": (lambda y: y**2, cvxpy.square),
    "abs": (jnp.abs, cvxpy.abs),
}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(ATOMS)),
            st.sampled_from(sorted(OUTER)),
            st.sampled_from([2.0, 0.5, -1.0]),
        ),
        min_size=1,
        max_size=2,
    )
)
@settings(max_examples=60, deadline=None)
def test_sums_of_compositions(terms):
    x = cvxpy.Variable(3)
    theirs = sum(w * OUTER[o][1](ATOMS[a][1](AFFINE[1](x))) for a, o, w in terms)

    def ours(x):
        return sum(w * OUTER[o][0](ATOMS[a][0](AFFINE[0](x))) for a, o, w in terms)

    if theirs.is_convex():
        verdict = certify(ours, np.ones(3), key=jax.random.key(0))
        assert isinstance(verdict, Convex), verdict
    elif theirs.is_concave():
        assert prove(trace(ours, np.ones(3))) is None


def test_quadratic_forms():
    x = cvxpy.Variable(3)
    for shift in (0.0, -0.5, -0.6):
        matrix = P + shift * np.eye(3)
        theirs = cvxpy.quad_form(x, matrix).is_convex()
        verdict = certify(
            lambda x, m=matrix: x @ m @ x, np.ones(3), key=jax.random.key(0)
        )
        assert isinstance(verdict, Convex) == theirs


def test_more_is_proven_than_by_cvxpy():
    """Log-sum-exp as it is computed, and squares that cancel, are beyond its rules."""
    x = cvxpy.Variable()
    assert not (2 * x**2 - x**2).is_dcp()
    verdict = certify(lambda x: 2 * x**2 - x**2, np.float64(1), key=jax.random.key(0))
    assert isinstance(verdict, Convex)
