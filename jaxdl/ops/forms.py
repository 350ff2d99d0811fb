"""Convolutions in pure JAX, each in the form that XLA's CPU backend computes best.

For where the native engine is absent. XLA's own convolution is as fast as its matrix
product for maps of 8x8 pixels and more, in one layout: images [N, *space, C], kernels
[*space, C, O]. Inside a loop nothing brings others to it, so that it is written here.
Where others are faster, six forms give the same numbers, rounded apart:

- *one product* for kernels of 1x1, and for results of one pixel;
- *windows* side by side in one matrix ("im2col", Chellapilla et al. 2006);
- *taps*: a sum of products, one for each pixel of the kernel, over what it sees of the
  map without its padding: a 3x3 kernel on 2x2 pixels so takes 4/9 of the arithmetic;
- *phases*: the input gradient of a convolution of stride s is s x s interleaved
  convolutions of stride 1; as one, it would multiply with s x s - 1 zeros of s x s;
- *winograd*: 16 multiplications for each 36 of a 3x3 kernel, in float32;
- *wide*: neighbouring results as more outputs of one larger kernel, for few outputs.
  What is not finite reaches the results beside its own too: 0 * inf is NaN.

Which one is chosen depends on shapes and number format alone, so that the same program
gives the same bits. The rules in `compute` were measured on x86 with AVX-512 on 2 cores
with XLA's own convolutions rather than YNNPACK's; figures beside them are GFLOP/s there
at batch 128, float32, where a matrix product reaches 365. Sums are taken in float32 and
rounded once. Float64, with sums in float64, takes the taps at every size of map.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax import lax

# No public name leads to these two.
from jax._src import dispatch
from jax._src.lax.convolution import _conv_general_dilated_lower as _xla_lowering
from jax.extend.core import Primitive
from jax.interpreters import mlir

from jaxdl.ops import sums, taps, winograd
from jaxdl.ops.geometry import Convolution
from jaxdl.ops.taps import cut, product

MANY_IMAGES = 32
"""From here on a product is worth the copy of its tap's weights."""

MOST_TAPS = 49
"""Up to 7x7 pixels of kernel; the taps of a larger one make too large a program."""

_LARGE = 2**20
"""Pixels times channels of images that are not at hand in the processor's cache."""

_NHWC = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))

Pads = tuple[tuple[int, int], ...]


def compute(conv: Convolution, left: jax.Array, right: jax.Array) -> jax.Array:
    """The convolution, or its gradient, in its best form.

    Args:
        conv: What to compute; its axes' orders are ignored.
        left: Images [N, H, W, C], or for an input gradient the outputs' gradient
            [N, rows, columns, O]; floating point.
        right: Kernel [h, w, C, O], that of the forward convolution also for an input
            gradient, or for a weight gradient the outputs' gradient.

    Returns:
        [N, rows, columns, O], [N, H, W, C] or [h, w, C, O], of `conv.result_dtype`.
    """
    # A step of ResNet-18 at 224x224 in float64: 94 s with XLA's own, 11 s with taps.
    double = conv.dtype == jnp.float64 and _has_few_taps(conv)
    forms = {
        "forward": taps.forward if double else _forward,
        "input gradient": taps.input_gradient if double else _input_gradient,
        "weight gradient": taps.weight_gradient if double else _weight_gradient,
    }
    return forms[conv.direction](conv, left, right).astype(conv.result_dtype)


def _forward(conv: Convolution, images: jax.Array, kernel: jax.Array) -> jax.Array:
    pixels = _pixels(conv)
    if _saves_multiplications(conv):
        return winograd.forward(conv, images, kernel)
    if conv.kernel == (1, 1):
        return product(_seen_by_1x1(conv, images), kernel[0, 0])
    if pixels == 1:
        return taps.forward_of_pixel(conv, images, kernel)
    # 2x2x512: XLA 2, windows 325, taps 615; the windows' advantage is at small batches.
    if pixels <= 4 and conv.images < MANY_IMAGES:
        return taps.forward_by_windows(conv, images, kernel)
    # 3x3x256: XLA 361, taps 432; from 4x4 on, XLA is ahead.
    most = _most_pixels(conv, 9) if conv.strides == (1, 1) else 9
    if pixels <= 4 or (_has_many_images(conv) and pixels <= most):
        return taps.forward(conv, images, kernel)
    return _wide(images, kernel, conv.strides, conv.padding, conv.dilation)


