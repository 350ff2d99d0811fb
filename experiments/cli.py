"""What every experiment's command line has in common.

Bad input ends in one line on stderr and exit code 2, a diverged run in one line and
exit code 1, a signal in exit code 128 + its number; during training, with a checkpoint
saved. `--help` imports nothing heavy.
"""

import contextlib
import dataclasses
import functools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Self, TypeVar

import tyro

from jaxdl import command_line, runs
from jaxdl import config as settings
from jaxdl.config import Config, RunConfig
from jaxdl.errors import InputError

T = TypeVar("T")

RESUMES = "a run that had begun can go on with --resume"
"""What `run_or_exit` says of the experiments that have that option."""
REPEATS = "the same command goes on from what is done"
"""What it says of those that take their own records up."""
FREE = ("out", "raw_dir", "cache_dir", "name", "resume")
"""Settings of a study that may change when it goes on: where data and results lie, and
which study it is."""


def parse(experiment: str, default: Config, description: str) -> Config:
    """Reads a run's configuration from the command line.

    With --resume, the stored configuration of the run takes the place of the defaults;
    so only what is given anew can differ, and that is an error. But the run lies where
    it was found, and the caches where they do now.

    Raises:
      InputError: no such run to resume, or a changed setting.
    """
    config = _parse(experiment, default, description)
    if not config.run.resume:
        return config
    directory = run_to_resume(experiment, config)
    stored = settings.from_json(runs.read_description(directory)["config"])
    stored = dataclasses.replace(
        stored,
        data=dataclasses.replace(
            stored.data,
            cache_dir=config.data.cache_dir,
            raw_dir=config.data.raw_dir or stored.data.raw_dir,
        ),
        run=dataclasses.replace(stored.run, out=config.run.out),
    )
    given = _parse(experiment, stored, description)
    if changed := settings.differences(stored, given):
        raise InputError(
            f"the run {directory} cannot go on with other settings "
            f"({'; '.join(changed)}): leave them out, or start a new run"
        )
    return settings.renamed(given, directory.name, resume=True)


def parse_plain(
    module: str, kind: type[T], description: str, default: T | None = None
) -> T:
    """Reads a dataclass from the command line of `python -m` `module`.

    Args:
      module: for the help.
      kind: the dataclass.
      description: for the help.
      default: in the place of the fields' own defaults.

    Raises:
      InputError: an option is unknown, missing or ill-typed.
    """
    options = {} if default is None else {"default": default}
    return command_line.read(
        kind, prog=f"python -m {module}", description=description, **options
    )


def parse_study(experiment: str, kind: type[T], description: str) -> tuple[T, str]:
    """Reads the settings of a study, and which data to load, from the command line.

    With --resume, the stored settings take the place of the defaults, as in `parse`,
    and the data are those that were really used: "auto" may find others by now.

    Args:
      experiment: its module, and its folder of studies.
      kind: a flat dataclass with dataset, out, name and resume.
      description: for the help.

    Returns:
      The settings, with a name where the study resumes, and the name of the data set.

    Raises:
      InputError: an option is at fault, there is no such study, or a setting changed.
    """
    module = f"experiments.{experiment}"
    config: Any = parse_plain(module, kind, description)
    if not config.resume:
        return config, config.dataset
    which = Config(run=RunConfig(out=config.out, name=config.name))
    folder = run_to_resume(experiment, which)
    described = runs.read_description(folder)
    names = [field.name for field in dataclasses.fields(config)]
    kept: dict[str, Any] = {}
    for key, value in described["config"].items():
        if key not in names:
            raise InputError(
                f"{folder} is of another version of jaxdl ({key}); start a new study"
            )
        kept[key] = tuple(value) if isinstance(value, list) else value
    stored = dataclasses.replace(config, **kept, name=folder.name, resume=True)
    given = parse_plain(module, kind, description, stored)
    changed = [
        f"--{key.replace('_', '-')} was {_shown(getattr(stored, key))}, not "
        f"{_shown(getattr(given, key))}"
        for key in names
        if key not in FREE and getattr(stored, key) != getattr(given, key)
    ]
    if changed:
        raise InputError(
            f"the study {folder} cannot go on with other settings "
            f"({'; '.join(changed)}): leave them out, or start a new one"
        )
    return stored, described["dataset"]["name"]


