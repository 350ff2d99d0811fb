"""The engines change how a convolution is computed, and not what.

Most operands are small whole numbers, so that the results are exact and compared to the
last bit; bfloat16 results too, which so have been rounded once, at the end.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from definition import correlate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax
from jax.test_util import check_grads

from jaxdl import ops
from jaxdl.ops import conv, geometry

NHWC = ("NHWC", "HWIO", "NHWC")
LAYOUTS = [
    NHWC,
    ("NCHW", "OIHW", "NCHW"),
    ("CHWN", "IHWO", "HWNC"),
    ("NHCW", "OHWI", "CNHW"),
]

# The same at each run: of some convolutions that nobody has jaxlib 0.10.2 itself aborts
# when it compiles their gradients, also where nothing of ours is on. One is bfloat16,
# 3x9x4x5, kernel 3x2 to 1 channel, strides 2, dilation 3x1, padding (-1, -1), (1, 1).
drawn = functools.partial(
    settings,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def out_sizes(sizes, kernel, strides, padding, dilation):
    return tuple(
        (n + sum(pads) - (k - 1) * d - 1) // s + 1
        for n, k, s, pads, d in zip(
            sizes, kernel, strides, padding, dilation, strict=True
        )
    )


@st.composite
def convolutions(draw):
    """A convolution with at least one pixel of result, and not too much work."""
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, strides, dilation = draw(pair), draw(pair), draw(pair)
    side = st.integers(1, 9)
    sizes = draw(st.tuples(side, side))
    padding = []
    for n, k, d in zip(sizes, kernel, dilation, strict=True):
        low, high = draw(st.integers(-1, 3)), draw(st.integers(-1, 3))
        if n + min(low, 0) + min(high, 0) < 1:  # nothing of the images is left
            low, high = abs(low), abs(high)
        lacking = (k - 1) * d + 1 - n - low - high
        padding.append((low, high + max(lacking, 0)))
    few = st.sampled_from([1, 2, 3, 5, 8, 16, 17, 32, 40])
    return {
        "images": draw(st.integers(1, 4)),
        "sizes": sizes,
        "channels": draw(few),
        "outputs": draw(few),
        "kernel": kernel,
        "strides": strides,
        "padding": tuple(padding),
        "dilation": dilation,
        "layout": draw(st.sampled_from(LAYOUTS)),
        "dtype": draw(st.sampled_from(["float32", "bfloat16"])),
    }


def operands(make, case, seed=0):
    """Images, kernel and gradient of a case: NHWC and HWIO."""
    results = out_sizes(
        *(case[k] for k in ("sizes", "kernel", "strides", "padding", "dilation"))
    )
    shapes = (
        (case["images"], *case["sizes"], case["channels"]),
        (*case["kernel"], case["channels"], case["outputs"]),
        (case["images"], *results, case["outputs"]),
    )
    return [make(shape, case["dtype"], seed + i) for i, shape in enumerate(shapes)]


def orders(case):
    """Permutations of NHWC, HWIO and NHWC that make the case's layouts."""
    axes = zip(NHWC, case["layout"], strict=True)
    return [[plain.index(c) for c in layout] for plain, layout in axes]


def with_gradients(case, images, kernel, gradient):
    """The result, and the gradients of its inner product with `gradient`."""
    function = functools.partial(
        lax.conv_general_dilated,
        window_strides=case["strides"],
        padding=case["padding"],
        rhs_dilation=case["dilation"],
        dimension_numbers=case["layout"],
    )
    result, pull = jax.vjp(function, images, kernel)
    return result, *pull(gradient)


def computed(cases, args):
    """By one compiled program; from and to NHWC and HWIO, whatever the layouts."""
    laid = [
        [np.asarray(a).transpose(o) for a, o in zip(arrays, orders(case), strict=True)]
        for case, arrays in zip(cases, args, strict=True)
    ]
    results = jax.jit(
        lambda laid: [
            with_gradients(case, *arrays)
            for case, arrays in zip(cases, laid, strict=True)
        ]
    )(laid)
    return [
        [
            np.asarray(array).transpose(np.argsort(order))
            for array, order in zip(arrays, [outputs, images, kernel], strict=True)
        ]
        for (images, kernel, outputs), arrays in zip(
            map(orders, cases), results, strict=True
        )
    ]


