"""Sorts by keys are NumPy's, and shuffles those of XLA's own sort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax

from jaxdl.ops import engine as engines
from jaxdl.ops import sort

LONG = sort.LEAST_SIZE


@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    shape=st.one_of(
        st.tuples(st.sampled_from([0, 1, 255, LONG, 1000, 60_001])),
        st.tuples(st.integers(0, 5), st.sampled_from([0, LONG, 999])),
        st.just((2, 3, LONG)),
    ),
    kinds=st.sampled_from([1, 3, 2**11, 2**22, 2**32]),
    values=st.sampled_from(["int32", "uint32", "float32", "int8"]),
    stable=st.booleans(),
    seed=st.integers(0, 99),
)
def test_equal_keys_keep_their_order(engine, shape, kinds, values, stable, seed):
    random = np.random.default_rng(seed)
    spread = 2**32 // kinds  # so that every digit of a key counts
    keys = (random.integers(0, kinds, shape) * spread).astype(np.uint32)
    data = np.broadcast_to(np.arange(shape[-1]), shape).astype(values)
    found = jax.jit(lambda *x: lax.sort(x, num_keys=1, is_stable=stable, dimension=-1))(
        keys, data
    )
    order = np.argsort(keys, -1, kind="stable")
    np.testing.assert_array_equal(found[0], np.take_along_axis(keys, order, -1))
    if stable:
        np.testing.assert_array_equal(found[1], np.take_along_axis(data, order, -1))
    assert [x.dtype for x in found] == [keys.dtype, data.dtype]


def test_a_shuffle_is_that_of_xla(native_engine):
    def shuffles(key):
        one = jax.random.permutation(key, 5000)
        several = jax.vmap(lambda k: jax.random.permutation(k, 300))
        return one, several(jax.random.split(key, 7))

    key = jax.random.key(5)
    text = jax.jit(shuffles).lower(key).as_text()
    assert text.count("jaxdl_sort") >= 2
    found = jax.jit(shuffles)(key)
    with engines.using("xla"):
        expected = jax.jit(shuffles)(key)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    ("arrays", "dimension", "num_keys"),
    [
        ([((LONG,), "float32"), ((LONG,), "int32")], 0, 1),
        ([((LONG,), "uint32"), ((LONG,), "bfloat16")], 0, 1),
        ([((LONG,), "uint32"), ((LONG,), "uint32")], 0, 2),
        ([((LONG,), "uint32")] * 3, 0, 1),
        ([((LONG,), "uint32")], 0, 1),
        ([((LONG, LONG), "uint32"), ((LONG, LONG), "int32")], 0, 1),
        ([((LONG - 1,), "uint32"), ((LONG - 1,), "int32")], 0, 1),
    ],
)
def test_all_else_is_left_to_xla(arrays, dimension, num_keys):
    abstract = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in arrays]
    assert not sort.is_by_keys(abstract, dimension, num_keys)
    shapes = [jax.ShapeDtypeStruct((LONG,), d) for d in (jnp.uint32, jnp.float32)]
    assert sort.is_by_keys(shapes, 0, 1)
