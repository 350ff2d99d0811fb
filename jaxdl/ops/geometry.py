"""What a convolution in JAX's terms is: forward, or a gradient, of which geometry.

Under differentiation JAX writes the two gradients of a convolution as convolutions
too, with the roles of batch, channels and pixels exchanged. Here they are recognised,
so that an engine gets to see the forward convolution that they belong to.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp

Direction = Literal["forward", "input gradient", "weight gradient"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)


class Convolution(NamedTuple):
    """A plain 2-d convolution with one group, or one of its gradients.

    All sizes are those of the forward convolution, images [N, H, W, C] and kernel
    [h, w, C, O] -> [N, rows, columns, O], whatever the direction.
    """

    direction: Direction
    images: int
    size: tuple[int, int]
    channels: int
    kernel: tuple[int, int]
    outputs: int
    result: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    left: tuple[int, ...]
    """Order of the first operand's axes that makes it [N, *space, channels]."""
    right: tuple[int, ...]
    """The same for the second: [N, *space, O], or a kernel [*space, C, O]."""
    out: tuple[int, ...]
    """And for the result."""
    dtype: jnp.dtype
    result_dtype: jnp.dtype

    @property
    def left_shape(self) -> tuple[int, ...]:
        """Shape of the first operand, its axes in the order of `left`."""
        if self.direction == "input gradient":
            return (self.images, *self.result, self.outputs)
        return (self.images, *self.size, self.channels)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the result, its axes in the order of `out`."""
        if self.direction == "forward":
            return (self.images, *self.result, self.outputs)
        if self.direction == "input gradient":
            return (self.images, *self.size, self.channels)
        return (*self.kernel, self.channels, self.outputs)

    @property
    def flops(self) -> int:
        """Multiplications and additions, those with padding included."""
        pixels = self.images * self.result[0] * self.result[1]
        taps = self.kernel[0] * self.kernel[1]
        return 2 * pixels * taps * self.channels * self.outputs


def recognise(
    left: Any, right: Any, result: Any, params: dict[str, Any]
) -> Convolution | None:
    """Reads a `lax.conv_general_dilated`; None for what is none of the three.

    A weight gradient has the batch of the images where a forward convolution has the
    channels. An input gradient has a dilated first operand or, where the stride is 1,
    the kernel's input and output channels exchanged. (What is taken for the other of
    these two is computed as well, after a needless reversal of the kernel.)

    Args:
      left: abstract first operand.
      right: abstract second operand.
      result: abstract result.
      params: the parameters of the primitive.
    """
    numbers = params["dimension_numbers"]
    if len(numbers.lhs_spec) != 4 or not (
        params["feature_group_count"] == params["batch_group_count"] == 1
    ):
        return None
    if left.dtype != right.dtype or result.dtype not in (left.dtype, jnp.float32):
        return None
    if left.dtype not in (jnp.float64, jnp.float32, jnp.bfloat16) or 0 in (
        *left.shape,
        *right.shape,
        *result.shape,
    ):
        return None
    batch, feature, *space = numbers.lhs_spec
    out_feature, in_feature, *kernel_space = numbers.rhs_spec
    result_batch, result_feature, *result_space = numbers.out_spec
    sizes = _take(left.shape, space)
    windows = _take(right.shape, kernel_space)
    results = _take(result.shape, result_space)
    strides, padding = params["window_strides"], params["padding"]
    lhs_dilation, rhs_dilation = params["lhs_dilation"], params["rhs_dilation"]
    lows = tuple(low for low, _ in padding)
    # Images may come last in any layout; no gradient's kernel is larger than its maps.
    images_last = numbers.out_spec == numbers.lhs_spec and all(
        side > window for side, window in zip(results, windows, strict=True)
    )
    common: dict[str, Any] = {
        "dtype": left.dtype,
        "result_dtype": result.dtype,
    }
    if batch > feature and lhs_dilation == (1, 1) and not images_last:
        found = Convolution(
            direction="weight gradient",
            images=left.shape[feature],
            size=sizes,
            channels=left.shape[batch],
            kernel=results,
            outputs=right.shape[out_feature],
            result=windows,
            strides=rhs_dilation,
            dilation=strides,
            padding=_padding(sizes, results, windows, rhs_dilation, strides, lows),
            left=(feature, *space, batch),
            right=(in_feature, *kernel_space, out_feature),
            out=(*result_space, result_batch, result_feature),
            **common,
        )
    elif lhs_dilation == (1, 1) and not (
        strides == (1, 1)
        and (out_feature < in_feature) == (out_feature > kernel_space[0])
        and all(
            low <= (k - 1) * d
            for low, k, d in zip(lows, windows, rhs_dilation, strict=True)
        )
    ):
        found = Convolution(
            direction="forward",
            images=left.shape[batch],
            size=sizes,
            channels=left.shape[feature],
            kernel=windows,
            outputs=right.shape[out_feature],
            result=results,
            strides=strides,
            dilation=rhs_dilation,
            padding=padding,
            left=(batch, *space, feature),
            right=(*kernel_space, in_feature, out_feature),
            out=(result_batch, *result_space, result_feature),
            **common,
        )
    elif strides == (1, 1):
        reach = [(k - 1) * d for k, d in zip(windows, rhs_dilation, strict=True)]
        lows = tuple(r - low for r, low in zip(reach, lows, strict=True))
        found = Convolution(
            direction="input gradient",
            images=left.shape[batch],
            size=results,
            channels=right.shape[out_feature],
            kernel=windows,
            outputs=left.shape[feature],
            result=sizes,
            strides=lhs_dilation,
            dilation=rhs_dilation,
            padding=_padding(results, windows, sizes, lhs_dilation, rhs_dilation, lows),
            left=(batch, *space, feature),
            right=(*kernel_space, out_feature, in_feature),
            out=(result_batch, *result_space, result_feature),
            **common,
        )
    else:
        return None
    return found if _is_consistent(found) else None


def _take(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, int]:
    first, second = (shape[axis] for axis in axes)
    return first, second


def _padding(
    size: Sequence[int],
    kernel: Sequence[int],
    result: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
    lows: Sequence[int],
) -> Any:
    """The forward convolution's padding: below, what the last window reaches beyond.

    (JAX's gradients carry a padding that may be negative, where the forward windows
    leave pixels out.)
    """
    return tuple(
        (low, max(0, (r - 1) * s + (k - 1) * d + 1 - n - low))
        for n, k, r, s, d, low in zip(
            size, kernel, result, strides, dilation, lows, strict=True
        )
    )


def _is_consistent(conv: Convolution) -> bool:
    """Whether the sizes are those of one forward convolution with real padding."""
    return all(
        low >= 0 and high >= 0 and (n + low + high - (k - 1) * d - 1) // s + 1 == r
        for n, k, r, s, d, (low, high) in zip(
            conv.size,
            conv.kernel,
            conv.result,
            conv.strides,
            conv.dilation,
            conv.padding,
            strict=True,
        )
    )
