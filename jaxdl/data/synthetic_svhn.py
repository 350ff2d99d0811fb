"""`synthetic_svhn`: house-number crops in the manner of SVHN, from a seed.

The real Street View House Numbers set (Netzer et al., "Reading Digits in Natural
Images with Unsupervised Feature Learning", NIPS workshop 2011) cannot be embedded, and
is often out of reach. This generator renders a stand-in with its sizes (73,257 training
and 26,032 test images, 32x32x3 uint8) and its class frequencies: a digit in the middle,
its neighbours cut by the frame, on brick, boards, stucco, wood or a plate, seen at an
angle through a small, noisy, badly lit camera that writes JPEG. The typefaces of the
test images never draw a training image. Figures on it are not figures on SVHN.

An image depends on (VERSION, split, seed, index) and on nothing else: not on the
count, the number of threads or the processor. The scene is rendered with the
operations that IEEE 754 rounds exactly (+ - * / sqrt) on Philox's raw bits, so it is
the same on every machine; the camera ends in Pillow's JPEG, so the final bytes are the
same wherever Pillow carries libjpeg-turbo, as its wheels do.

Shapes below: B images of a block, S = 32 pixels a side, planes float32 [B, S, S].
"""

import dataclasses
import functools
import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jaxdl.errors import InputError

VERSION = 1
"""Changes whenever the images do; a cache of them keeps it beside them."""

COUNTS = {
    # SVHN's own number of images of the digits 0 to 9.
    "train": (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659),
    "test": (1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595),
}

_SIDE = 32
_BLOCK = 128  # images rendered together: their planes stay in the processor's cache
_FIELD_SCALE = 16.0  # steps of a stored field per texel, see make_glyphs

Array = NDArray[np.float32]
Uniform = Callable[..., Array]  # shape -> float32 in [0, 1), the next of the stream


@dataclasses.dataclass(frozen=True)
class Difficulty:
    """What makes a digit hard to read; the defaults are calibrated (see README).

    Lengths are in pixels of the 32-pixel frame, brightness in parts of full white.
    """

    fill: tuple[float, float] = (0.70, 1.0)
    """Height of the digit, as a part of the frame."""
    shift: float = 2.5
    """The digit's centre is off the frame's by at most this."""
    tilt: float = 0.10
    """Tangent of half the greatest usual rotation (0.10: 11 degrees)."""
    slant: float = 0.2
    """Greatest usual shear."""
    perspective: float = 0.009
    """Greatest change of scale per pixel."""
    neighbour: float = 0.66
    """Chance of a digit on the left; the same on the right."""
    contrast: tuple[float, float] = (0.11, 0.7)
    """Brightness of digit against ground; small values are the more frequent."""
    texture: float = 0.13
    """Greatest amplitude of the wall's pattern."""
    shade: float = 0.45
    """Greatest fall of light across the frame, and depth of a cast shadow."""
    noise: float = 0.07
    """Greatest standard deviation of the sensor's noise."""
    native: tuple[float, float] = (12.0, 44.0)
    """Side of the crop as photographed; below 32 it is enlarged, hence blurred."""
    quality: tuple[int, int] = (25, 90)
    """Range of JPEG quality."""


DIFFICULTY = Difficulty()


class _Glyphs(NamedTuple):
    fields: Array  # [faces * 10 * cell * cell], distance from the outline, texels
    boxes: Array  # [faces, 10, 2], width and height, texels
    faces: dict[str, tuple[NDArray[np.intp], ...]]  # split -> each family's faces
    cell: int


@functools.cache
def _glyphs() -> _Glyphs:
    with np.load(Path(__file__).with_name("glyphs.npz"), allow_pickle=False) as stored:
        fields, boxes = stored["fields"], stored["boxes"]
        family, test = stored["family"], stored["test"]
    return _Glyphs(
        fields=((fields.astype(np.float32) - 128) / np.float32(_FIELD_SCALE)).ravel(),
        boxes=boxes.astype(np.float32) / 4,
        faces={
            split: tuple(
                np.flatnonzero(family == i) for i in np.flatnonzero(test == wanted)
            )
            for split, wanted in (("train", False), ("test", True))
        },
        cell=fields.shape[-1],
    )


def typefaces(split: Literal["train", "test"]) -> tuple[str, ...]:
    """Returns the names of the typefaces that draw a split's images."""
    _check_split(split)
    with np.load(Path(__file__).with_name("glyphs.npz"), allow_pickle=False) as stored:
        chosen = stored["families"][stored["test"] == (split == "test")]
    return tuple(str(name) for name in chosen)


