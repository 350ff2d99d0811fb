import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from jaxdl.ops import engine as engines
from jaxdl.ops import norm


@pytest.fixture(params=["native", "pure"], autouse=True)
def engine(request):
    """Each test runs with the native kernels, where there are some, and without."""
    if request.param == "native" and (reason := engines.missing()):
        pytest.skip(f"no native engine: {reason}")
    with engines.using(request.param):
        yield request.param


def drawn(shape, dtype="float32", seed=0, mean=0.0):
    x = np.random.default_rng(seed).normal(mean, 1, shape).astype(jnp.dtype(dtype))
    return jnp.asarray(x, x.dtype)  # converted by NumPy: JAX would compile for that


def wide(x):
    return np.asarray(x).astype(np.float64)


def sums64(g, x, centre):
    """In NumPy's float64, with the sums of magnitudes that bound rounding errors."""
    g, x, centre = wide(g), wide(x), wide(centre)
    axes = tuple(range(x.ndim - 1))
    products = g * (x - centre)
    return [
        (terms.sum(axes), np.abs(terms).sum(axes) + 1e-6) for terms in (g, products)
    ]


shapes = st.one_of(
    st.tuples(st.integers(1, 1200), st.sampled_from([1, 2, 3, 6, 16, 17, 64, 100])),
    st.tuples(st.integers(1, 300), st.sampled_from([512, 2048])),
    st.tuples(*[st.integers(1, 9)] * 3, st.integers(1, 70)),
    st.sampled_from([(521, 3), (1031, 5), (8, 40, 40, 6), (70, 9, 9, 64)]),  # primes
)
formats = st.sampled_from(["float32", "bfloat16"])


def five(*strategies):
    """Five cases, for one program: compiling is what takes the time."""
    return given(st.lists(st.tuples(*strategies), min_size=5, max_size=5))


@settings(deadline=None, max_examples=5)
@five(shapes, formats, formats, st.integers(0, 99))
def test_sums_are_numpys(cases):
    args = [
        (
            drawn(shape, g_format, seed),
            drawn(shape, x_format, seed + 1, 2.0),
            drawn(shape[-1:], seed=seed + 2, mean=2.0),
        )
        for shape, g_format, x_format, seed in cases
    ]
    found = jax.jit(lambda args: [norm.channel_sums(*of) for of in args])(args)
    for of, sums in zip(args, found, strict=True):
        for ours, (expected, magnitude) in zip(sums, sums64(*of), strict=True):
            assert ours.dtype == jnp.float32
            assert np.max(np.abs(ours - expected) / magnitude) < 1e-6


@settings(deadline=None, max_examples=5)
@five(shapes, formats, st.sampled_from([0.0, -7.0, 3000.0]), st.integers(0, 99))
def test_moments_are_numpys(cases):
    args = [drawn(shape, dtype, seed, mean) for shape, dtype, mean, seed in cases]
    found = jax.jit(lambda args: [norm.moments(x) for x in args])(args)
    for x, (found_mean, found_variance) in zip(map(wide, args), found, strict=True):
        axes = tuple(range(x.ndim - 1))
        assert found_mean.dtype == found_variance.dtype == jnp.float32
        np.testing.assert_allclose(
            found_mean, x.mean(axes), rtol=1e-6, atol=1e-6 * np.abs(x).max()
        )
        variance = x.var(axes)
        # What a mean that is off by one rounding adds, and the sum's own roundings.
        slack = (2e-6 * np.abs(x).max()) ** 2 + 1e-6
        np.testing.assert_allclose(found_variance, variance, rtol=1e-5, atol=slack)


@pytest.mark.parametrize("rows", [5, 50_000])
def test_an_infinity_is_the_mean(rows):
    """First, last, both, of one sign and of two; long sums are cut into pieces."""
    ends = np.array([[np.inf, 1, -np.inf, np.inf, np.nan], [1, -np.inf] * 2 + [1]])
    ends = np.column_stack([ends, [np.inf, np.inf], [1, 1]])
    x = np.ones((rows, 7), np.float32)
    x[[0, -1]] = ends
    mean, variance = jax.jit(norm.moments)(x)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(mean, ends.mean(0))
    np.testing.assert_array_equal(variance, [np.nan] * 6 + [0])


