"""Draws house numbers on walls: the scenes that `synthetic_svhn` photographs.

A number is drawn from distance fields of its digits (`make_glyphs`), which give edges,
outlines, shadows and relief at any scale. Everything is computed for a block of images
at once, with operations that IEEE 754 rounds exactly (+ - * / sqrt) and without BLAS,
so that every machine draws the same.

Shapes: B images of a block, S = 32 pixels a side; planes are float32 [B, S, S], values
per image float32 [B]. Lengths are in pixels unless they are said to be in texels.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SIDE = 32

_FIELD_SCALE = 16.0  # steps of a stored field per texel, see make_glyphs
_GRID = np.arange(SIDE, dtype=np.float32) - np.float32(SIDE / 2 - 0.5)

Array = NDArray[np.float32]
Uniform = Callable[..., Array]
"""Shape -> float32 in [0, 1): the next numbers of a block's stream."""


@dataclasses.dataclass(frozen=True)
class Difficulty:
    """What makes a digit hard to read; the defaults are calibrated (see README).

    Lengths are in pixels of the 32-pixel frame, brightness in parts of full white.
    """

    fill: tuple[float, float] = (0.6, 1.05)
    """Height of the digit, as a part of the frame."""
    shift: float = 3.5
    """The digit's centre is off the frame's by at most this."""
    tilt: float = 0.13
    """Tangent of half the greatest usual rotation (0.13: 15 degrees)."""
    slant: float = 0.35
    """Greatest shear."""
    stretch: tuple[float, float] = (0.7, 1.45)
    """Width of the digits, as a multiple of the typeface's."""
    perspective: float = 0.012
    """Greatest change of scale per pixel."""
    warp: float = 2.0
    """Greatest bend of the digits, as of hand-made ones."""
    neighbour: float = 0.7
    """Chance of a digit on the left; the same on the right."""
    gap: tuple[float, float] = (-0.06, 0.22)
    """Space between digits, as a part of their height."""
    contrast: tuple[float, float] = (0.11, 0.7)
    """Brightness of digit against ground; small values are the more frequent."""
    texture: float = 0.25
    """Greatest amplitude of the wall's pattern."""
    shine: float = 0.25
    """Greatest change of the digit's own brightness over its surface."""
    clutter: float = 0.35
    """Chance of a beam behind the digits, and, halved, of a cable before them."""
    shadow: float = 0.4
    """Chance of a digit's own shadow on the wall."""
    shade: float = 0.5
    """Greatest fall of light across the frame, and depth of a cast shadow."""
    noise: float = 0.07
    """Greatest standard deviation of the sensor's noise."""
    native: tuple[float, float] = (13.0, 46.0)
    """Side of the crop as photographed; below 32 it is enlarged, hence blurred."""
    quality: tuple[int, int] = (25, 90)
    """Range of JPEG quality."""


DIFFICULTY = Difficulty()


class _Glyphs(NamedTuple):
    fields: Array  # [faces * 10 * cell * cell], distance from the outline, texels
    boxes: Array  # [faces, 10, 2], width and height, texels
    cell: int  # texels, either side of a field
    families: tuple[str, ...]
    test: tuple[bool, ...]  # by family
    family: NDArray[np.uint8]  # by face


@functools.cache
def _glyphs() -> _Glyphs:
    with np.load(Path(__file__).with_name("glyphs.npz"), allow_pickle=False) as stored:
        fields = (stored["fields"].astype(np.float32) - 128) / np.float32(_FIELD_SCALE)
        return _Glyphs(
            fields=fields.ravel(),
            boxes=stored["boxes"].astype(np.float32) / 4,
            cell=fields.shape[-1],
            families=tuple(map(str, stored["families"])),
            test=tuple(map(bool, stored["test"])),
            family=stored["family"],
        )


def typefaces(test: bool) -> tuple[str, ...]:
    """Returns the names of the typefaces that draw the test or the training images."""
    stored = _glyphs()
    pairs = zip(stored.families, stored.test, strict=True)
    return tuple(name for name, is_test in pairs if is_test == test)