def check_definition(cases, args):
    for case, arrays, found in zip(cases, args, computed(cases, args), strict=True):
        exact = correlate(*arrays, case["strides"], case["padding"], case["dilation"])
        for ours, theirs in zip(found, exact, strict=True):
            assert ours.dtype == case["dtype"]
            np.testing.assert_array_equal(
                ours.astype(float), rounded(theirs, ours.dtype), err_msg=str(case)
            )


def rounded(exact, dtype):
    return np.asarray(exact).astype(dtype).astype(float)


# A list is one program, for the sake of time.
many_convolutions = given(
    cases=st.lists(convolutions(), min_size=8, max_size=8), seed=st.integers(0, 99)
)


@drawn(max_examples=7)
@many_convolutions
def test_values_and_gradients_are_those_of_the_definition(engine, whole, cases, seed):
    check_definition(cases, [operands(whole, case, seed) for case in cases])


@pytest.mark.long
@drawn(max_examples=60)
@many_convolutions
def test_they_are_for_hundreds_of_shapes(engine, whole, cases, seed):
    check_definition(cases, [operands(whole, case, seed) for case in cases])


@drawn(max_examples=7)
@many_convolutions
def test_any_may_be_products_over_taps(native_engine, whole, cases, seed):
    """Pixels that a stride parts lie together, and unseen ones are left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "algorithms", lambda _: ["taps"])
        patch.setattr(conv, "_as_one_product", lambda _: None)
        check_definition(cases, [operands(whole, case, seed) for case in cases])


def case(
    images,
    size,
    channels,
    outputs,
    kernel,
    stride,
    padding,
    layout=NHWC,
    dtype="float32",
    dilation=1,
):
    return {
        "images": images,
        "sizes": (size, size),
        "channels": channels,
        "outputs": outputs,
        "kernel": (kernel, kernel),
        "strides": (stride, stride),
        "padding": (padding, padding),
        "dilation": (dilation, dilation),
        "layout": layout,
        "dtype": dtype,
    }


# Small maps of many channels, where each engine has ways of its own.
DEEP = [
    case(images, size, channels, outputs, kernel, stride, padding, layout, dtype)
    for images, dtype in ((3, "float32"), (40, "bfloat16"))
    for size, channels, outputs, kernel, stride, padding, layout in [
        (1, 256, 260, 3, 1, (1, 1), NHWC),
        (2, 256, 256, 3, 1, (1, 1), LAYOUTS[1]),
        (2, 130, 140, 3, 1, (1, 1), NHWC),
        (3, 256, 256, 3, 1, (1, 1), NHWC),
        (4, 260, 256, 3, 1, (1, 1), LAYOUTS[2]),
        (4, 256, 257, 3, 2, (0, 1), NHWC),
        (8, 128, 512, 1, 2, (0, 0), NHWC),
        (8, 256, 256, 3, 2, (1, 1), NHWC),
        (4, 256, 256, 1, 1, (0, 0), LAYOUTS[1]),
        (4, 16, 16, 4, 1, (0, 0), NHWC),
        (7, 3, 64, 7, 2, (3, 3), NHWC),
    ]
]


def name_of(chosen):
    names = "images", "sizes", "channels", "kernel", "strides", "dtype"
    return "-".join(str(chosen[name]) for name in names)


@pytest.mark.parametrize("chosen", DEEP, ids=name_of)
def test_small_maps_of_many_channels(engine, whole, chosen):
    check_definition([chosen], [operands(whole, chosen)])


@pytest.mark.parametrize("images", [1, 2])
def test_few_windows(engine, whole, images):
    """Those of an image or two, which become the rows of one product."""
    cases = [
        case(images, 5, 6, 7, 3, 1, (1, 1)),
        case(images, 7, 3, 20, 2, 2, (0, 3), LAYOUTS[1], dilation=2),
        case(images, 4, 40, 30, 3, 1, (2, -1), LAYOUTS[2], "bfloat16"),
    ]
    check_definition(cases, [operands(whole, case) for case in cases])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_large_kernel_makes_no_large_program(engine, dtype):
    """The patches of a vision transformer: each pixel of a patch would be a slice."""
    patches = functools.partial(
        lax.conv_general_dilated,
        window_strides=(32, 32),
        padding="VALID",
        dimension_numbers=NHWC,
    )
    shapes = (1, 224, 224, 3), (32, 32, 3, 768)
    with jax.enable_x64(True):
        args = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]

        def slope(images, kernel):
            return jax.grad(lambda w: jnp.sin(patches(images, w)).sum())(kernel)

        for function in (patches, slope):
            text = jax.jit(function).lower(*args).as_text()
            assert text.count("stablehlo.slice") < 10
            assert text.count("stablehlo.dot_general") < 10


@pytest.mark.parametrize("layout", LAYOUTS[:2], ids=str)
def test_complex_ones_are_three_real_ones(engine, whole, layout):
    """XLA's own for complex numbers is a slow loop, which JAX keeps away from."""

    @jax.jit
    def convolve(images, kernel):
        numbers = {"dimension_numbers": layout}
        return lax.conv_general_dilated(images, kernel, (1, 1), "SAME", **numbers)

    parts = [whole((4, 4, 4, 4), seed=i) for i in range(4)]
    args = parts[0] + 1j * parts[1], parts[2] + 1j * parts[3]
    assert not re.search("convolution.*complex", convolve.lower(*args).as_text())
    with ops.using("xla"):
        expected = convolve(*args)
    np.testing.assert_array_equal(convolve(*args), expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_channel_or_one_output(engine, whole, dtype):
    """Where the strides of a matrix do not tell its rows from its columns."""
    cases = [
        case(3, 5, channels, outputs, 1, 1, (0, 0), layout, dtype)
        for channels, outputs in ((1, 1), (1, 20), (20, 1))
        for layout in LAYOUTS[:2]
    ]
    check_definition(cases, [operands(whole, case) for case in cases])


# Of (height, kernel, stride, dilation, padding).
BLIND = [
    (1, 3, 2, 2, (1, 3)),  # oneDNN 3.2 dies of it, in bfloat16 with AMX
    (2, 4, 2, 3, (1, 8)),  # and of this
    (1, 1, 3, 1, (2, 0)),  # the gradient has more negative padding than rows
    (2, 1, 3, 1, (2, -1)),
]


@pytest.mark.parametrize("layout", LAYOUTS[:2], ids=["NHWC", "NCHW"])
@pytest.mark.parametrize("rows", BLIND, ids=str)
def test_rows_that_see_nothing_but_padding(engine, whole, rows, layout):
    cases = [
        {
            "images": 3,
            "sizes": (rows[0], 6),
            "channels": 40,
            "outputs": 5,
            "kernel": (rows[1], 3),
            "strides": (rows[2], 1),
            "padding": (rows[4], (1, 2)),
            "dilation": (rows[3], 2),
            "layout": layout,
            "dtype": dtype,
        }
        for dtype in ("float32", "bfloat16")
    ]
    check_definition(cases, [operands(whole, case) for case in cases])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rounding_errors_are_those_of_one_sum(engine, normal, dtype):
    """Relative to the sum of magnitudes; results in bfloat16 are rounded once more."""
    for chosen in (
        case(8, 2, 256, 256, 3, 1, (1, 1)),
        case(2, 16, 32, 64, 3, 1, (1, 1), LAYOUTS[1]),
        case(4, 13, 3, 16, 5, 2, (1, 2)),
        case(4, 8, 64, 128, 1, 1, (0, 0)),
    ):
        chosen = {**chosen, "dtype": dtype}
        args = operands(normal, chosen)
        by = (chosen["strides"], chosen["padding"], chosen["dilation"])
        exact = correlate(*args, *by)
        magnitudes = correlate(
            *(np.abs(np.asarray(a).astype(float)) for a in args), *by
        )
        (found,) = computed([chosen], [args])
        rounding = 2.0**-8 if dtype == "bfloat16" else 0
        for ours, value, magnitude in zip(found, exact, magnitudes, strict=True):
            error = np.abs(np.asarray(ours).astype(float) - value)
            assert np.all(error <= rounding * np.abs(value) + 2e-6 * magnitude)


@st.composite
def anything(draw):
    """Parameters of `lax.conv_general_dilated`, of every kind it has."""
    rank = draw(st.sampled_from([1, 2, 2, 2, 3]))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    batch_groups = 1 if groups > 1 else draw(st.sampled_from([1, 1, 2]))

    def each(low, high):
        return tuple(
            draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))
        )

    kernel = each(1, 3)
    dims = draw(st.permutations(range(rank + 2)))
    kernel_dims = draw(st.permutations(range(rank + 2)))
    out_dims = draw(st.permutations(range(rank + 2)))
    channels = draw(st.sampled_from([1, 4, 16])) * groups
    outputs = draw(st.sampled_from([1, 3, 16])) * groups * batch_groups
    sizes, images = each(3, 6), draw(st.integers(1, 3)) * batch_groups
    left, right = [0] * (rank + 2), [0] * (rank + 2)
    for axis, size in zip(dims, (images, channels, *sizes), strict=True):
        left[axis] = size
    for axis, size in zip(
        kernel_dims, (outputs, channels // groups, *kernel), strict=True
    ):
        right[axis] = size
    params = {
        "window_strides": each(1, 2),
        "padding": tuple(
            (draw(st.integers(-1, 4)), draw(st.integers(2, 5))) for _ in sizes
        ),
        "lhs_dilation": each(1, 2) if draw(st.booleans()) else None,
        "rhs_dilation": each(1, 2),
        "dimension_numbers": lax.ConvDimensionNumbers(
            *map(tuple, (dims, kernel_dims, out_dims))
        ),
        "feature_group_count": groups,
        "batch_group_count": batch_groups,
    }
    return tuple(left), tuple(right), params


any_parameters = given(
    cases=st.lists(anything(), min_size=4, max_size=4),
    dtype=st.sampled_from(["float32", "float32", "bfloat16", "float64"]),
)


@drawn(max_examples=5)
@any_parameters
def test_whatever_its_parameters_it_is_xlas_own(engine, whole, cases, dtype):
    check_xla(whole, cases, dtype)


@pytest.mark.long
@drawn(max_examples=40)
@any_parameters
def test_it_is_for_hundreds_of_parameters(engine, whole, cases, dtype):
    check_xla(whole, cases, dtype)


def check_xla(whole, cases, dtype):
    """Groups, one or three dimensions, dilated images ...: ours, or left alone."""

    def compute(args):
        results = []
        for (left, right), (*_, params) in zip(args, cases, strict=True):
            function = functools.partial(lax.conv_general_dilated, **params)
            result, pull = jax.vjp(function, left, right)
            gradient = jnp.arange(result.size).reshape(result.shape) % 3 - 1
            results.append((result, *pull(gradient.astype(result.dtype))))
        return results

    with jax.enable_x64(dtype == "float64"):
        args = [
            (whole(left, dtype), whole(right, dtype, 1)) for left, right, _ in cases
        ]
        found = jax.jit(lambda a: compute(a))(args)
    with ops.using("xla"), jax.enable_x64(True):
        args = [
            (whole(left, "float64"), whole(right, "float64", 1))
            for left, right, _ in cases
        ]
        exact = jax.jit(lambda a: compute(a))(args)
    for ours, theirs in zip(
        jax.tree.leaves(found), jax.tree.leaves(exact), strict=True
    ):
        assert ours.dtype == dtype
        np.testing.assert_array_equal(
            np.asarray(ours).astype(float), rounded(theirs, ours.dtype)
        )


def test_bfloat16_with_a_float32_result(engine, whole):
    args = whole((4, 6, 6, 16), "bfloat16"), whole((3, 3, 16, 40), "bfloat16", 1)
    compute = functools.partial(
        lax.conv_general_dilated,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=NHWC,
        preferred_element_type=jnp.float32,
    )
    found = jax.jit(compute)(*args)
    gradient = np.zeros(found.shape)
    exact, *_ = correlate(*args, gradient, (1, 1), ((1, 1), (1, 1)), (1, 1))
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, exact)


