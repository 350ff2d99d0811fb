"""Compilation: seconds from the first call of a training step to its result.

Each time in a fresh process, with nothing kept from earlier ones.

Examples:
    python -m benchmarks.compile
    python -m benchmarks.compile --networks vgg16_bn resnet18 --rounds 5
    python -m benchmarks.compile --rivals jaxdl "torch compile" --networks lenet5
"""

import dataclasses

from benchmarks import cli, measure
from benchmarks.report import Report

DEFAULT = ("jaxdl", "jaxdl pure", "flax", "flax+cure")


@dataclasses.dataclass(frozen=True)
class Config(cli.Fresh):
    """Whom to measure."""

    rivals: tuple[str, ...] = DEFAULT
    """Who is measured."""


def main() -> None:
    """Parses the command line, measures and prints."""
    config = cli.parse("compile", Config, __doc__)
    names, notes = cli.rivals(config, tuple(measure.RIVALS))
    listed = config.cases()
    cli.publish(
        Report(
            command="compile",
            data="synthetic: random images and labels",
            unit="seconds to the first result",
            figures=lambda one: one.first,
            measured=measure.compare_fresh("step", listed, names, config.effort),
            more_is_better=False,
            notes=notes,
        ),
        config,
    )


if __name__ == "__main__":
    cli.run(main)
