"""The report of `experiments.transfer`."""

import dataclasses
import itertools
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from experiments import cli, handout, job
from experiments.transfer import Config
from experiments.transfer_source import Origin
from experiments.transfer_trials import ARMS
from experiments.transferring import Result, standing
from jaxdl import config as settings
from jaxdl import plots_transfer, runs
from jaxdl.data import synthetic_svhn
from jaxdl.data.sources import Dataset
from jaxdl.models import registry
from jaxdl.search import ablation
from jaxdl.search.ablation import Effect

SHOWN = 36
"""Images of each set in the figure."""


class Findings(NamedTuple):
    """All that a report tells."""

    config: Config
    recipe: settings.Config
    """What all arms share."""
    origin: Origin
    dataset: Dataset
    validation: int
    """Images of the validation set that serve."""
    untouched: float | None
    """Test accuracy of the source as it is."""
    tuning: Sequence[Result]
    longer: Sequence[Result]
    """From scratch with twice the steps, otherwise as in `tuning`."""
    results: Sequence[Result]
    trainings: int
    """In the journal."""
    seconds: float
    """Wall time of this session, without the training of the source."""

    def accuracies(self, arm: str) -> np.ndarray:
        """On the test set, [labels, seeds]."""
        found = {(r.trial.labels, r.trial.seed): r for r in self.of(arm)}
        return np.array(
            [
                [found[labels, seed].test for seed in self.config.seeds]
                for labels in self.labels
            ]
        )

    def of(self, arm: str, labels: int | None = None) -> list[Result]:
        """The results of an arm, in the order of the seeds."""
        return [
            result
            for result in self.results
            if result.trial.arm == arm and labels in (None, result.trial.labels)
        ]

    @property
    def labels(self) -> list[int]:
        """Ascending."""
        return sorted(self.config.labels)

    @property
    def others(self) -> list[str]:
        """The arms that start from the source."""
        return [arm for arm in self.config.arms if arm != "scratch"]

    def difference(self, arm: str, labels: int) -> Effect:
        """Accuracy less that from scratch, seed by seed."""
        place = self.labels.index(labels)
        return ablation.mean(
            self.accuracies(arm)[place] - self.accuracies("scratch")[place]
        )


def write(folder: Path, found: Findings) -> Path:
    """Writes report, figures and result.json; returns the path of the HTML."""
    parts = [
        _answer(found),
        _table(found),
        _curves(found),
        _rates(found),
        _data(found),
        _method(found),
    ]
    page = handout.write(folder, "\n\n".join(parts) + "\n", _figures(found))
    runs.write_json(folder / "result.json", _record(found))
    return page


def _figures(found: Findings) -> dict[str, Figure]:
    arms, dataset = found.config.arms, found.dataset
    curves = {
        arm: np.array(
            [
                [
                    [point.accuracy for point in result.curve]
                    for result in found.of(arm, labels)
                ]
                for labels in found.labels
            ]
        )
        for arm in arms
    }
    steps = [point.step for point in found.results[0].curve]
    sets = {f"{dataset.name}: the target": dataset.train.images[:SHOWN]}
    if found.origin.dataset == "synthetic_svhn":
        drawn, _ = synthetic_svhn.generate("train", count=SHOWN)
        sets = {"synthetic_svhn: what the source has learnt": drawn, **sets}
    return {
        "errors": plots_transfer.errors(
            found.labels,
            {ARMS[arm].title: found.accuracies(arm) for arm in arms},
            found.untouched,
            f"{_title(found)}: {_from(found)} to {dataset.name}, "
            f"{len(found.config.seeds)} seeds",
        ),
        "curves": plots_transfer.curves(
            found.labels,
            steps,
            {ARMS[arm].title: values for arm, values in curves.items()},
            f"Learning curves on {dataset.name}",
        ),
        "examples": plots_transfer.examples(sets),
    }


def _title(found: Findings) -> str:
    return registry.spec(found.recipe.model.arch).title


def _from(found: Findings) -> str:
    known = found.origin.dataset
    return "weights of a file" if known.startswith("unknown") else known


