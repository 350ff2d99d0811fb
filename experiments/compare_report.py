"""The report of `experiments.compare`: the table, what it shows and how it was made."""

import csv
import io
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments import compare_table, handout, recipes
from experiments.compare_table import Open, Row
from jaxdl import config as settings
from jaxdl import plots_compare, runs
from jaxdl.models import registry

HEADER = (
    "architecture",
    "layout",
    "parameters",
    "MFLOPs",
    "start",
    "data",
    "epochs",
    "precision",
    "images/s",
    "time",
    "validation",
    "test accuracy",
    "95 % interval",
    "seeds",
    "assignment, SVHN",
)


_SYNTHETIC = (
    "Rows marked synthetic were trained and tested on `synthetic_svhn`, house numbers "
    "drawn by a generator, which has SVHN's sizes and class frequencies and another "
    "difficulty. "
)


def write(folder: Path) -> Path:
    """Writes RESULTS.md, RESULTS.html, results.csv and the figures.

    Args:
      folder: the comparison: a run in each folder within.

    Returns:
      The path of the HTML.

    Raises:
      InputError: a file cannot be written.
    """
    rows, still_open = compare_table.gather(folder)
    table = [row for row in rows if not row.differs]
    others = [row for row in rows if row.differs]
    runs.write_text(folder / "results.csv", _csv(rows))
    parts = [
        _title(rows),
        _answer(table),
        handout.table(HEADER, map(_cells, table)) if table else None,
        _reading(table),
        _figures_text(table),
        _others(others),
        _open(still_open),
        _how(folder, table, rows),
    ]
    text = "\n\n".join(filter(None, parts)) + "\n"
    return handout.write(folder, text, _figures(table), "RESULTS")


def _title(rows: Sequence[Row]) -> str:
    sets = list(dict.fromkeys(_data(row) for row in rows)) or ["SVHN: no result yet"]
    return f"# Architectures compared: {', '.join(sets)}"


def _answer(table: Sequence[Row]) -> str:
    question = (
        "**Question.** Which of the assignment's architectures classifies best, and at "
        "what cost?"
    )
    if not table:
        return f"{question}\n\n**Answer.** No entry is finished yet."
    lines = [question]
    for data in dict.fromkeys(row.data for row in table):
        some = [row for row in table if row.data == data]
        order = "; ".join(
            f"{_name(row, some)} {_percent(row.test.mean)} % "
            f"[{_percent(row.test.low)}, {_percent(row.test.high)}]"
            for row in some
        )
        lines.append(
            f"**Answer.** Test accuracy on {_data(some[0])}, best first: {order}."
        )
    drawn = dict.fromkeys(
        _data(row) for row in table if not compare_table.real(row.data)
    )
    if drawn:
        which = (
            "These"
            if len(drawn) == len(lines) - 1
            else f"Those on {' and '.join(drawn)}"
        )
        lines.append(
            f"**{which} are not results on SVHN.** "
            + (_SYNTHETIC if any(row.data == "synthetic_svhn" for row in table) else "")
            + "A row compares with other rows of the same data, and *not* with the "
            "last column, the assignment's, which is of SVHN's photographs."
        )
    return "\n\n".join(lines)


def _reading(table: Sequence[Row]) -> str | None:
    if not table:
        return None
    kinds = {row.test.of for row in table}
    said = [
        "Test accuracy is that of the checkpoint that was best on the validation set; "
        "nothing was chosen by the test set."
    ]
    if any(_shortened(row) for row in table):
        said.append(
            "Where there are fewer epochs than in the recipe, the whole schedule is "
            "shorter in proportion, and more epochs may well do better."
        )
    if "test images" in kinds:
        said.append(
            "Where there is a single seed the interval is Wilson's, over the choice of "
            "test images: another seed may give a figure outside it."
        )
    if "seeds" in kinds:
        said.append(
            "Where there are several seeds accuracy is their mean and the interval "
            "Student's, over seeds: it does not cover the choice of test images."
        )
    said.append(
        "FLOPs are of one image forward, a multiply-add being two. Images/s are of "
        "training alone, the median over seeds; time is the mean wall time of a run "
        "over all its sessions, evaluation and compilation included. Both are by the "
        "clock: other work on the machine and pauses make them look slower, and rows "
        "may come from different machines, of the same name even. The "
        "assignment trained pretrained networks; it does not say which VGG, and gives "
        "no figure for AlexNet."
    )
    return " ".join(said)


