"""Q4: what do weights trained on one set of digits bring to another, with few labels?

Examples:
    python -m experiments.transfer --raw-dir=DIR
    python -m experiments.transfer --source=checkpoints/svhn/RUN
    python -m experiments.transfer --pretrained=mine.pth --arch=vgg16_bn
    python -m experiments.transfer --labels 50 500 --seeds 0 1 2 --arms scratch all
    python -m experiments.transfer --resume

A network trained on synthetic_svhn (drawn house numbers) is fine-tuned on mnist_colour
(MNIST's digits on coloured grounds) with 100, 300 and 1,000 labelled images, and so is
the same network from scratch. Arms:

    scratch      all layers, from random weights
    all          all layers, from the source's weights
    decay        the same, each block at half the rate of the one after it
    last-block   the head and the last block; what is before stays as it was
    head         the head alone: a linear classifier of the source's features

All begin with the same new head, see the same labelled images in the same order, and
take as many steps. The learning rate of each arm is chosen on validation images, in
trainings with other seeds; the test set is read by finished networks only, from which
nothing is chosen.

Without --source or --pretrained the source is trained first, and kept for the next
time: ResNet-18 with ImageNet's stem, 4 epochs, some 6 minutes on two cores. All that
follows takes some 20 minutes there; with --arch=lenet5 all of it takes 6.

Everything is left in checkpoints/transfer/<name>/: the report (report.html, report.md),
the figures and the journal of all trainings. What was stopped, or killed, goes on with
--resume; the training of a source, before there is a study, with the same command.
"""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments import cli
from jaxdl.config import default_cache_dir, default_raw_dir

Arm = Literal["scratch", "all", "decay", "last-block", "head"]


@dataclasses.dataclass(frozen=True)
class Config:
    """From which source, on what, how often, and where the results go."""

    source: str | None = None
    """A finished run of experiments.svhn, for instance checkpoints/svhn/RUN.
    Without this option and --pretrained: one is trained on synthetic_svhn."""
    pretrained: str | None = None
    """Source weights from a file (.pth, .safetensors) instead, for --arch and --layout;
    or "imagenet"."""
    arch: str = "resnet18"
    """Architecture, unless --source says it."""
    layout: Literal["small", "torchvision"] | None = None
    """Layout of the architecture, unless --source says it.
    Without this option: torchvision for a resnet that is trained here, since it is the
    cheaper one; else that of the architecture, or of "imagenet"."""
    source_epochs: int = 4
    """Epochs of the source that is trained here."""
    labels: tuple[int, ...] = (100, 300, 1000)
    """Labelled images to train on: as many of each class."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Each decides which images are labelled, their order, and the new head."""
    arms: tuple[Arm, ...] = ("scratch", "all", "last-block", "head")
    """What is compared; see above. "scratch" must be among them."""
    steps: int = 400
    """Steps of each training."""
    batch_size: int = 32
    """Images per step."""
    dataset: str = "auto"
    """Target. "auto" is mnist_colour or, with a banner, mnist_embedded_colour.
    mnist_colour is made from MNIST: downloaded, or from --raw-dir."""
    raw_dir: Path | None = dataclasses.field(default_factory=default_raw_dir)
    """Folder with the four idx .gz files of MNIST, used instead of a download.
    Without this option: what JAXDL_RAW_DIR says."""
    cache_dir: Path = dataclasses.field(default_factory=default_cache_dir)
    """Folder where prepared data and compiled programs are kept."""
    out: Path = Path("checkpoints")
    """Folder that gets transfer/<name>/, and svhn/<run>/ for a source trained here."""
    name: str | None = None
    """Name of the study. Without this option: the time."""
    resume: bool = False
    """Go on with the study of that --name, or with the latest one."""


def main() -> None:
    """Parses the command line and runs."""
    config, dataset_name = cli.parse_study("transfer", Config, __doc__)
    from experiments import transferring

    transferring.run(config, dataset_name)


if __name__ == "__main__":
    cli.run_or_exit(main, stopped=cli.RESUMES)
