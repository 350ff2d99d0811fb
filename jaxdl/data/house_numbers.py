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
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxdl.data.house_walls import (
    GRID,
    SIDE,
    Array,
    Uniform,
    bars,
    between,
    chance,
    cloud,
    colour,
    light,
    per_pixel,
    wall,
)

_FIELD_SCALE = 16.0  # steps of a stored field per texel, see make_glyphs


@dataclasses.dataclass(frozen=True)
class Difficulty:
    """What makes a digit hard to read.

    The values are calibrated together: a linear classifier is near chance, LeNet-5 is
    good but far from done, and a person reads some 97 % of the test images. What keeps
    small networks back is variety (size, slant, bends, neighbours, clutter); blur,
    noise and faintness are kept low enough that large networks have room above them.

    Lengths are in pixels of the 32-pixel frame, brightness in parts of full white.
    """

    fill: tuple[float, float] = (0.56, 1.05)
    """Height of the digit, as a part of the frame."""
    shift: float = 3.6
    """The digit's centre is off the frame's by at most this."""
    tilt: float = 0.15
    """Tangent of half the greatest usual rotation (0.15: 17 degrees)."""
    slant: float = 0.4
    """Greatest shear."""
    stretch: tuple[float, float] = (0.65, 1.5)
    """Width of the digits, as a multiple of the typeface's."""
    perspective: float = 0.014
    """Greatest change of scale per pixel."""
    warp: float = 2.4
    """Greatest bend of the digits, as of hand-made ones."""
    neighbour: float = 0.72
    """Chance of a digit on the left; the same on the right."""
    gap: tuple[float, float] = (-0.06, 0.2)
    """Space between digits, as a part of their height."""
    contrast: tuple[float, float] = (0.14, 0.7)
    """Brightness of digit against ground; small values are the more frequent."""
    texture: float = 0.22
    """Greatest amplitude of the wall's pattern."""
    shine: float = 0.25
    """Greatest change of the digit's own brightness over its surface."""
    clutter: float = 0.35
    """Chance of a beam behind the digits, and, halved, of a cable before them."""
    shadow: float = 0.4
    """Chance of a digit's own shadow on the wall."""
    shade: float = 0.4
    """Greatest fall of light across the frame, and depth of a cast shadow."""
    noise: float = 0.06
    """Greatest standard deviation of the sensor's noise."""
    native: tuple[float, float] = (14.0, 46.0)
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


class _Number(NamedTuple):
    """A house number, measured at every pixel; planes [B, S, S]."""

    u: Array  # coordinates on the wall, upright at the digit's centre
    v: Array
    pixel: Array  # a pixel's size in them
    distance: Array  # from the digits' outline, positive inside
    aside: Array  # the same some pixels further on, for shadows and relief
    plate: Array  # from a rectangle round the number, negative inside


class _Paint(NamedTuple):
    """What makes up each pixel: the weights of three paints, and brightness added."""

    ground: Array
    other: Array
    ink: Array
    added: Array


def scene(
    test: bool, digits: NDArray[np.int32], share: Array, faint: Array, uniform: Uniform
) -> Array:
    """Draws a block: float32 [B, 3, S, S], black 0, white 1, and somewhat beyond.

    Args:
        test: use the typefaces of the test images.
        digits: int32 [B], each image's own digit.
        share: float [10], how frequent the digits beside it are.
        faint: float32 [B], a factor on the least contrast (a blurred digit that is
            faint as well is lost on everybody).
        uniform: the block's random numbers.
    """
    n = len(digits)
    number = _number(test, digits, share, uniform)
    ground = between(0.14, 0.90, uniform(n))
    least, most = DIFFICULTY.contrast
    part = uniform(n)
    part *= np.float32(0.35) + np.float32(0.65) * part
    contrast = faint * np.float32(least) * (1 - part) + np.float32(most) * part
    step = np.where(chance(uniform, n, 0.5), contrast, -contrast)
    step = np.where((ground + step < 0.03) | (ground + step > 0.97), -step, step)
    # The ground round the digits, what is beyond a plate, and the digits.
    colours = (
        colour(uniform, ground, 0.35),
        colour(uniform, between(0.05, 0.95, uniform(n)), 0.4),
        colour(uniform, np.clip(ground + step, 0.02, 0.98), 0.25),
    )
    paint = _paint(number, contrast, uniform)
    lit = light(uniform, n, DIFFICULTY.shade)
    tint = 1 + (uniform(n, 3) - np.float32(0.5)) * np.float32(0.16)
    image = np.empty((n, 3, SIDE, SIDE), np.float32)
    for c in range(3):
        mixed = paint.added.copy()
        for weight, shades in zip(paint[:3], colours, strict=True):
            mixed += weight * per_pixel(shades[:, c])
        np.multiply(mixed, lit * per_pixel(tint[:, c]), out=image[:, c])
    return image


