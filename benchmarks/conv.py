"""Convolutions by layer and direction, beside the machine's rate of matrix products.

A layer is written size,inputs,outputs,kernel, as in 32,64,64,3: images of 32x32 with 64
channels, 64 maps, a 3x3 kernel, stride 1, padded so as to keep the size.

Examples:
    python -m benchmarks.conv
    python -m benchmarks.conv --layers 2,512,512,3 8,256,1024,1 --batch-size 128
    python -m benchmarks.conv --precision bfloat16
"""

import dataclasses
from typing import get_args

from benchmarks import cli, measure
from benchmarks.cases import LAYERS, Convolution, Direction, Precision
from benchmarks.report import Report, of_products
from jaxdl.errors import InputError

RIVALS = ("jaxdl", "jaxdl pure", "torch nchw", "torch nhwc", "flax", "flax+cure")


@dataclasses.dataclass(frozen=True)
class Config(cli.Common):
    """Which layers."""

    layers: tuple[str, ...] = tuple(",".join(map(str, layer)) for layer in LAYERS)
    """Layers, as size,inputs,outputs,kernel."""
    batch_size: tuple[int, ...] = (64,)
    """Images."""
    precision: tuple[Precision, ...] = ("float32",)
    """Number format."""
    seconds: float = 0.3
    """Length of a run, in seconds; at least one repetition."""

    def cases(self) -> list[Convolution]:
        """Every layer in every direction.

        Raises:
          InputError: a layer is not four positive numbers, or its kernel is even.
        """
        shapes = []
        for layer in self.layers:
            sizes = layer.split(",")
            if len(sizes) != 4 or not all(s.isdecimal() and int(s) for s in sizes):
                raise InputError(
                    "--layers takes size,inputs,outputs,kernel, as in 32,64,64,3, "
                    f"not {layer!r}"
                )
            if int(sizes[3]) % 2 == 0:
                raise InputError(f"--layers takes kernels of odd size, not {layer!r}")
            shapes.append([int(s) for s in sizes])
        return [
            Convolution(size, inputs, outputs, kernel, direction, batch, precision)
            for precision in self.precision
            for batch in self.batch_size
            for size, inputs, outputs, kernel in shapes
            for direction in get_args(Direction)
        ]


def main() -> None:
    """Parses the command line, measures and prints."""
    config = cli.parse("conv", Config, __doc__)
    names, notes = cli.rivals(config, RIVALS)
    listed = config.cases()
    for precision in config.precision:
        rate = measure.product_rate(precision, config.effort)
        notes.append(of_products(precision, rate))
    cli.publish(
        Report(
            command="conv",
            data="synthetic: random images and kernels",
            unit="GFLOP/s",
            figures=lambda one: [one.case.flops / s / 1e9 for s in one.seconds],
            measured=measure.compare("convolution", listed, names, config.effort),
            notes=notes,
        ),
        config,
    )


if __name__ == "__main__":
    cli.run(main)
