"""Makes mnist_embedded.npz, the part of MNIST that travels with the library.

    python -m jaxdl.data.make_mnist_embedded RAW_DIR

RAW_DIR holds MNIST's four official files, which are verified. Of each digit, 1,000
images of the official training file and 200 of the official test file are drawn at
random with a fixed seed (the first ones would not do: the first half of the official
test file is the easier one), and kept in their order. The pixels are compressed with
XZ, which makes them a fifth smaller than zlib or PNG; the file is the same, byte for
byte, wherever liblzma is of the same version.
"""

import argparse
import lzma
from pathlib import Path

import numpy as np

from jaxdl.data import raw

TRAIN_PER_CLASS, TEST_PER_CLASS = 1000, 200


def choose(examples: raw.Examples, per_class: int) -> raw.Examples:
    """Draws `per_class` examples of each of the ten digits, in their order."""
    images, labels = examples
    ranks = np.random.PCG64(0).random_raw(len(labels))
    order = np.argsort(ranks, kind="stable")
    drawn = [order[labels[order] == digit][:per_class] for digit in range(10)]
    chosen = np.sort(np.concatenate(drawn))
    return images[chosen], labels[chosen]


def write(raw_dir: Path, out: Path) -> None:
    """Writes the .npz: `images_xz`, `labels` uint8 [12000], `train` (the first 10,000).

    Raises:
      InputError: the raw files are not MNIST's.
    """
    parts = raw.read(raw_dir, raw.MNIST)
    train = choose(parts["train"], TRAIN_PER_CLASS)
    test = choose(parts["test"], TEST_PER_CLASS)
    pixels = np.concatenate([train[0], test[0]]).tobytes()
    best = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4}
    packed = lzma.compress(pixels, filters=[best | {"lp": 0, "pb": 0}])
    np.savez(
        out,
        images_xz=np.frombuffer(packed, np.uint8),
        labels=np.concatenate([train[1], test[1]]).astype(np.uint8),
        train=np.int64(len(train[1])),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw_dir", type=Path)
    target = Path(__file__).with_name("mnist_embedded.npz")
    write(parser.parse_args().raw_dir, target)