def study_folder(experiment: str, config: Any, described: Mapping[str, Any]) -> Path:
    """The folder of a study; that of a new one is made, as `parse_study` reads it.

    Args:
      experiment: its module, and its folder of studies.
      config: from `parse_study`.
      described: what its config.json has beside the settings: "dataset" at least.

    Raises:
      InputError: a study of that name is there, or the folder cannot be made.
    """
    studies = config.out / experiment
    folder: Path = studies / (config.name or runs.stamped(studies))
    if not config.resume:
        settled = dataclasses.asdict(config).items()
        kept = {key: value for key, value in settled if key not in FREE}
        runs.create(
            folder,
            {
                "experiment": experiment,
                "config": kept,
                **described,
                "versions": runs.versions(),
            },
        )
    return folder


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
    # Without a dot: what a killed start has left is no run.
    found = sorted(folder.glob("[!.]*/config.json"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise InputError(f"no run in {folder} to resume; start one without --resume")
    return found[-1].parent


def run_or_exit(main: Callable[[], T], *, stopped: str = "") -> T:
    """Runs an experiment's main function; turns known failures into lines and codes.

    Args:
      main: the function.
      stopped: what a user can do after a signal has ended it.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("jaxdl").setLevel(logging.INFO)  # downloads and other long work
    try:
        with _handling(functools.partial(_end, stopped)):
            return main()
    except Exception as error:
        if (explained := _explained(error)) is None:
            raise
        _fail(*explained)


class StopOnSignal:
    """While entered, true once SIGINT or SIGTERM has arrived; a second one is not held.

    For a program that looks at it between two steps, and saves before it stops.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(_handling(self._note))
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._stack.close()

    def __call__(self) -> bool:
        """Whether a signal has arrived."""
        return self.signal is not None


def quiet_orbax() -> None:
    """Silences what Orbax prints of errors that it raises as well.

    To be called after Orbax is imported: that sets its logger up.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)

    # After a first error Orbax closes its event loop. TensorStore's callbacks then find
    # it closed, and say so by this hook; nothing of ours runs in such a loop.
    def hook(said: Any) -> None:
        if str(said.exc_value) != "Event loop is closed":
            sys.__unraisablehook__(said)

    sys.unraisablehook = hook


@contextlib.contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """SIGINT and SIGTERM go to the handler; afterwards where they went before."""
    before = {n: signal.signal(n, handler) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _end(stopped: str, number: int, frame: FrameType | None) -> None:
    """Ends the process: an exception would be lost in a garbage collection, or worse.

    Nothing needs to be undone; whatever is on the disk can bear a kill.
    """
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        sys.stdout.flush()
    name = signal.Signals(number).name
    line = "; ".join(filter(None, (f"error: ended by {name}", stopped)))
    os.write(2, f"{line}\n".encode())
    os._exit(128 + number)


def _parse(experiment: str, default: Config, description: str) -> Config:
    return command_line.read(
        Config,
        default=default,
        prog=f"python -m experiments.{experiment}",
        description=description,
        config=(tyro.conf.OmitArgPrefixes,),
    )


def _explained(error: BaseException) -> tuple[str, int] | None:
    """The line and the exit code for a failure that users can do something about."""
    said = str(error).partition("\n")[0]
    if isinstance(error, InputError):
        return str(error), 2
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}", 2
    # By their names and words: their types live in JAX and in what imports it.
    if type(error).__name__ in ("DivergedError", "WrongNumbersError"):
        return said, 1
    if type(error).__name__ == "JaxRuntimeError" and "ut of memory" in said:
        return f"{said} A smaller --batch-size, --arch or --image-size needs less", 2
    return None


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _fail(message: str, code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    main = threading.main_thread()
    if any(t is not main and not t.daemon for t in threading.enumerate()):
        threading.Thread(target=_end_after, args=(main, code), daemon=True).start()
    raise SystemExit(code)


def _end_after(main: threading.Thread, code: int) -> None:
    """Ends the process soon after its main thread, whatever other threads wait for.

    After a save that failed, Orbax's would wait ten minutes for one another.
    """
    main.join()
    time.sleep(2)
    os._exit(code)
