"""Products by oneDNN are XLA's: to the last bit, for small whole numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax

from jaxdl import ops

BIG = st.integers(100, 140)  # three of them are more than LEAST_WORK


def exact(left, right, axes):
    left, right = (np.asarray(a).astype(float) for a in (left, right))
    return np.tensordot(left, right, axes)


def equal(found, expected, dtype):
    assert found.dtype == dtype
    np.testing.assert_array_equal(
        np.asarray(found).astype(float), expected.astype(found.dtype).astype(float)
    )


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    sizes=st.one_of(
        st.tuples(BIG, BIG, BIG),
        st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
        st.permutations((20, 60, 120)),
        st.permutations((1, 1000, 1100)),
        st.permutations((2, 500, 1100)),
        st.permutations((0, 9, 2000)),
    ),
    lead=st.sampled_from([None, 2]),
    axes=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    dtype=st.sampled_from(["float32", "bfloat16", "float64"]),
    wide=st.booleans(),
    seed=st.integers(0, 99),
)
def test_products_are_numpys(engine, whole, sizes, lead, axes, dtype, wide, seed):
    """Any axis of either operand summed over; with a third axis, of either format."""
    rows, depth, columns = sizes
    left = [rows, rows]
    left[axes[0]] = depth
    right = [columns, columns]
    right[axes[1]] = depth
    at = axes[0]
    if lead is not None:  # in front, so that a summed last axis stays the last
        left, at = [lead, *left], at + 1
    numbers = (((at,), (axes[1],)), ((), ()))
    with jax.enable_x64(dtype == "float64"):
        args = whole(left, dtype, seed), whole(right, dtype, seed + 1)
        result = "float32" if wide and dtype == "bfloat16" else dtype
        found = jax.jit(
            functools.partial(
                lax.dot_general,
                dimension_numbers=numbers,
                preferred_element_type=result,
            )
        )(*args)
    equal(found, exact(*args, ((at,), (axes[1],))), result)


@pytest.mark.parametrize("axes", [(1, 0), (0, 0), (1, 1)], ids=str)
@pytest.mark.parametrize(
    "sizes",
    [(24, 320, 512), (97, 321, 527), (143, 641, 1040), (290, 30, 272), (540, 527, 321)],
    ids=str,
)
def test_products_of_several_blocks(engine, whole, sizes, axes):
    """Blocks that are full, and their edges: of rows, of depth and of columns."""
    rows, depth, columns = sizes
    left = (rows, depth) if axes[0] else (depth, rows)
    right = (columns, depth) if axes[1] else (depth, columns)
    args = whole(left), whole(right, seed=1)
    numbers = (((axes[0],), (axes[1],)), ((), ()))
    found = jax.jit(lambda *args: lax.dot_general(*args, numbers))(*args)
    equal(found, exact(*args, numbers[0]), "float32")


def network(weights, x):
    for w in weights:
        x = jnp.tanh(x @ w)
    return jnp.sum(jnp.sin(x) ** 2)


def example(normal, stack=()):
    weights = [
        normal((*stack, n, m), seed=n) / n**0.5 for n, m in [(100, 130), (130, 110)]
    ]
    return weights, normal((*stack, 100, 100), seed=9)


def derivatives(*args):
    """Value, gradient, Hessian times a vector in both ways, and a tangent."""
    gradient = jax.grad(network, (0, 1))
    vector = jax.tree.map(jnp.cos, args)
    return (
        jax.jvp(network, args, vector),
        gradient(*args),
        jax.jvp(gradient, args, vector)[1],
        jax.vjp(gradient, *args)[1](vector),
    )


def in_float64(function, args):
    with ops.using("xla"), jax.enable_x64(True):
        return jax.jit(lambda *a: function(*a))(
            *jax.tree.map(lambda a: jnp.asarray(np.asarray(a, float)), args)
        )


@functools.cache
def exact_derivatives(normal):
    return in_float64(derivatives, example(normal))


def assert_close(found, expected):
    for ours, theirs in zip(
        jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * scale)


def scanned(function):
    def run(*args):
        step = jax.checkpoint(lambda carry, _: (carry, function(*args)))
        return jax.tree.map(lambda leaf: leaf[1], lax.scan(step, 0, length=2)[1])

    return run


@pytest.mark.parametrize("how", [lambda f: f, scanned], ids=["jit", "remat in scan"])
def test_derivatives_are_xlas_own(engine, normal, how):
    args = example(normal)
    found = jax.jit(how(lambda *a: derivatives(*a)))(*args)
    assert_close(found, exact_derivatives(normal))


@functools.cache
def exact_vmap(normal, axes):
    args = tuple(
        tree if at is not None else jax.tree.map(lambda leaf: leaf[0], tree)
        for tree, at in zip(example(normal, (2,)), axes, strict=True)
    )
    return args, in_float64(jax.vmap(derivatives, axes), args)


@pytest.mark.parametrize("axes", [(None, 0), (0, None), (0, 0)])
def test_vmap(engine, normal, axes):
    args, expected = exact_vmap(normal, axes)
    found = jax.jit(jax.vmap(lambda *a: derivatives(*a), axes))(*args)
    assert_close(found, expected)


def test_all_products_of_a_gradient_go_to_the_native_engine(native_engine, normal):
    """Forward, by weights and by inputs: 2 + 2 + 2."""
    gradient = jax.grad(network, (0, 1))
    lowered = jax.jit(lambda *a: gradient(*a)).lower(*example(normal))
    assert lowered.as_text().count("@jaxdl_conv") == 6
    assert "dot_general" not in lowered.as_text()


@pytest.mark.parametrize(
    ("rows", "depth", "columns", "native"),
    [
        (32, 64, 64, True),
        (31, 64, 64, False),
        (1, 1024, 1024, True),
        (1, 1023, 1024, False),
    ],
)
def test_small_ones_do_not(native_engine, rows, depth, columns, native):
    left, right = jnp.ones((rows, depth)), jnp.ones((depth, columns))
    text = jax.jit(lambda a, b: a @ b).lower(left, right).as_text()
    assert ("jaxdl" in text) == native


def test_a_named_algorithm_is_obeyed(native_engine):
    def product(a, b):
        return lax.dot(a, b, precision=lax.DotAlgorithmPreset.F32_F32_F32)

    x = jnp.ones((200, 200))
    assert "jaxdl" not in jax.jit(product).lower(x, x).as_text()
