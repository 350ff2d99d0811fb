"""Sums over rows are right, whichever way they are taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxdl import ops
from jaxdl.ops import reduce

shapes = st.one_of(
    st.tuples(st.integers(500, 2000), st.integers(64, 100)),
    st.tuples(st.integers(2, 9), st.integers(60, 90), st.integers(64, 130)),
    st.tuples(*[st.integers(5, 9)] * 3, st.sampled_from([100, 256, 300])),
    st.sampled_from(
        [(40000, 1), (20000, 3), (32771, 2), (64, 2048), (521, 63), (0, 5)]
    ),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
)


@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    shape=shapes,
    axes=st.sampled_from(["rows", "rows", "rows", "columns", "all"]),
    dtype=st.sampled_from(["float32", "bfloat16", "float64", "int32"]),
    seed=st.integers(0, 99),
)
def test_sums_of_whole_numbers_are_exact(engine, whole, shape, axes, dtype, seed):
    axes = {
        "rows": tuple(range(len(shape) - 1)),
        "columns": (len(shape) - 1,),
        "all": None,
    }[axes]
    with jax.enable_x64(dtype == "float64"):
        x = whole(shape, dtype, seed)
        found = jax.jit(lambda x: x.sum(axes))(x)
    expected = np.asarray(x).astype(float).sum(axes)
    assert found.dtype == dtype
    np.testing.assert_array_equal(
        np.asarray(found).astype(float), expected.astype(found.dtype).astype(float)
    )


def test_a_long_sum_keeps_its_digits(engine):
    """Added up one by one in float32, a million tenths are off by a percent."""
    x = np.full((2**20, 2), 0.1, np.float32)
    found = jax.jit(lambda x: x.sum(0))(x)
    np.testing.assert_allclose(found, x.astype(float).sum(0), rtol=1e-5)


def test_what_is_not_finite_stays_so(engine):
    x = np.zeros((1024, 64), np.float32)
    x[7, 1], x[8, 2], x[9, 3], x[10, 3] = np.inf, np.nan, np.inf, -np.inf
    found = jax.jit(lambda x: x.sum(0))(x)
    expected = np.zeros(64)
    expected[1], expected[2:4] = np.inf, np.nan
    np.testing.assert_array_equal(found, expected)


def test_gradients_and_vmap(engine, normal):
    x, v = normal((3, 600, 64)), normal((3, 600, 64), seed=1)

    def loss(x):
        return jnp.sum(jnp.sin((x * x).sum(0)))

    def both(x, v):
        return jax.jvp(jax.grad(loss), (x,), (v,))

    def single(x, v):
        s = (x * x).sum(0)
        tangent = (2 * x * v).sum(0)
        return 2 * x * np.cos(s), 2 * v * np.cos(s) - 2 * x * np.sin(s) * tangent

    found = jax.jit(jax.vmap(both))(x, v)
    x, v = np.asarray(x, float), np.asarray(v, float)
    expected = [np.stack(parts) for parts in zip(*map(single, x, v), strict=True)]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("shape", "taken"),
    [((512, 64), True), ((511, 64), False), ((63, 1024), False), ((32768, 1), True)],
)
def test_which_sums_are_taken(native_engine, shape, taken):
    assert reduce.LEAST_SIZE == 2**15
    assert reduce.LEAST_ROWS == 64
    text = jax.jit(lambda x: x.sum(0)).lower(jnp.ones(shape)).as_text()
    assert ("jaxdl_sum" in text) == taken
    with ops.using("xla"):
        text = jax.jit(lambda x: x.sum(0)).lower(jnp.ones(shape)).as_text()
    assert "jaxdl_sum" not in text
