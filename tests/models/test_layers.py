import functools

import jax
import jax.numpy as jnp
import numpy as np
import torch_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.models import layers

SIDE = st.integers(1, 20)


def images(height, width):
    shape = (2, height, width, 3)
    return np.random.default_rng(height).standard_normal(shape).astype(np.float32)


@settings(deadline=None, max_examples=25)
@given(height=SIDE, width=SIDE, size=st.integers(1, 7))
def test_adaptive_mean_is_torchs(height, width, size):
    torch = reference.torch()
    x = images(height, width)
    theirs = torch.nn.functional.adaptive_avg_pool2d(
        torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), size
    )
    ours = jax.jit(lambda x: layers.adaptive_mean(x, size))(x)
    np.testing.assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 1), atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(height=st.integers(3, 20), width=st.integers(3, 20), padding=st.integers(0, 1))
def test_max_pool_is_torchs(height, width, padding):
    torch = reference.torch()
    x = images(height, width) - 5  # all negative: zeros as padding would show
    theirs = torch.nn.functional.max_pool2d(
        torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), 3, 2, padding
    )
    # One program, not one for each of its slices.
    ours = jax.jit(lambda x: layers.max_pool(x, 3, 2, padding))(x)
    np.testing.assert_array_equal(ours, theirs.numpy().transpose(0, 2, 3, 1))


def test_flatten_has_torchs_order():
    x = images(2, 5)
    expected = x.transpose(0, 3, 1, 2).reshape(2, -1)
    np.testing.assert_array_equal(layers.flatten(jnp.asarray(x)), expected)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(width=32), min_size=8, max_size=8),
    st.sampled_from(["float32", "bfloat16"]),
)
def test_relu_and_its_gradients_are_those_of_jax(values, dtype):
    x = jnp.asarray(values, dtype)
    ours = functools.partial(layers.relu, train=True)
    for change in (
        lambda f: f,
        lambda f: jax.grad(lambda x: (3 * f(x)).sum()),
        lambda f: jax.grad(lambda x: (f(x) ** 3).sum()),
        lambda f: lambda x: jax.jvp(jax.grad(lambda x: (f(x) ** 3).sum()), [x], [x])[1],
    ):
        found, expected = change(ours)(x), change(jax.nn.relu)(x)
        assert found.dtype == expected.dtype == x.dtype
        # In bfloat16 NumPy has no NaN equal another.
        np.testing.assert_array_equal(found.astype("f"), expected.astype("f"))
