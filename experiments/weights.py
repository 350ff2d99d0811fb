"""Where the first weights of a run come from: --pretrained.

Import it late: it brings JAX.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
from tqdm import tqdm

from jaxdl.config import Config
from jaxdl.errors import InputError
from jaxdl.weights import published


class Weights(NamedTuple):
    """A file of weights, as the run's files have it."""

    source: str
    """ "imagenet", or the file as it was given."""
    file: str
    """Its name."""
    sha256: str


def check(config: Config) -> None:
    """Checks that a file which is named is there, before anything else is done.

    Raises:
      InputError: it is not.
    """
    source = config.model.pretrained
    if source not in (None, "imagenet") and not Path(source).expanduser().is_file():
        raise InputError(
            f'--pretrained must be "imagenet" or a weight file: there is no file '
            f"{source}"
        )


def obtain(config: Config) -> tuple[Path, Weights]:
    """The file that --pretrained stands for, found or fetched.

    Raises:
      InputError: there is no such file, it is damaged, or it cannot be fetched.
    """
    source = str(config.model.pretrained)
    given = None if source == "imagenet" else Path(source).expanduser()
    bar = tqdm(
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        desc=f"Weights of {config.model.arch}",
        dynamic_ncols=True,
        delay=0.5,  # nothing is fetched as a rule
        disable=None if jax.process_index() == 0 else True,
    )

    def show(done: int, total: int | None) -> None:
        bar.total = total
        bar.update(done - bar.n)

    with bar:
        path = published.obtain(
            config.model.arch,
            file=given,
            cache_dir=config.data.cache_dir,
            progress=show,
        )
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return path, Weights(source, path.name, digest)


def obtain_again(config: Config, stored: Weights) -> Path:
    """The same file for a run that has begun, and has no checkpoint yet.

    Raises:
      InputError: from `obtain`, or it is another file by now.
    """
    path, found = obtain(config)
    if found.sha256 != stored.sha256:
        raise InputError(
            f"the run has no checkpoint yet and began with another {path}: its SHA-256 "
            f"was {stored.sha256[:8]}, not {found.sha256[:8]}; start a new run"
        )
    return path


def from_json(stored: dict[str, Any] | None) -> Weights | None:
    """What a run's config.json says of its weights; None for a run without."""
    return None if stored is None else Weights(**stored)


def described(weights: Weights) -> str:
    """For a line of the log."""
    named = weights.file if weights.source == "imagenet" else weights.source
    said = f"ImageNet, {named}" if weights.source == "imagenet" else named
    return f"{said} (SHA-256 {weights.sha256[:8]})"
