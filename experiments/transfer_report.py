"""What a study of `experiments.transfer` leaves behind: words, figures, numbers.

Import it late: it brings JAX.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import handout, job, transfer_text
from experiments.transfer_findings import Findings
from experiments.transfer_trials import ARMS
from jaxdl import plots_transfer, runs
from jaxdl.data import synthetic_svhn
from jaxdl.models import registry
from jaxdl.search import ablation

SHOWN = 36
"""Images of each set in the figure."""


def write(folder: Path, found: Findings) -> Path:
    """Writes report, figures and result.json; returns the path of the HTML."""
    page = handout.write(folder, transfer_text.text(found), _figures(found))
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
    title = registry.spec(found.recipe.model.arch).title
    return {
        "errors": plots_transfer.errors(
            found.labels,
            {ARMS[arm].title: found.accuracies(arm) for arm in arms},
            found.untouched,
            f"{title}: {found.source} to {dataset.name}, "
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
