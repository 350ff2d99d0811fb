"""Runs the entries of `experiments.compare`, each in a process of its own.

So whatever ends an entry, be it want of memory or a fault in native code, leaves the
others to be trained. The process of an entry lives no longer than the one that started
it. Import this late.
"""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from experiments import compare_report, compare_table, recipes
from experiments.cli import StopOnSignal
from experiments.compare import Config
from experiments.recipes import Entry
from jaxdl import config as settings
from jaxdl import runs
from jaxdl.config import DataConfig, RunConfig
from jaxdl.data import sources
from jaxdl.errors import InputError
from jaxdl.models import registry
from jaxdl.training import assemble

ALONE = "JAXDL_COMPARE_ALONE"
"""Variable that makes a process the one of a single entry."""


def run(config: Config) -> None:
    """Trains what is missing and writes the table; or only one of both.

    Raises:
      InputError: something in the configuration or on the disk is at fault.
    """
    runs.check_name(config.name)
    folder = config.out / "compare" / config.name
    entries = recipes.entries(
        config.architectures, config.seeds, pretrained=config.pretrained
    )
    for entry in entries:
        assemble.validate(config_of(config, entry))
    if ALONE in os.environ:
        train(config, folder, entries[0])
        return
    if config.table_only:
        if not folder.is_dir():
            raise InputError(f"there is no comparison {folder}: train one first")
        write_table(folder)
        return
    failed = fill(with_data(config, entries), folder, entries)
    if failed:
        tqdm.write(f"error: no result of {', '.join(failed)}", file=sys.stderr)
        raise SystemExit(1)


def with_data(config: Config, entries: Sequence[Entry]) -> Config:
    """The configuration with the set that "auto" stands for in its place.

    Its notice is shown here, once; each entry then asks for the set by its name, so
    that all of them get the same.

    Raises:
      InputError: it cannot be had, or has images too small for an architecture.
    """
    dataset = sources.load(
        config.dataset,
        raw_dir=config.raw_dir,
        cache_dir=config.cache_dir,
        validation=None,
        seed=0,
        default_for="svhn",
    )
    height, width = dataset.train.images.shape[1:3]
    for entry in entries:
        size = config_of(config, entry).data.image_size
        sides = (height, width) if size is None else (size, size)
        registry.check_input(entry.network.arch, entry.network.layout, *sides)
    if dataset.notice is not None:
        tqdm.write(f"{dataset.notice}\n")
    return dataclasses.replace(config, dataset=dataset.name)


def fill(config: Config, folder: Path, entries: Sequence[Entry]) -> list[str]:
    """Trains the entries that have no result, one after the other.

    Returns:
      The names of those that could not be trained.
    """
    runs.make_folder(folder)
    failed = []
    with StopOnSignal() as stop:
        for number, entry in enumerate(entries, 1):
            head = f"[{number}/{len(entries)}] {entry.name}"
            try:
                state = standing(config, folder, entry)
                tqdm.write(f"{head}: {state}")
                if state in ("missing", "unfinished"):
                    _in_a_process(config, folder, entry, stop)
            except InputError as error:
                tqdm.write(f"{head}: {error}", file=sys.stderr)
                failed.append(entry.name)
            if stop():
                tqdm.write("Stopped; the same command goes on from here.")
                raise SystemExit(128 + (stop.signal or 0))
            write_table(folder)
    return failed


def standing(config: Config, folder: Path, entry: Entry) -> str:
    """How far an entry is: "missing", "unfinished", "finished" or in other hands.

    Raises:
      InputError: its run is there, with other settings.
    """
    path = folder / entry.name
    if not path.exists():
        return "missing"
    stored = settings.from_json(runs.read_description(path)["config"])
    if changed := settings.differences(stored, config_of(config, entry)):
        raise InputError(
            f"{path} was trained with other settings ({'; '.join(changed)}): choose "
            f"another --name, or move it away"
        )
    if (path / "result.json").exists():
        return "finished"
    if runs.is_claimed(path):
        return "another process is at work on it"
    return "unfinished"


def train(config: Config, folder: Path, entry: Entry) -> None:
    """Trains one entry, in this process, or goes on with it; see `classify.run`."""
    from experiments import classify

    _end_with_parent()
    given = config_of(config, entry)
    resume = (folder / entry.name).exists()
    with noting_failure(compare_table.failure(folder, entry.name)):
        classify.run(
            f"compare/{config.name}",
            "svhn",
            settings.renamed(given, entry.name, resume=resume),
            "the same command",
        )


@contextlib.contextmanager
def noting_failure(path: Path) -> Iterator[None]:
    """Leaves a file that says why an entry has failed."""
    try:
        yield
    except runs.ClaimedError:
        raise  # whoever is at work on it has not failed
    except Exception as error:
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        note(path, kind + (str(error).partition("\n")[0] or "no more is known"))
        raise


def note(path: Path, reason: str) -> None:
    """Writes why an entry has failed."""
    runs.make_folder(path.parent)
    runs.write_json(path, {"reason": reason})


def config_of(config: Config, entry: Entry) -> settings.Config:
    """The settings of an entry's run."""
    return recipes.config_of(
        entry,
        DataConfig(
            dataset=config.dataset, raw_dir=config.raw_dir, cache_dir=config.cache_dir
        ),
        RunConfig(out=config.out),
        epochs=config.epochs,
        precision=config.precision,
    )


def options(config: Config) -> list[str]:
    """The command line of a configuration, without what is as by default."""
    given = []
    for field in dataclasses.fields(Config):
        option, value = "--" + field.name.replace("_", "-"), getattr(config, field.name)
        if value == getattr(Config(), field.name):
            continue
        if isinstance(value, tuple):
            given += [option, *map(str, value)]
        else:
            given.append(option if value is True else f"{option}={value}")
    return given


def write_table(folder: Path) -> None:
    """Writes the table of all that is there, and says where."""
    tqdm.write(f"Table: {compare_report.write(folder)}\n")


def _in_a_process(
    config: Config, folder: Path, entry: Entry, stop: StopOnSignal
) -> None:
    """Trains an entry, and passes on a signal that arrives meanwhile.

    Raises:
      InputError: it has ended without a result; the table will say why.
    """
    failure = compare_table.failure(folder, entry.name)
    failure.unlink(missing_ok=True)
    alone = dataclasses.replace(
        config,
        architectures=(entry.network.written,),
        seeds=(entry.seed,),
    )
    # Its own group: a Ctrl-C of the terminal then arrives once, from here.
    with subprocess.Popen(
        [sys.executable, "-m", "experiments.compare", *options(alone)],
        stdin=subprocess.PIPE,
        env=os.environ | {ALONE: "1"},
        process_group=0,
    ) as child:
        told = False
        while child.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(0.5)
            if stop() and not told:
                child.send_signal(stop.signal or signal.SIGTERM)
                told = True
    if stop() or child.returncode == 0:
        return
    path = folder / entry.name
    if path.exists() and runs.is_claimed(path):
        failure.unlink(missing_ok=True)  # another process was first, and has not failed
        return
    if not failure.exists():
        note(failure, _how_it_ended(child.returncode))
    raise InputError(runs.read_json(failure)["reason"])


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"it ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"it was ended by {name}" + (
        ", which is what happens where memory runs out" if name == "SIGKILL" else ""
    )


def _end_with_parent() -> None:
    """Ends this process, as SIGTERM does, when the one that started it is gone."""

    def wait() -> None:
        if not os.read(0, 1):  # the other end of the pipe is closed
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