def _input_gradient(
    conv: Convolution, gradient: jax.Array, kernel: jax.Array
) -> jax.Array:
    pixels = _pixels(conv)
    if _saves_multiplications(conv):
        return winograd.input_gradient(conv, gradient, kernel)
    # 4x4x512: XLA 180, taps 330 (it spares the copy of the reversed kernel); 4x4x128:
    # XLA 333, taps 303. 4x4 -> 2x2, 256 -> 512: XLA 5, phases 278, taps 370.
    large = conv.channels * conv.outputs >= 256 * 256
    if (
        conv.kernel == (1, 1)
        or pixels <= 4
        or (large and pixels <= 16)
        or (_has_many_images(conv) and pixels <= _most_pixels(conv, 4))
    ):
        return taps.input_gradient(conv, gradient, kernel)
    # 16x16 -> 8x8, 128 -> 256: XLA 141, phases 323.
    if conv.dilation == (1, 1) and conv.strides != (1, 1):
        return _input_gradient_by_phases(conv, gradient, kernel)
    pads = tuple(
        ((k - 1) * d - low, n - 1 + low - (r - 1) * s)
        for k, d, n, r, s, low in _axes(conv)
    )
    if conv.strides == (1, 1):
        return _wide(gradient, _reversed(kernel), (1, 1), pads, conv.dilation)
    return _xla(gradient, _reversed(kernel), (1, 1), pads, conv.strides, conv.dilation)


def _weight_gradient(
    conv: Convolution, images: jax.Array, gradient: jax.Array
) -> jax.Array:
    if conv.kernel == (1, 1):  # 8x8, 256 -> 1024: XLA 138, one product 233
        rows = [
            a.reshape(-1, a.shape[3]) for a in (_seen_by_1x1(conv, images), gradient)
        ]
        return product(rows[0], rows[1], over=(0, 0))[None, None]
    pixels = _pixels(conv)
    # 2x2x512: XLA 395, taps 586; 3x3x256: 355 and 369; at batch 8 XLA is ahead.
    if pixels == 1 or (_has_many_images(conv) and pixels <= 9):
        return taps.weight_gradient(conv, images, gradient)
    pads = tuple(
        (low, (k - 1) * d + (r - 1) * s + 1 - n - low)
        for k, d, n, r, s, low in _axes(conv)
    )

    def correlate(images: jax.Array, gradient: jax.Array) -> jax.Array:
        by_channel = images.transpose(3, 1, 2, 0)
        windows = gradient.transpose(1, 2, 0, 3)
        return _xla(by_channel, windows, conv.dilation, pads, (1, 1), conv.strides)

    if images.size < _LARGE:
        result = correlate(images, gradient)
    else:
        result = _in_halves(correlate, images, gradient).sum(0)
    return result.transpose(1, 2, 0, 3)


