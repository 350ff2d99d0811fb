"""Convolutions on the CPU: each is computed by the engine that is best at its shape.

XLA's CPU backend is slow at convolutions: at the gradients above all, at small maps,
and in loops (`lax.scan`, `fori_loop`), where it does not even find its own fast layout.
`enable` replaces it at the moment when JAX hands a convolution to XLA. Differentiation,
`vmap` and the rest of JAX happen before and know nothing, so it serves any model.

The choice depends on static shapes and the processor's instructions alone, so on one
machine the same program gives the same bits.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# No public name leads to the rule that ours falls back on.
from jax._src.lax.convolution import _conv_general_dilated_lower
from jax.interpreters import mlir

from jaxdl import runtime
from jaxdl.ops import engine, forms, native, taps, winograd
from jaxdl.ops.geometry import DIRECTIONS, Convolution, recognise

_xla_lowering = functools.partial(
    _conv_general_dilated_lower, expand_complex_convolutions=True
)

Compute = Callable[[Convolution, jax.Array, jax.Array], jax.Array]
"""A form in JAX; operands and result have the axes' order of `Convolution`."""


def enable() -> None:
    """Makes every convolution compiled for the CPU from now on run in its best form."""
    # Not cached: equal layers would share a lowering, which knows the name of none.
    mlir.register_lowering(
        lax.conv_general_dilated_p, _lower, platform="cpu", cacheable=False
    )


def disable() -> None:
    """Gives convolutions on the CPU back to JAX's own lowering."""
    mlir.register_lowering(lax.conv_general_dilated_p, _xla_lowering, platform="cpu")


def algorithms(conv: Convolution) -> list[str]:
    """Native algorithms for a convolution, the best first.

    Measured on Xeons with AVX-512 and AMX and on EPYCs with AVX2 and with AVX-512.
    oneDNN's convolutions ("direct") lose their speed where a row of pixels is shorter
    than a register block and the weights, read anew for each image, exceed the cache;
    products over taps do not. And they make vectors of channels, which few channels
    leave empty; "small" makes them of images. "winograd" trades multiplications for
    additions and memory; on the Xeons it has not been measured.
    """
    pixels = conv.result[0] * conv.result[1]
    weights = conv.channels * conv.outputs
    if conv.kernel == conv.strides == (1, 1) and conv.size == conv.result:
        return ["product", "direct"]
    if _is_partly_blind(conv):
        return ["taps"]
    if _saves_multiplications(conv):
        return ["winograd", "direct"]
    if _is_slow_at_weights(conv):
        return ["taps", "direct"]
    if (
        pixels == 1
        or (pixels <= 4 and weights >= 2**14)
        or (pixels <= 16 and weights >= 2**16)
        or (conv.direction == "weight gradient" and pixels <= 16 and weights >= 2**14)
        or _is_slow_at_pixels(conv)
    ):
        return ["taps", "direct"]
    return ["small", "direct"] if _has_few_channels(conv) else ["direct"]


def _is_partly_blind(conv: Convolution) -> bool:
    """Whether a row or column of results sees nothing but padding.

    oneDNN 3.2 dies of a segmentation fault where all rows do, in bfloat16 with AMX.
    """
    return not all(
        any(0 <= y * s + tap * d - low < n for tap in range(k))
        for n, k, r, s, d, (low, _) in zip(
            conv.size,
            conv.kernel,
            conv.result,
            conv.strides,
            conv.dilation,
            conv.padding,
            strict=True,
        )
        for y in range(r)
    )


def _as_one_product(conv: Convolution) -> Compute | None:
    """A form in JAX around a single native product, where that is the fastest.

    Where there are few windows, the time is that of reading the weights, which oneDNN's
    convolutions do twice, to pack them first. Side by side ("im2col") the windows make
    one product; each pixel of the kernel is a slice in the program. And a kernel of one
    pixel with a stride gives most pixels no gradient.
    """
    if (
        conv.kernel == conv.strides == (1, 1)
        or math.prod(conv.kernel) > forms.MOST_TAPS
    ):
        return None
    if conv.direction == "input gradient" and conv.kernel == (1, 1):
        return taps.input_gradient
    rows = conv.images * conv.result[0] * conv.result[1]
    # Around a single pixel most of a larger window is padding.
    seen = rows > conv.images or conv.kernel == (1, 1)
    few = conv.images <= 2 and rows <= 64 and seen
    return taps.forward_by_windows if conv.direction == "forward" and few else None


def _saves_multiplications(conv: Convolution) -> bool:
    """Whether to save multiplications: of 36 by a 3x3 kernel 20, of 100 by 5x5 51.

    The tiles of 2x2 results must be enough to be worth the transform of the kernel,
    and the channels enough to be worth that of the pixels. Where a pixel is infinite,
    its tile is NaN (oneDNN's weight gradients in bfloat16 spread it, too). The engine
    has it in float32 alone: in bfloat16 a processor may multiply twice as fast. 5x5
    kernels have been measured with AVX-512 alone.
    """
    if jnp.bfloat16 in (conv.dtype, conv.result_dtype):
        return False
    tiles = max(winograd.tiles(conv, (side, side)) for side in (3, 5))
    return native.lanes() >= 8 and _is_dense(conv) and tiles >= 16


