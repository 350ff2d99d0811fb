import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.convexity.tracing import trace
from jaxdl.convexity.witness import verify
from jaxdl.errors import InputError

finite = st.floats(-1e3, 1e3)


@given(finite, finite)
@settings(deadline=None)
def test_convex_functions_have_no_witness(a, b):
    for f in (jnp.abs, jax.nn.softplus, jnp.square, jax.nn.relu, lambda x: 3 * x - 1):
        program = trace(f, np.float64(0))
        assert verify(program, np.float64(a), np.float64(b)) is None


@given(finite, finite)
@settings(deadline=None)
def test_concave_squares_have_every_pair(a, b):
    """The gap is (a - b)^2 / 4, exactly."""
    program = trace(lambda x: -(x**2), np.float64(0))
    found = verify(program, np.float64(a), np.float64(b))
    assert (found is None) == (a == b)
    if found:
        gap = ((a - b) / 2) ** 2
        assert found.gap <= gap * (1 + 1e-15)
        assert found.gap == pytest.approx(gap, rel=1e-12)


def test_rounding_can_hide_a_witness_but_not_from_balls():
    """In float64 f is constant here; over the reals it is not."""
    program = trace(lambda x: 1.0 - 1e-40 * x**2, np.float64(0))
    found = verify(program, np.float64(-1), np.float64(1))
    assert found is not None
    assert found.gap == pytest.approx(1e-40)
    assert found.bits > 64


def test_rounding_can_feign_a_witness_but_not_to_balls():
    """(x + 1e16) - 1e16 is x, but a staircase in float64."""

    def f(x):
        return (x + 1e16) - 1e16

    with jax.enable_x64(True):
        mid, ends = (
            float(f(jnp.float64(1.5))),
            [float(f(jnp.float64(x))) for x in (1, 2)],
        )
        assert mid > sum(ends) / 2
    assert verify(trace(f, np.float64(0)), np.float64(1), np.float64(2)) is None


def test_the_midpoint_is_not_rounded():
    """Between neighbouring floats there is a real number, and f is positive there."""
    a = np.float64(1)
    b = np.nextafter(a, 2)
    program = trace(lambda x: (x - a) * (b - x), a)
    found = verify(program, a, b)
    assert found is not None
    assert found.gap == pytest.approx(float(b - a) ** 2 / 4)


def test_where_the_loss_is_not_defined_there_is_no_witness():
    program = trace(lambda x: jnp.log(x), np.float64(1))
    assert verify(program, np.float64(-1), np.float64(1)) is None
    assert verify(program, np.float64(1), np.float64(3)) is not None


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"b": np.zeros(2)}, "must be like"),
        ({"a": np.zeros(3)}, r"shapes \[\(2,\)\], got \[\(3,\)\]"),
        ({"a": np.array([0, np.inf])}, "finite"),
    ],
)
def test_points_must_be_like_the_parameters(point, message):
    program = trace(lambda p: p["a"].sum(), {"a": np.zeros(2)})
    with pytest.raises(InputError, match=message):
        verify(program, point, {"a": np.zeros(2)})
