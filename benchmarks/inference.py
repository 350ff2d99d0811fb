"""Inference: logits of a batch in evaluation mode, jaxdl beside its rivals.

Examples:
    python -m benchmarks.inference
    python -m benchmarks.inference --networks resnet18/small --batch-size 1 32
"""

import dataclasses

from benchmarks import cli, measure
from benchmarks.report import Report


@dataclasses.dataclass(frozen=True)
class Config(cli.Networks):
    """Which networks, on how many images."""

    batch_size: tuple[int, ...] = (1, 256)
    """Images at a time."""


def main() -> None:
    """Parses the command line, measures and prints."""
    config = cli.parse("inference", Config, __doc__)
    names, notes = cli.rivals(config, tuple(measure.RIVALS))
    listed = config.cases()
    cli.publish(
        Report(
            command="inference",
            data="synthetic: random images",
            unit="images/s",
            figures=lambda one: [one.case.batch / s for s in one.seconds],
            measured=measure.compare("inference", listed, names, config.effort),
            notes=notes,
        ),
        config,
    )


if __name__ == "__main__":
    cli.run(main)
