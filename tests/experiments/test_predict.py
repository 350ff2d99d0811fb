import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from experiments import stored
from jaxdl.data import images, sources
from jaxdl.errors import InputError

GREY, COLOUR = (28, 28, 1), (32, 32, 3)
MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]


def picture(mode, width, height, seed=0):
    """An image of noise."""
    noise = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(noise.integers(0, 65536, (height, width), np.uint16))
    return Image.fromarray(
        noise.integers(0, 256, (height, width, 4), np.uint8)
    ).convert(mode)


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    mode=st.sampled_from(MODES),
    shape=st.sampled_from([GREY, COLOUR]),
)
def test_any_size_and_mode_is_read(tmp_path_factory, width, height, mode, shape):
    path = tmp_path_factory.mktemp("any") / "image.png"
    picture(mode, width, height).save(path)
    pixels = images.read(path, shape)
    assert pixels.shape == shape and pixels.dtype == np.uint8


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_is_read(tmp_path, mode):
    Image.new("RGB", (50, 40), "white").convert(mode).save(tmp_path / "image.jpg")
    for shape in (GREY, COLOUR):
        assert (images.read(tmp_path / "image.jpg", shape) == 255).all()


def test_image_of_the_right_size_is_kept_bit_for_bit(tmp_path):
    for mode, shape in (("L", GREY), ("RGB", COLOUR)):
        image = picture(mode, *shape[:2])
        image.save(tmp_path / "image.png")
        expected = np.asarray(image).reshape(shape)
        assert (images.read(tmp_path / "image.png", shape) == expected).all()


def test_sixteen_bits_are_scaled(tmp_path):
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(levels * 257).save(tmp_path / "image.png")
    assert (images.read(tmp_path / "image.png", (16, 16, 1))[..., 0] == levels).all()


def test_transparent_parts_are_black(tmp_path):
    half = np.full((8, 8, 4), 200, np.uint8)
    half[..., 3] = 255
    half[:4, :, 3] = 0
    Image.fromarray(half).save(tmp_path / "image.png")
    read = images.read(tmp_path / "image.png", (8, 8, 3))
    assert (read[:4] == 0).all() and (read[4:] == 200).all()


def test_a_transparent_grey_is_black_in_sixteen_bits_too(tmp_path):
    half = np.full((8, 8), 200 * 257, np.uint16)
    half[:4] = 12345
    Image.fromarray(half).save(tmp_path / "image.png", transparency=12345)
    read = images.read(tmp_path / "image.png", (8, 8, 1))
    assert (read[:4] == 0).all() and (read[4:] == 200).all()


