"""The fast forms of pooling change how it is computed, and not what."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_reference as reference
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxdl.models import layers
from jaxdl.ops import engine, pool


def pooling(size, strides, padding):
    """x [N, H, W, C] -> its maxima over windows."""
    window = (1, *size, 1), (1, *strides, 1)
    pads = ((0, 0), *padding, (0, 0))
    return lambda x: lax.reduce_window(x, -jnp.inf, lax.max, *window, pads)


def value_and_gradient(f):
    """(x, gradient of the result) -> result, gradient of x."""

    def both(x, gradient):
        y, pull = jax.vjp(f, x)
        return y, pull(gradient)[0]

    return both


def tangents(f):
    """(x, gradient, tangent) -> tangent of the result, by `f` and by its gradient."""

    def both(x, gradient, tangent):
        dy = jax.jvp(f, (x,), (tangent,))[1]
        again = jax.vjp(lambda g: jax.vjp(f, x)[1](g)[0], gradient)[1](tangent)[0]
        return dy, again

    return both


def tangent_at_first_maximum(x, tangent, size, strides, padding):
    """By the definition: one window after the other."""
    pads = ((0, 0), *padding, (0, 0))
    x = np.pad(x, pads, constant_values=-np.inf)
    tangent = np.pad(tangent, pads)
    windows, tangents = (
        np.lib.stride_tricks.sliding_window_view(a, size, (1, 2))[
            :, :: strides[0], :: strides[1]
        ].reshape(-1, size[0] * size[1])
        for a in (x, tangent)
    )
    chosen = np.zeros(len(windows), int)
    for i, pixels in enumerate(windows):
        for k, pixel in enumerate(pixels):
            if not pixels[chosen[i]] >= pixel:
                chosen[i] = k
    return tangents[np.arange(len(tangents)), chosen]


def by_xla(function, *args):
    pool.disable()
    return jax.jit(lambda *args: function(*args))(*args)


def by_ours(function, *args, chosen="native"):
    pool.enable()
    try:
        with engine.using(chosen):
            return jax.jit(lambda *args: function(*args))(*args)
    finally:
        pool.disable()


SIDES = st.tuples(st.integers(1, 3), st.integers(1, 3))
NONE = 0, 0
PADS = st.tuples(st.integers(0, 2), st.integers(0, 2))


@settings(max_examples=25, deadline=None)
@example(
    (1, 1, 1), 3, (1, 1), (1, 1), ((0, 0), (0, 0)), jnp.float32, -np.inf, 0, "pure"
)
@given(
    images=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    channels=st.sampled_from([1, 3, 8, 16, 17]),
    size=SIDES,
    strides=SIDES,
    padding=st.tuples(PADS, PADS),
    dtype=st.sampled_from([jnp.float32, jnp.bfloat16]),
    special=st.sampled_from([0.0, np.nan, -np.inf]),
    seed=st.integers(0, 99),
    chosen=st.sampled_from(["native", "pure"]),
)
def test_equals_xla(
    images, channels, size, strides, padding, dtype, special, seed, chosen
):
    count, *sides = images
    rows, columns = (
        (side + sum(pads) - reach) // stride + 1
        for side, pads, reach, stride in zip(sides, padding, size, strides, strict=True)
    )
    assume(rows > 0 and columns > 0)
    rng = np.random.default_rng(seed)

    def whole_numbers(*shape):  # exact in every order of a sum, and with many ties
        return rng.integers(-2, 3, shape)

    x = np.where(
        rng.random((*images, channels)) < 0.2,
        special,
        whole_numbers(*images, channels),
    )
    tangent = whole_numbers(*x.shape)
    gradient = whole_numbers(count, rows, columns, channels)
    x, gradient, tangent = (jnp.asarray(a, dtype) for a in (x, gradient, tangent))
    f = pooling(size, strides, padding)
    ours = by_ours(value_and_gradient(f), x, gradient, chosen=chosen)
    for found, expected in zip(
        ours, by_xla(value_and_gradient(f), x, gradient), strict=True
    ):
        np.testing.assert_array_equal(
            found.astype(jnp.float32), expected.astype(jnp.float32)
        )
    # XLA's own tangents are those of any of equal maxima.
    host = [np.asarray(a, np.float32) for a in (x, tangent)]
    expected = tangent_at_first_maximum(*host, size, strides, padding)
    for found in by_ours(tangents(f), x, gradient, tangent, chosen=chosen):
        np.testing.assert_array_equal(found.astype(jnp.float32).ravel(), expected)


def random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("axis", range(4))
def test_vmap_over_any_axis(axis):
    x = random(2, 3, 7, 9, 5)

    def gradient(x):
        return jax.grad(lambda x: jnp.sin(nn.max_pool(x, (3, 2), (2, 2))).sum())(x)

    args = np.moveaxis(x, 0, axis)
    together = by_ours(jax.vmap(gradient, axis, axis), args)
    one_by_one = np.stack([by_xla(gradient, x) for x in x], axis)
    np.testing.assert_array_equal(together, one_by_one)


def net(x):
    """Scan over remat, of a pooling that keeps its size."""

    @jax.checkpoint
    def layer(x, _):
        return jnp.tanh(nn.max_pool(x, (3, 3), padding="SAME")), None

    return jnp.square(lax.scan(layer, x, length=3)[0]).sum()


def test_scan_remat_and_second_order():
    x, v = random(2, 6, 6, 8), random(2, 6, 6, 8) + 1

    def gradient_and_curvature(x):
        return jax.jvp(jax.grad(net), (x,), (v,))

    for ours, theirs in zip(
        by_ours(gradient_and_curvature, x),
        by_xla(gradient_and_curvature, x),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_over_a_mesh():
    x = random(8, 6, 6, 8)
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    result = by_ours(jax.grad(net), sharded)
    assert result.sharding.spec[0] == "data"
    np.testing.assert_allclose(result, by_xla(jax.grad(net), x), rtol=1e-5)
    by_device = jax.shard_map(
        jax.grad(net),
        mesh=mesh,
        in_specs=PartitionSpec("data"),
        out_specs=PartitionSpec("data"),
    )
    np.testing.assert_allclose(by_ours(by_device, x), result, rtol=1e-5)


@pytest.mark.parametrize(
    "window", [(1, 1, 2, 2), (1, 2, 2, 1), (1, 1, 1, 1)], ids=["NCHW", "NHWC", "none"]
)
def test_where_types_say_how_axes_are_spread(window):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))
    x = random(4, 8, 8, 16)
    with jax.set_mesh(mesh):
        sharded = jax.device_put(x, PartitionSpec("data"))

        def both(x):
            def pooled(x):
                return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")

            return pooled(x), jax.grad(lambda x: jnp.sin(pooled(x)).sum())(x)

        for ours, theirs in zip(by_ours(both, sharded), by_xla(both, x), strict=True):
            assert ours.sharding.spec[0] == "data"
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 0), (3, 2, 1)])
def test_max_pool_of_the_models_is_torchs(size, stride, padding):
    torch = reference.torch()
    # Many ties, as after a ReLU, and all negative: zeros as padding would show.
    x = np.random.default_rng(0).integers(-5, -1, (2, 9, 8, 5)).astype(np.float32)
    theirs = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    result = torch.nn.functional.max_pool2d(theirs, size, stride, padding)
    gradient = random(*result.shape)
    result.backward(torch.from_numpy(gradient))
    ours = by_ours(
        value_and_gradient(lambda x: layers.max_pool(x, size, stride, padding)),
        x,
        gradient.transpose(0, 2, 3, 1),
    )
    expected = result.detach().numpy(), theirs.grad.numpy()
    for ours_, theirs_ in zip(ours, expected, strict=True):
        np.testing.assert_allclose(ours_, theirs_.transpose(0, 2, 3, 1), rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_mean_pool_and_its_gradient(dtype):
    x = jnp.asarray(random(2, 7, 8, 6), dtype)

    def both(x):
        return jax.value_and_grad(
            lambda x: jnp.square(nn.avg_pool(x, (3, 2), (2, 2), "SAME")).sum()
        )(x)

    # XLA rounds each of its sums to bfloat16, ours only the last.
    tolerance = {2: {"rtol": 2e-2, "atol": 4e-3}, 4: {"rtol": 1e-5}}[x.itemsize]
    for ours, theirs in zip(by_ours(both, x), by_xla(both, x), strict=True):
        np.testing.assert_allclose(ours, theirs, **tolerance)


@pytest.mark.parametrize(
    "window",
    [
        {"window_dimensions": (1, 2, 2, 2), "window_strides": (1, 1, 1, 1)},
        {"window_dimensions": (1, 6, 6, 1), "window_strides": (1, 1, 1, 1)},
        {
            "window_dimensions": (1, 2, 2, 1),
            "window_strides": (1, 1, 1, 1),
            "window_dilation": (1, 2, 2, 1),
        },
    ],
)
def test_what_is_not_for_it_falls_through(window):
    x = random(2, 7, 7, 4)

    def maximum(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, padding="VALID", **window)

    def minimum(x):
        return jax.grad(
            lambda x: lax.reduce_window(
                x, jnp.inf, lax.min, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
            ).sum()
        )(x)

    for function in (maximum, minimum):
        np.testing.assert_array_equal(by_ours(function, x), by_xla(function, x))


def test_the_gradient_is_no_longer_select_and_scatter():
    def gradient(x):
        return jax.grad(lambda x: nn.max_pool(x, (2, 2), (2, 2)).sum())(x)

    x = random(1, 4, 4, 8)
    pool.disable()
    assert "select-and-scatter" in jax.jit(gradient).lower(x).as_text(dialect="hlo")
    pool.enable()
    try:
        jax.clear_caches()
        text = jax.jit(gradient).lower(x).as_text(dialect="hlo")
    finally:
        pool.disable()
    assert "select-and-scatter" not in text