def _paint(number: _Number, contrast: Array, uniform: Uniform) -> _Paint:
    """Paints wall, plate, shadow, outline, digits and cables one over another."""
    n, pixel, distance = len(contrast), number.pixel, number.distance
    # Wall and plate. The plate is quieter than the wall; some have a rim.
    plated = per_pixel(chance(uniform, n, 0.4))
    inside = np.where(plated, np.clip(0.5 - number.plate / pixel, 0, 1), np.float32(1))
    rimmed = plated & per_pixel(chance(uniform, n, 0.4))
    rim = np.where(rimmed, np.clip(1.5 - np.abs(number.plate + 2) / pixel, 0, 1), 0)
    rim *= np.float32(0.8)
    rough = np.minimum(DIFFICULTY.texture * uniform(n), np.float32(0.6) * contrast)
    pattern = per_pixel(rough) * wall(uniform, number.u, number.v)
    pattern *= 1 - np.float32(0.6) * plated * inside
    inside *= 1 - bars(uniform, n, DIFFICULTY.clutter, (1, 9))
    # Digits: some hollow, outlined, in relief, worn, or with a shadow of their own.
    hollow = chance(uniform, n, 0.05)
    distance[hollow] = np.minimum(distance[hollow], np.float32(1.7) - distance[hollow])
    cover = np.clip(0.5 + distance / pixel, 0, 1)
    outlined = per_pixel(chance(uniform, n, 0.1))
    outline = per_pixel(between(0.7, 2.5, uniform(n)))
    ring = np.clip(0.5 + (distance + outline) / pixel, 0, 1) * outlined
    depth = between(0.1, 0.8, uniform(n)) * chance(uniform, n, DIFFICULTY.shadow)
    shadow = np.clip(0.5 + number.aside / (2 * pixel), 0, 1) * per_pixel(depth)
    bevel = between(-0.2, 0.2, uniform(n)) * chance(uniform, n, 0.3)
    relief = np.clip((number.aside - distance) / 2, -1, 1) * per_pixel(bevel)
    blotch = cloud(uniform, n)
    shine = np.minimum(DIFFICULTY.shine * uniform(n), np.float32(0.6) * contrast)
    relief += blotch * per_pixel(shine)
    wear = np.float32(0.6) * uniform(n) * uniform(n)
    cover *= 1 - per_pixel(wear) * np.clip(blotch * np.float32(1.5), 0, 1)
    bare = 1 - bars(uniform, n, DIFFICULTY.clutter / 2, (0.4, 1.2))  # of cables
    behind = (1 - cover) * (1 - ring) * (1 - shadow)
    flat = behind * (1 - rim)
    ground = inside * flat
    other = flat - ground + ring * (1 - cover)
    return _Paint(
        ground=ground * bare,
        other=other * bare + 1 - bare,
        ink=(rim * behind + cover) * bare,
        added=(pattern * flat + (relief + pattern * np.float32(0.4)) * cover) * bare,
    )


