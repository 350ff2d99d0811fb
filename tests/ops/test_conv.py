"""The fast layout changes how convolutions are computed, and not what."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax

from jaxdl.ops import conv


@pytest.fixture
def enabled():
    conv.enable()
    jax.clear_caches()
    yield
    conv.disable()
    jax.clear_caches()


def correlate(images, kernel, stride, padding, dilation, groups):
    """Cross-correlation by its definition, in float64: NHWC, HWIO."""
    images = np.pad(images.astype(np.float64), ((0, 0), padding, padding, (0, 0)))
    size_h, size_w, per_group, outputs = kernel.shape
    reach_h, reach_w = dilation * (size_h - 1) + 1, dilation * (size_w - 1) + 1
    rows = (images.shape[1] - reach_h) // stride + 1
    columns = (images.shape[2] - reach_w) // stride + 1
    out = np.zeros((len(images), rows, columns, outputs))
    for o in range(outputs):
        first = o // (outputs // groups) * per_group
        for r in range(rows):
            for c in range(columns):
                window = images[
                    :,
                    r * stride : r * stride + reach_h : dilation,
                    c * stride : c * stride + reach_w : dilation,
                    first : first + per_group,
                ]
                out[:, r, c, o] = (window * kernel[..., o]).sum((1, 2, 3))
    return out


@settings(max_examples=40, deadline=None)
@given(
    side=st.integers(1, 7),
    size=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.integers(1, 2),
    groups=st.integers(1, 2),
    layout=st.sampled_from(
        [("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW"), ("CHWN", "IHWO", "HWNC")]
    ),
    seed=st.integers(0, 99),
)
def test_equals_the_definition(
    side, size, stride, padding, dilation, groups, layout, seed
):
    assume(side + sum(padding) >= dilation * (size - 1) + 1)
    conv.enable()
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(2, side, side, 2 * groups)).astype(np.float32)
    kernel = rng.normal(size=(size, size, 2, 4)).astype(np.float32)
    to = [
        ["NHWC".index(c) for c in layout[0]],
        ["HWIO".index(c) for c in layout[1]],
        [layout[2].index(c) for c in "NHWC"],
    ]

    @jax.jit
    def apply(images, kernel):
        result = lax.conv_general_dilated(
            images.transpose(to[0]),
            kernel.transpose(to[1]),
            (stride, stride),
            [padding, padding],
            rhs_dilation=(dilation, dilation),
            dimension_numbers=layout,
            feature_group_count=groups,
        )
        return result.transpose(to[2])

    try:
        result = apply(images, kernel)
    finally:
        conv.disable()
    expected = correlate(images, kernel, stride, padding, dilation, groups)
    np.testing.assert_allclose(result, expected, atol=1e-4)


def loss(kernel, images):
    result = lax.conv_general_dilated(
        images,
        kernel,
        (2, 2),
        [(1, 1), (1, 2)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return jnp.sum(jnp.tanh(result) ** 2)


def test_gradients_of_both_orders_equal_finite_differences(enabled):
    from jax.test_util import check_grads

    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 2, 3)), jnp.float32)
    images = jnp.asarray(rng.normal(size=(2, 6, 6, 2)), jnp.float32)
    check_grads(jax.jit(loss), (kernel, images), order=2, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("over", ["images", "kernel", "both"])
def test_vmap(enabled, over):
    rng = np.random.default_rng(1)
    axes = {"images": (None, 0), "kernel": (0, None), "both": (0, 0)}[over]
    kernel = rng.normal(size=(4, 3, 3, 2, 3)).astype(np.float32)
    images = rng.normal(size=(4, 2, 6, 6, 2)).astype(np.float32)
    args = tuple(
        x if axis == 0 else x[0] for x, axis in zip((kernel, images), axes, strict=True)
    )
    together = jax.jit(jax.vmap(jax.grad(loss), axes))(*args)
    for i in range(4):
        one = [x[i] if axis == 0 else x for x, axis in zip(args, axes, strict=True)]
        np.testing.assert_allclose(together[i], jax.grad(loss)(*one), rtol=2e-4)


def test_all_convolutions_in_a_loop_are_in_the_fast_layout(enabled):
    def train(kernel, images):
        def step(_, kernel):
            return kernel - 0.1 * jax.grad(loss)(
                kernel, jnp.cos(images * kernel[0, 0, 0])
            )

        return lax.fori_loop(0, 3, step, kernel)

    args = jnp.ones((3, 3, 2, 2)), jnp.ones((2, 6, 6, 2))
    text = jax.jit(train).lower(*args).as_text(dialect="hlo")
    layouts = re.findall(r"dim_labels=(\S+?)[,\s]", text)
    assert len(layouts) >= 2
    assert set(layouts) == {"b01f_01io->b01f"}


def test_without_it_they_are_not():
    """What the module is for; should XLA learn this itself, the module can go."""
    jax.clear_caches()
    args = jnp.ones((3, 3, 2, 2)), jnp.ones((2, 6, 6, 2))
    step = jax.jit(
        lambda k, x: lax.fori_loop(0, 3, lambda _, k: k - jax.grad(loss)(k, x), k)
    )
    text = step.lower(*args).compile().as_text()
    layouts = set(re.findall(r"dim_labels=(\S+?)[,\s]", text))
    assert layouts - {"b01f_01io->b01f"}