def _in_halves(compute: Callable[..., jax.Array], *maps: jax.Array) -> jax.Array:
    """The results for both halves of the images, [2, ...]; of an odd number, [1, ...].

    What comes before, batch norm and ReLU, XLA fuses into a transposition: it is then
    computed at each pixel across the order of memory, at ten times the cost (ResNet-18,
    small: 78 images/s, and 90 in halves). Into a loop XLA does not fuse.
    """
    count = maps[0].shape[0]
    parts = 2 if count % 2 == 0 else 1
    halves = tuple(a.reshape(parts, count // parts, *a.shape[1:]) for a in maps)
    return lax.map(lambda half: compute(*half), halves)


def _saves_multiplications(conv: Convolution) -> bool:
    """Whether to compute a 3x3 kernel in 16 multiplications for each 36.

    On an EPYC (Zen 5), forward and input gradient: 8x8x256 at batch 8 XLA 434 and 347,
    winograd 696 and 676; 4x4x512 at batch 128 442 and 478, 671 and 638; 16x16x128 no
    gain. Weight gradients gain less, and their programs take long to compile.
    """
    return (
        conv.dtype == jnp.float32
        and min(conv.channels, conv.outputs) >= 128
        and conv.channels * conv.outputs >= 128 * 256
        and winograd.tiles(conv) >= 48
    )


def _axes(conv: Convolution) -> Iterator[tuple[int, ...]]:
    """Kernel, dilation, size, result, stride, padding before: of rows, of columns."""
    lows = [low for low, _ in conv.padding]
    return zip(
        conv.kernel,
        conv.dilation,
        conv.size,
        conv.result,
        conv.strides,
        lows,
        strict=True,
    )


def _pixels(conv: Convolution) -> float:
    """Pixels of result; beyond all bounds where the kernel has too many taps."""
    return math.prod(conv.result) if _has_few_taps(conv) else math.inf


def _has_few_taps(conv: Convolution) -> bool:
    return math.prod(conv.kernel) <= MOST_TAPS


def _has_many_images(conv: Convolution) -> bool:
    return conv.images >= MANY_IMAGES


def _most_pixels(conv: Convolution, pixels: int) -> int:
    """Up to how many pixels of result the taps are faster than XLA's convolution.

    XLA computes convolutions of bfloat16 in float32, and products of it with AMX
    (4x4x512: 371 and 1370; 8x8x256: 379 and 460; 16x16x128: 281 and 211).
    """
    matrices = conv.dtype.itemsize == 2 and min(conv.channels, conv.outputs) >= 128
    return 64 if matrices else pixels


def _input_gradient_by_phases(
    conv: Convolution, gradient: jax.Array, kernel: jax.Array
) -> jax.Array:
    """Without dilation: each phase of the pixels sees every stride-th tap only."""
    down, across = conv.strides
    rows, columns = (-(-n // s) for n, s in zip(conv.size, conv.strides, strict=True))

    def phase(i: int, j: int) -> jax.Array:
        top, vertical = _phase(conv, 0, i)
        left, horizontal = _phase(conv, 1, j)
        part = kernel[top::down, left::across]
        if part.size == 0:
            shape = (conv.images, rows, columns, conv.channels)
            return jnp.zeros(shape, sums.wide(conv.dtype))
        return _xla(gradient, _reversed(part), (1, 1), (vertical, horizontal))

    lines = [jnp.stack([phase(i, j) for j in range(across)], 3) for i in range(down)]
    whole = jnp.stack(lines, 2)
    whole = whole.reshape(conv.images, rows * down, columns * across, conv.channels)
    return whole[:, : conv.size[0], : conv.size[1]]


def _phase(conv: Convolution, axis: int, phase: int) -> tuple[int, tuple[int, int]]:
    """First tap that sees pixels phase, phase + stride ..., and padding around them."""
    stride, low = conv.strides[axis], conv.padding[axis][0]
    pixels = -(-conv.size[axis] // stride)
    first = (phase + low) % stride
    ahead = (phase + low) // stride
    behind = (conv.kernel[axis] - 1 - first) // stride
    return first, (behind - ahead, pixels + ahead - conv.result[axis])


def _reversed(kernel: jax.Array) -> jax.Array:
    """The kernel that turns outputs' gradients into inputs'."""
    return lax.rev(kernel, (0, 1)).transpose(0, 1, 3, 2)


def _wide(
    images: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, int],
    pads: Pads,
    dilation: tuple[int, int],
) -> jax.Array:
    """XLA's convolution, of 2 or 4 columns of results at once for few outputs.

    A row of the larger kernel holds the same taps, one stride further for each column,
    and zeros beside them. Where a pixel is infinite or NaN, their products make NaN of
    those of the 2 or 4 results, too, that do not see it.
    """
    _, width, channels, outputs = kernel.shape
    step = strides[1]
    columns = (
        images.shape[2] + sum(pads[1]) - (width - 1) * dilation[1] - 1
    ) // step + 1
    # 32x32, 3 -> 6, 5x5: XLA 13, two 54, four 103; 14x14, 6 -> 16: XLA 95, two 151;
    # 32x32, 3 -> 64, 3x3: 72, 89 and 76.
    wanted = 4 if outputs <= 8 else 2 if outputs <= 16 or channels <= 4 else 1
    together = math.gcd(wanted, columns) if dilation[1] == 1 else 1
    shifts = [(i * step, (together - 1 - i) * step) for i in range(together)]
    zero = jnp.zeros((), kernel.dtype)
    spread = [
        lax.pad(kernel, zero, ((0, 0, 0), (before, after, 0), (0, 0, 0), (0, 0, 0)))
        for before, after in shifts
    ]
    result = _xla(
        images,
        lax.concatenate(spread, 3),
        (strides[0], step * together),
        pads,
        kernel_dilation=dilation,
    )
    return result.reshape(*result.shape[:2], columns, outputs)


def _seen_by_1x1(conv: Convolution, images: jax.Array) -> jax.Array:
    """The pixels that a kernel of one pixel sees, padding among them."""
    pads = ((low, high, 0) for low, high in conv.padding)
    zero = jnp.zeros((), images.dtype)
    padded = lax.pad(images, zero, ((0, 0, 0), *pads, (0, 0, 0)))
    return cut(padded, (0, 0), conv.result, conv.strides)


_xla_p = Primitive("xla_convolution")
"""`lax.conv_general_dilated`, which no rule of ours lowers (not differentiable)."""
_xla_p.def_effectful_abstract_eval(lax.conv_general_dilated_p.abstract_eval)
_xla_p.def_impl(functools.partial(dispatch.apply_primitive, _xla_p))
mlir.register_lowering(_xla_p, _xla_lowering)


def _xla(
    images: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, ...],
    pads: Pads,
    images_dilation: tuple[int, ...] = (1, 1),
    kernel_dilation: tuple[int, ...] = (1, 1),
) -> jax.Array:
    """XLA's own convolution, in the layout that it is fast in.

    Negative padding is applied before: XLA's convolutions may read beyond the images.
    """
    if min(itertools.chain(*pads)) < 0:
        spread = (
            (*pair, dilation - 1)
            for pair, dilation in zip(pads, images_dilation, strict=True)
        )
        zero = jnp.zeros((), images.dtype)
        images = lax.pad(images, zero, ((0, 0, 0), *spread, (0, 0, 0)))
        pads, images_dilation = ((0, 0), (0, 0)), (1, 1)
    return _xla_p.bind(
        images,
        kernel,
        dimension_numbers=_NHWC,
        window_strides=strides,
        padding=pads,
        lhs_dilation=images_dilation,
        rhs_dilation=kernel_dilation,
        feature_group_count=1,
        batch_group_count=1,
        precision=None,
        preferred_element_type=sums.wide(images.dtype),
        out_sharding=None,
    )
