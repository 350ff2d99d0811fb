"""Convolutions in fewer multiplications give what the definition says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from definition import correlate
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax

from jaxdl import runtime
from jaxdl.ops import engine, native

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


pytestmark = [
    pytest.mark.usefixtures("algorithm"),
    pytest.mark.parametrize("algorithm", ["winograd"], indirect=True),
]


def all_three(images, kernel, gradient, padding):
    """The convolution and its two gradients."""

    def forward(images, kernel):
        return lax.conv_general_dilated(
            images, kernel, (1, 1), padding, dimension_numbers=DIMENSIONS
        )

    out, pull = jax.vjp(forward, images, kernel)
    return out, *pull(gradient)


def computed(*operands, padding):
    """As `jit` computes them."""
    with engine.using("native"):
        return jax.jit(lambda *operands: all_three(*operands, padding))(*operands)


def operands_of(draw, images, size, channels, outputs, padding, side=3):
    """Images, kernel and gradient, or None where there is no result."""
    rows, columns = (n + sum(p) + 1 - side for n, p in zip(size, padding, strict=True))
    if min(rows, columns) < 1:
        return None
    shapes = (
        (images, *size, channels),
        (side, side, channels, outputs),
        (images, rows, columns, outputs),
    )
    return tuple(draw(shape).astype(np.float32) for shape in shapes)


def whole(seed):
    rng = np.random.default_rng(seed)
    return lambda shape: rng.integers(-3, 4, shape)


PADS = st.tuples(st.integers(0, 2), st.integers(0, 2))
SIDES = pytest.mark.parametrize("side", [3, 5])


def same(side):
    """The padding that keeps the size."""
    return ((side // 2,) * 2,) * 2


@settings(max_examples=40, deadline=None)
@given(
    images=st.integers(1, 5),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    channels=st.sampled_from([8, 16, 24]),
    outputs=st.sampled_from([8, 16, 40]),
    padding=st.tuples(PADS, PADS),
    side=st.sampled_from([3, 5]),
    seed=st.integers(0, 99),
)
def test_whole_numbers_are_exact(images, size, channels, outputs, padding, side, seed):
    operands = operands_of(whole(seed), images, size, channels, outputs, padding, side)
    assume(operands is not None)
    ours = computed(*operands, padding=padding)
    for a, b in zip(ours, correlate(*operands, (1, 1), padding, (1, 1)), strict=True):
        np.testing.assert_array_equal(a, b)


@SIDES
def test_many_outputs_and_more_than_one_chunk_of_tiles(side):
    pad = same(side)
    operands = operands_of(whole(4), 4, (12, 12), 32, 512, pad, side)
    ours = computed(*operands, padding=pad)
    for a, b in zip(ours, correlate(*operands, (1, 1), pad, (1, 1)), strict=True):
        np.testing.assert_array_equal(a, b)


@SIDES
@pytest.mark.parametrize("threads", [1, 2, 3, 5, 16])
@pytest.mark.parametrize(
    "images, size, channels, outputs",
    [(40, (16, 16), 64, 56), (3, (11, 12), 208, 216)],  # of few weights, and of many
)
def test_any_number_of_threads(
    images, size, channels, outputs, threads, side, monkeypatch
):
    """However the sums are cut for them, they are whole."""
    monkeypatch.setattr(runtime, "cores", lambda: threads)
    pad = same(side)
    operands = operands_of(whole(5), images, size, channels, outputs, pad, side)
    ours = computed(*operands, padding=pad)
    for a, b in zip(ours, correlate(*operands, (1, 1), pad, (1, 1)), strict=True):
        np.testing.assert_array_equal(a, b)


@SIDES
def test_it_is_winograd_that_computes(side):
    operands = operands_of(whole(0), 2, (6, 6), 8, 16, same(side), side)
    step = jax.jit(lambda *operands: all_three(*operands, same(side)))
    text = step.lower(*operands).as_text()
    number = native.ALGORITHMS.index("winograd")
    found = text.count(f"geometry = dense<[{number},")
    assert found + text.count(f"geometry = array<i64: {number},") == 3


@SIDES
def test_errors_are_no_larger_than_those_of_a_plain_sum(side):
    """In the mean: 64 * 9 or 64 * 25 products in float32 against float64."""
    pad = same(side)
    rng = np.random.default_rng(0)
    operands = operands_of(rng.standard_normal, 8, (16, 16), 64, 64, pad, side)
    with jax.enable_x64():
        doubles = [a.astype(np.float64) for a in operands]
        exact = [np.asarray(a) for a in all_three(*doubles, pad)]
    assert exact[0].dtype == np.float64
    for ours, reference in zip(computed(*operands, padding=pad), exact, strict=True):
        error = np.sqrt(np.mean((ours - reference) ** 2) / np.mean(reference**2))
        assert error < 6e-7


@SIDES
def test_the_same_bits_each_time(side):
    """Of several chunks of tiles, on all threads."""
    pad = same(side)
    rng = np.random.default_rng(1)
    operands = operands_of(rng.standard_normal, 33, (15, 15), 32, 64, pad, side)
    first = computed(*operands, padding=pad)
    for _ in range(5):
        for a, b in zip(first, computed(*operands, padding=pad), strict=True):
            np.testing.assert_array_equal(a, b)


def test_gradients_of_second_order():
    pad = ((1, 1), (1, 1))
    images, kernel, direction = operands_of(whole(2), 2, (5, 4), 8, 8, pad)
    tangent = whole(3)(kernel.shape).astype(np.float32)

    def loss(kernel):
        out = lax.conv_general_dilated(
            images, kernel, (1, 1), pad, dimension_numbers=DIMENSIONS
        )
        return (jnp.square(out) * direction).sum()

    def product(kernel):
        return jax.jvp(jax.grad(loss), (kernel,), (tangent,))[1]

    ours = jax.jit(product)(kernel)
    with engine.using("xla"):
        np.testing.assert_array_equal(ours, jax.jit(product)(kernel))


@pytest.mark.parametrize(
    ("kernel", "channels", "strides", "dtype"),
    [
        (7, 8, 1, "float32"),
        (3, 12, 1, "float32"),
        (3, 8, 2, "float32"),
        (3, 8, 1, "bfloat16"),
    ],
)
def test_others_are_left_to_the_next_algorithm(kernel, channels, strides, dtype):
    images = jnp.ones((2, 8, 8, channels), dtype)
    weights = jnp.ones((kernel, kernel, channels, 8), dtype)

    def forward(images, weights):
        return lax.conv_general_dilated(
            images, weights, (strides,) * 2, "SAME", dimension_numbers=DIMENSIONS
        )

    ours = jax.jit(forward)(images, weights)
    with engine.using("xla"):
        np.testing.assert_array_equal(ours, jax.jit(forward)(images, weights))