def test_exif_rotation_is_applied(tmp_path):
    corner = np.zeros((40, 40), np.uint8)
    corner[:20, :20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate clockwise to see it upright
    Image.fromarray(corner).save(tmp_path / "image.jpg", exif=exif, quality=100)
    read = images.read(tmp_path / "image.jpg", (2, 2, 1))[..., 0]
    assert read[0, 1] > 150 and (read[[0, 1, 1], [0, 0, 1]] < 50).all()


def test_shrinking_is_antialiased(tmp_path):
    stripes = np.tile(np.array([[0, 255]], np.uint8), (280, 140))
    Image.fromarray(stripes).save(tmp_path / "image.png")
    read = images.read(tmp_path / "image.png", GREY)
    assert abs(read.astype(int) - 127).max() <= 4


def broken(kind, folder):
    path = folder / "image.png"
    if kind == "no such file":
        return path
    if kind == "a folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("not an image\n")
    elif kind == "gif":
        Image.new("L", (9, 9)).save(path, format="GIF")
    elif kind == "cut short":
        picture("RGB", 50, 50).save(path)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "jpeg cut short":
        picture("RGB", 50, 50).save(path, format="JPEG")
        path.write_bytes(path.read_bytes()[:1000])
    elif kind == "bomb":
        Image.new("1", (14_000, 14_000)).save(path)
    return path


BROKEN = [
    "no such file",
    "a folder",
    "empty",
    "text",
    "gif",
    "cut short",
    "jpeg cut short",
    "bomb",
]


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_image_is_refused_by_name(tmp_path, kind):
    path = broken(kind, tmp_path)
    with pytest.raises(InputError) as raised:
        images.read(path, GREY)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)
    assert str(raised.value).count(str(path)) == 1


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damage_anywhere_is_borne_or_refused(tmp_path_factory, data):
    """EXIF included, and nothing but InputError is raised, nor a warning."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    path = tmp_path_factory.mktemp("damaged") / "image.jpg"
    picture("RGB", 9, 7).save(path, exif=exif)
    content = bytearray(path.read_bytes())
    # The EXIF segment comes first, and is what most of the damage is for.
    place = data.draw(st.integers(2, 120) | st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] = data.draw(st.integers(0, 255))
    else:
        del content[place : place + data.draw(st.integers(1, 30))]
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            assert images.read(path, GREY).shape == GREY
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)


@pytest.fixture
def photographs(tmp_path):
    paths = [tmp_path / name for name in ("one.png", "wide.png", "photo.jpg")]
    picture("L", 3, 2).save(paths[0])
    picture("RGBA", 300, 20).save(paths[1])
    picture("RGB", 640, 480).save(paths[2])
    return paths


@pytest.mark.parametrize("which", ["mnist_run", "svhn_run"])
def test_json_has_probabilities_of_every_image(which, photographs, invoke, request):
    run = request.getfixturevalue(which)
    done = invoke("predict", run, *photographs, "--json")
    assert done.code == 0 and done.err == ""
    answers = json.loads(done.out)
    assert [answer["image"] for answer in answers] == list(map(str, photographs))
    for answer in answers:
        probabilities = answer["probabilities"]
        assert list(probabilities) == list("0123456789")
        assert math.isclose(sum(probabilities.values()), 1, rel_tol=1e-5)
        assert all(0 <= p <= 1 for p in probabilities.values())
        assert answer["label"] == max(probabilities, key=probabilities.__getitem__)


def test_text_ranks_the_classes(mnist_run, photographs, invoke):
    (answer, *_) = json.loads(
        invoke("predict", mnist_run, photographs[0], "--json").out
    )
    done = invoke("predict", mnist_run, photographs[0])
    (line,) = done.out.splitlines()
    assert line.startswith(f"{photographs[0]}: {answer['label']}  ({answer['label']}: ")
    shown = [float(part.split()[-2]) for part in line.partition("(")[2].split(", ")]
    assert len(shown) == 10 and shown == sorted(shown, reverse=True)


def test_test_images_as_files_get_the_labels_of_the_evaluation(
    mnist_run, tmp_path, invoke
):
    _, (pixels, labels) = sources.mnist_embedded()
    chosen = np.arange(0, 2000, 100)
    paths = []
    for i in chosen:
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(pixels[i, ..., 0]).save(paths[-1])
    answers = json.loads(invoke("predict", mnist_run, *paths, "--json").out)
    run = stored.load(mnist_run, "best", Path())
    logits = run.evaluate(run.variables, sources.Split(pixels, labels)).logits
    expected = [str(label) for label in logits.argmax(-1)[chosen]]
    assert [answer["label"] for answer in answers] == expected
    truth = [str(label) for label in labels[chosen]]
    assert np.mean(np.array(expected) == truth) > 0.7


def test_one_bad_image_of_several_is_an_error(mnist_run, photographs, invoke):
    bad = photographs[0].with_name("none.png")
    done = invoke("predict", mnist_run, photographs[0], bad, "--json")
    assert done == (2, "", f"error: no image file {bad}\n")


def test_an_image_with_nothing_on_it_is_an_error(mnist_run, tmp_path, invoke):
    """A black drawing on no ground, which counts as black."""
    path = tmp_path / "drawn.png"
    drawn = np.zeros((40, 40, 4), np.uint8)
    drawn[10:30, 15:25, 3] = 255
    Image.fromarray(drawn).save(path)
    done = invoke("predict", mnist_run, path)
    assert done.code == 2 and done.out == ""
    assert f"{path} is of one colour" in done.err and "light ground" in done.err


def test_no_image_is_an_error(mnist_run, invoke):
    done = invoke("predict", mnist_run)
    assert done.code == 2 and done.out == "" and done.err.count("\n") == 1