def _answer(found: Findings) -> str:
    best = {
        labels: max(found.others, key=lambda arm: found.difference(arm, labels).mean)
        for labels in found.labels
    }
    said = []
    for labels in found.labels:
        arm, place = best[labels], found.labels.index(labels)
        gain = found.difference(arm, labels)
        own = found.accuracies(arm)[place].mean()
        scratch = found.accuracies("scratch")[place].mean()
        verdict = ablation.verdict(gain, "rise")
        shown = {
            "supported": "transfer helps",
            "refuted": "transfer harms",
            "not shown": "no difference is shown",
        }[verdict]
        said.append(
            f"- with {labels:,} labels **{own:.2%}** ({ARMS[arm].title}) against "
            f"**{scratch:.2%}** from scratch: {_points(gain)} points, {shown}"
        )
    lines = [
        f"# Transfer with few labels: {_from(found)} to {found.dataset.name}",
        f"**Question.** What do weights trained on {_from(found)} bring to "
        f"{found.dataset.name}, where few images are labelled, against the same "
        f"network from scratch?",
        f"**Answer.** On the {len(found.dataset.test.labels):,} test images, means "
        f"over "
        f"{len(found.config.seeds)} seeds, by the best way to fine-tune:",
        "\n".join(said),
        "Brackets are 95 % intervals of the paired difference. " + _worth(found),
        "![Test error against labels](figures/errors.png)",
        "Means over the seeds with 95 % intervals (Student's); both axes are "
        "logarithmic.",
    ]
    if found.origin.dataset == "synthetic_svhn":
        lines.insert(
            1,
            "*The source's house numbers are synthetic: drawn by a generator, not "
            "photographed. The target is made from MNIST by this project. Neither "
            "figure compares with one of the literature.*",
        )
    if found.dataset.notice:
        lines.insert(1, f"*{found.dataset.name} is made from a part of MNIST only.*")
    return "\n\n".join(lines)


def _worth(found: Findings) -> str:
    """What the transfer is worth in labels, and against no training at all."""
    said = []
    fewest = found.labels[0]
    scratch = found.accuracies("scratch").mean(1)
    arm = max(found.others, key=lambda arm: found.accuracies(arm)[0].mean())
    reached = found.accuracies(arm)[0].mean()
    below = [
        n for n, mean in zip(found.labels, scratch, strict=True) if mean <= reached
    ]
    if below:
        most = below[-1]
        mean = scratch[found.labels.index(most)]
        said.append(
            f"Transfer with {fewest:,} labels ({reached:.2%}) does at least as well as "
            f"training from scratch with {most:,} ({mean:.2%})."
        )
    if found.untouched is not None:
        above = [
            f"{ARMS[a].title} with {labels:,} labels"
            for a in found.config.arms
            for labels, mean in zip(
                found.labels, found.accuracies(a).mean(1), strict=True
            )
            if mean < found.untouched
        ]
        said.append(
            f"The source as it is, with the head of its own set and without one label "
            f"of the target, already has {found.untouched:.2%}, since both sets show "
            f"the ten digits. All arms nevertheless begin with a new head, as one must "
            f"where classes differ: what is transferred is features"
            + (
                f". Below that mark remain: {', '.join(above)}."
                if above
                else ", and all end above that mark."
            )
        )
    return " ".join(said)


def _table(found: Findings) -> str:
    rows: list[list[object]] = []
    for labels, arm in itertools.product(found.labels, found.config.arms):
        some = found.of(arm, labels)
        share = ablation.mean(np.array([result.test for result in some]))
        gain = None if arm == "scratch" else _points(found.difference(arm, labels))
        rows.append(
            [
                f"{labels:,}",
                ARMS[arm].title,
                f"{share.mean:.2%} [{share.low:.2%}, {share.high:.2%}]",
                gain,
                f"{some[0].trial.rate:g}",
                f"{np.mean([result.seconds for result in some]):.0f}",
            ]
        )
    return "\n\n".join(
        [
            "## All arms",
            handout.table(
                [
                    "labels",
                    "arm",
                    "test accuracy",
                    "against scratch, points",
                    "learning rate",
                    "seconds",
                ],
                rows,
            ),
            f"Brackets are 95 % intervals (Student's) over {len(found.config.seeds)} "
            f"seeds; for differences, over differences between two networks with the "
            f"same labelled images in the same order. They cover these seeds' choice "
            f"of "
            f"images, order and head; not other sources or sets. Each interval stands "
            f"for itself: on average one in twenty misses. Seconds are those of a "
            f"training and its test.",
        ]
    )


def _curves(found: Findings) -> str:
    rate = found.longer[0].trial.rate
    usual = [
        result
        for result in found.tuning
        if (result.trial.arm, result.trial.rate) == ("scratch", rate)
    ]
    once, twice = (
        " / ".join(f"{result.curve[-1].accuracy:.1%}" for result in some)
        for some in (usual, found.longer)
    )
    return "\n\n".join(
        [
            "## Learning curves",
            "![Validation accuracy along training](figures/curves.png)",
            f"Lines are means over the seeds, bands their range. Are "
            f"{found.config.steps} steps enough, to be fair to the network from "
            f"scratch? With twice as many, at the same rate, its validation accuracy "
            f"is {twice} "
            f"with {' / '.join(f'{n:,}' for n in found.config.labels)} labels, instead "
            f"of {once}: single trainings, with the seeds of the choice below.",
        ]
    )


