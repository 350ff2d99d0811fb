"""Convolutions of few channels: vectors over images give what the definition says."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from definition import correlate
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax

from jaxdl.ops import native

DIMENSIONS = ("NHWC", "HWIO", "NHWC")

pytestmark = [
    pytest.mark.usefixtures("algorithm"),
    pytest.mark.parametrize("algorithm", ["small"], indirect=True),
    pytest.mark.skipif(native.lanes() < 8, reason="no AVX2"),
]


def defined(images, kernel, gradient, padding, strides):
    """The convolution and its two gradients by definition, in float64."""
    return correlate(images, kernel, gradient, strides, padding, dilation=(1, 1))


def lowered(images, kernel, gradient, padding, strides):
    """The same, as `jit` computes them."""

    def forward(images, kernel):
        return lax.conv_general_dilated(
            images, kernel, strides, padding, dimension_numbers=DIMENSIONS
        )

    @jax.jit
    def all_three(images, kernel, gradient):
        out, pull = jax.vjp(forward, images, kernel)
        return out, *pull(gradient)

    return all_three(images, kernel, gradient)


def example(images, size, kernel, channels, outputs, padding, strides, seed):
    """Images, kernel and gradient of a convolution; or None if it has no output."""
    rows, columns = (
        (n + sum(p) - k) // s + 1
        for n, p, k, s in zip(size, padding, kernel, strides, strict=True)
    )
    if min(rows, columns) < 1:
        return None
    rng = np.random.default_rng(seed)
    shapes = (
        (images, *size, channels),
        (*kernel, channels, outputs),
        (images, rows, columns, outputs),
    )
    return tuple(rng.standard_normal(s).astype(np.float32) for s in shapes)


def assert_equals_the_definition(operands, padding, strides):
    got = lowered(*operands, padding, strides)
    expected = defined(*operands, padding, strides)
    # A float32 sum is off by at most its length times 2^-24, of the magnitudes' sum.
    magnitude = defined(*map(np.abs, operands), padding, strides)
    for g, e, m in zip(got, expected, magnitude, strict=True):
        assert g.dtype == jnp.float32
        assert np.all(np.abs(g - e) <= 2e-6 * m)


@settings(max_examples=25, deadline=None)
@given(
    images=st.sampled_from([16, 17, 31, 32, 40]),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    kernel=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    channels=st.integers(1, 17),
    outputs=st.integers(1, 17),
    padding=st.tuples(*[st.tuples(st.integers(0, 6), st.integers(0, 6))] * 2),
    strides=st.sampled_from([(1, 1), (1, 1), (2, 1), (2, 3)]),
    seed=st.integers(0, 99),
)
def test_equals_the_definition(
    images, size, kernel, channels, outputs, padding, strides, seed
):
    # With more, JAX's input gradient pads by less than nothing, which is no "small".
    padding = tuple(
        (min(before, k - 1), min(after, k - 1))
        for (before, after), k in zip(padding, kernel, strict=True)
    )
    operands = example(images, size, kernel, channels, outputs, padding, strides, seed)
    assume(operands is not None)
    assert_equals_the_definition(operands, padding, strides)


@pytest.mark.parametrize(
    ("size", "channels", "outputs", "padding", "count"),
    # 16 outputs fill vectors of channels: the weight gradient is left to oneDNN.
    [(32, 3, 6, 0, 3), (14, 6, 16, 0, 2), (28, 1, 6, 2, 3)],
)
def test_lenet_convolutions(size, channels, outputs, padding, count):
    pad = ((padding, padding),) * 2
    operands = example(48, (size, size), (5, 5), channels, outputs, pad, (1, 1), seed=0)
    assert_equals_the_definition(operands, pad, (1, 1))
    text = jax.jit(lambda *a: lowered(*a, pad, (1, 1))).lower(*operands).as_text()
    small = native.ALGORITHMS.index("small")
    calls = re.findall(rf"geometry = (?:dense<\[|array<i64: ){small},", text)
    assert len(calls) == count


def test_an_image_does_not_depend_on_its_neighbours():
    """Not even where those are infinite, or absent, in its vector."""
    pad = ((2, 2), (2, 2))
    images, kernel, gradient = example(40, (9, 9), (5, 5), 3, 6, pad, (1, 1), seed=1)
    whole = lowered(images, kernel, gradient, pad, (1, 1))
    spoilt = images.copy()
    spoilt[5] = np.inf
    out, by_image, _ = lowered(spoilt, kernel, gradient, pad, (1, 1))
    others = np.arange(40) != 5
    np.testing.assert_array_equal(out[others], whole[0][others])
    np.testing.assert_array_equal(by_image, whole[1])
    first = lowered(images[:33], kernel, gradient[:33], pad, (1, 1))
    np.testing.assert_array_equal(first[0], whole[0][:33])
    np.testing.assert_array_equal(first[1], whole[1][:33])


def test_the_same_bits_each_time():
    pad = ((0, 0), (0, 0))
    operands = example(200, (14, 14), (5, 5), 6, 12, pad, (1, 1), seed=2)
    first = lowered(*operands, pad, (1, 1))
    for _ in range(5):
        for a, b in zip(first, lowered(*operands, pad, (1, 1)), strict=True):
            np.testing.assert_array_equal(a, b)