def test_a_long_sum_keeps_its_digits():
    """131,072 values: one float32 sum, term by term, is off by 1e-3 of itself."""
    x = jnp.full((128, 32, 32, 3), 1.1).at[::2].multiply(3)
    mean, variance = norm.moments(x)
    np.testing.assert_allclose(mean, 2.2, rtol=1e-5)
    np.testing.assert_allclose(variance, 1.21, rtol=1e-5)


def test_affine_is_what_it_says():
    x = drawn((2, 3, 4))
    centre, factor, offset = (drawn((4,), seed=i) for i in (1, 2, 3))
    y = norm.affine(x, centre, factor, offset)
    expected = (wide(x) - wide(centre)) * wide(factor) + wide(offset)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    assert norm.affine(x, centre, factor, offset, dtype="bfloat16").dtype == "bfloat16"


def normalised(x, factor, offset):
    """Batch norm from the three functions."""
    mean, variance = norm.moments(x)
    return norm.affine(x, mean, factor * lax.rsqrt(variance + 0.1), offset)


def plain(x, factor, offset):
    """The same, of JAX's own operations."""
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes)
    variance = jnp.square(x - mean).mean(axes)
    return (x - mean) * (factor * lax.rsqrt(variance + 0.1)) + offset


def example(shape=(5, 3, 2, 4)):
    return drawn(shape), drawn(shape[-1:], seed=1), drawn(shape[-1:], seed=2)


def loss(form, *args):
    return jnp.sum(
        jnp.sin(form(*args)) * jnp.arange(args[0].size).reshape(args[0].shape)
    )


def test_derivatives_of_two_orders_agree_with_differences():
    with jax.enable_x64(True):
        args = jax.tree.map(lambda a: a.astype(jnp.float64), example())
        both = {"order": 2, "modes": ["fwd", "rev"]}
        check_grads(jax.jit(normalised), args, **both, rtol=1e-3)
        g, x, centre = drawn((6, 3), "float64"), args[0][0, 0, :, :3], args[1][:3]
        x = jnp.tile(x, (3, 1))
        check_grads(jax.jit(norm.channel_sums), (g, x, centre), **both)
        check_grads(jax.jit(norm.moments), (x,), **both)


def gradient(form, *args):
    return jax.grad(functools.partial(loss, form), range(len(args)))(*args)


def product(form, *args):
    """Hessian times a vector, forward over reverse."""
    return jax.jvp(functools.partial(gradient, form), args, args)[1]


def double_back(form, *args):
    """Hessian times a vector, reverse over reverse."""
    return jax.vjp(functools.partial(gradient, form), *args)[1](args)


def derivatives(form, *args):
    return [of(form, *args) for of in (gradient, product, double_back)]


def of_format(dtype):
    x, *vectors = example()
    return x.astype(dtype), *vectors


@functools.cache
def exact_derivatives(dtype):
    """By JAX's own operations in float64, from the same numbers."""
    with jax.enable_x64(True):
        args = [jnp.asarray(wide(a)) for a in of_format(dtype)]
        return jax.jit(functools.partial(derivatives, plain))(*args)


@pytest.mark.parametrize(
    "how",
    {
        "jit": jax.jit,
        "remat": lambda f: jax.jit(jax.checkpoint(f)),
        "vmap": lambda f: (
            lambda *a: jax.tree.map(
                lambda t: t[1], jax.vmap(f)(*(jnp.stack([2 * x, x]) for x in a))
            )
        ),
        "vmap over images": lambda f: (
            lambda x, *a: jax.tree.map(
                lambda t: t[..., 1],
                jax.vmap(f, (4, None, None), -1)(jnp.stack([2 * x, x], 4), *a),
            )
        ),
        "scan": lambda f: (
            lambda *a: jax.tree.map(
                lambda t: t[0], lax.scan(lambda c, _: (c, f(*a)), 0, length=1)[1]
            )
        ),
    }.items(),
    ids=lambda item: item[0],
)
def test_derivatives_are_jaxs_own_however_compiled(how):
    tolerances = {"float32": 1e-4, "bfloat16": 0.03}
    args = {dtype: of_format(dtype) for dtype in tolerances}
    compute = how[1](functools.partial(derivatives, normalised))
    found = jax.jit(lambda args: {d: compute(*of) for d, of in args.items()})(args)
    for dtype, tolerance in tolerances.items():
        exact = exact_derivatives(dtype)
        for ours, theirs in zip(found[dtype], exact, strict=True):
            for a, b, arg in zip(ours, theirs, args[dtype], strict=True):
                assert a.dtype == arg.dtype
                scale = np.abs(b).max()
                np.testing.assert_allclose(wide(a), b, atol=tolerance * scale)


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 2, 2, 3)])
def test_nothing_sums_to_nothing(shape):
    x, centre = jnp.zeros(shape), jnp.zeros(shape[-1:])
    for total in norm.channel_sums(x, x, centre):
        np.testing.assert_array_equal(total, np.zeros(shape[-1:]))


