r"""Q4, the table: every architecture trained on SVHN by its recipe, over some seeds.

Examples:
    python -m experiments.compare
    python -m experiments.compare --raw-dir=DIR --seeds 0 1 2
    python -m experiments.compare --precision=bfloat16 --architectures lenet5 \
        resnet18/torchvision
    python -m experiments.compare --epochs=2 --name=short
    python -m experiments.compare --pretrained --architectures vgg16_bn resnet50
    python -m experiments.compare --table-only

An entry is an architecture with a seed, in one of its layouts: resnet18/small is made
for 32x32 images, resnet18/torchvision is the ImageNet network, which on a CPU costs a
fifteenth of that. Each is an ordinary run, in checkpoints/compare/<name>/<entry>/, by
the recipe that experiments/recipes.py has for it.

The same command once more goes on where the last one was stopped or killed, to the same
bits, and trains what is missing; finished entries stay as they are. An entry that fails
does not stop the others: the table says why. Several processes may train different
--architectures under one --name at the same time.

The table is checkpoints/compare/<name>/RESULTS.md, RESULTS.html and results.csv. It is
written anew after each entry, of all that is there.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments import cli
from jaxdl.config import default_cache_dir, default_raw_dir


@dataclasses.dataclass(frozen=True)
class Config:
    """What is compared, for how long, and where the results go."""

    architectures: tuple[str, ...] = (
        "lenet5",
        "resnet18/torchvision",
        "resnet50/torchvision",
        "resnet101/torchvision",
        "vgg16_bn",
        "alexnet",
        "resnet18/small",
    )
    """Networks, as arch or arch/layout, in the order in which they are trained.
    `python -m experiments.models` lists them all."""
    seeds: tuple[int, ...] = (0,)
    """Each network is trained with each of these seeds."""
    epochs: int | None = None
    """Passes over the training set, in the place of each recipe's own."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the activations. bfloat16 is faster on GPUs, TPUs and CPUs
    with AMX."""
    pretrained: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Fine-tune from torchvision's ImageNet weights, in entries of their own.
    AlexNet, VGG and ResNet have them; images are resized to 64x64."""
    dataset: str = "auto"
    """Data set. "auto" is SVHN or, with a banner, synthetic_svhn.
    A set that is named is never replaced."""
    raw_dir: Path | None = dataclasses.field(default_factory=default_raw_dir)
    """Folder with train_32x32.mat and test_32x32.mat, used instead of a download.
    Without this option: what JAXDL_RAW_DIR says."""
    cache_dir: Path = dataclasses.field(default_factory=default_cache_dir)
    """Folder where prepared data and compiled programs are kept."""
    out: Path = Path("checkpoints")
    """Folder that gets compare/<name>/."""
    name: str = "svhn"
    """Name of the comparison."""
    table_only: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write the table of what is there, and train nothing."""


def main() -> None:
    """Parses the command line, then trains and writes the table."""
    config = cli.parse_plain("experiments.compare", Config, __doc__)
    from experiments import comparing

    comparing.run(config)


if __name__ == "__main__":
    cli.run_or_exit(main, stopped=cli.REPEATS)
