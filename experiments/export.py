"""Write the weights of a run to a file, for torch, for others, or to go on from.

Examples:
    python -m experiments.export checkpoints/svhn/RUN digits.safetensors
    python -m experiments.export checkpoints/svhn/RUN r18.pth --checkpoint=latest

Another run starts from the file with --pretrained=FILE.

Written is the best checkpoint by validation, of a run with --ema its average.

Of layout torchvision, torchvision's own network loads the file, strictly.

Images must be normalised as in the run, whose config.json says how.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments import cli
from jaxdl import config as settings
from jaxdl.config import Config, default_cache_dir
from jaxdl.errors import InputError


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Which weights, and where they go."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """What to write: .pth as torch.save writes it, or .safetensors.
    A file of that name is replaced."""
    checkpoint: Literal["best", "latest"] = "best"
    """The best checkpoint by validation accuracy, or the latest."""
    cache_dir: Path = dataclasses.field(default_factory=default_cache_dir)
    """Where compiled programs are kept."""


def main() -> None:
    """Parses the command line and writes the file."""
    config = cli.parse_plain("experiments.export", ExportConfig, __doc__)
    from jaxdl import weights

    if config.file.suffix not in weights.SUFFIXES:
        raise InputError(
            f"FILE must end in {' or '.join(weights.SUFFIXES)}, not {config.file}"
        )
    import jax

    from experiments import stored
    from jaxdl.models import pretrained

    run = stored.load(config.run, config.checkpoint, config.cache_dir)
    pretrained.save(config.file, jax.device_get(run.variables), batches=run.step)
    print(
        f"Wrote {run.config.model.arch} of step {run.step:,} ({config.checkpoint}), "
        f"trained on {run.dataset['name']}, to {config.file}: "
        f"{config.file.stat().st_size / 1e6:,.1f} MB"
    )
    print(f"Start from it with {options(run.config)} --pretrained={config.file}")


def options(config: Config) -> str:
    """The options that give another run the same network and input."""
    config = settings.spelled_out(config)
    model, normalise = config.model, config.data.normalise
    chosen = {
        "arch": model.arch,
        "hidden": model.hidden,
        "activation": model.activation,
        "batch-norm": model.batch_norm,
        "layout": model.layout,
        "image-size": config.data.image_size,
        "normalise": None if normalise == "data" else normalise,
    }
    return " ".join(
        f"--{name} {' '.join(map(str, value))}".rstrip()
        if isinstance(value, tuple)
        else f"--{name}={value}"
        for name, value in chosen.items()
        if value is not None
    )


if __name__ == "__main__":
    cli.run_or_exit(main)
