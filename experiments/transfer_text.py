"""The words and tables of `experiments.transfer`'s report.

Import it late: it brings JAX.
"""

import itertools

import numpy as np

from experiments import handout, job, transfer_trials
from experiments.transfer_findings import Findings
from experiments.transfer_trials import ARMS
from jaxdl.search import ablation


def text(found: Findings) -> str:
    """The report, in Markdown."""
    parts = [
        _answer(found),
        _table(found),
        _curves(found),
        _rates(found),
        _data(found),
        _method(found),
    ]
    return "\n\n".join(parts) + "\n"


def _answer(found: Findings) -> str:
    said = []
    for labels in found.labels:
        arm, place = found.best(labels), found.labels.index(labels)
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
            f"**{scratch:.2%}** from scratch: {handout.points(gain)} points, {shown}"
        )
    on_data = found.source == found.origin.dataset  # and not the weights of a file
    weights = f"weights trained on {found.source}" if on_data else found.source
    lines = [
        f"# Transfer with few labels: {found.source} to {found.dataset.name}",
        f"**Question.** What do {weights} bring to "
        f"{found.dataset.name}, where few images are labelled, against the same "
        f"network from scratch?",
        f"**Answer.** On the {len(found.dataset.test.labels):,} test images, means "
        f"over {len(found.config.seeds)} seeds"
        + (
            ", by the way to fine-tune that is best on the validation images:"
            if len(found.others) > 1
            else ":"
        ),
        "\n".join(said),
        "Brackets are 95 % intervals of the paired difference. " + _worth(found),
        "![Test error against labels](figures/errors.png)",
        "Means over the seeds with 95 % intervals (Student's); both axes are "
        "logarithmic, so that an interval down to 0 is cut off below.",
    ]
    if found.origin.dataset == "synthetic_svhn":
        lines.insert(
            1,
            "*The source's house numbers are synthetic: drawn by a generator, not "
            "photographed. No figure here compares with one of the literature.*",
        )
    if found.dataset.name == "mnist_embedded_colour":
        lines.insert(1, f"*{found.dataset.name} is made from a part of MNIST only.*")
    return "\n\n".join(lines)


def _worth(found: Findings) -> str:
    """What the transfer is worth in labels, and against no training at all."""
    said = []
    fewest = found.labels[0]
    scratch = found.accuracies("scratch").mean(1)
    reached = found.accuracies(found.best(fewest))[0].mean()
    below = [
        n for n, mean in zip(found.labels, scratch, strict=True) if mean <= reached
    ]
    if below:
        most = below[-1]
        mean = scratch[found.labels.index(most)]
        said.append(
            f"Transfer with {fewest:,} labels ({reached:.2%}) does on average at least "
            f"as well as training from scratch with {most:,} ({mean:.2%})."
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
        gain = (
            None if arm == "scratch" else handout.points(found.difference(arm, labels))
        )
        rows.append(
            [
                f"{labels:,}",
                ARMS[arm].title,
                handout.share(share),
                gain,
                f"{some[0].trial.rate:g}",
                f"{np.mean([result.seconds for result in some]):.1f}",
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
            f"of images, order and head; not other sources or sets. Each interval "
            f"stands for itself: on average one in twenty misses. Seconds are those "
            f"of a training and its test.",
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
            f"is {twice} with {' / '.join(f'{n:,}' for n in found.config.labels)} "
            f"labels, instead of {once}: single trainings, with the seeds of the "
            f"choice below.",
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
            mean = f"{transfer_trials.standing(some)[0]:.1%}"
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
    parts = ["## The data", f"![{title}](figures/examples.png)"]
    if found.dataset.name in ("mnist_colour", "mnist_embedded_colour"):
        parts.append(
            f"`{found.dataset.name}` is a set of this project: a digit of MNIST, "
            f"padded to 32x32, is the opacity of an ink on a ground that slopes "
            f"smoothly. Ink and ground are random colours whose luma differs by a "
            f"quarter of the whole range or more at every pixel. They are drawn from "
            f"the place of an image in its file, so they tell nothing of its label."
        )
    return "\n\n".join(parts)


def _method(found: Findings) -> str:
    config, recipe = found.config, found.recipe
    data = f"{found.dataset.name}, {job.sizes(found.dataset)}"
    spent = sum(
        result.seconds for result in (*found.tuning, *found.longer, *found.results)
    )
    return "\n\n".join(
        [
            "## How",
            f"Source: {handout.plain(found.origin.title)}. Network: {recipe.model.arch}"
            + (f", layout {recipe.model.layout}" if recipe.model.layout else "")
            + f". Every training takes {config.steps} steps of {config.batch_size} "
            f"images by SGD with momentum {recipe.optim.momentum:g} (Nesterov), weight "
            f"decay {recipe.optim.weight_decay:g}, the one-cycle schedule and small "
            f"random shifts, rotations, scales and cutout; no image is flipped. All "
            f"arms normalise images by the same numbers. Layers that are not trained "
            f"keep their parameters and their batch statistics. A seed draws as many "
            f"labelled images of each class from the training set, the fewer within "
            f"the more; the rest of it stays unused. {found.validation} images of the "
            f"validation set serve for the choice of rates and the learning curves: "
            f"more than one would set apart from 100 labels, so that no arm suffers "
            f"from an unlucky choice. The test set is read by finished networks, from "
            f"which nothing is chosen; the answer names the way to fine-tune that the "
            f"validation images prefer, and the table has all of them.",
            handout.provenance(
                handout.anew("transfer", found.config), data, found.seconds
            )
            + f" That is the last session. All {found.trainings} trainings took "
            f"{spent:.0f} s, over all sessions of the study, without that of the "
            f"source.",
        ]
    )
