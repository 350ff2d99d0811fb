"""List the architectures: parameters, FLOPs, and the images that they take.

Examples:
    python -m experiments.models
    python -m experiments.models --size 28 --channels 1
    python -m experiments.models --size 224 --layout torchvision --json
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Annotated, Literal

import tyro

from experiments import cli
from jaxdl.errors import InputError
from jaxdl.models import registry


@dataclasses.dataclass(frozen=True)
class Config:
    """For which images and classes the figures are given."""

    size: int = 32
    """Side of the images, in pixels."""
    channels: int = 3
    """Channels of the images: 3 for colour, 1 for grey."""
    classes: int = 10
    """Number of classes."""
    layout: Literal["small", "torchvision"] | None = None
    """Layout of those architectures that have several.
    Without this option: small."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print a JSON list, for programs, instead of a table."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One architecture. Figures are None where it does not take images of that size."""

    name: str
    title: str
    layout: str | None
    parameters: int | None
    """Trained parameters."""
    flops: int | None
    """Floating-point operations of a forward pass over one image; multiply-add = 2."""
    min_size: int
    """Smallest side of an image, in pixels."""


def rows(config: Config) -> list[Row]:
    """A row per architecture, in the registry's order.

    Raises:
        InputError: A size or count below 1.
    """
    for name in ("size", "channels", "classes"):
        if (value := getattr(config, name)) < 1:
            raise InputError(f"--{name} must be at least 1, got {value}")
    return [_row(registry.spec(name), config) for name in registry.names()]


def _row(arch: registry.Arch, config: Config) -> Row:
    from jaxdl.models import cost  # imports JAX, which `--help` can do without

    layout = (config.layout or arch.layouts[0]) if arch.layouts else None
    options = {"layout": layout} if layout else {}
    parameters = flops = None
    if config.size >= arch.min_size(layout):
        module = registry.build(arch.name, num_classes=config.classes, **options)
        shape = (1, config.size, config.size, config.channels)
        parameters = cost.parameters(module, shape)
        flops = cost.flops(module, shape)
    return Row(arch.name, arch.title, layout, parameters, flops, arch.min_size(layout))


def table(config: Config, listed: Sequence[Row]) -> str:
    """The rows as text, under a line that says what the figures are for."""
    cells = [("name", "title", "layout", "parameters", "MFLOPs", "images")]
    for row in listed:
        cells.append(
            (
                row.name,
                row.title,
                row.layout or "-",
                "-" if row.parameters is None else f"{row.parameters:,}",
                "-" if row.flops is None else f"{row.flops / 1e6:,.1f}",
                "any size"
                if row.min_size == 1
                else f">= {row.min_size}x{row.min_size}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        f"Images {config.size}x{config.size}x{config.channels}, {config.classes} "
        "classes; FLOPs of one image forward, a multiply-add being two.",
        "",
    ]
    for line in cells:
        aligned = [
            cell.rjust(width) if column in (3, 4) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)


def main() -> None:
    """Parses the command line and prints the list."""
    config = cli.parse_plain("experiments.models", Config, __doc__)
    listed = rows(config)
    if config.json:
        print(json.dumps([dataclasses.asdict(row) for row in listed], indent=2))
    else:
        print(table(config, listed))


if __name__ == "__main__":
    cli.run_or_exit(main)