def _figures_text(table: Sequence[Row]) -> str | None:
    if not table:
        return None
    parts = [
        "## Accuracy against cost",
        "![Test error against FLOPs and training time](figures/cost.png)",
        "Down is better, left is cheaper.",
        "## Learning curves",
        "![Validation error by epoch](figures/curves.png)",
        "The run of the smallest seed of each row. The learning rate falls to nothing "
        "at the end of each run, and lengths differ, so curves compare at their ends.",
        "## What is taken for what",
    ]
    for data in dict.fromkeys(row.data for row in table):
        some = [row for row in table if row.data == data]
        chosen = (
            {"best": some[0], "worst": some[-1]} if len(some) > 1 else {"": some[0]}
        )
        for which, row in chosen.items():
            path = f"{row.first.folder.name}/figures/confusion.png"
            if (row.first.folder / "figures" / "confusion.png").exists():
                what = f"{_name(row, some)}, seed {row.seeds[0]}"
                start = " ".join(filter(None, ("The", which, "row on", _data(row))))
                parts.append(f"{start}, {what}:\n\n![Confusion of {what}]({path})")
    return "\n\n".join(parts)


def _others(others: Sequence[Row]) -> str | None:
    if not others:
        return None
    cells = [
        [
            *(_cells(row)[i] for i in (0, 1, 5, 6, 7, 11, 12, 13)),
            handout.plain("; ".join(row.differs)),
        ]
        for row in others
    ]
    header = [HEADER[i] for i in (0, 1, 5, 6, 7, 11, 12, 13)]
    return (
        "## Runs with other settings\n\nThese are not by the recipe of today, and in "
        "no row above:\n\n" + handout.table([*header, "stored, and the recipe"], cells)
    )


def _open(still_open: Sequence[Open]) -> str | None:
    if not still_open:
        return None
    return "## Without a result\n\n" + handout.table(
        ["entry", "how far, or why not"],
        [[handout.plain(text) for text in entry] for entry in still_open],
    )


def _how(folder: Path, table: Sequence[Row], rows: Sequence[Row]) -> str | None:
    """By which settings and commands the table's rows come; on what all rows do."""
    if not rows:
        return None
    cells = []
    for row in table:
        stored = row.first.stored
        optim = stored.optim
        cells.append(
            [
                _name(row, table),
                f"{optim.learning_rate:g}",
                optim.schedule,
                f"{optim.momentum:g}{', Nesterov' if optim.nesterov else ''}",
                f"{optim.weight_decay:g}",
                f"{optim.label_smoothing:g}",
                "none" if optim.ema is None else f"{optim.ema:g}",
                "none" if optim.clip_norm is None else f"{optim.clip_norm:g}",
                stored.data.augment,
                stored.run.batch_size,
            ]
        )
    header = (
        "network",
        "peak rate",
        "schedule",
        "momentum",
        "weight decay",
        "label smoothing",
        "EMA",
        "clipped at",
        "augmentation",
        "batch",
    )
    results = [run.result for row in rows for run in row.runs]
    machines = "; ".join(dict.fromkeys(r["device"] for r in results))
    versions = "; ".join(
        dict.fromkeys(
            ", ".join(
                f"{name} {r['versions'][name]}"
                for name in ("python", "jax", "flax", "optax", "jaxdl")
            )
            for r in results
        )
    )
    sizes = "; ".join(
        dict.fromkeys(
            f"{r['dataset']['name']}, {r['dataset']['train']:,} images to train on, "
            f"{r['dataset']['validation']:,} for validation, "
            f"{r['dataset']['test']:,} for the test"
            for r in results
        )
    )
    commands = "\n".join(_command(folder, row) for row in table)
    recipes_of_today = (
        "SGD on the cross-entropy, all layers from random weights unless the table "
        "says otherwise. The recipes, of which `experiments/recipes.py` says how they "
        f"were chosen:\n\n{handout.table(header, cells)}\n\n"
        f"Each row is what this command trains, or goes on with:\n\n```\n{commands}\n"
        "```\n\n"
    )
    return (
        f"## How\n\n{recipes_of_today if table else ''}"
        f"Data: {sizes}. Machine: {machines}. Versions: {versions}."
    )


def _command(folder: Path, row: Row) -> str:
    stored = row.first.stored
    words = [
        "--architectures",
        row.network.written,
        "--seeds",
        *map(str, row.seeds),
        f"--epochs={stored.run.epochs}",
        f"--precision={stored.model.precision}",
        f"--dataset={row.data}",
        f"--name={folder.name}",
    ]
    if row.pretrained:
        words.append("--pretrained")
    if stored.run.out != settings.RunConfig().out:
        words.append("--out=DIR")
    return f"python -m experiments.compare {shlex.join(words)}"