@pytest.mark.parametrize("empty", ["images", "channels", "outputs"])
def test_nothing_of_something(engine, whole, empty):
    chosen = {**case(2, 5, 3, 4, 3, 1, (1, 1)), empty: 0}
    check_definition([chosen], [operands(whole, chosen)])


# What a model does with convolutions, and what JAX does with a model.


def model(kernels, images):
    """Three convolutions, one of each kind that engines tell apart."""
    first, second, third = kernels
    conv = functools.partial(lax.conv_general_dilated, dimension_numbers=NHWC)
    x = jnp.tanh(conv(images, first, (2, 2), [(1, 1), (1, 2)]))
    x = jnp.tanh(conv(x, second, (1, 1), "SAME"))
    return jnp.sum(jnp.sin(conv(x, third, (1, 1), "VALID")) ** 2)


def example(normal, stack=()):
    kernels = [
        normal((*stack, *shape), seed=i) / 4
        for i, shape in enumerate([(3, 3, 2, 3), (3, 3, 3, 4), (1, 1, 4, 2)])
    ]
    return kernels, normal((*stack, 4, 7, 7, 2), seed=9)


gradient = jax.grad(model, (0, 1))


def product(kernels, images):
    """Hessian times a vector, forward over reverse."""
    args = kernels, images
    return jax.jvp(gradient, args, jax.tree.map(jnp.cos, args))[1]


