"""Each form of a convolution against its definition, in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.ops import forms, winograd
from jaxdl.ops.geometry import Convolution

DIRECTIONS = ("forward", "input gradient", "weight gradient")


def convolution(
    images, size, channels, kernel, outputs, strides, dilation, padding, dtype
):
    result = tuple(
        (n + sum(pads) - (k - 1) * d - 1) // s + 1
        for n, pads, k, d, s in zip(
            size, padding, kernel, dilation, strides, strict=True
        )
    )
    dtype = jnp.dtype(dtype)
    order = (0, 1, 2, 3)
    return Convolution(
        "forward",
        images,
        size,
        channels,
        kernel,
        outputs,
        result,
        strides,
        dilation,
        padding,
        order,
        order,
        order,
        dtype,
        dtype,
    )


def operands(conv):
    """Images, kernel, outputs' gradient: small whole numbers, exact in bfloat16."""
    rng = np.random.default_rng(0)
    shapes = (
        (conv.images, *conv.size, conv.channels),
        (*conv.kernel, conv.channels, conv.outputs),
        (conv.images, *conv.result, conv.outputs),
    )
    return [rng.integers(-3, 4, shape).astype(np.float64) for shape in shapes]


def by_definition(conv, drawn=None):
    """The three directions, tap by tap, in NumPy's float64."""
    images, kernel, gradient = drawn or operands(conv)
    padded = np.pad(images, ((0, 0), *conv.padding, (0, 0)))
    result = np.zeros(gradient.shape)
    to_images, to_kernel = np.zeros(padded.shape), np.zeros(kernel.shape)
    for i, j in itertools.product(*map(range, conv.kernel)):
        rows, columns = (
            slice(tap * d, tap * d + (r - 1) * s + 1, s)
            for tap, d, r, s in zip(
                (i, j), conv.dilation, conv.result, conv.strides, strict=True
            )
        )
        seen = padded[:, rows, columns]
        result += np.einsum("nhwc,co->nhwo", seen, kernel[i, j])
        to_images[:, rows, columns] += np.einsum(
            "nhwo,co->nhwc", gradient, kernel[i, j]
        )
        to_kernel[i, j] = np.einsum("nhwc,nhwo->co", seen, gradient)
    (top, _), (left, _) = conv.padding
    height, width = conv.size
    return result, to_images[:, top : top + height, left : left + width], to_kernel


def computed(conv, compute=forms.compute, drawn=None):
    """The three directions, by the form that `compute` takes."""
    drawn = drawn or operands(conv)
    # Converted by NumPy, and in one program: compiling is what takes the time.
    images, kernel, gradient = (a.astype(jnp.dtype(conv.dtype)) for a in drawn)
    pairs = ((images, kernel), (gradient, kernel), (images, gradient))
    return jax.jit(
        lambda pairs: [
            compute(conv._replace(direction=direction), *pair)
            for direction, pair in zip(DIRECTIONS, pairs, strict=True)
        ]
    )(pairs)


def assert_right(conv):
    for ours, expected in zip(computed(conv), by_definition(conv), strict=True):
        assert ours.dtype == conv.result_dtype
        # Sums of whole numbers below 2^24 are exact in float32, and rounded once after.
        rounded = expected.astype(np.float32).astype(jnp.dtype(conv.result_dtype))
        np.testing.assert_array_equal(
            np.asarray(ours).astype(np.float32), rounded.astype(np.float32)
        )


PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))
PADS = st.tuples(st.integers(0, 3), st.integers(0, 3))


@st.composite
def convolutions(draw):
    kernel, dilation = draw(PAIR), draw(PAIR)
    padding = draw(st.tuples(PADS, PADS))
    size = tuple(
        draw(st.integers(max(1, (k - 1) * d + 1 - sum(pads)), 9))
        for k, d, pads in zip(kernel, dilation, padding, strict=True)
    )
    return convolution(
        images=draw(st.sampled_from([1, 2, 32])),
        size=size,
        channels=draw(st.sampled_from([1, 3, 5])),
        kernel=kernel,
        outputs=draw(st.sampled_from([1, 6, 12, 20])),
        strides=draw(PAIR),
        dilation=dilation,
        padding=padding,
        dtype=draw(st.sampled_from([jnp.float32, jnp.bfloat16])),
    )


