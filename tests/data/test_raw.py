import gzip
import hashlib
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxdl.data import raw
from jaxdl.errors import InputError

HERE = Path("some-file")


@settings(deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(max_dims=4, min_side=0)))
def test_idx_round_trip(array):
    np.testing.assert_array_equal(raw.parse_idx(raw.to_idx(array), HERE), array)


def test_idx_header_is_lecuns():
    # The official training images begin with these 16 bytes.
    data = raw.to_idx(np.zeros((3, 28, 28), np.uint8))
    assert data[:16].hex() == "00000803000000030000001c0000001c"


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_any_bytes_parse_or_are_refused(data):
    try:
        array = raw.parse_idx(data, HERE)
    except InputError as error:
        assert "some-file" in str(error)
    else:
        assert raw.to_idx(array) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\x08",
        b"\0\0\x0d\x01\0\0\0\x01a",  # floats
        b"\0\0\x08\x01\0\0\0\x02a",  # one byte short
        b"\0\0\x08\x01\0\0\0\x01ab",  # one too many
        b"\0\0\x08\x04" + b"\xff" * 16,  # a size beyond 64 bits
        b"<html>404</html>",
    ],
)
def test_idx_damage_is_named(data):
    with pytest.raises(InputError, match="some-file"):
        raw.parse_idx(data, HERE)


def test_reads_what_the_files_hold(mnist, svhn):
    for made in (mnist, svhn):
        for split, (images, labels) in raw.read(made.folder, made.unit.parts).items():
            np.testing.assert_array_equal(images, made.examples[split][0])
            np.testing.assert_array_equal(labels, made.examples[split][1])
            assert images.dtype == np.uint8 and labels.dtype == np.int32


def test_svhn_digit_zero_is_written_as_ten(tmp_path, save_mat):
    save_mat(tmp_path / "a.mat", np.zeros((3, 32, 32, 3), np.uint8), np.r_[10, 1, 9])
    assert raw.parse_mat(tmp_path / "a.mat")[1].tolist() == [0, 1, 9]


def test_uncompressed_idx_is_read_too(mnist):
    for path in list(mnist.folder.iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    images, _ = raw.read(mnist.folder, mnist.unit.parts)["test"]
    np.testing.assert_array_equal(images, mnist.examples["test"][0])


def test_another_gzip_wrapper_is_accepted(mnist):
    path = mnist.folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1))
    raw.read(mnist.folder, mnist.unit.parts)


@pytest.mark.parametrize("cut", [0, 5, 100, -1])
def test_truncated_gzip(mnist, cut):
    path = mnist.folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"t10k-images-idx3-ubyte\.gz"):
        raw.read(mnist.folder, mnist.unit.parts)


def test_a_small_file_that_expands_without_end(mnist):
    path = mnist.folder / "t10k-images-idx3-ubyte.gz"
    with gzip.open(path, "wb") as stream:
        for _ in range(200):
            stream.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(
        InputError, match=r"t10k-images.* holds more than the 47,040,016"
    ):
        raw.read(mnist.folder, mnist.unit.parts)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150 << 20


def test_wrong_content_names_file_and_both_digests(mnist):
    path = mnist.folder / "train-labels-idx1-ubyte.gz"
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[-1] ^= 1
    path.write_bytes(gzip.compress(bytes(data)))
    expected = mnist.unit.parts["train"][1].sha256
    with pytest.raises(InputError) as caught:
        raw.read(mnist.folder, mnist.unit.parts)
    message = str(caught.value)
    for part in (str(path), expected, hashlib.sha256(data).hexdigest()):
        assert part in message
    assert "\n" not in message


def test_wrong_mat_is_refused_before_it_is_parsed(svhn):
    path = svhn.folder / "test_32x32.mat"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"test_32x32\.mat is not the official"):
        raw.read(svhn.folder, svhn.unit.parts)


def test_missing_file_is_named(mnist):
    (mnist.folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match="t10k-labels-idx1-ubyte"):
        raw.read(mnist.folder, mnist.unit.parts)


def test_labels_out_of_range(tmp_path, save_mat):
    images = np.zeros((2, 32, 32, 3), np.uint8)
    for wrong in (0, 11):
        save_mat(tmp_path / "a.mat", images, np.r_[1, wrong])
        with pytest.raises(InputError, match=f"a.mat has labels .*{wrong}"):
            raw.parse_mat(tmp_path / "a.mat")
    contents = [
        raw.to_idx(np.zeros((2, 28, 28), np.uint8)),
        raw.to_idx(np.array([3, 10], np.uint8)),
    ]
    with pytest.raises(InputError, match="labels-file has the label 10"):
        raw.examples_of_idx(contents, [Path("images-file"), Path("labels-file")])


def test_images_and_labels_must_belong_together():
    contents = [
        raw.to_idx(np.zeros((2, 28, 28), np.uint8)),
        raw.to_idx(np.zeros(3, np.uint8)),
    ]
    with pytest.raises(InputError, match="do not belong together"):
        raw.examples_of_idx(contents, [Path("a"), Path("b")])


@pytest.mark.parametrize(
    "values",
    [
        {"X": np.zeros((32, 32, 3, 2), np.uint8)},
        {"X": np.zeros((32, 32, 3, 2)), "y": np.ones((2, 1))},
        {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.ones((3, 1))},
        {"X": np.zeros((32, 32, 1, 2), np.uint8), "y": np.ones((2, 1))},
    ],
)
def test_mat_of_another_form(tmp_path, values):
    scipy.io.savemat(tmp_path / "a.mat", values)
    with pytest.raises(InputError, match=r"a\.mat"):
        raw.parse_mat(tmp_path / "a.mat")


@pytest.mark.parametrize("data", [b"", b"MATLAB 5.0", b"\x89HDF" + b"\0" * 600])
def test_mat_that_is_none(tmp_path, data):
    (tmp_path / "a.mat").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.mat"):
        raw.parse_mat(tmp_path / "a.mat")


def test_examples_of_another_way_are_verified_by_the_same_digest(mnist):
    raw.verify_examples(mnist.examples, mnist.unit.parts, HERE)
    images, labels = mnist.examples["train"]
    for wrong in ((images[::-1], labels), (images, labels[::-1]), (images[1:], labels)):
        examples = mnist.examples | {"train": wrong}
        with pytest.raises(InputError, match="some-file"):
            raw.verify_examples(examples, mnist.unit.parts, HERE)


def test_stamps_change_with_the_files(mnist):
    before = list(raw.stamps(mnist.folder, mnist.unit.parts))
    assert before == list(raw.stamps(mnist.folder, mnist.unit.parts))
    path = mnist.folder / "t10k-images-idx3-ubyte.gz"
    stat = path.stat()
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # even with the time forged
    assert before != list(raw.stamps(mnist.folder, mnist.unit.parts))


@pytest.mark.skipif("JAXDL_RAW_DIR" not in os.environ, reason="needs $JAXDL_RAW_DIR")
def test_the_real_mnist():
    folder = Path(os.environ["JAXDL_RAW_DIR"])
    examples = raw.read(folder, raw.MNIST)
    assert examples["train"][0].shape == (60000, 28, 28, 1)
    # LeCun's first ten training labels.
    assert examples["train"][1][:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    # Mean and deviation as every tutorial has them.
    scaled = examples["train"][0] / 255
    assert scaled.mean() == pytest.approx(0.1307, abs=5e-5)
    assert scaled.std() == pytest.approx(0.3081, abs=5e-5)
