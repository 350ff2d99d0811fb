"""What surrounds a house number: colours, walls, bars and light, for `house_numbers`.

The same rules hold: blocks of B images of S x S pixels, float32, drawn from a stream of
uniform numbers with exactly rounded operations only. `per_pixel` makes a value per
image, [B], broadcast over its pixels.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

SIDE = 32

Array = NDArray[np.float32]
Uniform = Callable[..., Array]
"""Shape -> float32 in [0, 1): the next numbers of a block's stream."""

GRID = np.arange(SIDE, dtype=np.float32) - np.float32(SIDE / 2 - 0.5)
"""Pixels' distances from the frame's centre."""


def per_pixel(values: NDArray) -> NDArray:
    """Makes a value per image, [B], broadcast over its pixels."""
    return values[:, None, None]


def between(low: float, high: float, part: Array) -> Array:
    """Returns values from `low`, for part 0, to `high`, for part 1."""
    return np.float32(low) + np.float32(high - low) * part


def chance(uniform: Uniform, count: int, probability: float) -> NDArray[np.bool_]:
    """Returns bool [count], each true with that probability."""
    return uniform(count) < np.float32(probability)


def colour(uniform: Uniform, brightness: Array, saturation: float) -> Array:
    """Returns colours [B, 3] of the given brightness; few of them vivid."""
    n = len(brightness)
    warm, green, vivid = uniform(3, n) * 2 - 1
    # Streets are brown, grey and bluish; green and pink are rarer.
    vivid = np.float32(saturation) * vivid * vivid
    warm, green = warm * vivid, green * vivid * np.float32(0.35)
    tint = np.stack([warm - green, green + np.float32(0.1) * warm, -warm - green])
    return np.clip(brightness[:, None] + tint.T, 0, 1)


def cloud(uniform: Uniform, n: int, knots: int = 5) -> Array:
    """Returns smooth random planes in -1 ... 1: interpolated between knots."""
    values = uniform(n, knots, knots) * 2 - 1
    place = (np.arange(SIDE, dtype=np.float32) + np.float32(0.5)) * np.float32(
        (knots - 1) / SIDE
    )
    low = place.astype(np.intp)
    part = place - np.floor(place)
    part = part * part * (3 - 2 * part)
    rows = values.take(low, 1)
    rows += part[:, None] * (values.take(low + 1, 1) - rows)
    plane = rows.take(low, 2)
    plane += part * (rows.take(low + 1, 2) - plane)
    return plane


def wall(uniform: Uniform, u: Array, v: Array) -> Array:
    """Returns the wall's pattern, about -1 to 1: stucco, boards, bricks or grain."""
    n = len(u)
    kind = uniform(n)
    pitch, phase = per_pixel(between(5, 16, uniform(n))), per_pixel(uniform(n))
    swap = uniform(n) < np.float32(0.3)
    smooth = cloud(uniform, n)
    pattern = np.float32(0.6) * smooth + np.float32(0.5) * cloud(uniform, n, 17)
    u, v = u.copy(), v.copy()
    u[swap], v[swap] = v[swap], u[swap]

    rows = np.flatnonzero(kind < 0.16)
    joint = _fraction(v[rows] / pitch[rows] + phase[rows])
    pattern[rows] += np.float32(1.2) * joint - np.float32(0.6) - (joint < 0.12)

    rows = np.flatnonzero((kind >= 0.16) & (kind < 0.34))
    course = v[rows] / pitch[rows] + phase[rows]
    joint, course = _fraction(course), np.floor(course)
    brick = u[rows] / (pitch[rows] * np.float32(2.4)) + course * np.float32(0.5)
    mortar = (joint < 0.16) | (_fraction(brick) < 0.07)
    tone = np.floor(brick) * np.float32(0.37) + course * np.float32(0.61)
    pattern[rows] += np.where(mortar, 1, _fraction(tone) - np.float32(0.5))

    rows = np.flatnonzero((kind >= 0.34) & (kind < 0.44))
    grain = _fraction(v[rows] / (pitch[rows] * np.float32(0.35)) + 2 * smooth[rows])
    pattern[rows] += np.abs(2 * grain - 1) - np.float32(0.5)
    return pattern


def _fraction(x: NDArray) -> NDArray:
    return x - np.floor(x)


def bars(
    uniform: Uniform, n: int, probability: float, width: tuple[float, float]
) -> Array:
    """Returns how far straight bars cover the frames: poles, window frames, cables."""
    side, offset, half, lean = uniform(4, n)
    rows = np.flatnonzero(chance(uniform, n, probability))
    side, offset, half, lean = side[rows], offset[rows], half[rows], lean[rows]
    # Nearer the frame's edges than its middle.
    offset = 2 * offset - 1
    offset = np.float32(18) * offset * (2 - np.abs(offset))
    lean = (lean - np.float32(0.5)) * np.float32(0.8)
    flat = per_pixel(side < np.float32(0.35))
    x, y = GRID[None, None, :], GRID[None, :, None]
    along, across = np.where(flat, x, y), np.where(flat, y, x)
    away = np.abs(across + per_pixel(lean) * along - per_pixel(offset))
    cover = np.zeros((n, SIDE, SIDE), np.float32)
    half = per_pixel(between(*width, half))
    cover[rows] = np.clip(half - away + np.float32(0.5), 0, 1)
    return cover


def light(uniform: Uniform, n: int, shade: float) -> Array:
    """Returns the light: a slope, and now and then a cast shadow, `shade` at most."""
    grid = GRID * np.float32(1 / 16)
    x, y = grid[None, None, :], grid[None, :, None]
    slope = (uniform(2, n) - np.float32(0.5)) * np.float32(shade)
    lit = 1 + per_pixel(slope[0]) * x + per_pixel(slope[1]) * y
    # A straight edge with a penumbra, as of a roof.
    edge, depth = uniform(3, n) * 2 - 1, uniform(n) * np.float32(shade)
    rows = np.flatnonzero(chance(uniform, n, 0.3))
    edge, depth = edge[:, rows], depth[rows]
    ahead = (
        per_pixel(edge[0]) * x
        + per_pixel(edge[1]) * y
        + per_pixel(edge[2]) * np.float32(0.5)
    )
    lit[rows] *= 1 - per_pixel(depth) * np.clip(ahead * 6, 0, 1)
    return lit