def double_back(kernels, images):
    """Hessian times a vector, reverse over reverse."""
    args = kernels, images
    return jax.vjp(gradient, *args)[1](jax.tree.map(jnp.cos, args))


def tangent(kernels, images):
    args = kernels, images
    return jax.jvp(model, args, jax.tree.map(jnp.cos, args))


def scanned(of):
    def run(*args):
        return lax.scan(lambda carry, _: (carry, of(*args)), 0, length=2)[1]

    return lambda *args: jax.tree.map(lambda leaf: leaf[1], run(*args))


def looped(of):
    def run(*args):
        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(of, *args))
        return lax.fori_loop(
            0, 2, lambda _, total: jax.tree.map(jnp.add, total, of(*args)), zeros
        )

    return lambda *args: jax.tree.map(lambda leaf: leaf / 2, run(*args))


def in_float64(of, args):
    """By XLA, from the same numbers."""
    with ops.using("xla"), jax.enable_x64(True):
        return jax.jit(lambda *a: of(*a))(
            *jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), args)
        )


def assert_close(found, expected, tolerance=2e-5):
    for ours, theirs in zip(
        jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale)


def derivatives(*args):
    return [of(*args) for of in (tangent, gradient, product, double_back)]


@functools.cache
def exact_derivatives(normal):
    return in_float64(derivatives, example(normal))


