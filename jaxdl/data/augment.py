"""What happens to images between the data set and the model: pure, on the device.

Everything random derives from a key and the example's position in the whole batch, so
an example is changed in the same way whatever shares its device.
"""

import math
from collections.abc import Sequence
from types import MappingProxyType

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
_KNOTS = 5

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and deviation of ImageNet's red, green and blue, as torchvision's weights expect
them, in units of the whole range."""
_BEND = 1 / 14  # of the side, either way


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
    rotation of up to 10 degrees, a scale between 1/1.1 and 1/0.9, a slant of up to 0.1.
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
    size = images.shape[1:3]
    row, column = _pixels(size)
    draws = _uniform(key, positions, 7)
    moved = resample(images, *_affine_places(row, column, draws[:5], size))
    hole = jnp.array(size) * (1 + draws[5:].T) / 2
    return cutout(moved, hole, round(_CUTOUT * size[0]))


def handwriting(key: jax.Array, images: jax.Array, positions: jax.Array) -> jax.Array:
    """`digits` with an elastic deformation in place of the cutout.

    The places of a 5x5 grid over the image move by up to 1/14 of the side in each
    direction, and those between them in proportion: after Simard et al. 2003, "Best
    Practices for Convolutional Neural Networks Applied to Visual Document Analysis".

    Args:
      key: PRNG key of the batch.
      images: float [N, H, W, C]; H and W at least 2.
      positions: int [N], as for `digits`.

    Returns:
      Same shape and dtype as `images`.
    """
    size = images.shape[1:3]
    row, column = _pixels(size)
    draws = _uniform(key, positions, 5 + 2 * _KNOTS**2)
    field = draws[5:].reshape(2, _KNOTS, _KNOTS, -1)
    by_row, by_column = (_between_knots(extent) for extent in size)
    bend = jnp.einsum("ha,wb,kabn->knhw", by_row, by_column, field)
    bend = _BEND * bend.reshape(2, len(images), -1)
    y, x = _affine_places(row, column, draws[:5], size)
    return resample(images, y + size[0] * bend[0], x + size[1] * bend[1])


AUGMENTATIONS = MappingProxyType(
    {"none": None, "digits": digits, "handwriting": handwriting}
)
"""The augmentations by their name in `DataConfig.augment`."""


def resample(images: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
    """Reads each image at given places, bilinearly.

    Outside the image its edge goes on. (Zeros there, the mean after normalisation,
    would frame MNIST's black ground in grey: a mark of training images that no test
    image bears.)

    Args:
      images: float [N, H, W, C]; H and W at least 2.
      y: float [N, H * W], the row to read for each pixel of the result.
      x: float [N, H * W], the column.

    Returns:
      Same shape and dtype as `images`; computed in float32.
    """
    count, height, width, channels = images.shape
    y, x = jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)
    top = jnp.minimum(y.astype(jnp.int32), height - 2)
    left = jnp.minimum(x.astype(jnp.int32), width - 2)
    down, right = (y - top)[..., None], (x - left)[..., None]
    pixels = images.reshape(count, height * width, channels).astype(jnp.float32)

    # Four gathers in one fused loop over flat pixels: on a CPU faster than products
    # with interpolation weights, and than sums of shifted images.
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


def _pixels(size: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Row and column of every pixel, int [H * W] each."""
    row, column = jnp.mgrid[: size[0], : size[1]]
    return row.ravel(), column.ravel()


def _uniform(key: jax.Array, positions: jax.Array, count: int) -> jax.Array:
    """Numbers in [-1, 1) that derive from key and position, float32 [count, N]."""

    def draw(position: jax.Array) -> jax.Array:
        return jax.random.uniform(
            jax.random.fold_in(key, position), (count,), minval=-1
        )

    return jax.vmap(draw, out_axes=1)(positions)


def _affine_places(
    row: jax.Array, column: jax.Array, draws: jax.Array, size: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """Where a random small affine map reads each pixel: rows and columns, [N, H * W].

    Args:
      row: [H * W].
      column: [H * W].
      draws: [5, N] in [-1, 1): shift down and across, angle, scale, slant.
      size: (H, W).
    """
    down, across, angle, scale, slant = draws[..., None]
    angle, scale = _ANGLE * angle, 1 + _SCALE * scale
    cos, sin = scale * jnp.cos(angle), scale * jnp.sin(angle)
    row, column = row - (size[0] - 1) / 2, column - (size[1] - 1) / 2
    y = cos * row + sin * column + (size[0] - 1) / 2
    x = (_SHEAR * slant - sin) * row + cos * column + (size[1] - 1) / 2
    return y + _SHIFT * size[0] * down, x + _SHIFT * size[1] * across


def _between_knots(extent: int) -> jax.Array:
    """Weights of linear interpolation from the knots to the pixels, [extent, knots]."""
    place = jnp.linspace(0, _KNOTS - 1, extent)[:, None]
    return jnp.maximum(0, 1 - jnp.abs(place - jnp.arange(_KNOTS)))