@functools.cache
def _styles(test: bool) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Returns each family's first face and its number of faces; faces lie in order."""
    stored = _glyphs()
    count = np.bincount(stored.family)
    chosen = np.flatnonzero(np.array(stored.test) == test)
    return (np.cumsum(count) - count)[chosen], count[chosen]


def scene(
    test: bool, digits: NDArray[np.int32], share: Array, faint: Array, uniform: Uniform
) -> Array:
    """Draws a block: float32 [B, 3, S, S] in linear steps, black 0, white 1.

    Args:
        test: use the typefaces of the test images.
        digits: int32 [B], each image's own digit.
        share: float [10], how frequent the digits beside it are.
        faint: float32 [B], a factor on the least contrast (a blurred digit that is
            faint as well is lost on everybody).
        uniform: the block's random numbers.
    """
    n = len(digits)
    u, v, pixel, distance, shifted, plate = _number(test, digits, share, uniform)
    # Walls: a brightness and a colour per image, a pattern over it.
    ground = _between(0.10, 0.90, uniform(n))
    contrast, (least, most) = uniform(n), DIFFICULTY.contrast
    contrast = contrast * (np.float32(0.35) + np.float32(0.65) * contrast)
    contrast = faint * np.float32(least) * (1 - contrast) + np.float32(most) * contrast
    sign = np.where(uniform(n) < 0.5, np.float32(-1), np.float32(1))
    over = ground + sign * contrast
    sign = np.where((over < 0.03) | (over > 0.97), -sign, sign)
    ink = np.clip(ground + sign * contrast, 0.02, 0.98)
    ground_colour = _colour(uniform, ground, 0.35)
    ink_colour = _colour(uniform, ink, 0.25)
    wall = _wall(u, v, uniform)
    amplitude = np.minimum(DIFFICULTY.texture * uniform(n), np.float32(0.75) * contrast)
    # The plate takes the ground's colour; the wall round it gets its own.
    other = _colour(uniform, _between(0.05, 0.95, uniform(n)), 0.4)
    on_plate = _column(_chance(uniform, n, 0.4))
    inside = np.where(on_plate, np.clip(0.5 - plate / pixel, 0, 1), np.float32(1))
    border = on_plate & _column(_chance(uniform, n, 0.4))
    rim = np.where(border, np.clip(1.5 - np.abs(plate + 2) / pixel, 0, 1), 0)
    rim *= np.float32(0.8)
    pattern = _column(amplitude) * wall * (1 - np.float32(0.6) * on_plate * inside)
    beam = _bars(uniform, n, DIFFICULTY.clutter, (1, 9))
    inside *= 1 - beam
    # Ink: some digits are hollow, outlined, in relief, worn, or cast a shadow.
    hollow = _chance(uniform, n, 0.05)
    distance[hollow] = np.minimum(distance[hollow], np.float32(1.7) - distance[hollow])
    cover = np.clip(0.5 + distance / pixel, 0, 1)
    outlined = _column(_chance(uniform, n, 0.1))
    outline = _column(_between(0.7, 2.5, uniform(n)))
    ring = np.clip(0.5 + (distance + outline) / pixel, 0, 1) * outlined
    shadow = _between(0.1, 0.8, uniform(n)) * _chance(uniform, n, DIFFICULTY.shadow)
    shadow = np.clip(0.5 + shifted / (2 * pixel), 0, 1) * _column(shadow)
    bevel = _between(-0.2, 0.2, uniform(n)) * _chance(uniform, n, 0.3)
    relief = np.clip((shifted - distance) / 2, -1, 1) * _column(bevel)
    blotch = _cloud(uniform, n)
    shine = np.minimum(DIFFICULTY.shine * uniform(n), np.float32(0.8) * contrast)
    relief += blotch * _column(shine)
    wear = np.float32(0.6) * uniform(n) * uniform(n)
    cover *= 1 - _column(wear) * np.clip(blotch * np.float32(1.5), 0, 1)
    cable = _bars(uniform, n, DIFFICULTY.clutter / 2, (0.5, 1.5))
    # Painted one over another: the weight of each of the three paints at each pixel.
    behind = (1 - cover) * (1 - ring) * (1 - shadow)
    bare = behind * (1 - rim)
    of_ground = inside * bare
    of_other = bare - of_ground + ring * (1 - cover)
    of_ink = rim * behind + cover
    plain = pattern * bare + (relief + pattern * np.float32(0.4)) * cover
    for weight in of_ground, of_ink, plain:
        weight *= 1 - cable
    of_other += cable * (1 - of_other)
    light = _light(uniform, n)
    tint = 1 + (uniform(n, 3) - np.float32(0.5)) * np.float32(0.16)
    image = np.empty((n, 3, SIDE, SIDE), np.float32)
    for c in range(3):
        paint = of_ground * _column(ground_colour[:, c])
        paint += of_other * _column(other[:, c])
        paint += of_ink * _column(ink_colour[:, c])
        paint += plain
        np.multiply(paint, light * _column(tint[:, c]), out=image[:, c])
    return image


