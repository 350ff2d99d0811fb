"""Pooling on the CPU: what XLA computes slowly there, in a form it computes well.

XLA's CPU backend walks each window of a pooling pixel by pixel, and takes some ten
times longer than memory needs to give the gradient of a maximum to its pixel ("select
and scatter"). `enable` mends both where JAX hands them to XLA, for `lax.reduce_window`
and so for `flax.linen.max_pool`, `avg_pool` and the like: they become choices between
strided slices, which XLA fuses into one pass; the native engine has a kernel for the
gradient of a maximum. Differentiation, `vmap` and the rest of JAX happen before and
know nothing. Slices XLA can partition over a mesh, and `jax.export` write to a file;
there they serve without the kernel.

All forms give what XLA's own give, ties and NaNs included: of a window's pixels in
row-major order, padding of -inf among them, the gradient goes to the one left by "keep
the present one while it is >= the next".
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# No public name leads to the primitives, nor to the rules that ours fall back on.
from jax._src.lax import windowed_reductions as xla
from jax.interpreters import mlir

from jaxdl.ops import engine

_ENABLED = [False]
"""JAX does not say which rules are in force."""

MOST_TAPS = 25
"""Up to 5x5 pixels of window; the slices of a larger one make too large a program."""


class Window(NamedTuple):
    """A pooling of images [N, H, W, C]; each pair is of rows and of columns."""

    size: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    """Before and after, not negative."""

    def result_size(self, shape: tuple[int, ...]) -> list[int]:
        """Rows and columns of the result of images of that shape."""
        return [
            (length + sum(pads) - size) // stride + 1
            for length, size, stride, pads in zip(shape[1:3], *self, strict=True)
        ]


Pair = tuple[jax.Array, jax.Array]

Form = Callable[..., jax.Array]
"""(images [N, H, W, C] ..., Window) -> images: one way to compute a pooling."""


def enable() -> None:
    """Makes every pooling compiled for the CPU from now on run in its fast form.

    GPU and TPU are untouched, and so is what was compiled before. Calling it again
    changes nothing.
    """
    for primitive, form, fallback in _RULES:
        rule = functools.partial(_lower, form, fallback)
        mlir.register_lowering(primitive, rule, platform="cpu")
    _ENABLED[0] = True


def disable() -> None:
    """Gives pooling on the CPU back to JAX's own lowering."""
    for primitive, _, fallback in _RULES:
        mlir.register_lowering(primitive, fallback, platform="cpu")
    _ENABLED[0] = False


def is_enabled() -> bool:
    """Whether poolings that are compiled now run in their fast form."""
    return _ENABLED[0]


def maximum(x: jax.Array, window: Window) -> jax.Array:
    """Maximum over each window; NaN where one is NaN."""
    return functools.reduce(lax.max, _taps(x, -jnp.inf, window))


def total(x: jax.Array, window: Window) -> jax.Array:
    """Sum over each window."""
    return functools.reduce(lax.add, _taps(x, 0, window))


def at_maximum(tangent: jax.Array, x: jax.Array, window: Window) -> jax.Array:
    """The tangent at the maximum of each window of `x`: the derivative of `maximum`.

    XLA leaves open which of equal maxima that is; ours is the one with the gradient.
    """

    def later(kept: Pair, new: Pair) -> Pair:
        keep = kept[0] >= new[0]
        return jnp.where(keep, kept[0], new[0]), jnp.where(keep, kept[1], new[1])

    pairs = zip(_taps(x, -jnp.inf, window), _taps(tangent, 0, window), strict=True)
    return functools.reduce(later, pairs)[1]


def to_maximum(gradient: jax.Array, x: jax.Array, window: Window) -> jax.Array:
    """Gives each window's gradient to its maximum: the transpose of `at_maximum`."""
    taps = list(_taps(x, -jnp.inf, window))
    best, place = taps[0], jnp.zeros(gradient.shape, jnp.int32)
    for k, tap in enumerate(taps[1:], 1):
        keep = best >= tap
        best, place = jnp.where(keep, best, tap), jnp.where(keep, place, k)

    def scattered(k: int, i: int, j: int) -> jax.Array:
        """The gradients that go to pixel (i, j) of their windows, where they belong."""
        pads = [
            (offset - low, length + low - offset - (size - 1) * stride - 1, stride - 1)
            for offset, length, size, stride, (low, _) in zip(
                (i, j),
                x.shape[1:3],
                gradient.shape[1:3],
                window.strides,
                window.padding,
                strict=True,
            )
        ]
        zero = jnp.zeros((), gradient.dtype)
        chosen = jnp.where(place == k, gradient, zero)
        return lax.pad(chosen, zero, ((0, 0, 0), *pads, (0, 0, 0)))

    pixels = itertools.product(*map(range, window.size))
    return functools.reduce(
        lax.add, (scattered(k, i, j) for k, (i, j) in enumerate(pixels))
    )


def _to_maximum_natively(
    gradient: jax.Array, x: jax.Array, window: Window
) -> jax.Array:
    """The same by the native engine, for windows of 2x2 or 3x3 and float32."""
    (top, _), (left, _) = window.padding
    numbers = np.array([*window.size, *window.strides, top, left], np.int64)
    result = jax.ShapeDtypeStruct(x.shape, x.dtype)
    call = jax.ffi.ffi_call("jaxdl_max_pool_gradient", result)
    return call(gradient, x, window=numbers)


