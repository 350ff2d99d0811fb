"""Augmentation against SciPy, NumPy and Pillow; keys, batches, devices."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from absl.testing import parameterized
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxdl.data import augment
from jaxdl.training import parallel

digits = jax.jit(augment.digits)
handwriting = jax.jit(augment.handwriting)
resize = jax.jit(augment.resize, static_argnums=1)


def random_images(
    seed: int, count: int = 4, height: int = 28, width: int = 28, channels: int = 1
) -> np.ndarray:
    """Standard normal float32 images [N, H, W, C], without a zero in them."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, height, width, channels)).astype(np.float32)


def affine(images, matrix, offset):
    """Pixel p of the result is read at `matrix` @ p + `offset`, as SciPy has it."""
    pixels = np.indices(images.shape[1:3]).reshape(2, -1)
    y, x = jnp.moveaxis(matrix @ pixels + offset[..., None], 1, 0)
    return augment.resample(images, y, x)


def scipy_affine(image: np.ndarray, matrix: np.ndarray, offset: np.ndarray):
    return np.stack(
        [
            scipy.ndimage.affine_transform(
                channel, matrix, offset, order=1, mode="nearest"
            )
            for channel in np.moveaxis(image, -1, 0)
        ],
        axis=-1,
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_normalise_gives_the_definition_in_the_dtype_asked_for(dtype):
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    found = augment.normalise(images, mean, std, dtype)
    assert found.dtype == dtype
    wanted = (images / 255 - np.array(mean)) / np.array(std)
    tolerance = 1e-5 if dtype == jnp.float32 else 1e-2
    np.testing.assert_allclose(
        found.astype(jnp.float32), wanted, rtol=tolerance, atol=tolerance
    )


def test_an_image_of_the_mean_becomes_zero_and_statistics_become_standard():
    images = np.random.default_rng(1).integers(0, 256, (50, 8, 8, 3)).astype(np.uint8)
    unit = images / 255
    mean, std = unit.mean((0, 1, 2)), unit.std((0, 1, 2))
    found = augment.normalise(images, mean, std)
    np.testing.assert_allclose(found.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(found.std((0, 1, 2)), 1, atol=1e-5)


class AffineTest(chex.TestCase):
    """With and without jit."""

    @chex.variants(with_jit=True, without_jit=True)
    def test_the_identity_changes_no_bit(self):
        images = random_images(0, channels=3)
        matrix = np.broadcast_to(np.eye(2, dtype=np.float32), (4, 2, 2))
        found = self.variant(affine)(images, matrix, np.zeros((4, 2)))
        np.testing.assert_array_equal(found, images)

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters((3, 0), (0, -2), (-1, 4), (27, -27), (40, 40))
    def test_a_whole_shift_is_a_roll_with_the_edge_going_on(self, down, right):
        images = random_images(1, count=1)
        offset = np.array([[-down, -right]], np.float32)
        found = self.variant(affine)(images, np.eye(2)[None], offset)
        margin = 40
        padded = np.pad(images[0, ..., 0], margin, mode="edge")
        rolled = np.roll(padded, (down, right), axis=(0, 1))
        wanted = rolled[margin:-margin, margin:-margin]
        np.testing.assert_array_equal(found[0, ..., 0], wanted)

    @chex.variants(with_jit=True, without_jit=True)
    def test_equals_scipy(self):
        rng = np.random.default_rng(2)
        images = random_images(2, count=6, height=20, width=31, channels=3)
        matrix = rng.normal(size=(6, 2, 2)) * 0.4 + np.eye(2)
        offset = rng.normal(size=(6, 2)) * 5
        found = self.variant(affine)(
            images, matrix.astype(np.float32), offset.astype(np.float32)
        )
        wanted = [
            scipy_affine(*each) for each in zip(images, matrix, offset, strict=True)
        ]
        np.testing.assert_allclose(found, np.stack(wanted), atol=2e-4)


def test_a_digit_moves_by_an_affine_map_as_scipys():
    """Shifted, turned, scaled and slanted within the limits that are stated."""
    draws = np.random.default_rng(3).uniform(-1, 1, (5, 6)).astype(np.float32)
    images = random_images(3, count=6, height=20, width=31)
    pixels = np.indices((20, 31)).reshape(2, -1)
    places = augment._affine_places(*pixels, draws, (20, 31))
    read = np.stack(places, axis=1).reshape(6, 2, 20, 31).astype(float)
    offset = read[..., 0, 0]
    matrix = np.stack([read[..., 1, 0] - offset, read[..., 0, 1] - offset], axis=-1)
    found = augment.resample(images, *places)
    wanted = [scipy_affine(*each) for each in zip(images, matrix, offset, strict=True)]
    np.testing.assert_allclose(found, np.stack(wanted), atol=1e-3)
    down, across, angle, scale, slant = draws
    middle = np.array([19, 30]) / 2
    shift = offset + matrix @ middle - middle
    expected = np.stack([down * 20 / 14, across * 31 / 14], axis=-1)
    np.testing.assert_allclose(shift, expected, atol=1e-4)
    sin, cos = np.sin(np.deg2rad(10) * angle), np.cos(np.deg2rad(10) * angle)
    slanted = np.array([[cos, sin], [0.1 * slant / (1 + 0.1 * scale) - sin, cos]])
    expected = (1 + 0.1 * scale) * slanted
    np.testing.assert_allclose(matrix, np.moveaxis(expected, -1, 0), atol=1e-4)


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_a_right_angle_rotates_without_loss(angle):
    image = random_images(3, count=1, channels=3)
    radians = np.deg2rad(angle)
    matrix = np.array(
        [[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]]
    )
    centre = np.array([13.5, 13.5])
    found = affine(
        image,
        jnp.asarray(matrix[None], jnp.float32),
        jnp.asarray((centre - matrix @ centre)[None], jnp.float32),
    )
    turned = np.rot90(image[0], angle // 90)
    np.testing.assert_allclose(found[0], turned, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    row=st.floats(0, 28),
    column=st.floats(0, 28),
    size=st.integers(1, 28),
)
def test_cutout_zeroes_one_rectangle_of_at_most_its_size(seed, row, column, size):
    image = random_images(seed, count=1, channels=3)
    found = np.asarray(augment.cutout(image, jnp.array([[row, column]]), size))[0]
    hole = (found == 0).all(-1)
    np.testing.assert_array_equal(found[~hole], image[0][~hole])
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    assert hole.sum() == rows.size * columns.size  # a rectangle
    # At least the quarter that stays inside with the centre in a corner, less rounding.
    assert max(0, size // 2) ** 2 <= hole.sum() <= size**2
    half = size / 2
    if half + 1 <= min(row, column) and max(row, column) <= 28 - half - 1:
        assert hole.sum() == size**2
        assert abs(rows.mean() + 0.5 - row) <= 0.5
        assert abs(columns.mean() + 0.5 - column) <= 0.5


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(3, 28, 28, 1), (3, 32, 32, 3), (2, 24, 40, 3)])
def test_digits_keeps_shape_and_dtype(shape, dtype):
    images = jnp.ones(shape, dtype)
    found = digits(jax.random.key(0), images, jnp.arange(shape[0]))
    chex.assert_shape(found, shape)
    assert found.dtype == dtype
    assert bool(jnp.isfinite(found).all())


def test_digits_changes_every_image_and_each_differently():
    images = np.broadcast_to(random_images(4, count=1), (64, 28, 28, 1))
    found = np.asarray(digits(jax.random.key(0), images, jnp.arange(64)))
    flat = found.reshape(64, -1)
    assert len(np.unique(flat, axis=0)) == 64
    assert (np.abs(flat - images.reshape(64, -1)).max(1) > 0.1).all()


def test_digits_same_key_same_bits_other_key_other_images():
    images, positions = random_images(5, count=8), jnp.arange(8)
    first = digits(jax.random.key(1), images, positions)
    chex.assert_trees_all_equal(first, digits(jax.random.key(1), images, positions))
    other = digits(jax.random.key(2), images, positions)
    assert (np.abs(first - other).max((1, 2, 3)) > 0.1).all()


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    positions=st.lists(st.integers(0, 10_000), min_size=5, max_size=5),
)
def test_digits_depends_on_key_and_position_alone(seed, positions):
    key, images = jax.random.key(seed), random_images(seed, count=5)
    together = digits(key, images, jnp.array(positions))
    alone = [
        digits(key, images[i : i + 1], jnp.array([position]))
        for i, position in enumerate(positions)
    ]
    chex.assert_trees_all_close(together, jnp.concatenate(alone), atol=1e-5)


@pytest.mark.parametrize("kind", ["jit", "pmap"])
@pytest.mark.parametrize("count", [2, 8])
def test_digits_is_the_same_on_any_number_of_devices(kind, count):
    images, positions = random_images(6, count=16), np.arange(16, dtype=np.int32)
    key = jax.random.key(3)
    wanted = digits(key, images, positions)
    devices = parallel.choose(kind, count, batch_size=16, accumulate=1)

    def share(key, images, positions):
        moved = digits(key, images, positions)
        return jax.lax.all_gather(moved, parallel.AXIS, tiled=True)

    split = parallel.shard(
        (
            images.reshape(count, -1, *images.shape[1:]),
            positions.reshape(count, -1),
        ),
        devices,
    )
    found = parallel.compile(share, devices, sharded=(1, 2))(key, *split)
    chex.assert_trees_all_close(np.asarray(found), np.asarray(wanted), atol=1e-5)


def test_digits_moves_a_digit_within_its_stated_limits():
    # The middle of the image is the fixed point of all but the shift.
    images = np.full((500, 29, 29, 1), 1.0, np.float32)
    images[:, 14, 14] = 100.0
    found = np.asarray(digits(jax.random.key(7), images, jnp.arange(500)))
    dot = np.clip(found[..., 0] - 1.0, 0, None)  # the hole, 0, counts for nothing
    seen = dot.sum((1, 2)) > 50
    assert seen.mean() > 0.8  # the hole covers 1/16 of the image
    weight = dot[seen] / dot[seen].sum((1, 2), keepdims=True)
    place = np.einsum("nhw,h->n", weight, np.arange(29)) - 14
    assert np.abs(place).max() < 29 / 14 * 1.3 + 0.5
    assert place.min() < -1.5 and place.max() > 1.5


@pytest.mark.parametrize(
    ("source", "size"),
    [((64, 48), (32, 32)), ((20, 25), (32, 32)), ((32, 32), (28, 28))],
)
def test_resize_equals_pillow_to_rounding(source, size):
    rng = np.random.default_rng(8)
    image = rng.integers(0, 256, (*source, 3)).astype(np.uint8)
    found = np.asarray(resize(jnp.asarray(image[None]), size))[0]
    assert found.dtype == np.uint8
    pillow = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    difference = np.abs(found.astype(int) - np.asarray(pillow).astype(int))
    assert difference.max() <= 2
    assert difference.mean() < 0.3


def test_resize_to_the_same_size_changes_nothing():
    image = np.random.default_rng(9).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    np.testing.assert_array_equal(resize(jnp.asarray(image), (32, 32)), image)


@settings(max_examples=10, deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90), level=st.integers(0, 255))
def test_resize_of_any_size_keeps_a_plain_image_plain(height, width, level):
    image = jnp.full((1, height, width, 1), level, jnp.uint8)
    found = resize(image, (28, 28))
    assert found.shape == (1, 28, 28, 1)
    assert (found == level).all()


