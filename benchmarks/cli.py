"""What the command lines of all benchmarks have in common."""

import dataclasses
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import measure, report
from benchmarks.cases import NETWORKS, Network, Precision
from experiments import cli
from jaxdl import runs
from jaxdl.errors import InputError

T = TypeVar("T", bound="Common")


@dataclasses.dataclass(frozen=True)
class Common:
    """How long to measure, whom, and where the results go."""

    rounds: int = 7
    """Rounds; in each, every rival runs once."""
    seconds: float = 1.0
    """Length of a run, in seconds; at least one repetition."""
    timeout: float = 600.0
    """A rival that does not answer for this long has failed, in seconds."""
    rivals: tuple[str, ...] | None = None
    """Who is measured, of those that this command knows.
    Without this option: all that are installed."""
    out: Path = Path("checkpoints/benchmarks")
    """Folder that gets <name>.json and <name>.png, in the place of older ones.
    Ctrl-C leaves what was measured until then, as <name>-stopped."""
    name: str | None = None
    """What they are called.
    Without this option: as the command."""

    @property
    def effort(self) -> measure.Effort:
        """The part that measuring needs."""
        return measure.Effort(self.rounds, self.seconds, self.timeout)


@dataclasses.dataclass(frozen=True)
class Networks(Common):
    """Which networks."""

    networks: tuple[str, ...] | None = None
    """Networks, as arch or arch/layout: resnet18, resnet50/torchvision.
    arch alone: all its layouts here. Without this option: all."""
    batch_size: tuple[int, ...] = (128,)
    """Images per step."""
    precision: tuple[Precision, ...] = ("float32",)
    """Number format of the activations. Parameters always stay float32."""

    def cases(self) -> list[Network]:
        """Every network with every batch size and precision.

        Raises:
          InputError: there is no such network.
        """
        return [
            dataclasses.replace(network, batch=batch, precision=precision)
            for network in chosen(self.networks or ())
            for precision in self.precision
            for batch in self.batch_size
        ]


@dataclasses.dataclass(frozen=True)
class Fresh(Networks):
    """Which networks, each time in a fresh process."""

    rounds: int = 3
    """Rounds; in each, every rival starts once."""
    seconds: float = 0.2
    """Length of the steps after the first, in seconds; at least one step."""


def chosen(names: Sequence[str]) -> list[Network]:
    """The networks of these names, or all.

    Raises:
      InputError: there is no such network.
    """
    known = {name for n in NETWORKS for name in (n.arch, n.name)}
    for name in names:
        if name not in known:
            listed = ", ".join(n.name for n in NETWORKS)
            raise InputError(f"--networks knows {listed}, not {name!r}")
    return [n for n in NETWORKS if not names or {n.arch, n.name} & set(names)]


def parse(command: str, kind: type[T], description: str) -> T:
    """Reads the configuration of a command from its command line; makes its folder.

    Raises:
      InputError: an option is unknown, ill-typed or out of range, or has a value twice
        or none at all; or the folder cannot be written to.
    """
    config = cli.parse_plain(f"benchmarks.{command}", kind, description)
    if config.rounds < 1:
        raise InputError(f"--rounds must be at least 1, not {config.rounds}")
    for name in ("seconds", "timeout"):
        if not (value := getattr(config, name)) > 0:
            raise InputError(f"--{name} must be positive, not {value:g}")
    for batch in getattr(config, "batch_size", ()):
        if batch < 1:
            raise InputError(f"--batch-size must be at least 1, not {batch}")
    for field in dataclasses.fields(config):
        values = getattr(config, field.name)
        if isinstance(values, tuple):
            _check_list(f"--{field.name.replace('_', '-')}", values)
    if config.name == "" or set(config.name or "") & set("/\\\0"):
        raise InputError(f"--name must be a plain file name, not {config.name!r}")
    _check_folder(config.out)  # before what may take hours is measured
    return config


def _check_list(option: str, values: tuple[Any, ...]) -> None:
    """A table has one row for each case, and one column for each rival.

    Raises:
      InputError: there is no value, or one more than once.
    """
    if not values:
        raise InputError(f"{option} takes at least one value")
    for value in values:
        if values.count(value) > 1:
            raise InputError(f"{option}: {value} is given twice; give it once")


def _check_folder(folder: Path) -> None:
    """Makes a folder where it is missing.

    Raises:
      InputError: it cannot be made, or no file be written to it.
    """
    runs.make_folder(folder)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write to the folder {folder}: {error.strerror}; choose another "
            f"with --out"
        ) from error


def rivals(config: Common, known: Sequence[str]) -> tuple[list[str], list[str]]:
    """The rivals to measure, and a line about each that is not installed.

    Raises:
      InputError: a rival that the command does not know, or none is left.
    """
    for name in config.rivals or ():
        if name not in known:
            raise InputError(
                f"--rivals knows {', '.join(map(repr, known))} here, not {name!r}"
            )
    present, notes = measure.installed(config.rivals or known)
    if not present:
        raise InputError("--rivals: none of these is installed")
    return present, notes


def publish(outcome: report.Report[Any], config: Common) -> None:
    """Prints the table and writes the files; beside older ones if it was stopped."""
    stopped = any(one.failed == measure.STOPPED for one in outcome.measured)
    name = (config.name or outcome.command) + ("-stopped" if stopped else "")
    print(report.table(outcome))
    for path in report.save(outcome, config.out, name):
        print(f"written: {path}", file=sys.stderr)
    if stopped:
        raise SystemExit(128 + signal.SIGINT)


def run(main: Callable[[], Any]) -> None:
    """Runs a command; known failures become one line and an exit code."""
    cli.run_or_exit(main)