def _rates(found: Findings) -> str:
    rates = sorted({result.trial.rate for result in found.tuning})
    sizes = found.config.labels
    rows = []
    for arm in found.config.arms:
        chosen = found.of(arm)[0].trial.rate
        cells: list[object] = []
        for rate in rates:
            some = [
                result
                for result in found.tuning
                if (result.trial.arm, result.trial.rate) == (arm, rate)
            ]
            if not some:
                cells.append(None)
                continue
            each = " / ".join(f"{100 * r.curve[-1].accuracy:.1f}" for r in some)
            mean = f"{standing(some)[0]:.1%}"
            cells.append(f"{f'**{mean}**' if rate == chosen else mean} ({each})")
        rows.append([ARMS[arm].title, *cells])
    return "\n\n".join(
        [
            "## How the learning rates were chosen",
            f"Each arm has a rate of its own, the same for all numbers of labels: the "
            f"best by the mean accuracy on {found.validation} validation images "
            f"after trainings with {' / '.join(f'{n:,}' for n in sizes)} labels, each "
            f"with another seed, of which no other figure here comes. (With few labels "
            f"a single training says little of a rate; hence one rate for all.) Three "
            f"rates to begin with, a factor of about 3 apart, and further ones as long "
            f"as the best is the lowest or the highest. The best is in bold; among "
            f"equals it is that of the smaller loss.",
            handout.table(["arm", *(f"{rate:g}" for rate in rates)], rows),
        ]
    )


def _data(found: Findings) -> str:
    title = (
        "Images of both sets"
        if found.origin.dataset == "synthetic_svhn"
        else "Images of the target"
    )
    return "\n\n".join(
        [
            "## The data",
            f"![{title}](figures/examples.png)",
            f"`{found.dataset.name}` is a set of this project: a digit of MNIST, "
            f"padded "
            f"to 32x32, is the opacity of an ink on a ground that slopes smoothly. Ink "
            f"and ground are random colours whose luma differs by a quarter of the "
            f"whole "
            f"range or more at every pixel. They are drawn from the place of an image "
            f"in "
            f"its file, so they tell nothing of its label.",
        ]
    )


def _method(found: Findings) -> str:
    config, recipe = found.config, found.recipe
    data = ", ".join(
        f"{count:,} {name}" if name != "name" else str(count)
        for name, count in job.described(found.dataset).items()
    )
    spent = sum(
        result.seconds for result in (*found.tuning, *found.longer, *found.results)
    )
    return "\n\n".join(
        [
            "## How",
            f"Source: {found.origin.title}. Network: {recipe.model.arch}"
            + (f", layout {recipe.model.layout}" if recipe.model.layout else "")
            + f". Every training takes {config.steps} steps of {config.batch_size} "
            f"images by SGD with momentum {recipe.optim.momentum:g} (Nesterov), weight "
            f"decay {recipe.optim.weight_decay:g}, the one-cycle schedule and small "
            f"random shifts, rotations, scales and cutout; no image is flipped. All "
            f"arms "
            f"normalise images by the same numbers. Layers that are not trained keep "
            f"their parameters and their batch statistics. A seed draws as many "
            f"labelled "
            f"images of each class from the training set, the fewer within the more; "
            f"the "
            f"rest of it stays unused. {found.validation} images of the validation "
            f"set serve for the choice of rates and the learning curves: more than one "
            f"would set apart from 100 labels, so that no arm suffers from an unlucky "
            f"choice. The test set is read by finished networks, from which nothing is "
            f"chosen; that the answer names the best of "
            f"{len(found.others)} ways to fine-tune is a choice of that kind, and the "
            f"table has all of them.",
            handout.provenance(_command(found.config), data, found.seconds)
            + f" All {found.trainings} trainings took {spent:.0f} s, over all sessions "
            f"of the study, without that of the source.",
        ]
    )


def _command(config: Config) -> str:
    """The command that does it all anew, whether or not it was stopped on the way."""
    words = ["python", "-m", "experiments.transfer"]
    for field in dataclasses.fields(Config):
        value, usual = getattr(config, field.name), field.default
        if field.name in cli.FREE or value == usual:
            continue
        option = f"--{field.name.replace('_', '-')}"
        if isinstance(value, tuple):
            words += [option, *map(str, value)]
        else:
            words.append(f"{option}={value}")
    return shlex.join(words)


def _points(effect: Effect) -> str:
    mean, low, high = (100 * x for x in effect)
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def _record(found: Findings) -> dict[str, Any]:
    return {
        "experiment": "transfer",
        "dataset": job.described(found.dataset),
        "source": {**found.origin._asdict(), "untouched": found.untouched},
        "arms": {
            arm: {
                str(labels): {
                    "test": [result.test for result in found.of(arm, labels)],
                    "learning_rate": found.of(arm, labels)[0].trial.rate,
                    "mean": ablation.mean(
                        found.accuracies(arm)[found.labels.index(labels)]
                    )._asdict(),
                    "against_scratch": None
                    if arm == "scratch"
                    else found.difference(arm, labels)._asdict(),
                }
                for labels in found.labels
            }
            for arm in found.config.arms
        },
        "seeds": list(found.config.seeds),
        "steps": found.config.steps,
        "batch_size": found.config.batch_size,
        "wall_seconds": round(found.seconds, 1),
        "device": runs.device_name(),
        "versions": runs.versions(),
    }