def _number(
    test: bool, digits: NDArray[np.int32], share: Array, uniform: Uniform
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Places a house number and measures it at every pixel.

    Returns the number's own coordinates u, v in pixels [B, S, S]; one pixel's size in
    them; the distance from the digits' outline, positive inside; the same seen from
    beside (for shadows and relief); and the distance from a plate round the number.
    """
    n = len(digits)
    glyphs = _glyphs()
    first, styles = _styles(test)
    family = (uniform(n) * np.float32(len(first))).astype(np.intp)
    face = first[family] + (uniform(n) * styles[family]).astype(np.intp)
    share = np.cumsum(share)
    beside = [
        np.minimum(np.searchsorted(share, uniform(n)), 9).astype(np.intp)
        for _ in range(4)
    ]
    shown = [_chance(uniform, n, DIFFICULTY.neighbour) for _ in range(4)]
    shown[2] &= shown[0]
    shown[3] &= shown[1]
    # The view: pixel -> plane of the wall, upright at the digit's centre.
    off = (uniform(2, n) + uniform(2, n) - 1) * np.float32(DIFFICULTY.shift)
    x = _GRID[None, None, :] - _column(off[0])
    y = _GRID[None, :, None] - _column(off[1])
    tilt = (uniform(n) + uniform(n) - 1) * np.float32(DIFFICULTY.tilt)
    tilt = tilt * np.where(_chance(uniform, n, 0.06), np.float32(2), np.float32(1))
    norm = 1 / (1 + tilt * tilt)
    cos, sin = _column((1 - tilt * tilt) * norm), _column(2 * tilt * norm)
    away = (uniform(2, n) + uniform(2, n) - 1) * np.float32(DIFFICULTY.perspective)
    scale = 1 / (1 + _column(away[0]) * x + _column(away[1]) * y)
    u = (cos * x + sin * y) * scale
    v = (cos * y - sin * x) * scale
    slant = (uniform(n) + uniform(n) - 1) * np.float32(DIFFICULTY.slant)
    u = u + _column(slant) * v
    bend = uniform(n)
    bend = _column(np.float32(DIFFICULTY.warp) * bend * bend)
    u = u + bend * _cloud(uniform, n, 4)
    v = v + bend * _cloud(uniform, n, 4)
    # The digit: as high as asked, or as wide where it is wider than high.
    stretch = _between(*DIFFICULTY.stretch, uniform(n))
    box = glyphs.boxes[face, digits]
    fill = _between(*DIFFICULTY.fill, uniform(n)) * np.float32(SIDE)
    size = fill / np.maximum(box[:, 1], box[:, 0] * stretch)  # pixels per texel
    wide = size * stretch
    weight = _between(-0.5, 0.9, uniform(n)) * size
    gap = _between(*DIFFICULTY.gap, uniform(n)) * fill
    gap = gap * np.where(_chance(uniform, n, 0.15), np.float32(2), np.float32(1))
    wobble = (uniform(4, n) - np.float32(0.5)) * np.float32(2.4)
    upright = _chance(uniform, n, 0.05)  # digits below one another

    def measure(digit: NDArray, du: Array, dv: Array, rows: NDArray) -> Array:
        return _sample(
            glyphs,
            face[rows] * 10 + digit[rows],
            (u[rows] - _column(du[rows])) / _column(wide[rows]),
            (v[rows] - _column(dv[rows])) / _column(size[rows]),
        ) * _column(size[rows])

    everything = np.arange(n)
    zero = np.zeros(n, np.float32)
    distance = measure(digits, zero, zero, everything)
    half = np.stack([box[:, 0] * wide, box[:, 1] * size]) / 2
    far = [np.where(upright, half[1], half[0])]  # reach of the number, left then right
    reach = [far[0].copy(), far[0].copy()]
    for k, digit in enumerate(beside):
        extent = glyphs.boxes[face, digit] / 2
        long = np.where(upright, extent[:, 1] * size, extent[:, 0] * wide)
        end = k % 2
        centre = reach[end] + gap + long
        where = np.float32(1 if end else -1) * centre
        # A digit beyond the frame's corner is not drawn.
        rows = np.flatnonzero(shown[k] & (centre - long < 24))
        if rows.size:
            along = np.where(upright, wobble[k], where)
            across = np.where(upright, where, wobble[k])
            seen = measure(digit, along, across, rows)
            distance[rows] = np.maximum(distance[rows], seen)
        reach[end] = np.where(shown[k], reach[end] + gap + 2 * long, reach[end])
    # The plate: a box round all digits.
    pad = _between(0.06, 0.3, uniform(n)) * fill
    middle, length = (reach[1] - reach[0]) / 2, (reach[1] + reach[0]) / 2 + pad
    across = np.where(upright, half[0], half[1]) + pad
    first = np.where(_column(upright), v, u) - _column(middle)
    second = np.where(_column(upright), u, v)
    dx, dy = np.abs(first) - _column(length), np.abs(second) - _column(across)
    rounded = np.maximum(dx, 0), np.maximum(dy, 0)
    plate = np.sqrt(rounded[0] * rounded[0] + rounded[1] * rounded[1])
    plate = plate + np.minimum(np.maximum(dx, dy), 0)
    distance += _column(weight)
    # A whole number of pixels aside is enough for shadows.
    step = np.floor(uniform(2, n) * 7).astype(np.intp) - 3
    pixels = np.arange(SIDE)
    across = np.clip(pixels + step[0][:, None], 0, SIDE - 1)
    down = np.clip(pixels + step[1][:, None], 0, SIDE - 1)
    shifted = distance[np.arange(n)[:, None, None], down[:, :, None], across[:, None]]
    return u, v, scale, distance, shifted, plate


def _sample(glyphs: _Glyphs, which: NDArray, u: Array, v: Array) -> Array:
    """Reads fields, one per image, at u, v texels from their centre: bilinear."""
    last = np.float32(glyphs.cell - 1.001)
    centre = np.float32(glyphs.cell / 2 - 0.5)
    u = np.clip(u + centre, 0, last)
    v = np.clip(v + centre, 0, last)
    left, top = u.astype(np.int32), v.astype(np.int32)
    u -= left
    v -= top
    at = top * glyphs.cell + left
    at += _column(which.astype(np.int32) * (glyphs.cell * glyphs.cell))
    take = glyphs.fields.take
    upper, lower = take(at), take(at + glyphs.cell)
    upper += u * (take(at + 1) - upper)
    lower += u * (take(at + (glyphs.cell + 1)) - lower)
    return upper + v * (lower - upper)


def _colour(uniform: Uniform, brightness: Array, saturation: float) -> Array:
    """Returns colours [B, 3] of the given brightness; few of them vivid."""
    n = len(brightness)
    warm, green, vivid = uniform(3, n) * 2 - 1
    # Streets are brown, grey and bluish; green and pink are rarer.
    vivid = np.float32(saturation) * vivid * vivid
    warm, green = warm * vivid, green * vivid * np.float32(0.35)
    tint = np.stack([warm - green, green + np.float32(0.1) * warm, -warm - green])
    return np.clip(brightness[:, None] + tint.T, 0, 1)


def _cloud(uniform: Uniform, n: int, knots: int = 5) -> Array:
    """Returns smooth random planes in -1 ... 1: bilinear between knots."""
    values = uniform(n, knots, knots) * 2 - 1
    place = (np.arange(SIDE, dtype=np.float32) + np.float32(0.5)) * np.float32(
        (knots - 1) / SIDE
    )
    low = place.astype(np.intp)
    part = place - low
    part = part * part * (3 - 2 * part)
    rows = values.take(low, 1)
    rows += part[:, None] * (values.take(low + 1, 1) - rows)
    plane = rows.take(low, 2)
    plane += part * (rows.take(low + 1, 2) - plane)
    return plane


def _saw(x: Array) -> Array:
    """Returns the fractional part."""
    return x - np.floor(x)


def _wall(u: Array, v: Array, uniform: Uniform) -> Array:
    """Returns the wall's pattern, about -1 to 1: stucco, boards, bricks or grain."""
    n = len(u)
    kind = uniform(n)
    pitch, phase = _column(_between(5, 16, uniform(n))), _column(uniform(n))
    swap = uniform(n) < np.float32(0.3)
    smooth = _cloud(uniform, n)
    pattern = np.float32(0.6) * smooth + np.float32(0.5) * _cloud(uniform, n, 17)
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


def _fraction(x: Array) -> Array:
    return x - np.floor(x)


def _bars(
    uniform: Uniform, n: int, probability: float, width: tuple[float, float]
) -> Array:
    """Returns how far straight bars cover the frames: poles, window frames, cables."""
    side, offset, half, lean = uniform(4, n)
    rows = np.flatnonzero(_chance(uniform, n, probability))
    side, offset, half, lean = side[rows], offset[rows], half[rows], lean[rows]
    # Nearer the frame's edges than its middle.
    offset = 2 * offset - 1
    offset = np.float32(18) * offset * (2 - np.abs(offset))
    lean = (lean - np.float32(0.5)) * np.float32(0.8)
    flat = _column(side < np.float32(0.35))
    x, y = _GRID[None, None, :], _GRID[None, :, None]
    along, across = np.where(flat, x, y), np.where(flat, y, x)
    away = np.abs(across + _column(lean) * along - _column(offset))
    cover = np.zeros((n, SIDE, SIDE), np.float32)
    half = _column(_between(*width, half))
    cover[rows] = np.clip(half - away + np.float32(0.5), 0, 1)
    return cover


def _light(uniform: Uniform, n: int) -> Array:
    """Returns the brightness of the light: a slope, and now and then a cast shadow."""
    x, y = _GRID[None, None, :] / 16, _GRID[None, :, None] / 16
    slope = (uniform(2, n) - np.float32(0.5)) * np.float32(DIFFICULTY.shade)
    light = 1 + _column(slope[0]) * x + _column(slope[1]) * y
    # A straight edge with a penumbra, as of a roof.
    edge, depth = uniform(3, n) * 2 - 1, uniform(n) * np.float32(DIFFICULTY.shade)
    rows = np.flatnonzero(_chance(uniform, n, 0.3))
    edge, depth = edge[:, rows], depth[rows]
    ahead = _column(edge[0]) * x + _column(edge[1]) * y + _column(edge[2]) / 2
    light[rows] *= 1 - _column(depth) * np.clip(ahead * 6, 0, 1)
    return light


def _between(low: float, high: float, part: Array) -> Array:
    return np.float32(low) + np.float32(high - low) * part


def _chance(uniform: Uniform, count: int, probability: float) -> NDArray[np.bool_]:
    return uniform(count) < np.float32(probability)


def _column(values: NDArray) -> NDArray:
    """Makes a value per image, [B], broadcast over its pixels."""
    return values[:, None, None]
