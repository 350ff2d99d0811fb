"""What happens to images between the data set and the model: pure, on the device.

Everything random derives from a key and the example's position in the whole batch, so
an example is changed in the same way whatever shares its device.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

# Small enough that no digit becomes another one or leaves the frame. There is never a
# flip: a mirrored 2 is no digit.
_SHIFT = 1 / 14  # of the side, either way: 2 pixels at 28
_ANGLE = math.radians(10)
_SCALE = 0.1
_SHEAR = 0.1  # tangent of the slant
_CUTOUT = 1 / 4  # of the side


def normalise(
    images: jax.Array,
    mean: jax.Array | Sequence[float],
    std: jax.Array | Sequence[float],
    dtype: DTypeLike = jnp.float32,
) -> jax.Array:
    """(images / 255 - mean) / std, channel by channel.

    Args:
      images: uint8 [N, H, W, C].
      mean: [C], in units of the whole range (0 black, 1 white), as torchvision's.
      std: [C], in the same units, positive.
      dtype: of the result; computed in float32.

    Returns:
      `dtype` [N, H, W, C].
    """
    mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    return (images * (1 / (255 * std)) - mean / std).astype(dtype)


def resize(images: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Bilinear, antialiased when it shrinks: Pillow's BILINEAR, to rounding.

    Args:
      images: uint8 or float [N, H, W, C].
      size: (height, width) of the result.

    Returns:
      The dtype of `images`, [N, *size, C]; uint8 is rounded to nearest.
    """
    count, _, _, channels = images.shape
    resized = jax.image.resize(
        images.astype(jnp.float32), (count, *size, channels), "linear", antialias=True
    )
    if jnp.issubdtype(images.dtype, jnp.integer):
        # A convex combination stays in range but for float error.
        resized = jnp.clip(jnp.round(resized), 0, jnp.iinfo(images.dtype).max)
    return resized.astype(images.dtype)


def digits(key: jax.Array, images: jax.Array, positions: jax.Array) -> jax.Array:
    """Random shift, rotation, scale, slant and cutout for digits; never a flip.

    Uniformly drawn for each example: a shift of up to 1/14 of the side either way, a
    rotation of up to 10 degrees, a scale between 0.9 and 1.1, a slant of up to 0.1.
    Then a square of 1/4 of the side, centred anywhere in the image, is set to 0, which
    after normalisation is the mean (DeVries and Taylor 2017, "Cutout").

    Args:
      key: PRNG key of the batch.
      images: float [N, H, W, C], normalised; H and W at least 2.
      positions: int [N], places of the examples in the whole batch. The change made to
        example i is a function of (key, positions[i]) alone.

    Returns:
      Same shape and dtype as `images`.
    """
    _, height, width, _ = images.shape

    def draw(position: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(key, position), (7,), minval=-1)

    row, column, angle, scale, slant, cut_row, cut_column = jax.vmap(draw, out_axes=1)(
        positions
    )

    angle, scale = _ANGLE * angle, 1 + _SCALE * scale
    cos, sin = scale * jnp.cos(angle), scale * jnp.sin(angle)
    matrix = jnp.array([[cos, sin], [_SHEAR * slant - sin, cos]])  # [2, 2, N]
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])[:, None]
    shift = _SHIFT * jnp.array([height * row, width * column])
    offset = centre - (matrix * centre).sum(axis=1) + shift
    moved = affine(images, jnp.moveaxis(matrix, -1, 0), offset.T)

    hole = jnp.stack([height * (1 + cut_row) / 2, width * (1 + cut_column) / 2], axis=1)
    return cutout(moved, hole, round(_CUTOUT * height))


def affine(images: jax.Array, matrix: jax.Array, offset: jax.Array) -> jax.Array:
    """Resamples each image bilinearly under its own affine map.

    Pixel p = (row, column) of the result is read at `matrix` @ p + `offset` in the
    image, as by `scipy.ndimage.affine_transform(order=1, mode="nearest")`: outside, the
    edge goes on. (Zeros there, the mean after normalisation, would frame MNIST's
    black ground in grey: a mark of training images that no test image bears.)

    Args:
      images: float [N, H, W, C]; H and W at least 2.
      matrix: float [N, 2, 2].
      offset: float [N, 2], in pixels.

    Returns:
      Same shape and dtype as `images`; computed in float32.
    """
    count, height, width, channels = images.shape
    row, column = (grid.ravel() for grid in jnp.mgrid[:height, :width])

    # Four gathers in one fused loop over flat pixels: on the CPU two to ten times as
    # fast as products with interpolation weights, and as sums of shifted images.
    def source(axis: int, extent: int) -> jax.Array:
        along_rows, along_columns = matrix[:, axis, :1], matrix[:, axis, 1:]
        place = along_rows * row + along_columns * column + offset[:, axis, None]
        return jnp.clip(place, 0, extent - 1)  # [N, H * W]

    y, x = source(0, height), source(1, width)
    top = jnp.minimum(y.astype(jnp.int32), height - 2)
    left = jnp.minimum(x.astype(jnp.int32), width - 2)
    down, right = (y - top)[..., None], (x - left)[..., None]
    pixels = images.reshape(count, height * width, channels).astype(jnp.float32)

    def corner(step: int) -> jax.Array:
        index = top * width + left + step
        take = jax.vmap(lambda p, i: p.at[i].get(mode="promise_in_bounds"))
        return take(pixels, index)

    above = corner(0) * (1 - right) + corner(1) * right
    below = corner(width) * (1 - right) + corner(width + 1) * right
    moved = above * (1 - down) + below * down
    return moved.reshape(images.shape).astype(images.dtype)


def cutout(images: jax.Array, centres: jax.Array, size: int) -> jax.Array:
    """Sets a square to zero in each image; the frame cuts off what sticks out.

    Args:
      images: [N, H, W, C].
      centres: float [N, 2], (row, column) in pixels from the upper left corner.
      size: side of the square, in pixels.

    Returns:
      Same shape and dtype as `images`.
    """
    _, height, width, _ = images.shape
    first = jnp.round(centres - size / 2)

    def inside(start: jax.Array, extent: int) -> jax.Array:
        distance = jnp.arange(extent) - start[:, None]
        return (distance >= 0) & (distance < size)

    rows = inside(first[:, 0], height)[:, :, None, None]
    columns = inside(first[:, 1], width)[:, None, :, None]
    return jnp.where(rows & columns, 0, images)