def _taps(x: jax.Array, outside: float, window: Window) -> Iterator[jax.Array]:
    """Each pixel of all windows at once, in row-major order of the pixels."""
    pads = [(low, high, 0) for low, high in window.padding]
    x = lax.pad(x, jnp.array(outside, x.dtype), ((0, 0, 0), *pads, (0, 0, 0)))
    (height, width), (down, across), _ = window
    rows = (x.shape[1] - height) // down + 1
    columns = (x.shape[2] - width) // across + 1
    for i, j in itertools.product(range(height), range(width)):
        yield x[
            :,
            i : i + (rows - 1) * down + 1 : down,
            j : j + (columns - 1) * across + 1 : across,
        ]


def _as_images(
    shape: tuple[int, ...],
    window_dimensions: tuple[int, ...],
    window_strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
) -> tuple[tuple[int, ...], Window] | None:
    """An array of any rank as images [N, H, W, C], and the window on them.

    `vmap` adds axes before, after or between those that are pooled. None where more
    than two neighbouring axes are.
    """
    plain = (1, 1, (0, 0))
    axes = [*zip(window_dimensions, window_strides, padding, strict=True)]
    pooled = [i for i, axis in enumerate(axes) if (*axis[:2], tuple(axis[2])) != plain]
    if not pooled:  # XLA's own derivative is 0 where the only pixel is -inf
        return (math.prod(shape), 1, 1, 1), Window((1, 1), (1, 1), ((0, 0), (0, 0)))
    if pooled[-1] - pooled[0] > 1:
        return None
    first, end = pooled[0], pooled[-1] + 1
    space, spatial = shape[first:end], axes[first:end]
    if len(space) == 1:
        space, spatial = (1, *space), [plain, *spatial]
    (h, s, p), (w, t, q) = spatial
    images = (math.prod(shape[:first]), *space, math.prod(shape[end:]))
    return images, Window((h, w), (s, t), (p, q))


def _lower(
    form: Form,
    fallback: Callable[..., Any],
    ctx: mlir.LoweringRuleContext,
    *args: Any,
    window_dimensions: tuple[int, ...],
    window_strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    **rest: Any,
) -> Any:
    """Lowers by `form` where it computes this pooling, else as JAX does."""
    geometry = (window_dimensions, window_strides, padding)
    x: Any = ctx.avals_in[-1]
    out: Any = ctx.avals_out[0]
    found = _as_images(x.shape, *geometry)
    plain = found is not None and _is_plain(x, out, found[1], rest)
    if (
        found is None
        or not plain
        or engine.current() == "xla"
        or (found[0] != x.shape and _is_split(ctx.avals_in))
    ):
        names = ("window_dimensions", "window_strides", "padding")
        return fallback(ctx, *args, **dict(zip(names, geometry, strict=True)), **rest)
    images, window = found
    native = engine.for_lowering(ctx) == "native"
    if native and form is to_maximum and window.size in ((2, 2), (3, 3)):
        form = _to_maximum_natively

    def compute(*args: jax.Array) -> jax.Array:
        shapes = [images] * len(args)
        if len(args) == 2 and args[0].shape != args[1].shape:  # a gradient of results
            rows, columns = window.result_size(images)
            shapes[0] = (images[0], rows, columns, images[3])
        # XLA's bfloat16 loops on a CPU are ten times slower than those of float32.
        arrays = [
            a.reshape(s).astype(jnp.float32) for a, s in zip(args, shapes, strict=True)
        ]
        return form(*arrays, window).reshape(out.shape).astype(out.dtype)

    return mlir.lower_fun(compute, multiple_results=False)(ctx, *args)


def _is_split(arrays: Any) -> bool:
    """Whether types say how axes are spread over a mesh, which a reshape may not."""
    return any(axis is not None for a in arrays for axis in a.sharding.spec)


def _is_plain(x: Any, out: Any, window: Window, rest: dict[str, Any]) -> bool:
    """Whether our forms compute this pooling, and are the faster ones."""
    dilations = (*rest.get("base_dilation", ()), *rest.get("window_dilation", ()))
    sizes = (*x.shape, *out.shape)
    return (
        x.dtype in (jnp.float32, jnp.bfloat16)
        and rest.get("select_prim", lax.ge_p) is lax.ge_p
        and set(dilations) <= {1}
        and all(isinstance(size, int) and size > 0 for size in sizes)
        and math.prod(window.size) <= MOST_TAPS
        and min(itertools.chain(*window.padding)) >= 0
    )


_RULES = (
    (
        xla.reduce_window_max_p,
        maximum,
        functools.partial(
            xla._reduce_window_lower, xla.mlir.max_hlo, xla.lax._get_max_identity
        ),
    ),
    (
        xla.reduce_window_sum_p,
        total,
        functools.partial(xla._reduce_window_lower, xla.hlo.add, lambda _: 0),
    ),
    (
        xla.select_and_gather_add_p,
        at_maximum,
        mlir.lower_fun(
            xla._select_and_gather_add_using_variadic_reducewindow,
            multiple_results=False,
        ),
    ),
    (
        xla.select_and_scatter_add_p,
        to_maximum,
        mlir.lower_fun(
            functools.partial(xla._select_and_scatter_add_impl, expand_padding=True),
            multiple_results=False,
        ),
    ),
)
"""Each primitive with our form and JAX's own rule."""