def generate(
    split: Literal["train", "test"], *, count: int | None = None, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Renders a split, or the first `count` images of it.

    Args:
        split: "train" (73,257 images) or "test" (26,032).
        count: how many; None for all, whose class frequencies are exactly SVHN's.
        seed: another seed, another set. At least 0.

    Returns:
        images uint8 [count, 32, 32, 3] and labels int32 [count]; a label is the digit.

    Raises:
        InputError: for a split, count or seed that there is not.
    """
    _check_split(split)
    size = sum(COUNTS[split])
    count = size if count is None else count
    if not 0 <= count <= size:
        raise InputError(
            f"synthetic_svhn has {size} {split} images, not {count}; "
            f"ask for 0 to {size}, or None for all"
        )
    if not 0 <= seed < 2**63:
        raise InputError(f"seed {seed} is not in 0 ... 2**63 - 1; give such a one")
    labels = _labels(split, seed)
    images = np.empty((count, _SIDE, _SIDE, 3), np.uint8)

    def fill(block: int) -> None:
        start = block * _BLOCK
        digits = np.resize(labels[start : start + _BLOCK], _BLOCK)
        rendered = _block(split, seed, block, digits)
        images[start : start + _BLOCK] = rendered[: count - start]

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for _ in pool.map(fill, range(-(-count // _BLOCK))):
            pass  # raises what a block raised
    return images, labels[:count].copy()


def _check_split(split: str) -> None:
    if split not in COUNTS:
        raise InputError(
            f"synthetic_svhn has no split {split!r}; choose one of {', '.join(COUNTS)}"
        )


def _bits(split: str, seed: int, block: int) -> np.random.Philox:
    """Returns the stream of one block; block -1 is the order of the labels."""
    stream = 2 * (block + 1) + (split == "test")
    return np.random.Philox(key=np.array([seed, stream], np.uint64))


def _labels(split: str, seed: int) -> NDArray[np.int32]:
    digits = np.repeat(np.arange(10, dtype=np.int32), COUNTS[split])
    order = np.argsort(_bits(split, seed, -1).random_raw(digits.size), kind="stable")
    return digits[order]


def _block(
    split: str, seed: int, block: int, digits: NDArray[np.int32]
) -> NDArray[np.uint8]:
    bits = _bits(split, seed, block)

    def uniform(*shape: int) -> Array:
        """The next numbers in [0, 1): 24 bits each, two to a word."""
        size = int(np.prod(shape))
        words = bits.random_raw(-(-size // 2)).astype("<u8").view("<u4")[:size]
        return ((words >> 8).astype(np.float32) * np.float32(2**-24)).reshape(shape)

    scene = _scene(split, digits, uniform)
    # The sum of four bytes is nearly normal, its standard deviation 147.8.
    noise = bits.random_raw(scene.size // 2).astype("<u8").view("<u4")
    noise = (noise & 0xFF00FF) + ((noise >> 8) & 0xFF00FF)
    noise = ((noise & 0xFFFF) + (noise >> 16)).astype(np.float32) - 510
    sigma = uniform(len(digits), 1, 1, 1)
    sigma = sigma * sigma * np.float32(DIFFICULTY.noise / 147.8)
    scene += noise.reshape(scene.shape) * sigma
    exposed = np.clip(scene * 255 + np.float32(0.5), 0, 255).astype(np.uint8)
    exposed = np.ascontiguousarray(exposed.transpose(0, 2, 3, 1))
    low, high = DIFFICULTY.native
    sides = low + (high - low) * uniform(len(digits))
    best, worst = DIFFICULTY.quality[1], DIFFICULTY.quality[0]
    quality = worst + (best - worst) * uniform(len(digits))
    return np.stack(
        [
            _photograph(image, min(_SIDE, int(side)), int(q))
            for image, side, q in zip(exposed, sides, quality, strict=True)
        ]
    )


def _photograph(image: NDArray[np.uint8], side: int, quality: int) -> NDArray[np.uint8]:
    """Takes an image at `side` pixels, writes it as JPEG, and enlarges what is read."""
    picture = Image.fromarray(image)
    if side < _SIDE:
        picture = picture.resize((side, side), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    read = Image.open(buffer)
    if side < _SIDE:
        read = read.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    return np.asarray(read)


def _between(low: float, high: float, part: Array) -> Array:
    return np.float32(low) + np.float32(high - low) * part


def _chance(uniform: Uniform, count: int, probability: float) -> NDArray[np.bool_]:
    return uniform(count) < np.float32(probability)


def _column(values: NDArray) -> NDArray:
    """Makes a value per image, [B], broadcast over its pixels."""
    return values[:, None, None]


def _scene(split: str, digits: NDArray[np.int32], uniform: Uniform) -> Array:
    """Renders what the camera sees: float32 [B, 3, S, S], about 0 to 1."""
    n = len(digits)
    u, v, pixel, distance, shifted, plate = _number(split, digits, uniform)
    # Walls: a brightness and a colour per image, a pattern over it.
    dark = uniform(n)
    ground = _between(0.10, 0.90, dark)
    contrast = uniform(n)
    contrast = _between(*DIFFICULTY.contrast, contrast * (0.35 + 0.65 * contrast))
    sign = np.where(uniform(n) < 0.5, np.float32(-1), np.float32(1))
    over = ground + sign * contrast
    sign = np.where((over < 0.03) | (over > 0.97), -sign, sign)
    ink = np.clip(ground + sign * contrast, 0.02, 0.98)
    ground_colour = _colour(uniform, ground, 0.35)
    ink_colour = _colour(uniform, ink, 0.25)
    wall = _wall(u, v, uniform)
    amplitude = np.minimum(DIFFICULTY.texture * uniform(n), np.float32(0.6) * contrast)
    # The plate takes the ground's colour; the wall round it gets its own.
    other = _colour(uniform, _between(0.05, 0.95, uniform(n)), 0.4)
    on_plate = _column(_chance(uniform, n, 0.35)) & np.isfinite(plate)
    inside = np.clip(0.5 - np.where(on_plate, plate, -9) / pixel, 0, 1)
    border = _column(_chance(uniform, n, 0.4)) & on_plate
    rim = np.where(border, np.clip(1.5 - np.abs(plate + 2) / pixel, 0, 1), 0)
    quiet = np.where(on_plate, 0.3, 1.0).astype(np.float32)
    pattern = _column(amplitude) * wall * (quiet * inside + 1 - inside)
    # Ink: edges softened over a pixel, perhaps an outline, perhaps hollow, a shadow.
    cover = np.clip(0.5 + distance / pixel, 0, 1)
    outline = _column(
        np.where(_chance(uniform, n, 0.08), _between(1, 2.5, uniform(n)), 0)
    )
    ring = np.clip(0.5 + (distance + outline) / pixel, 0, 1)
    depth = np.where(_chance(uniform, n, 0.4), _between(0.1, 0.6, uniform(n)), 0)
    cast = np.clip(0.5 + shifted / (2 * pixel), 0, 1) * _column(depth)
    bevel = np.where(_chance(uniform, n, 0.25), _between(-0.12, 0.12, uniform(n)), 0)
    relief = np.clip((shifted - distance) / 2, -1, 1) * _column(bevel)
    wear = 1 - _column(0.5 * uniform(n) * uniform(n)) * np.clip(
        _cloud(uniform, n) * 1.5, 0, 1
    )
    cover = cover * wear
    ring = np.where(outline > 0, ring, 0)
    # Painted one over another: the weight of each of the three paints at each pixel.
    behind = (1 - cover) * (1 - ring) * (1 - cast)
    rim = rim * np.float32(0.8)
    bare = behind * (1 - rim)
    of_ground = inside * bare
    of_other = bare - of_ground + ring * (1 - cover)
    of_ink = rim * behind + cover
    plain = pattern * bare + (relief + pattern * np.float32(0.4)) * cover
    light = _light(uniform, n)
    tint = 1 + (uniform(n, 3) - np.float32(0.5)) * np.float32(0.16)
    image = np.empty((n, 3, _SIDE, _SIDE), np.float32)
    for c in range(3):
        paint = of_ground * _column(ground_colour[:, c])
        paint += of_other * _column(other[:, c])
        paint += of_ink * _column(ink_colour[:, c])
        paint += plain
        np.multiply(paint, light * _column(tint[:, c]), out=image[:, c])
    return image


def _number(
    split: str, digits: NDArray[np.int32], uniform: Uniform
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Places a house number and measures it at every pixel.

    Returns the number's own coordinates u, v in pixels [B, S, S]; one pixel's size in
    them; the distance from the digits' outline, positive inside; the same seen from
    beside (for shadows and relief); and the distance from a plate round the number.
    """
    n = len(digits)
    glyphs = _glyphs()
    families = glyphs.faces[split]
    family = (uniform(n) * np.float32(len(families))).astype(np.intp)
    style = uniform(n)
    face = np.array(
        [
            families[f][int(s * len(families[f]))]
            for f, s in zip(family, style, strict=True)
        ]
    )
    share = np.cumsum(COUNTS[split]) / sum(COUNTS[split])
    beside = [
        np.minimum(np.searchsorted(share, uniform(n)), 9).astype(np.intp)
        for _ in range(4)
    ]
    shown = [_chance(uniform, n, DIFFICULTY.neighbour) for _ in range(4)]
    shown[2] &= shown[0]
    shown[3] &= shown[1]
    # The view: pixel -> plane of the wall, upright at the digit's centre.
    grid = np.arange(_SIDE, dtype=np.float32) - np.float32(_SIDE / 2 - 0.5)
    off = (uniform(2, n) + uniform(2, n) - 1) * np.float32(DIFFICULTY.shift)
    x = grid[None, None, :] - _column(off[0])
    y = grid[None, :, None] - _column(off[1])
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
    # The digit: as high as asked, or as wide where it is wider than high.
    stretch = _between(0.75, 1.3, uniform(n))
    box = glyphs.boxes[face, digits]
    fill = _between(*DIFFICULTY.fill, uniform(n)) * np.float32(_SIDE)
    size = fill / np.maximum(box[:, 1], box[:, 0] * stretch)  # pixels per texel
    wide = size * stretch
    weight = _between(-0.5, 0.9, uniform(n)) * size
    gap = _between(0.0, 0.22, uniform(n)) * fill
    gap = gap * np.where(_chance(uniform, n, 0.15), np.float32(2), np.float32(1))
    wobble = (uniform(4, n) - np.float32(0.5)) * np.float32(2.4)
    upright = _chance(uniform, n, 0.05)  # digits below one another
    side = uniform(2, n) - np.float32(0.5)
    side = side * (2.2 * size)

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
    shifted = measure(digits, side[0], side[1], everything)
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
            seen = measure(digit, along + side[0], across + side[1], rows)
            shifted[rows] = np.maximum(shifted[rows], seen)
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
    return u, v, scale, distance + _column(weight), shifted + _column(weight), plate


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
    place = (np.arange(_SIDE, dtype=np.float32) + np.float32(0.5)) * np.float32(
        (knots - 1) / _SIDE
    )
    low = place.astype(np.intp)
    part = place - low
    part = part * part * (3 - 2 * part)
    rows = values[:, low] + part[None, :, None] * (values[:, low + 1] - values[:, low])
    return rows[..., low] + part * (rows[..., low + 1] - rows[..., low])


def _saw(x: Array) -> Array:
    """Returns the fractional part."""
    return x - np.floor(x)


def _wall(u: Array, v: Array, uniform: Uniform) -> Array:
    """Returns the wall's pattern, about -1 ... 1: stucco, boards, bricks or grain."""
    n = len(u)
    kind = uniform(n)
    pitch = _column(_between(5, 16, uniform(n)))
    phase = _column(uniform(n))
    swap = _column(_chance(uniform, n, 0.3))
    smooth, fine = _cloud(uniform, n), _cloud(uniform, n, 17)
    a, b = np.where(swap, v, u), np.where(swap, u, v)
    row = b / pitch + phase
    joint = _saw(row)
    boards = 1.2 * joint - np.float32(0.6) - (joint < 0.12)
    course = np.floor(row)
    brick = a / (pitch * np.float32(2.4)) + _saw(course * np.float32(0.5))
    mortar = (joint < 0.16) | (_saw(brick) < 0.07)
    tone = _saw(np.floor(brick) * np.float32(0.37) + course * np.float32(0.61)) - 0.5
    bricks = np.where(mortar, np.float32(1), tone.astype(np.float32))
    grain = _saw(b / (pitch * np.float32(0.35)) + 2 * smooth)
    grain = 2 * np.abs(2 * grain - 1) - 1
    kind = _column(kind)
    pattern = np.where(kind < 0.16, boards, 0)
    pattern = np.where((kind >= 0.16) & (kind < 0.34), bricks, pattern)
    pattern = np.where((kind >= 0.34) & (kind < 0.46), grain, pattern)
    return pattern + np.float32(0.6) * smooth + np.float32(0.5) * fine


def _light(uniform: Uniform, n: int) -> Array:
    """Returns the brightness of the light: a slope, and now and then a cast shadow."""
    grid = (np.arange(_SIDE, dtype=np.float32) - np.float32(15.5)) / np.float32(16)
    slope = (uniform(2, n) - np.float32(0.5)) * np.float32(DIFFICULTY.shade)
    light = 1 + _column(slope[0]) * grid[None, None] + _column(slope[1]) * grid[:, None]
    # A straight edge, as of a roof or a branch, with a penumbra.
    edge = uniform(4, n)
    ahead = (
        _column(edge[0] * 2 - 1) * grid[None, None]
        + _column(edge[1] * 2 - 1) * grid[:, None]
        + _column(edge[2] - np.float32(0.5))
    )
    dim = np.where(_chance(uniform, n, 0.2), DIFFICULTY.shade * edge[3], 0)
    return light * (1 - _column(dim.astype(np.float32)) * np.clip(ahead * 6, 0, 1))
