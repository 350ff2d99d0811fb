"""Trials per second in a hyper-parameter search, beside torch with one after the other.

A trial trains a network for one epoch of 6,400 images (LeNet-5: of 1,280), in batches
of 128, from its first weights to its validation accuracy. Trials differ in learning
rate, dropout and label smoothing. torch has its images in memory. "jaxdl spread"
has a trial on each core, "jaxdl vmap" eight mapped over on each; `experiments.search`
takes the one or the other by the network's size. "products alone" computes the matrix
products of the trials and nothing else, a trial on each core, by torch's library: how
many times faster than torch a search could be at best, in float32. Compilation, once
for each shape, is not counted; the JSON has it.

Examples:
    python -m benchmarks.search
    python -m benchmarks.search --hidden 64 512,256 --rounds 3
"""

import dataclasses
import statistics
from collections.abc import Sequence

from benchmarks import cli, measure
from benchmarks.cases import Network, Search
from benchmarks.measure import Measured
from benchmarks.report import Report, number
from jaxdl.errors import InputError

SPACE = ("512,256", "1024,512")
"""Hidden layers in the default space of `experiments.search`."""


@dataclasses.dataclass(frozen=True)
class Config(cli.Common):
    """Which networks."""

    hidden: tuple[str, ...] = ("32", "128,64", *SPACE)
    """Hidden layers of the feed-forward networks, as 512,256."""
    images: int = 6400
    """Training images of the feed-forward networks."""
    lenet: bool = True
    """LeNet-5 too, whose convolutions a search never maps over."""
    rounds: int = 5
    """Rounds; in each, every rival runs once."""
    seconds: float = 0.5
    """Length of a run, in seconds; at least 16 trials."""


def main() -> None:
    """Parses the command line, measures and prints."""
    config = cli.parse("search", Config, __doc__)
    names, notes = cli.rivals(config, tuple(measure.SEARCH_RIVALS))
    listed = cases(config)
    measured = measure.compare("search", listed, names, config.effort)
    cli.publish(
        Report(
            command="search",
            data="synthetic: random pixels",
            unit="trials/s",
            figures=lambda one: [one.case.trials / s for s in one.seconds],
            measured=measured,
            notes=[*notes, *over_the_space(measured)],
            against={"best torch": "torch"},
            columns={"parameters": lambda one: f"{one.parameters or 0:,}"},
        ),
        config,
    )


def cases(config: Config) -> list[Search]:
    """What is measured.

    Raises:
      InputError: hidden layers that are no numbers.
    """
    for hidden in config.hidden:
        if not all(s.isdecimal() and int(s) > 0 for s in hidden.split(",")):
            raise InputError(f"--hidden takes sizes such as 512,256, not {hidden!r}")
    network = Network("fnn", None)
    if config.images < network.batch:
        raise InputError(
            f"--images must be at least a batch of {network.batch}, not {config.images}"
        )
    fnns = [
        Search(network, hidden, norm, images=config.images)
        for hidden in config.hidden
        for norm in (False, True)
    ]
    return fnns + [Search(Network("lenet5", None), images=1280)] * config.lenet


def over_the_space(measured: Sequence[Measured[Search]]) -> list[str]:
    """How the default space of `experiments.search` fares, its shapes equally often."""
    said = {
        "jaxdl spread": "jaxdl spread does",
        "products alone": "the matrix products alone would be",
    }
    return [
        f"the default space of experiments.search: {words} {number(middle)} "
        f"[{number(least)}, {number(most)}] times the trials of the best torch"
        for rival, words in said.items()
        for least, middle, most in _times(measured, rival)
    ]


def _times(
    measured: Sequence[Measured[Search]], rival: str
) -> list[tuple[float, float, float]]:
    """Least, median and most of the rounds; nothing where a figure is missing."""
    ours, theirs = [], []
    for hidden in SPACE:
        for norm in (False, True):
            row = [
                one
                for one in measured
                if (one.case.hidden, one.case.batch_norm) == (hidden, norm)
                and one.seconds
            ]
            us = [one for one in row if one.rival == rival]
            torch = [one for one in row if one.rival.startswith("torch")]
            if not us or not torch:
                return []
            ours.append(us[0].seconds)
            theirs.append(min(torch, key=lambda one: one.median).seconds)
    rounds = [
        sum(them) / sum(us)
        for us, them in zip(
            zip(*ours, strict=True), zip(*theirs, strict=True), strict=True
        )
    ]
    return [(min(rounds), statistics.median(rounds), max(rounds))]


if __name__ == "__main__":
    cli.run(main)
