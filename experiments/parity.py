"""Measure how far jaxdl's networks are from torchvision's, with the same weights.

Examples:
    python -m experiments.parity --architectures resnet18 vgg11_bn --sizes 32 64
    python -m experiments.parity --architectures vgg16 --weights vgg16-397923af.pth
    python -m experiments.parity --json > parity.json

Without --weights everything in a network is random, batch norm's running statistics
too. Figures are relative differences on random images: in float64 of logits, loss (in
training), gradients, running statistics after a batch, and of parameters, statistics
and momentum after ten steps of SGD, taken at the smallest size; in float32 the same,
but that gradients are measured from torch's float64, as torch's own are beside them: a
ReLU within rounding of zero goes either way. The last line says whether all is within
1e-9 (float64), 1e-7 (ten steps) and 1e-4 (float32); if not, the exit code is 1.

Needs torch and torchvision: pip install -e '.[parity]'. VGG takes up to 8 GB of memory.
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments import cli
from jaxdl.config import default_cache_dir
from jaxdl.errors import InputError
from jaxdl.models import registry

NAMES = tuple(name for name in registry.names() if registry.spec(name).torchvision)


@dataclasses.dataclass(frozen=True)
class ParityConfig:
    """What is compared."""

    architectures: tuple[str, ...] = NAMES
    """Architectures; those of torchvision."""
    sizes: tuple[int, ...] = (32, 64, 224)
    """Sides of the images, in pixels. What an architecture cannot take is left out."""
    weights: Path | None = None
    """A .pth or .safetensors file for the one architecture that is given.
    jaxdl reads it with its own reader, torchvision with torch's, strictly."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print a JSON list, for programs, instead of a table."""
    cache_dir: Path = dataclasses.field(default_factory=default_cache_dir)
    """Where compiled programs are kept."""


_COLUMNS = (
    *("logits", "loss", "gradient", "stats", "10 steps"),
    *("logits", "loss", "gradient", "torch's", "stats"),
)


_WITHIN = (
    "All within 1e-9 (float64), 1e-7 (ten steps) and 1e-4 (float32; its gradients "
    "within 1e-4 of float64's, or three times torch's own distance from them)."
)


def cases(config: ParityConfig) -> list[tuple[str, int]]:
    """Architectures and sizes, those that fit each other.

    Raises:
        InputError: there is no such architecture, or nothing is left.
    """
    if not config.architectures:
        raise InputError(f"--architectures needs at least one of {', '.join(NAMES)}")
    for name in config.architectures:
        if name not in NAMES:
            raise InputError(
                f"--architectures knows {', '.join(NAMES)}, which torchvision has; "
                f"not {name!r}"
            )
    if config.weights is not None and len(config.architectures) != 1:
        raise InputError("--weights needs --architectures with the one they are for")
    if config.weights is not None and not config.weights.is_file():
        raise InputError(f"--weights: there is no file {config.weights}")
    found = [
        (name, size)
        for name in config.architectures
        for size in sorted(set(config.sizes))
        if size >= _least(name)
    ]
    if not found:
        needs = ", ".join(f"{name} {_least(name)}" for name in config.architectures)
        sizes = " ".join(map(str, config.sizes)) or "none"
        raise InputError(f"--sizes must reach the smallest side ({needs}), not {sizes}")
    return found


def _least(name: str) -> int:
    return registry.spec(name).min_size("torchvision")


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    double, single = row["float64"], row["float32"]
    figures = (
        *(double[k] for k in ("logits", "loss", "gradients", "batch_stats")),
        row["ten_steps"],
        *(single[k] for k in ("logits", "loss", "gradients", "gradients_of_torch")),
        single["batch_stats"],
    )
    cells = [f"{'-' if n is None else f'{n:.1e}':>10}" for n in figures]
    return f"{row['name']:<10}{row['size']:>5}{row['images']:>7}" + "".join(cells)


def main() -> None:
    """Parses the command line, measures and prints."""
    config = cli.parse_plain("experiments.parity", ParityConfig, __doc__)
    listed = cases(config)
    from tqdm import tqdm

    from experiments import parity_measure, parity_torch
    from jaxdl import runtime
    from jaxdl.ops import engine

    parity_torch.libraries()
    runtime.start(config.cache_dir)
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    if not config.json:
        print(f"jaxdl ({engine.described()}) beside torchvision, relative differences")
        print(f"{'':<22}{'float64':>10}{'':<40}{'float32':>10}")
        head = "".join(f"{name:>10}" for name in _COLUMNS)
        print(f"{'network':<10}{'size':>5}{'images':>7}{head}")
    with tqdm(total=len(listed), disable=None, unit="case") as bar:
        for i, (name, size) in enumerate(listed):
            bar.set_description(f"{name} {size}")
            first = i == 0 or listed[i - 1][0] != name
            if first:
                one = parity_measure.subject(name, config.weights)
            double = parity_measure.in_float64(one, size)
            single = parity_measure.in_float32(one, size)
            moved = parity_measure.after_steps(one, size) if first else None
            row = {
                "name": name,
                "size": size,
                "images": parity_measure.batch_size(size),
                "weights": str(config.weights) if config.weights else "random",
                "float64": double._asdict(),
                "float32": single._asdict(),
                "ten_steps": moved,
            }
            rows.append(row)
            measured = (double, single) if moved is None else (double, single, moved)
            faults += [
                f"{name} at {size}, {said}"
                for result in measured
                for said in parity_measure.faults(result)
            ]
            if not config.json:
                tqdm.write(line(row))
            bar.update()
    if config.json:
        print(json.dumps(rows, indent=2))
    else:
        print("\n".join(faults) or _WITHIN)
    if faults:
        raise SystemExit(1)


if __name__ == "__main__":
    cli.run_or_exit(main)