def test_handwriting_bends_smoothly_and_by_little():
    """Read off an image whose values are its own rows: where each pixel came from."""
    rows = jnp.broadcast_to(jnp.arange(28.0)[:, None], (28, 28))
    images = jnp.broadcast_to(rows[None, :, :, None], (200, 28, 28, 1))
    bent = handwriting(jax.random.key(0), images, jnp.arange(200))
    moved = np.asarray(bent - images)[:, 6:-6, 6:-6, 0]  # free of the frame's clipping
    # Two shifts of at most 2 pixels, 10 degrees, a tenth of scale, over 14 pixels.
    assert np.abs(moved).max() < 2 + 2 + 14 * (0.1 + 0.18)
    assert 0.5 < moved.std() < 2
    # Neighbours go nearly the same way: at most a bend of 4 pixels over a knot's 6.75.
    assert np.abs(np.diff(moved, axis=2)).max() < 4 / 6.75 + 0.3
    straight = np.abs(np.diff(moved, 2, axis=2)).max(axis=(1, 2))
    assert (straight > 1e-3).mean() > 0.9  # an affine map would leave none


def test_handwriting_depends_on_key_and_position_alone():
    images = jax.random.normal(jax.random.key(1), (8, 20, 24, 3))
    key, positions = jax.random.key(2), jnp.arange(8)
    whole = handwriting(key, images, positions)
    part = handwriting(key, images[3:5], positions[3:5])
    np.testing.assert_allclose(part, whole[3:5], atol=1e-5)
    other = handwriting(jax.random.key(3), images, positions)
    assert np.abs(other - whole).max() > 0.1
