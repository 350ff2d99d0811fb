"""Say what is on an image, with the model of a finished run.

Examples:
    python -m experiments.predict checkpoints/svhn/RUN house.jpg door.png
    python -m experiments.predict checkpoints/mnist/RUN digit.png --json

Images of any size are resized to the size that the model was trained on. What is
transparent counts as black.

MNIST's digits are light on dark and centred: give such images to a model of it.
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from experiments import cli
from jaxdl.config import default_cache_dir
from jaxdl.errors import InputError


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """Which model, and which images."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    images: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="IMAGE [IMAGE ...]", help_behavior_hint="(required)"),
    ]
    """Image files, PNG or JPEG."""
    checkpoint: Literal["best", "latest"] = "best"
    """The best checkpoint by validation accuracy, or the latest."""
    cache_dir: Path = dataclasses.field(default_factory=default_cache_dir)
    """Where compiled programs are kept."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print a JSON array instead of text."""


def main() -> None:
    """Parses the command line and predicts."""
    config = cli.parse_plain("experiments.predict", PredictConfig, __doc__)
    if not config.images:
        raise InputError("give at least one image file after the run's folder")
    import numpy as np
    from scipy.special import softmax

    from experiments import stored
    from jaxdl.data import images as image_files
    from jaxdl.data.sources import Split

    run = stored.load(config.run, config.checkpoint, config.cache_dir)
    pixels = np.stack(
        [image_files.read(path, run.facts.image_shape) for path in config.images]
    )
    for path, image in zip(config.images, pixels, strict=True):
        if image.min() == image.max():
            raise InputError(
                f"{path} is of one colour, with nothing on it to name (what is "
                f"transparent counts as black: give a dark drawing a light ground)"
            )
    unknown = np.zeros(len(pixels), np.int32)
    logits = run.evaluate(run.variables, Split(pixels, unknown)).logits
    classes = run.facts.classes
    answers: list[dict[str, Any]] = []
    for path, row in zip(config.images, softmax(logits, axis=-1), strict=True):
        probabilities = dict(zip(classes, map(float, row), strict=True))
        label = classes[int(row.argmax())]
        answers.append(
            {"image": str(path), "label": label, "probabilities": probabilities}
        )
    if config.json:
        print(json.dumps(answers))
        return
    for answer in answers:
        ranked = sorted(answer["probabilities"].items(), key=lambda item: -item[1])
        shown = ", ".join(f"{name}: {100 * p:.1f} %" for name, p in ranked)
        print(f"{answer['image']}: {answer['label']}  ({shown})")


if __name__ == "__main__":
    cli.run_or_exit(main)
