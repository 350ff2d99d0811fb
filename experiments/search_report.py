"""The report of `experiments.search`: what was found, and what mattered."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import binomtest, spearmanr

from experiments import handout, job, mnist
from experiments.search import Config
from experiments.search_ablation import Ablation
from jaxdl import config as settings
from jaxdl import plots_search, runs
from jaxdl.data.sources import Dataset
from jaxdl.search import space
from jaxdl.search.importance import Forest, importances
from jaxdl.search.results import Ranked, Result, Score, rank
from jaxdl.search.study import Study, trial_config

LISTED = 10
"""Configurations in the table."""


class Findings(NamedTuple):
    """All that a report tells."""

    config: Config
    study: Study
    results: list[list[Result]]
    """By rung."""
    best: Ranked
    test: Score
    """Of the best trial, on the test set."""
    ablation: Study | None
    cells: list[Result]
    """Of the ablation."""
    dataset: Dataset
    seconds: float
    """Wall time of this session."""


def write(folder: Path, found: Findings) -> Path:
    """Writes report, figures and result.json; returns the path of the HTML."""
    forest = importances(*_first_rung(found))
    figures = _figures(found, forest)
    parts = [
        _answer(found),
        _ranking(found),
        _mattered(found, forest),
        _rungs(found),
    ]
    effect = None
    if found.ablation is not None:
        effect = Ablation.of(found.ablation, found.cells)
        parts.append(effect.text(found.dataset))
        figures["ablation"] = plots_search.ablation(
            effect.shares(), f"Dropout and batch normalisation, {found.dataset.name}"
        )
    parts.append(_method(found))
    page = handout.write(folder, "\n\n".join(parts) + "\n", figures)
    runs.write_json(folder / "result.json", _record(found, forest, effect))
    return page


def shown(chosen: space.Settings) -> str:
    """Settings in a line."""
    return " ".join(f"{name}={space.written(v)}" for name, v in chosen.items())


def command(study: Study, result: Result) -> str:
    """The command that trains a trial by itself."""
    config = trial_config(study, result.trial, result.rung)
    words = ["python -m experiments.mnist"]
    for section in ("data", "model", "optim", "run"):
        given, usual = getattr(config, section), getattr(mnist.DEFAULT, section)
        words += [
            space.option(name, value)
            for name, value in vars(given).items()
            if value != getattr(usual, name)
        ]
    return " ".join(words)


def alone(study: Study, result: Result) -> str:
    """How well that command repeats the trial."""
    if result.trial.seed == study.seed:
        return "By itself, to rounding"
    return (
        f"By itself, though not the same: `--seed={result.trial.seed}` draws other "
        f"validation images than the study's `--seed={study.seed}`, so that it trains "
        f"on other ones as well"
    )


def _first_rung(
    found: Findings,
) -> tuple[space.Space, list[space.Settings], list[float]]:
    ranked = rank(found.results[0])
    ranked.sort(key=lambda one: one.configuration)
    return found.study.space, [r.settings for r in ranked], [r.accuracy for r in ranked]


def _figures(found: Findings, forest: Forest | None) -> dict[str, Figure]:
    of, chosen, scores = _first_rung(found)
    epochs = len(found.results[0][0].curve)
    where = f"{found.dataset.name}, {len(scores)} configurations"
    ranked = [one.configuration for one in rank(found.results[0])]
    figures = {
        "parallel": plots_search.parallel_coordinates(
            of,
            chosen,
            scores,
            sorted(ranked).index(found.best.configuration),
            f"Settings and validation accuracy after the first rung ({where}, "
            f"{epochs} epochs)",
        ),
        "rungs": plots_search.rungs(
            [
                [[epoch.accuracy for epoch in r.curve] for r in some]
                for some in found.results
            ],
            [epoch.accuracy for epoch in found.best.results[0].curve],
            f"Learning curves by rung, {found.dataset.name}",
        ),
    }
    if forest:
        figures["importance"] = plots_search.importance(
            forest.fields, f"Which settings mattered ({where}, {epochs} epochs)"
        )
    return figures


def _answer(found: Findings) -> str:
    best, test, dataset = found.best, found.test, found.dataset
    count = len(dataset.test.labels)
    hits = round(test.accuracy * count)
    low, high = binomtest(hits, count).proportion_ci(0.95, "wilson")
    trials = sum(map(len, found.results))
    seeds = found.study.seeds
    first = f"with its first seed, {seeds[0]} " if len(seeds) > 1 else ""
    mean = f" (mean of {len(seeds)} seeds)" if len(seeds) > 1 else ""
    lines = [
        f"# Settings found by search: {dataset.name}",
        "**Question.** Which settings of the network are best, and what do dropout and "
        "batch normalisation change?"
        if found.ablation
        else "**Question.** Which settings of the network are best?",
        f"**Answer.** Of {found.study.size} configurations in {trials} trainings the "
        f"best on the validation set reaches **{test.accuracy:.2%} on the test set** "
        f"{first}"
        f"(95 % interval of {count:,} test images: {low:.2%} to {high:.2%}), and "
        f"{best.accuracy:.2%}{mean} on the {len(dataset.validation.labels):,} "
        f"validation images by which it was chosen. Its settings:",
        handout.table(
            ["setting", "value", "searched in"],
            [
                [
                    name,
                    space.written(value),
                    f"`{space.written(found.study.space[name])}`",
                ]
                for name, value in best.settings.items()
            ],
        ),
        f"{alone(found.study, best.results[0])} (add `--raw-dir` or `--dataset` for "
        f"the same data):\n\n```\n{command(found.study, best.results[0])}\n```",
    ]
    if dataset.name.startswith("mnist_embedded"):
        lines.insert(1, f"*{dataset.name} has a part of MNIST only.*")
    return "\n\n".join(lines)


def _ranking(found: Findings) -> str:
    last = rank(found.results[-1])[:LISTED]
    names = list(found.study.space)
    rows = [
        [
            place,
            f"{one.accuracy:.2%}",
            f"{-one.key[1]:.4f}",
            *(space.written(one.settings[name]) for name in names),
        ]
        for place, one in enumerate(last, 1)
    ]
    count = len(found.dataset.validation.labels)
    error = max(np.sqrt(one.accuracy * (1 - one.accuracy) / count) for one in last)
    several = len(found.study.seeds)
    mean = f" (mean of {several} seeds)" if several > 1 else ""
    return "\n\n".join(
        [
            "## The best configurations of the last rung",
            handout.table(["", f"validation{mean}", "loss", *names], rows),
            f"The standard error of such an accuracy, from {count:,} images alone, is "
            f"at most {100 * error:.2f} points. As if mistakes were independent, two "
            f"that are less than {200 * np.sqrt(2) * error:.1f} points apart could not "
            f"be told from each other. That is an upper bound: all are scored on the "
            f"same images and share mistakes, so smaller differences can be real. The "
            f"first one's figure is somewhat lucky, as a maximum is. Nothing was "
            f"chosen by the test set, so its figure has no such luck in it.",
        ]
    )


def _mattered(found: Findings, forest: Forest | None) -> str:
    parts = [
        "## What mattered",
        "![Parallel coordinates](figures/parallel.png)",
        "Each line is a configuration of the first rung; the colour is its validation "
        "accuracy. The last axis begins a little below the first quartile of the "
        "accuracies; all that are lower share its lowest place.",
    ]
    if forest:
        top = forest.fields[0]
        parts += [
            "![Importance of the settings](figures/importance.png)",
            f"`{top.field}` accounts for most: without its values a random forest (200 "
            f"trees, scikit-learn) that has learnt the ranks of the configurations "
            f"loses {top.mean:.0%} of the variance that it is to explain (permutation "
            f"importance; more than 100 % is possible). Bars are means over 50 "
            f"shuffles, with the range from the 5th to the 95th percentile. Out of bag "
            f"the forest explains {forest.explained:.0%} of the variance"
            + (
                ", so that the order is to be trusted little. "
                if forest.explained < 0.3
                else ". "
            )
            + f"This is a description of {len(_first_rung(found)[1])} trials "
            f"and this space, not a law: a field whose whole range is good does not "
            f"show.",
        ]
    diverged = sum(r.diverged for some in found.results for r in some)
    if diverged:
        parts.append(f"{diverged} trainings diverged, and count as 0 %.")
    return "\n\n".join(parts)


def _rungs(found: Findings) -> str:
    parts = [
        "## Learning curves by rung",
        "![Validation error by epoch and rung](figures/rungs.png)",
    ]
    rows = []
    for rung, some in enumerate(found.results):
        ranked = rank(some)
        rows.append(
            [
                rung + 1,
                len(some),
                max(len(r.curve) for r in some),
                f"{ranked[0].accuracy:.2%}",
                f"{np.median([r.accuracy for r in ranked]):.2%}",
                f"{sum(r.seconds for r in some):.0f}",
            ]
        )
    parts.append(
        handout.table(["rung", "trials", "epochs", "best", "median", "seconds"], rows)
    )
    for rung, (before, after) in enumerate(
        zip(found.results, found.results[1:], strict=False), 1
    ):
        later = {one.configuration: one.accuracy for one in rank(after)}
        earlier = {one.configuration: one.accuracy for one in rank(before)}
        if len(later) >= 5:
            pairs = [(earlier[c], score) for c, score in later.items()]
            rho = spearmanr(*zip(*pairs, strict=True)).statistic
            parts.append(
                f"Among the {len(later)} that went on, the ranks in rung {rung} and "
                f"{rung + 1} correlate by {rho:.2f} (Spearman): how far a short "
                f"training tells of a longer one."
            )
    return "\n\n".join(parts)


def _method(found: Findings) -> str:
    study = found.study
    how = {
        "random": "drawn independently",
        "grid": "all of a grid",
        "optuna": "proposed by Optuna's TPE, eight at a time",
    }[study.sampler]
    halving = (
        f"Synchronous successive halving (Jamieson and Talwalkar 2016): of each rung "
        f"the best 1 in {study.eta} go on. A rung is a whole training of its length, "
        f"schedule included. Ranks are by the accuracy on the validation set after the "
        f"last epoch, and among equals by its loss"
        if len(study.sizes) > 1
        else "Each configuration trains once; ranks are by the accuracy on the "
        "validation set after the last epoch, and among equals by its loss"
    )
    base = trial_config(study, found.best.results[0].trial, 0)
    left = ", ".join(
        f"{name} {space.written(getattr(getattr(base, section), name))}"
        for name, (section, _) in space.FIELDS.items()
        if name not in study.space
        and name not in ("epochs", "layout", "activation")
        and getattr(getattr(base, section), name) is not None
    )
    spent = sum(r.seconds for some in found.results for r in some)
    spent += sum(r.seconds for r in found.cells)
    data = f"{found.dataset.name}, {job.sizes(found.dataset)}"
    return "\n\n".join(
        [
            "## How",
            f"{halving}. Configurations are {how}. Left alone: {left}. Seeds decide "
            f"first weights, order of the data and dropout; the split is that of "
            f"`--seed`, the same for all trials. The test set was read once by the "
            f"best trial, after all choices"
            + (
                ", and by the networks of the ablation, from which nothing is chosen."
                if found.ablation
                else "."
            ),
            handout.provenance(
                handout.anew("search", found.config), data, found.seconds
            )
            + f" That is the time of the last session; trials took {spent:.0f} s, over "
            f"all sessions of the study.",
        ]
    )


def _record(
    found: Findings, forest: Forest | None, effect: Ablation | None
) -> dict[str, Any]:
    best = found.best.results[0]
    config = trial_config(found.study, best.trial, best.rung)
    record: dict[str, Any] = {
        "experiment": "search",
        "dataset": job.described(found.dataset),
        "best": {
            "settings": found.best.settings,
            "validation": found.best.accuracy,
            "test": found.test._asdict(),
            "config": settings.to_json(config),
            "split_seed": found.study.seed,
            "command": command(found.study, best),
        },
        "rungs": [
            {
                "trials": len(some),
                "epochs": max(len(r.curve) for r in some),
                "best": rank(some)[0].accuracy,
                "seconds": round(sum(r.seconds for r in some), 1),
            }
            for some in found.results
        ],
        "importance": None
        if forest is None
        else {
            "explained": forest.explained,
            "fields": [one._asdict() for one in forest.fields],
        },
        "wall_seconds": round(found.seconds, 1),
        "device": runs.device_name(),
        "versions": runs.versions(),
    }
    if effect is not None:
        record["ablation"] = {
            "effects": {
                measure: {name: e._asdict() for name, e in some.items()}
                for measure, some in effect.effects().items()
            },
            "verdicts": effect.verdicts(),
        }
    return record
