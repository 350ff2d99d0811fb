"""A whole epoch, input included, beside torch in memory and with its DataLoader.

"torch loader" reads tensors one by one, "torchvision loader" makes them of PIL images
as torchvision's data sets do; the number is that of their processes.
MNIST for the FNN (60,000 images), images of SVHN's number and size for all others. The
pixels are random, but for MNIST's with --raw-dir.

Examples:
    python -m benchmarks.epoch --raw-dir DIR
    python -m benchmarks.epoch --networks lenet5 resnet18/torchvision --images 12800
"""

import dataclasses
import math
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import cli, measure
from benchmarks.cases import Epoch, Network
from benchmarks.report import Report, number
from jaxdl.data import raw
from jaxdl.errors import InputError

AGAINST = {
    "torch in memory": "torch memory",
    "torch's DataLoader": "torch loader",
    "torchvision's": "torchvision loader",
    "best flax": "flax",
}


@dataclasses.dataclass(frozen=True)
class Config(cli.Networks):
    """What is trained, on how many images."""

    networks: tuple[str, ...] = ("fnn",)
    """Networks, as arch or arch/layout; arch alone: all its layouts here."""
    batch_size: tuple[int, ...] = (64,)
    """Images per step."""
    images: int | None = None
    """Images in an epoch.
    Without this option: 60,000 for the FNN, 73,257 for all others."""
    raw_dir: Path | None = None
    """Folder with MNIST's four files, for the FNN.
    Without this option: random pixels."""
    rounds: int = 3
    """Rounds; in each, every rival runs once."""


def main() -> None:
    """Parses the command line, measures and prints."""
    config = cli.parse("epoch", Config, __doc__)
    names, notes = cli.rivals(config, tuple(measure.EPOCH_RIVALS))
    if config.images is not None and config.images < max(config.batch_size):
        raise InputError(
            f"--images must be at least a batch of {max(config.batch_size)}, "
            f"not {config.images}"
        )
    with tempfile.TemporaryDirectory() as folder:
        listed = [store(network, config, Path(folder)) for network in config.cases()]
        measured = measure.compare("epoch", listed, names, config.effort)
    for case in listed:
        whole, bare = (
            next((m.median for m in measured if (m.case, m.rival) == (case, r)), 0.0)
            for r in ("jaxdl", "jaxdl without input")
        )
        if whole and bare and math.isfinite(whole + bare):
            share = number(100 * (1 - bare / whole))
            notes.append(f"{case.title}: input is {share} % of jaxdl's epoch")
    real = "MNIST for the FNN, else " if config.raw_dir else ""
    cli.publish(
        Report(
            command="epoch",
            data=f"{real}synthetic: random pixels",
            unit="seconds an epoch",
            figures=lambda one: one.seconds,
            measured=measured,
            more_is_better=False,
            notes=notes,
            against=AGAINST,
        ),
        config,
    )


def store(network: Network, config: Config, folder: Path) -> Epoch:
    """Writes the set that a network is trained on to files."""
    is_mnist = network.arch == "fnn"
    count = config.images or (60_000 if is_mnist else 73_257)
    random = np.random.default_rng(0)
    if is_mnist and config.raw_dir:
        images, labels = raw.read(config.raw_dir, {"train": raw.MNIST["train"]})[
            "train"
        ]
        images, labels = images[:count], labels[:count]
    else:
        images = random.integers(0, 256, (count, *network.image_shape), np.uint8)
        labels = random.integers(0, 10, count, np.int32)
    paths = [folder / f"{network.arch}_{part}.npy" for part in ("images", "labels")]
    np.save(paths[0], images)
    np.save(paths[1], labels.astype(np.int32))
    return Epoch(network, str(paths[0]), str(paths[1]), len(labels))


if __name__ == "__main__":
    cli.run(main)