def _number(
    test: bool, digits: NDArray[np.int32], share: Array, uniform: Uniform
) -> _Number:
    """Places each digit, its neighbours and a plate, and measures them."""
    n = len(digits)
    glyphs = _glyphs()
    u, v, pixel = _view(uniform, n)
    first, styles = _styles(test)
    family = (uniform(n) * np.float32(len(first))).astype(np.intp)
    face = first[family] + (uniform(n) * styles[family]).astype(np.intp)
    # The digit: as high as asked, or as wide where it is wider than high.
    stretch = between(*DIFFICULTY.stretch, uniform(n))
    box = glyphs.boxes[face, digits]
    fill = between(*DIFFICULTY.fill, uniform(n)) * np.float32(SIDE)
    high = fill / np.maximum(box[:, 1], box[:, 0] * stretch)  # pixels per texel
    wide = high * stretch
    weight = between(-0.5, 0.9, uniform(n)) * high
    upright = chance(uniform, n, 0.05)  # digits below one another

    def measure(
        rows: NDArray[np.intp], shown: NDArray[np.int32], along: Array, across: Array
    ) -> Array:
        du = np.where(upright[rows], across, along)
        dv = np.where(upright[rows], along, across)
        field = _sample(
            glyphs,
            face[rows] * 10 + shown,
            (u[rows] - per_pixel(du)) / per_pixel(wide[rows]),
            (v[rows] - per_pixel(dv)) / per_pixel(high[rows]),
        )
        return field * per_pixel(high[rows])

    nowhere = np.zeros(n, np.float32)
    distance = measure(np.arange(n), digits, nowhere, nowhere)
    # Two neighbours at either end, each beyond the last.
    gap = between(*DIFFICULTY.gap, uniform(n)) * fill
    gap *= 1 + chance(uniform, n, 0.15)
    share = np.cumsum(share)[:-1]
    half_width, half_height = box[:, 0] * wide / 2, box[:, 1] * high / 2
    reach = []
    for sign in np.float32(-1), np.float32(1):
        end = np.where(upright, half_height, half_width)
        more = np.ones(n, bool)
        for _ in range(2):
            more = more & chance(uniform, n, DIFFICULTY.neighbour)
            shown = np.searchsorted(share, uniform(n)).astype(np.int32)
            wobble = (uniform(n) - np.float32(0.5)) * np.float32(2.4)
            extent = glyphs.boxes[face, shown]
            length = np.where(upright, extent[:, 1] * high, extent[:, 0] * wide)
            start = end + gap
            # A digit beyond the frame's corner is not drawn.
            rows = np.flatnonzero(more & (start < 24))
            place = sign * (start + length / 2)
            seen = measure(rows, shown[rows], place[rows], wobble[rows])
            distance[rows] = np.maximum(distance[rows], seen)
            end = np.where(more, start + length, end)
        reach.append(end)
    distance += per_pixel(weight)
    pad = between(0.06, 0.3, uniform(n)) * fill
    middle, length = (reach[1] - reach[0]) / 2, (reach[1] + reach[0]) / 2 + pad
    along = np.where(per_pixel(upright), v, u) - per_pixel(middle)
    across = np.where(per_pixel(upright), u, v)
    beside = np.abs(along) - per_pixel(length)
    above = np.where(upright, half_width, half_height) + pad
    above = np.abs(across) - per_pixel(above)
    outside, over = np.maximum(beside, 0), np.maximum(above, 0)
    plate = np.sqrt(outside * outside + over * over)
    plate += np.minimum(np.maximum(beside, above), 0)
    return _Number(u, v, pixel, distance, _aside(uniform, distance), plate)


def _view(uniform: Uniform, n: int) -> tuple[Array, Array, Array]:
    """Returns where on the wall each pixel looks, and a pixel's size there."""
    offset = (uniform(2, n) + uniform(2, n) - 1) * np.float32(DIFFICULTY.shift)
    x = GRID[None, None, :] - per_pixel(offset[0])
    y = GRID[None, :, None] - per_pixel(offset[1])
    # Rotation by its half-angle's tangent: no sines, which differ between machines.
    tilt = (uniform(n) + uniform(n) - 1) * np.float32(DIFFICULTY.tilt)
    tilt *= 1 + chance(uniform, n, 0.06)
    norm = 1 / (1 + tilt * tilt)
    cos, sin = per_pixel((1 - tilt * tilt) * norm), per_pixel(2 * tilt * norm)
    away = (uniform(2, n) + uniform(2, n) - 1) * np.float32(DIFFICULTY.perspective)
    pixel = 1 / (1 + per_pixel(away[0]) * x + per_pixel(away[1]) * y)
    u, v = (cos * x + sin * y) * pixel, (cos * y - sin * x) * pixel
    slant = (uniform(n) + uniform(n) - 1) * np.float32(DIFFICULTY.slant)
    u += per_pixel(slant) * v
    bend = uniform(n)
    bend = per_pixel(np.float32(DIFFICULTY.warp) * bend * bend)
    return u + bend * cloud(uniform, n, 4), v + bend * cloud(uniform, n, 4), pixel


def _aside(uniform: Uniform, plane: Array) -> Array:
    """Returns each plane shifted by up to 3 whole pixels, its edges repeated."""
    n = len(plane)
    step = (uniform(2, n, 1) * 7).astype(np.intp) - 3
    across, down = np.clip(np.arange(SIDE) + step, 0, SIDE - 1)
    return plane[np.arange(n)[:, None, None], down[:, :, None], across[:, None]]


def _sample(glyphs: _Glyphs, which: NDArray, u: Array, v: Array) -> Array:
    """Reads fields, one per image, at u, v texels from their centre: bilinear."""
    last = np.float32(glyphs.cell - 1.001)
    centre = np.float32(glyphs.cell / 2 - 0.5)
    u = np.clip(u + centre, 0, last)
    v = np.clip(v + centre, 0, last)
    left, top = np.floor(u), np.floor(v)
    u -= left
    v -= top
    at = (top * np.float32(glyphs.cell) + left).astype(np.int32)
    at += per_pixel(which.astype(np.int32) * np.int32(glyphs.cell * glyphs.cell))
    take = glyphs.fields.take
    upper, lower = take(at), take(at + glyphs.cell)
    upper += u * (take(at + 1) - upper)
    lower += u * (take(at + (glyphs.cell + 1)) - lower)
    return upper + v * (lower - upper)