def _figures(table: Sequence[Row]) -> dict[str, Figure]:
    if not table:
        return {}
    data = ", ".join(dict.fromkeys(_data(row) for row in table))
    points, curves = [], []
    for row in table:
        points.append(
            plots_compare.Point(
                _name(row, table),
                row.test.mean,
                row.test.low,
                row.test.high,
                row.first.result["flops"],
                row.seconds,
            )
        )
        metrics = runs.read_metrics(row.first.folder)
        validation = [entry for entry in metrics if entry["kind"] == "validation"]
        curves.append(
            plots_compare.Curve(
                _name(row, table),
                [entry["epoch"] for entry in validation],
                [entry["accuracy"] for entry in validation],
            )
        )
    return {
        "cost": plots_compare.cost(points, f"Test error against cost, {data}"),
        "curves": plots_compare.curves(curves, f"Validation error, {data}"),
    }


def _name(row: Row, among: Sequence[Row]) -> str:
    """The network, and what tells the row from others of the same network."""
    network = title, layout, start = _network(row)
    rivals = [_told_apart(other) for other in among if _network(other) == network]
    pairs = zip(_told_apart(row), zip(*rivals, strict=True), strict=True)
    told = [own for own, of_all in pairs if len(set(of_all)) > 1]
    notes = ", ".join(filter(None, (layout, start, *told)))
    return f"{title} ({notes})" if notes else title


def _network(row: Row) -> tuple[str, str | None, str | None]:
    start = "pretrained" if row.pretrained else None
    return registry.spec(row.network.arch).title, row.network.layout, start


def _told_apart(row: Row) -> tuple[str, str, str]:
    stored = row.first.stored
    return f"{stored.run.epochs} epochs", stored.model.precision, _data(row)


def _data(row: Row) -> str:
    marks = {"synthetic_svhn": "synthetic", "mnist_embedded": "a part of MNIST"}
    mark = marks.get(row.data)
    return f"{row.data} ({mark})" if mark else row.data


def _cells(row: Row) -> list[Any]:
    result, stored = row.first.result, row.first.stored
    test = row.test
    assigned = "not reported" if row.assignment is None else _percent(row.assignment)
    return [
        registry.spec(row.network.arch).title,
        row.network.layout or "-",
        f"{result['parameters']:,}",
        f"{result['flops'] / 1e6:,.1f}",
        f"pretrained: {handout.plain(row.pretrained)}"
        if row.pretrained
        else "from scratch",
        _data(row),
        f"{result['epochs']:g}{_shortened(row)}",
        stored.model.precision,
        f"{row.images_per_second:,.0f}",
        _duration(row.seconds),
        _percent(row.validation),
        _percent(test.mean),
        f"{_percent(test.low)} to {_percent(test.high)}, over {test.of}",
        " ".join(map(str, row.seeds)),
        assigned,
    ]


def _shortened(row: Row) -> str:
    """How many epochs the recipe has, where the run was to have fewer; else empty."""
    recipe = recipes.RECIPES.get(row.network.arch)
    if recipe is None or recipe.run.epochs <= row.first.stored.run.epochs:
        return ""
    return f" (recipe: {recipe.run.epochs})"


def _csv(rows: Sequence[Row]) -> str:
    """A line for each row: accuracies in [0, 1], times in seconds."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            *("architecture", "layout", "parameters", "flops", "pretrained", "data"),
            *("synthetic", "epochs", "precision", "images_per_second", "wall_seconds"),
            *("validation_accuracy", "test_accuracy", "low", "high", "interval_over"),
            *("seeds", "test_accuracies", "assignment_accuracy_svhn", "differs"),
        ]
    )
    for row in rows:
        result, test = row.first.result, row.test
        writer.writerow(
            [
                row.network.arch,
                row.network.layout,
                result["parameters"],
                result["flops"],
                row.pretrained,
                row.data,
                "synthetic" in row.data,
                result["epochs"],
                row.first.stored.model.precision,
                row.images_per_second,
                row.seconds,
                row.validation,
                *test,
                " ".join(map(str, row.seeds)),
                " ".join(map(str, row.accuracies)),
                row.assignment,
                "; ".join(row.differs),
            ]
        )
    return out.getvalue()


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
