"""What is in the folder of a comparison, and the rows that it makes.

Runs whose settings differ in more than the seed never share a row.
"""

import dataclasses
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.stats import binomtest

from experiments import recipes
from experiments.recipes import Entry, Network
from jaxdl import config as settings
from jaxdl import runs
from jaxdl.errors import InputError
from jaxdl.search import ablation

FAILURES = "failures"
"""Folder that has a file for each entry that failed, with the reason."""

ASSIGNMENT: Mapping[str, float] = MappingProxyType(
    {
        "lenet5": 0.3467,
        **{f"vgg{n}{bn}": 0.9454 for n in (11, 13, 16, 19) for bn in ("", "_bn")},
        "resnet18": 0.9224,
        "resnet50": 0.9311,
        "resnet101": 0.9247,
    }
)
"""What the assignment reports, on SVHN, by architecture; which VGG it does not say. Of
AlexNet it has no figure."""


class Run(NamedTuple):
    """A finished run, as its files have it."""

    folder: Path
    stored: settings.Config
    config: Mapping[str, Any]
    """`config.json`, whole."""
    result: Mapping[str, Any]
    """`result.json`."""

    @property
    def network(self) -> Network:
        """What was trained."""
        return _network(self.stored)


class Open(NamedTuple):
    """An entry without a result."""

    name: str
    why: str


class Interval(NamedTuple):
    """A mean accuracy with its 95 % interval, in [0, 1]."""

    mean: float
    low: float
    high: float
    of: Literal["seeds", "test images"]
    """What it is an interval over."""


@dataclasses.dataclass(frozen=True)
class Row:
    """Runs of one network with the same settings, but for the seed."""

    runs: tuple[Run, ...]
    """By ascending seed; at least one."""
    differs: tuple[str, ...]
    """What is not as the recipe has it, epochs and precision apart."""

    @property
    def first(self) -> Run:
        """The run of the smallest seed."""
        return self.runs[0]

    @property
    def network(self) -> Network:
        """What was trained."""
        return self.first.network

    @property
    def data(self) -> str:
        """The set really used."""
        return str(self.first.result["dataset"]["name"])

    @property
    def seeds(self) -> tuple[int, ...]:
        """One for each run."""
        return tuple(run.stored.run.seed for run in self.runs)

    @property
    def accuracies(self) -> tuple[float, ...]:
        """On the test set, of each run."""
        return tuple(run.result["test"]["accuracy"] for run in self.runs)

    @property
    def test(self) -> Interval:
        """Accuracy on the test set."""
        return interval(self.accuracies, self.first.result["test"]["count"])

    @property
    def validation(self) -> float:
        """Mean of the best validation accuracies, by which checkpoints were chosen."""
        return statistics.fmean(r.result["validation"]["accuracy"] for r in self.runs)

    @property
    def seconds(self) -> float:
        """Mean wall time of a run, over all its sessions, evaluation included."""
        return statistics.fmean(r.result["wall_seconds"] for r in self.runs)

    @property
    def images_per_second(self) -> float:
        """Of training alone: the median over the runs."""
        return statistics.median(r.result["images_per_second"] for r in self.runs)

    @property
    def pretrained(self) -> str | None:
        """The weights that it began with, if not random ones."""
        found = self.first.config["config"]["model"].get("pretrained")
        return None if found is None else str(found)

    @property
    def assignment(self) -> float | None:
        """What the assignment reports of such a network, in [0, 1]."""
        return ASSIGNMENT.get(self.network.arch)


def real(data: str) -> bool:
    """Whether a set of that name is SVHN itself."""
    return data.startswith("svhn_cropped")


def interval(accuracies: Sequence[float], count: int) -> Interval:
    """Mean and 95 % interval of the accuracies of runs that differ in their seed.

    Several runs: Student's interval of the mean over seeds, cut off at 0 and 1. It
    covers what the seed decides and not the choice of test images. A single run tells
    nothing of that; then it is Wilson's (1927) interval of a proportion, which covers
    the choice of test images and not the seed.

    Args:
      accuracies: in [0, 1], at least one.
      count: test images.
    """
    if len(accuracies) > 1:
        found = ablation.mean(np.array(accuracies))
        return Interval(found.mean, max(0.0, found.low), min(1.0, found.high), "seeds")
    right = round(accuracies[0] * count)
    low, high = binomtest(right, count).proportion_ci(0.95, "wilson")
    return Interval(accuracies[0], float(low), float(high), "test images")


def failure(folder: Path, name: str) -> Path:
    """The file that says why an entry has failed, if it has."""
    return folder / FAILURES / f"{name}.json"


def gather(folder: Path) -> tuple[list[Row], list[Open]]:
    """All that is there: rows, the most accurate first, and entries without a result.

    A run that cannot be read is one without a result.
    """
    groups: dict[str, list[Run]] = defaultdict(list)
    still_open = []
    for path in sorted(folder.glob("[!.]*/config.json")):
        try:
            config = runs.read_description(path.parent)
            stored = settings.from_json(config["config"])
            if not (path.parent / "result.json").exists():
                still_open.append(Open(path.parent.name, _why(path.parent, stored)))
                continue
            result = runs.read_json(path.parent / "result.json")
            run = Run(path.parent, stored, config, result)
            groups[_key(run)].append(run)
        except (InputError, KeyError, TypeError) as error:
            still_open.append(Open(path.parent.name, f"cannot be read: {error}"))
    for path in sorted(folder.glob(f"{FAILURES}/*.json")):
        if not (folder / path.stem / "config.json").exists():
            still_open.append(Open(path.stem, _reason(path)))
    rows = []
    for some in groups.values():
        some.sort(key=lambda run: run.stored.run.seed)
        rows.append(Row(tuple(some), tuple(_differs(some[0].stored))))
    return sorted(rows, key=lambda row: -row.test.mean), still_open


def _key(run: Run) -> str:
    """Equal for runs that may share a row."""
    config = settings.to_json(
        dataclasses.replace(
            settings.renamed(run.stored, "", resume=False),
            data=dataclasses.replace(
                run.stored.data, raw_dir=None, cache_dir=Path(), dataset=""
            ),
        )
    )
    config["run"] |= {"seed": 0, "out": "", "profile": False}
    return json.dumps([config, run.result["dataset"]], sort_keys=True)


def _differs(stored: settings.Config) -> list[str]:
    """How stored settings differ from the recipe of today."""
    pretrained = stored.model.pretrained == "imagenet"
    entry = Entry(_network(stored), stored.run.seed, pretrained)
    if entry.network.arch not in recipes.RECIPES:
        return ["there is no recipe"]
    recipe = recipes.config_of(
        entry,
        stored.data,
        stored.run,
        epochs=stored.run.epochs,
        precision=stored.model.precision,
    )
    return settings.differences(stored, recipe)


def _network(stored: settings.Config) -> Network:
    return Network(stored.model.arch, stored.model.layout)


def _why(path: Path, stored: settings.Config) -> str:
    done = [e["epoch"] for e in runs.read_metrics(path) if e["kind"] == "validation"]
    far = f"{max(done, default=0)} of {stored.run.epochs} epochs done"
    noted = failure(path.parent, path.name)
    return f"failed: {_reason(noted)} ({far})" if noted.exists() else far


def _reason(path: Path) -> str:
    try:
        return str(runs.read_json(path).get("reason"))
    except InputError as error:
        return str(error)
