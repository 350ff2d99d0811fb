"""Evaluate a finished run on the data that it was trained on.

Examples:
    python -m experiments.evaluate checkpoints/mnist/RUN
    python -m experiments.evaluate checkpoints/svhn/RUN --split=validation --json

Prints loss, accuracy and the accuracy of every class.
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments import cli
from jaxdl.config import default_cache_dir, default_raw_dir


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """What to evaluate, and on what."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    split: Literal["test", "validation", "train"] = "test"
    """Part of the data set."""
    checkpoint: Literal["best", "latest"] = "best"
    """The best checkpoint by validation accuracy, or the latest."""
    raw_dir: Path | None = dataclasses.field(default_factory=default_raw_dir)
    """Folder with the official raw files.
    Without this option: what JAXDL_RAW_DIR says."""
    cache_dir: Path = dataclasses.field(default_factory=default_cache_dir)
    """Where prepared data and compiled programs are kept."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object instead of text."""


def main() -> None:
    """Parses the command line and evaluates."""
    config = cli.parse_plain("experiments.evaluate", EvaluateConfig, __doc__)
    from experiments import stored

    run = stored.load(config.run, config.checkpoint, config.cache_dir)
    dataset = stored.data(run, config.raw_dir, config.cache_dir)
    scores = run.evaluate(run.variables, getattr(dataset, config.split))
    right, counts = scores.confusion.diagonal(), scores.confusion.sum(1)
    by_class = {
        name: float(r / n) if n else None
        for name, r, n in zip(dataset.classes, right, counts, strict=True)
    }
    if config.json:
        print(
            json.dumps(
                {
                    "run": str(config.run),
                    "checkpoint": config.checkpoint,
                    "step": run.step,
                    "dataset": dataset.name,
                    "split": config.split,
                    "count": len(scores.labels),
                    "loss": scores.loss,
                    "accuracy": scores.accuracy,
                    "accuracy_by_class": by_class,
                }
            )
        )
        return
    print(
        f"{run.config.model.arch} of step {run.step:,} ({config.checkpoint}) on "
        f"{dataset.name}, {config.split}, {len(scores.labels):,} images"
    )
    for name, accuracy in by_class.items():
        print(f"  {name}: " + ("none" if accuracy is None else f"{100 * accuracy:.2f}"))
    print(f"Loss on the {config.split} set: {scores.loss:.4f}")
    print(f"Accuracy on the {config.split} set: {100 * scores.accuracy:.2f}")


if __name__ == "__main__":
    cli.run_or_exit(main)