@settings(max_examples=40, deadline=None)
@given(convolutions())
def test_any_convolution(conv):
    assert_right(conv)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("side", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_small_maps_with_many_channels(side, strides, dtype):
    """As deep in a network, where the rules take another form at almost every size."""
    one = ((1, 1), (1, 1))
    conv = convolution(32, (side, side), 256, (3, 3), 256, strides, (1, 1), one, dtype)
    assert_right(conv)


def by_winograd(conv, left, right):
    """Where it has a form of its own."""
    if conv.direction == "forward":
        return winograd.forward(conv, left, right)
    if conv.direction == "input gradient":
        return winograd.input_gradient(conv, left, right)
    return forms.compute(conv, left, right)


@settings(max_examples=10, deadline=None)
@given(
    st.tuples(st.integers(3, 9), st.integers(3, 9)),
    st.tuples(PADS, PADS),
    st.sampled_from([(1, 3, 5), (2, 4, 4)]),
)
def test_winograd_of_whole_numbers_is_exact(size, padding, counts):
    images, channels, outputs = counts
    conv = convolution(
        images, size, channels, (3, 3), outputs, (1, 1), (1, 1), padding, jnp.float32
    )
    found = computed(conv, by_winograd)
    for ours, expected in zip(found, by_definition(conv), strict=True):
        np.testing.assert_array_equal(ours, expected.astype(np.float32))


def test_winograd_where_channels_are_many():
    """It is chosen there, and rounds as a plain sum in float32 does."""
    one = ((1, 1), (1, 1))
    conv = convolution(12, (4, 5), 256, (3, 3), 128, (1, 1), (1, 1), one, jnp.float32)
    random = np.random.default_rng(0)
    drawn = [
        random.normal(size=array.shape).astype(np.float32).astype(np.float64)
        for array in operands(conv)
    ]
    for ours, chosen, expected in zip(
        computed(conv, by_winograd, drawn),
        computed(conv, drawn=drawn),
        by_definition(conv, drawn),
        strict=True,
    ):
        np.testing.assert_array_equal(chosen, ours)
        off = np.abs(ours - expected).max() / np.abs(expected).max()
        assert off < 2e-6


@pytest.mark.parametrize("images", [16, 17])
def test_large_images_in_halves(images):
    one = ((1, 1), (1, 1))
    conv = convolution(
        images, (32, 32), 64, (3, 3), 8, (1, 1), (1, 1), one, jnp.float32
    )
    assert images * 32 * 32 * 64 >= 2**20  # where the weight gradient takes halves
    assert_right(conv)


def test_more_padding_than_kernel():
    """XLA's own convolution reads beyond the images where its padding is negative."""
    pads = ((0, 0), (2, 0))
    conv = convolution(1, (2, 2), 1, (1, 2), 6, (1, 1), (1, 1), pads, jnp.float32)
    assert_right(conv)


def test_padding_alone_gives_zeros():
    """Windows that see no pixel of the map at all: 3x3, dilated over it."""
    conv = convolution(
        2, (1, 1), 3, (2, 2), 4, (4, 4), (2, 2), ((1, 1), (1, 1)), jnp.float32
    )
    assert conv.result == (1, 1)
    assert_right(conv)
    assert all(not jnp.any(result) for result in computed(conv))
    images, kernel, gradient = operands(conv)
    assert images.any() and kernel.any() and gradient.any()


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (9, 8), (1, 50)])
def test_float64_keeps_its_digits(kernel, strides):
    pads = tuple(((k - 1) // 2, k // 2) for k in kernel)
    conv = convolution(2, (9, 8), 5, kernel, 6, strides, (1, 1), pads, jnp.float64)
    random = np.random.default_rng(0)
    drawn = [random.normal(size=array.shape) for array in operands(conv)]
    with jax.enable_x64(True):
        found = computed(conv, drawn=drawn)
    for ours, expected in zip(found, by_definition(conv, drawn), strict=True):
        assert ours.dtype == jnp.float64
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-13)
