"""What every experiment's command line has in common.

Bad input ends in one line on stderr and exit code 2, a diverged run in one line and
exit code 1, a signal in a saved checkpoint. `--help` imports nothing heavy.
"""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TypeVar

import tyro

from jaxdl import config as settings
from jaxdl import runs
from jaxdl.config import Config
from jaxdl.errors import InputError

T = TypeVar("T")


def parse(experiment: str, default: Config, description: str) -> Config:
    """Reads a run's configuration from the command line.

    With --resume, the stored configuration of the run takes the place of the defaults;
    so only what is given anew can differ, and that is an error.

    Raises:
      InputError: no such run to resume, or a changed setting.
    """
    config = _parse(experiment, default, description)
    if not config.run.resume:
        return config
    directory = run_to_resume(experiment, config)
    stored = settings.from_json(runs.read_json(directory / "config.json")["config"])
    given = _parse(experiment, stored, description)
    if changed := settings.differences(stored, given):
        raise InputError(
            f"the run {directory} cannot go on with other settings "
            f"({'; '.join(changed)}): leave them out, or start a new run"
        )
    return settings.renamed(given, directory.name, resume=True)


def parse_plain(experiment: str, kind: type[T], description: str) -> T:
    """Reads a dataclass from the command line."""
    return tyro.cli(
        kind, prog=f"python -m experiments.{experiment}", description=description
    )


def run_to_resume(experiment: str, config: Config) -> Path:
    """The run that --name names, or the most recent one.

    Raises:
      InputError: there is none.
    """
    folder = config.run.out / experiment
    if config.run.name is not None:
        directory = folder / config.run.name
        if not directory.is_dir():
            others = ", ".join(sorted(p.name for p in folder.glob("*/"))) or "none"
            raise InputError(f"no run {directory} to resume; runs there: {others}")
        return directory
    found = sorted(folder.glob("*/config.json"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise InputError(f"no run in {folder} to resume; start one without --resume")
    return found[-1].parent


def run_or_exit(main: Callable[[], T]) -> T:
    """Runs an experiment's main function; turns known failures into lines and codes."""
    try:
        return main()
    except InputError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("interrupted before there was anything to save", 130)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        _fail(
            f"{error.strerror}: {error.filename}" if error.filename else f"{error}", 2
        )
    except RuntimeError as error:
        if type(error).__name__ not in ("DivergedError", "WrongNumbersError"):
            raise
        _fail(str(error), 1)
    raise AssertionError("unreachable")


class StopOnSignal:
    """Becomes true when SIGINT or SIGTERM arrives; a second SIGINT ends at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def __call__(self) -> bool:
        """Whether a signal has arrived."""
        return self.signal is not None


def _parse(experiment: str, default: Config, description: str) -> Config:
    return tyro.cli(
        Config,
        default=default,
        prog=f"python -m experiments.{experiment}",
        description=description,
        config=(tyro.conf.OmitArgPrefixes,),
    )


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)
