"""Balls against mpmath, and the program against JAX itself."""

import flint
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from flint import arb
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxdl.convexity import exact, search
from jaxdl.convexity.exact import UnknownPrimitiveError, enclose
from jaxdl.convexity.tracing import trace

FUNCTIONS = {
    "exp": (jnp.exp, mpmath.exp),
    "exp2": (jnp.exp2, lambda x: mpmath.mpf(2) ** x),
    "expm1": (jnp.expm1, mpmath.expm1),
    "tanh": (jnp.tanh, mpmath.tanh),
    "sigmoid": (jax.nn.sigmoid, lambda x: 1 / (1 + mpmath.exp(-x))),
    "log1p": (lambda x: jnp.log1p(jnp.abs(x)), lambda x: mpmath.log1p(abs(x))),
    "log": (lambda x: jnp.log(jnp.abs(x) + 1), lambda x: mpmath.log(abs(x) + 1)),
    "sqrt": (lambda x: jnp.sqrt(x * x + 1), lambda x: mpmath.sqrt(x * x + 1)),
    "rsqrt": (lambda x: lax.rsqrt(x * x + 1), lambda x: 1 / mpmath.sqrt(x * x + 1)),
    "sin": (jnp.sin, mpmath.sin),
    "cos": (jnp.cos, mpmath.cos),
    "tan": (jnp.tan, mpmath.tan),
    "atan": (jnp.arctan, mpmath.atan),
    "asinh": (jnp.arcsinh, mpmath.asinh),
    "sinh": (jnp.sinh, mpmath.sinh),
    "cosh": (jnp.cosh, mpmath.cosh),
    "erf": (lax.erf, mpmath.erf),
    "erfc": (lax.erfc, mpmath.erfc),
    "power": (lambda x: jnp.abs(x) ** 2.5, lambda x: abs(x) ** mpmath.mpf(2.5)),
    "inverse": (lambda x: 1 / (x**2 + 1), lambda x: 1 / (x * x + 1)),
    "sign": (jnp.sign, mpmath.sign),
    "softplus": (jax.nn.softplus, lambda x: mpmath.log1p(mpmath.exp(x))),
    "relu": (jax.nn.relu, lambda x: max(x, 0)),
    "clip": (lambda x: jnp.clip(x, -1, 1), lambda x: min(max(x, -1), 1)),
    "where": (
        lambda x: jnp.where((x > 0) & ~(x > 2), x, x * x),
        lambda x: x if 0 < x <= 2 else x * x,
    ),
}


def interval(ball: arb):
    with mpmath.workprec(400), flint.ctx.workprec(400):
        return mpmath.mpf(ball.lower()._mpf_), mpmath.mpf(ball.upper()._mpf_)


@pytest.mark.parametrize("name", FUNCTIONS)
@given(x=st.floats(-20, 20, allow_subnormal=False))
@settings(max_examples=10, deadline=None)
def test_balls_hold_what_mpmath_computes(name, x):
    function, reference = FUNCTIONS[name]
    program = trace(function, np.float64(x))
    with mpmath.workprec(400):
        value = mpmath.mpf(reference(mpmath.mpf(x)))
        for bits in (64, 256):
            low, high = interval(enclose(program, [np.float64(x)], bits))
            margin = mpmath.mpf(2) ** (10 - 400) * max(
                1, abs(value)
            )  # of the reference
            assert low - margin <= value <= high + margin
            assert high - low <= mpmath.mpf(2) ** (40 - bits) * max(1, abs(value))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_search_computes_the_same_function(name):
    function, _ = FUNCTIONS[name]
    with jax.enable_x64(True):
        for x in (-1.5, 0.25, 3.0):
            program = trace(function, np.float64(x))
            ours = search.as_function(program)(jnp.array([x]))
            np.testing.assert_allclose(ours, function(x), rtol=1e-12)