def test_moments_of_nothing_have_a_gradient_of_nothing():
    x = jnp.zeros((0, 3))
    assert all(jnp.isnan(moment).all() for moment in norm.moments(x))
    slope = jax.grad(lambda x: sum(moment.sum() for moment in norm.moments(x)))(x)
    assert slope.shape == x.shape


def test_wider_and_narrower_formats_are_computed_by_xla():
    with jax.enable_x64(True):
        x = drawn((7, 3), "float64")
        mean, variance = norm.moments(x)
        np.testing.assert_allclose(mean, wide(x).mean(0), rtol=1e-14)
        np.testing.assert_allclose(variance, wide(x).var(0), rtol=1e-14)
    mean, _ = norm.moments(drawn((7, 3), "float16"))
    assert mean.dtype == jnp.float32


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 3\)"):
        norm.channel_sums(jnp.ones((2, 3)), jnp.ones((3, 3)), jnp.ones(3))


@pytest.mark.parametrize("how", ["jit over a mesh", "shard_map"])
def test_a_batch_spread_over_devices(how):
    """`jit` alone partitions: it must not hand a device's part to the kernel."""
    g, x, centre = drawn((16, 5, 3)), drawn((16, 5, 3), seed=1), drawn((3,), seed=2)
    mesh = Mesh(jax.devices()[:4], "data")
    split = PartitionSpec("data")
    if how == "shard_map":

        @functools.partial(
            jax.shard_map,
            mesh=mesh,
            in_specs=(split, split, PartitionSpec()),
            out_specs=PartitionSpec(),
        )
        def total(g, x, centre):
            return lax.psum(norm.channel_sums(g, x, centre), "data")
    else:
        g, x = jax.device_put((g, x), NamedSharding(mesh, split))
        total = norm.channel_sums
    found = jax.jit(total)(g, x, centre)
    for ours, (expected, magnitude) in zip(found, sums64(g, x, centre), strict=True):
        assert np.max(np.abs(ours - expected) / magnitude) < 1e-6


def test_types_that_name_an_axis_of_a_mesh(engine):
    """Its parts do not divide into the sums of a product with ones."""
    x = drawn((64, 7, 7, 16))
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Explicit,))
    expected = jax.jit(norm.moments)(x)
    with jax.set_mesh(mesh):
        found = jax.jit(norm.moments)(jax.device_put(x, PartitionSpec("data")))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_kernels_are_really_called(engine):
    """In a whole gradient, and nothing of the array's size is reduced by XLA."""
    step = jax.jit(functools.partial(gradient, normalised))
    text = step.lower(*example((4, 4, 4, 8))).compile().as_text()
    calls = [text.count(f'custom_call_target="{p.name}"') for p in PRIMITIVES]
    assert calls == ([1, 1] if engine == "native" else [0, 0])


PRIMITIVES = (norm.moments_p, norm.channel_sums_p)

BITS = """
import jaxdl, jax, jax.numpy as jnp, numpy as np, sys
from jaxdl.ops import norm
x = jnp.asarray(np.random.default_rng(0).normal(5, 1, (64, 16, 16, 24)), "float32")
f = jax.jit(lambda x: (norm.moments(x), norm.channel_sums(x, x * x, x[0, 0, 0])))
first = [np.asarray(leaf).tobytes().hex() for leaf in jax.tree.leaves(f(x))]
for _ in range(20):
    again = [np.asarray(leaf).tobytes().hex() for leaf in jax.tree.leaves(f(x))]
    assert first == again
print(first)
"""


def test_two_processes_give_the_same_bits(engine):
    if engine == "pure":
        pytest.skip("XLA's own sums")
    command = [sys.executable, "-c", BITS]
    first, second = (
        subprocess.run(
            command, env={**os.environ, **threads}, check=True, capture_output=True
        ).stdout
        for threads in ({}, {"JAX_NUM_CPU_DEVICES": "1"})
    )
    assert first == second
    assert len(first) > 4 * 24 * 8
