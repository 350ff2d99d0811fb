"""Hessian-vector products: jaxdl beside PyTorch, curvlinops, PyHessian and plain JAX.

The Hessian of the mean cross-entropy over a batch of random images of MNIST's size, at
the initial parameters; each product is that with the (normalised) product before it, as
in power iteration or Lanczos' method. What does not depend on the vector may be kept
from one product to the next; jaxdl, PyHessian and "torch double backward" do so.
curvlinops and PyHessian are PyTorch too: the best of all its ways counts.

Examples:
    python -m benchmarks.hvp
    python -m benchmarks.hvp --networks lenet5 --batch-size 1024
    python -m benchmarks.hvp --rivals jaxdl "torch double backward" "torch func"
"""

import dataclasses
from typing import Literal

from benchmarks import cli, measure
from benchmarks.cases import Digits
from benchmarks.report import Report

TORCH = ("torch", "curvlinops", "pyhessian")
"""How the names of those begin that compute by PyTorch."""


@dataclasses.dataclass(frozen=True)
class Config(cli.Common):
    """Which Hessians."""

    networks: tuple[Literal["fnn", "lenet5"], ...] = ("fnn", "lenet5")
    """Networks."""
    batch_size: tuple[int, ...] = (128, 1024)
    """Images that the loss is a mean over."""


def main() -> None:
    """Parses the command line, measures and prints."""
    config = cli.parse("hvp", Config, __doc__)
    names, notes = cli.rivals(config, tuple(measure.HVP_RIVALS))
    listed = [
        Digits(name, None, batch)
        for name in config.networks
        for batch in config.batch_size
    ]
    cli.publish(
        Report(
            command="hvp",
            data="synthetic: random images and labels",
            unit="products/s",
            figures=lambda one: [1 / s for s in one.seconds],
            measured=measure.compare("hvp", listed, names, config.effort),
            notes=notes,
            against={
                "best PyTorch": TORCH,
                "curvlinops": "curvlinops",
                "pyhessian": "pyhessian",
                "best flax": "flax",
            },
        ),
        config,
    )


if __name__ == "__main__":
    cli.run(main)