RNG = np.random.default_rng(0)
IMAGE = RNG.standard_normal((2, 6, 5, 3))
KERNEL = RNG.standard_normal((3, 2, 3, 4))
LABELS = jnp.array([1, 0])


def conv(x, **options):
    numbers = ("NHWC", "HWIO", "NHWC")
    window_strides, padding = (
        options.pop("strides", (1, 1)),
        options.pop("padding", "SAME"),
    )
    return lax.conv_general_dilated(
        x, KERNEL, window_strides, padding, dimension_numbers=numbers, **options
    )


def pool(function, start):
    def pooled(x):
        return lax.reduce_window(
            x,
            start,
            function,
            (1, 2, 2, 1),
            (1, 2, 1, 1),
            ((0, 0), (1, 1), (0, 1), (0, 0)),
        )

    return pooled


@jax.custom_vjp
def with_own_gradient(x):
    return jnp.tanh(x)


with_own_gradient.defvjp(lambda x: (x, None), lambda _, g: (g,))

MOVES = {
    "transpose": lambda x: x.transpose(2, 0, 3, 1),
    "reshape and slice": lambda x: x.reshape(4, -1)[1:, ::2],
    "reverse": lambda x: x[::-1, :, ::-1],
    "gather": lambda x: x[:, jnp.array([2, 0, -1])],
    "take along": lambda x: jnp.take_along_axis(x, LABELS[:, None, None, None], 1),
    "pad": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 0), (0, 1)), constant_values=0.5),
    "roll": lambda x: jnp.roll(x, 2, axis=1),
    "concatenate": lambda x: jnp.concatenate([x, 2 * x], axis=2),
    "stack": lambda x: jnp.stack([x, x + 1]),
    "split": lambda x: jnp.split(x, 3, axis=1)[2],
    "at set": lambda x: x.at[:, 1].set(3.0),
    "repeat": lambda x: jnp.repeat(x, 2, axis=1),
    "dynamic slice": lambda x: lax.dynamic_slice(x, (0, 1, 2, 0), (2, 3, 2, 3)),
    "update": lambda x: lax.dynamic_update_slice(x, x[:1, :1] * 2, (1, 2, 0, 0)),
    "where data": lambda x: jnp.where(IMAGE > 0, x, -x),
    "one-hot": lambda x: jax.nn.one_hot(LABELS, 2) @ x.reshape(2, -1),
    "tile": lambda x: jnp.tile(x, (1, 2, 1, 1)),
    "triangle": lambda x: jnp.tril(x),
    "cumulative": lambda x: jnp.cumsum(x, axis=1) + jnp.cumsum(x, axis=2)[::-1],
    "cumulative, reversed": lambda x: lax.cumsum(x, axis=2, reverse=True),
    "einsum": lambda x: jnp.einsum("nhwc,nhdc->dnw", x, IMAGE + 1),
    "product of both": lambda x: jnp.einsum("nhwc,mhwc->nm", x, x),
    "sum of squares": lambda x: jnp.einsum("nhwc,nhwc->hn", x, x),
    "conv": conv,
    "conv, strided": lambda x: conv(x, strides=(2, 1), padding="VALID"),
    "conv, dilated": lambda x: conv(
        x, rhs_dilation=(2, 1), lhs_dilation=(1, 2), padding=((1, 1), (0, 2))
    ),
    "conv, padded": lambda x: conv(x, padding=((2, 0), (-1, 3))),
    "conv of the kernel": lambda x: lax.conv(
        x.transpose(0, 3, 1, 2), x[:, :2, :2].transpose(0, 3, 1, 2), (1, 1), "VALID"
    ),
    "max-pool": pool(lax.max, -jnp.inf),
    "sum-pool": pool(lax.add, 0.0),
    "reduce": lambda x: x.max(1) + x.min(1) + x.sum(1),
    "product": lambda x: x[:, :2].prod(axis=1),
    "scan": lambda x: lax.scan(lambda c, a: (c * 0.5 + a, c), x[0], x)[1],
    "scan, reversed": lambda x: lax.scan(
        lambda c, a: (c * 0.5 + a, c), x[0], x, reverse=True
    )[0],
    "cond": lambda x: lax.cond(LABELS[0] > 0, jnp.negative, jnp.exp, x),
    "fori": lambda x: lax.fori_loop(0, 3, lambda k, c: c * 2 + k, x),
    "map": lambda x: lax.map(lambda a: a.sum(axis=-1), x),
    "vmap": lambda x: jax.vmap(lambda a: a[0] @ a[1].T)(x),
    "remat": jax.checkpoint(lambda x: jnp.tanh(x)),
    "own gradient": with_own_gradient,
    "gradient": jax.grad(lambda x: jnp.tanh(x).sum()),
    "half precision is no rounding": lambda x: x.astype(jnp.float16).astype(x.dtype),
    "dropout": lambda x: jnp.where(
        jax.random.bernoulli(jax.random.key(1), 0.5, x.shape), x, 0
    ),
    "sorted data": lambda x: x * jnp.sort(LABELS)[:, None, None, None],
}