def _is_dense(conv: Convolution) -> bool:
    """Whether it has many channels, and looks at each pixel."""
    steps = (*conv.strides, *conv.dilation)
    return steps == (1, 1, 1, 1) and min(conv.channels, conv.outputs) >= 64


def _is_slow_at_weights(conv: Convolution) -> bool:
    """Whether it is a weight gradient that oneDNN has no good kernel for.

    Without AVX-512 it computes those of AlexNet's 5x5 kernels at two thirds of a
    product's speed, and with it, but without AMX, those in bfloat16 over maps of 8x8 at
    half of it.
    """
    if conv.direction != "weight gradient" or conv.images < 32:
        return False
    if native.lanes() == 8:
        return _is_dense(conv)
    return (
        conv.dtype == jnp.bfloat16
        and not native.has_amx()
        and conv.result[0] * conv.result[1] <= 256
        and conv.channels * conv.outputs >= 2**14
    )


def _is_slow_at_pixels(conv: Convolution) -> bool:
    """Whether it is the pixels' gradient of few images, by a kernel with a stride.

    oneDNN's convolution takes up to 2.5 times as long as products over taps.
    """
    return (
        conv.direction == "input gradient"
        and conv.strides != (1, 1)
        and conv.images <= 8
        and conv.result[0] * conv.result[1] <= 64
        and conv.channels * conv.outputs >= 2**15
    )


def _has_few_channels(conv: Convolution) -> bool:
    """Whether vectors of images are fuller than vectors of channels."""
    if conv.images < 32 or (*conv.strides, *conv.dilation) != (1, 1, 1, 1):
        return False
    if conv.direction == "input gradient":
        return conv.channels < 16
    if conv.direction == "weight gradient":
        return conv.outputs < 16  # from 8 on, "small" refuses without AVX-512
    terms = conv.channels * conv.kernel[0] * conv.kernel[1]
    return (conv.outputs <= 8 and terms >= 25) or (
        conv.outputs <= 16 and 6 <= conv.channels <= 12 and terms >= 100
    )


def planned(conv: Convolution) -> tuple[native.Geometry, native.Plan] | None:
    """The native engine's way with a convolution; None where it has none."""
    (top, bottom), (left, right) = conv.padding
    for algorithm in algorithms(conv):
        geometry = native.Geometry(
            algorithm=native.ALGORITHMS.index(algorithm),
            direction=DIRECTIONS.index(conv.direction),
            operand_bf16=conv.dtype == jnp.bfloat16,
            result_bf16=conv.result_dtype == jnp.bfloat16,
            images=conv.images,
            height=conv.size[0],
            width=conv.size[1],
            channels=conv.channels,
            rows=conv.result[0],
            columns=conv.result[1],
            outputs=conv.outputs,
            kernel_height=conv.kernel[0],
            kernel_width=conv.kernel[1],
            stride_h=conv.strides[0],
            stride_w=conv.strides[1],
            dilation_h=conv.dilation[0],
            dilation_w=conv.dilation[1],
            top=top,
            bottom=bottom,
            left=left,
            right=right,
            swapped=_is_swapped(conv),
            threads=runtime.cores(),
        )
        plan = native.plan(geometry)
        if isinstance(plan, native.Plan):
            return geometry, plan
    return None


def choose(
    conv: Convolution, chosen: engine.Engine, layer: str = ""
) -> tuple[str, Callable[[jax.Array, jax.Array], jax.Array]]:
    """What computes a convolution, in words and as a function of JAX's operands.

    Args:
      conv: the convolution.
      chosen: the engine in force, "native" or "pure".
      layer: what errors of the native engine call it.
    """
    if conv.dtype == jnp.float64:  # oneDNN has none
        chosen = "pure"
    if chosen == "native" and (form := _as_one_product(conv)):
        return "native: one product", functools.partial(_in_jax, form, conv)
    if chosen == "native" and (found := planned(conv)):
        geometry, plan = found
        algorithm = native.ALGORITHMS[geometry.algorithm]
        compute = functools.partial(_native, conv, geometry, plan, layer)
        return f"native: {algorithm} ({plan.implementation})", compute
    return "pure", functools.partial(_in_jax, forms.compute, conv)


def _is_swapped(conv: Convolution) -> bool:
    """Whether the kernel is to be used as it is, [h, w, outputs, channels]."""
    return conv.direction != "weight gradient" and conv.right == (0, 1, 3, 2)


