"""Peak memory of training steps, beyond what the imports take.

Each time in a fresh process. The first step, which compiles, is told apart.

Examples:
    python -m benchmarks.memory
    python -m benchmarks.memory --networks resnet50 --batch-size 32 128
"""

import statistics

from benchmarks import cli, measure
from benchmarks.report import Report, number


def main() -> None:
    """Parses the command line, measures and prints."""
    config = cli.parse("memory", cli.Fresh, __doc__)
    names, notes = cli.rivals(config, tuple(measure.RIVALS))
    listed = config.cases()
    measured = measure.compare_fresh("step", listed, names, config.effort)
    for one in measured:
        if one.seconds:
            first = number(statistics.median(one.first_memory) / 2**20)
            notes.append(f"{one.case.title}, {one.rival}: {first} MiB up to the first")
    cli.publish(
        Report(
            command="memory",
            data="synthetic: random images and labels",
            unit="MiB at most",
            # A page at least: of a small network nothing may be seen.
            figures=lambda one: [max(m, 4096) / 2**20 for m in one.memory],
            measured=measured,
            more_is_better=False,
            notes=notes,
        ),
        config,
    )


if __name__ == "__main__":
    cli.run(main)