@pytest.mark.parametrize(
    "how",
    [
        jax.jit,
        lambda f: jax.jit(jax.checkpoint(f)),
        lambda f: jax.jit(scanned(f)),
        lambda f: jax.jit(scanned(jax.checkpoint(f))),
        lambda f: jax.jit(looped(f)),
    ],
    ids=["jit", "remat", "scan", "remat in scan", "fori_loop"],
)
def test_derivatives_are_xlas_own_however_compiled(engine, normal, how):
    found = how(lambda *a: derivatives(*a))(*example(normal))
    assert_close(found, exact_derivatives(normal))


def test_without_jit_too(engine, normal):
    assert_close(gradient(*example(normal)), exact_derivatives(normal)[1])


def test_derivatives_of_two_orders_agree_with_differences(engine, normal):
    def cubic(kernel, images):
        conv = functools.partial(lax.conv_general_dilated, dimension_numbers=NHWC)
        return jnp.mean(conv(images, kernel, (2, 1), [(1, 0), (1, 2)]) ** 3)

    args = normal((3, 3, 2, 3)) / 4, normal((2, 6, 6, 2))
    check_grads(jax.jit(cubic), args, 2, ["fwd", "rev"], atol=1e-2, rtol=1e-2, eps=1e-2)


def value_and_more(*args):
    return model(*args), gradient(*args), product(*args)