def call(
    geometry: native.Geometry,
    plan: native.Plan,
    layer: str,
    left: jax.Array,
    right: jax.Array,
    result: jax.ShapeDtypeStruct,
) -> jax.Array:
    """Calls the native engine.

    Args:
      geometry: of the convolution.
      plan: what `native.plan` says of it.
      layer: what errors call it.
      left: first operand, row-major.
      right: second operand, row-major.
      result: shape and dtype of the result.
    """
    workspace = jax.ShapeDtypeStruct((plan.workspace,), jnp.uint8)
    compute = jax.ffi.ffi_call("jaxdl_conv", (result, workspace))
    out, _ = compute(left, right, geometry=np.array(geometry, np.int64), layer=layer)
    return out


def _native(
    conv: Convolution,
    geometry: native.Geometry,
    plan: native.Plan,
    layer: str,
    left: jax.Array,
    right: jax.Array,
) -> jax.Array:
    if conv.direction == "input gradient":  # JAX hands over the kernel reversed
        right = lax.rev(right, conv.right[:2])
    if not geometry.swapped:
        right = right.transpose(conv.right)
    result = jax.ShapeDtypeStruct(conv.out_shape, conv.result_dtype)
    left = left.transpose(conv.left)
    return _as_asked(conv, call(geometry, plan, layer, left, right, result))


def _in_jax(
    form: Compute, conv: Convolution, left: jax.Array, right: jax.Array
) -> jax.Array:
    if conv.direction == "input gradient":
        right = lax.rev(right, conv.right[:2])
    left, right = left.transpose(conv.left), right.transpose(conv.right)
    return _as_asked(conv, form(conv, left, right).astype(conv.result_dtype))


def _as_asked(conv: Convolution, out: jax.Array) -> jax.Array:
    """The result in the order of axes that the program asked for."""
    return out.transpose([conv.out.index(axis) for axis in range(4)])


def _in_fast_layout(
    images: jax.Array,
    kernel: jax.Array,
    *,
    dimension_numbers: lax.ConvDimensionNumbers,
    padding: tuple[tuple[int, int], ...],
    lhs_dilation: tuple[int, ...],
    **params: Any,
) -> jax.Array:
    """The same convolution in the layout that XLA is fast in, between transpositions.

    XLA brings others to it at a program's top level only, and not in loops. Negative
    padding, as gradients have where the padding exceeds the kernel, is applied first:
    jaxlib 0.10.2 computes wrong numbers with it.
    """
    batch, channels, *space = dimension_numbers.lhs_spec
    if min(itertools.chain((0,), *padding)) < 0:
        pads = [(0, 0, 0)] * images.ndim
        for axis, (low, high), dilation in zip(
            space, padding, lhs_dilation, strict=True
        ):
            pads[axis] = (low, high, dilation - 1)
        images = lax.pad(images, jnp.zeros((), images.dtype), pads)
        padding = ((0, 0),) * len(padding)
        lhs_dilation = (1,) * len(lhs_dilation)
    images = lax.transpose(images, (batch, *space, channels))
    outputs, inputs, *space = dimension_numbers.rhs_spec
    kernel = lax.transpose(kernel, (*space, inputs, outputs))
    result = lax.conv_general_dilated_p.bind(
        images,
        kernel,
        dimension_numbers=fast_layout(images.ndim),
        padding=padding,
        lhs_dilation=lhs_dilation,
        **params,
    )
    batch, channels, *space = dimension_numbers.out_spec
    places = (batch, *space, channels)
    return lax.transpose(result, [places.index(i) for i in range(result.ndim)])


def fast_layout(rank: int) -> lax.ConvDimensionNumbers:
    """Dimension numbers of the layout that XLA's CPU convolutions are fast in.

    Images are [N, *space, C] and kernels [*space, C, O].

    Args:
      rank: dimensions of the images: batch, channels and those of space.
    """
    space = tuple(range(1, rank - 1))
    images = (0, rank - 1, *space)
    return lax.ConvDimensionNumbers(
        images, (rank - 1, rank - 2, *range(rank - 2)), images
    )


def _lower(ctx: mlir.LoweringRuleContext, left: Any, right: Any, **params: Any) -> Any:
    chosen = engine.for_lowering(ctx)
    if chosen == "xla":
        return _xla_lowering(ctx, left, right, **params)
    numbers = params["dimension_numbers"]
    ready = tuple(numbers) == tuple(fast_layout(len(numbers.lhs_spec))) and (
        min(itertools.chain((0,), *params["padding"])) >= 0
    )
    images, kernel = ctx.avals_in
    conv = recognise(images, kernel, ctx.avals_out[0], params)
    if conv is not None:
        _, compute = choose(conv, chosen, str(ctx.name_stack))
    elif not ready:
        compute = functools.partial(_in_fast_layout, **params)
    else:
        return _xla_lowering(ctx, left, right, **params)
    return mlir.lower_fun(compute, multiple_results=False)(ctx, left, right)