@pytest.mark.parametrize("name", MOVES)
def test_the_program_is_the_loss(name):
    """Values, in balls and in float64; weights make every entry count."""

    def loss(x):
        out = MOVES[name](x)
        return (out * jnp.cos(jnp.arange(out.size)).reshape(out.shape)).sum()

    with jax.enable_x64(True):
        program = trace(loss, IMAGE)
        expected = float(jax.jit(loss)(IMAGE))
        ours = float(jax.jit(search.as_function(program))(IMAGE.reshape(-1)))
    tolerance = 1e-2 if "half" in name else 1e-10
    assert float(enclose(program, [IMAGE], 64).mid()) == pytest.approx(
        expected, abs=tolerance
    )
    assert ours == pytest.approx(expected, abs=tolerance)


def test_what_is_read_outside_of_an_array_is_not_guessed():
    program = trace(lambda x: x.at[jnp.array([7])].get(mode="fill").sum(), np.ones(3))
    with pytest.raises(UnknownPrimitiveError, match="gather outside"):
        enclose(program, [np.ones(3)], 64)


def test_undecided_comparisons_give_a_ball_with_both():
    """Whether (x + 1e-30) - 1e-30 > x cannot be told at 64 bits."""
    program = trace(
        lambda x: jnp.where((x + 1e-30) - x > 1e-30, 1.0, 2.0), np.float64(1 / 3)
    )
    ball = enclose(program, [np.float64(1 / 3)], 64)
    assert ball.lower() <= 1 and ball.upper() >= 2
    assert enclose(program, [np.float64(1 / 3)], 512) == 2


def test_infinite_results_are_not_finite():
    program = trace(lambda x: jnp.log(x), np.float64(1))
    assert not enclose(program, [np.float64(-1)], 64).is_finite()
    assert not exact.finite(np.array([arb("inf")], object))[0]


@pytest.mark.parametrize("name", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_comparing_what_is_undetermined_is_undetermined(name):
    def compare(*operands):
        arrays = [
            x if isinstance(x, np.ndarray) else np.array([x], object) for x in operands
        ]
        return exact.PRIMITIVES[name](*arrays)[0]

    known = np.array([True])
    for other in (None, True, False, arb(1), arb(0), known, ~known):
        assert compare(None, other) is None and compare(other, None) is None, other
    assert compare(True, known) is compare(known, True) is (name in ("eq", "le", "ge"))


def test_a_choice_of_booleans_is_one():
    which = np.array([None, None, None, True, False], object)
    no = np.array([True, False, True, False, False])
    yes = np.array([True, True, None, None, True], object)
    chosen = exact.PRIMITIVES["select_n"](which, no, yes)
    assert chosen.tolist() == [True, None, None, None, False]


def test_the_undetermined_is_not_finite():
    assert exact.finite(np.array([None, True, arb(1)], object)).tolist() == [
        False,
        True,
        True,
    ]