@functools.cache
def exact_vmap(normal, over):
    kernels, images = example(normal, (3,))
    if over == "images":
        kernels = jax.tree.map(lambda k: k[0], kernels)
    if over == "kernels":
        images = images[0]
    axes = tuple(
        0 if over in (name, "both") else None for name in ("kernels", "images")
    )
    args = kernels, images
    return args, axes, in_float64(jax.vmap(value_and_more, axes), args)


@pytest.mark.parametrize(
    ("over", "axis"), [("images", 0), ("kernels", -1), ("both", 0), ("both", -1)]
)
def test_vmap(engine, normal, over, axis):
    args, axes, expected = exact_vmap(normal, over)
    args = [
        tree if at is None else jax.tree.map(lambda x: jnp.moveaxis(x, 0, axis), tree)
        for tree, at in zip(args, axes, strict=True)
    ]
    axes = tuple(None if at is None else axis for at in axes)
    found = jax.jit(jax.vmap(lambda *a: value_and_more(*a), axes))(*args)
    assert_close(found, expected)


def test_a_gradient_for_each_example(engine, normal):
    """A kernel's gradient for each image: `vmap` writes it as a grouped convolution."""
    kernels, images = example(normal)

    def each(kernels, images):
        return jax.vmap(jax.grad(lambda k, x: model(k, x[None])), (None, 0))(
            kernels, images
        )

    assert_close(
        jax.jit(lambda *a: each(*a))(kernels, images),
        in_float64(each, (kernels, images)),
    )


# What is compiled.


def compiled(function, *args):
    return jax.jit(lambda *a: function(*a)).lower(*args).compile().as_text()


def test_the_native_engine_is_really_called(native_engine, normal):
    """For all convolutions of a gradient, in a loop too; XLA is left with none."""
    for how in (gradient, scanned(gradient)):
        text = compiled(how, *example(normal))
        assert text.count('custom_call_target="jaxdl_conv"') >= 8
        assert "dim_labels" not in text
    with ops.using("xla"):
        assert "jaxdl" not in compiled(gradient, *example(normal))


def test_pure_convolutions_in_a_loop_are_in_the_fast_layout(enabled, normal):
    with ops.using("pure"):
        text = (
            jax.jit(lambda *a: scanned(gradient)(*a))
            .lower(*example(normal))
            .as_text(dialect="hlo")
        )
    layouts = set(re.findall(r"dim_labels=(\S+?)[,\s]", text))
    assert layouts == {"b01f_01io->b01f"}


def test_without_an_engine_they_are_not(enabled, normal):
    """What the pure forms are for; should XLA learn this itself, that part can go."""
    with ops.using("xla"):
        text = compiled(scanned(gradient), *example(normal))
    layouts = set(re.findall(r"dim_labels=(\S+?)[,\s]", text))
    assert layouts - {"b01f_01io->b01f"}


def test_a_forward_convolution_of_images_that_come_last_is_recognised(normal):
    from jaxdl.ops import report

    def convolve(kernel, images):
        numbers = ("CHWN", "IHWO", "CHWN")
        return jax.lax.conv_general_dilated(
            images, kernel, (1, 1), "SAME", dimension_numbers=numbers
        )

    (row,) = report.convolutions(
        convolve, normal((8, 3, 3, 64)), normal((8, 14, 14, 32))
    )
    assert row.convolution.direction == "forward"


def test_every_convolution_of_a_gradient_is_recognised(normal):
    """As what it is: three forward, three kernels' gradients, two of inputs."""
    from jaxdl.ops import report

    kernels, images = example(normal)
    rows = report.convolutions(jax.grad(model), kernels, images)
    directions = [row.convolution and row.convolution.direction for row in rows]
    assert [directions.count(d) for d in geometry.DIRECTIONS] == [3, 2, 3]
