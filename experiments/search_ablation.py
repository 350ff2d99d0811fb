"""The ablation of `experiments.search`: what dropout and batch norm change."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments import handout
from jaxdl.data.sources import Dataset
from jaxdl.models.fnn import FNN
from jaxdl.search import ablation as design
from jaxdl.search.ablation import Effect
from jaxdl.search.results import Result
from jaxdl.search.study import Study

CELLS = (
    (0, 0, "neither"),
    (1, 0, "dropout"),
    (0, 1, "batch norm"),
    (1, 1, "dropout, batch norm"),
)
"""Dropout, batch norm, name."""
MEASURES = ("train", "test", "gap")


class Ablation(NamedTuple):
    """Shares [2, 2, seeds] by dropout (off, on) and batch norm (off, on)."""

    train: np.ndarray
    test: np.ndarray
    rate: float
    epochs: int

    @classmethod
    def of(cls, study: Study, cells: Sequence[Result]) -> "Ablation":
        """Sorts the results of the study into the design."""
        rates = [0.0, max(r.trial.settings["dropout"] for r in cells)]
        arrays = {
            name: np.zeros((2, 2, len(study.seeds))) for name in ("train", "test")
        }
        for result in cells:
            chosen = result.trial.settings
            place = (
                rates.index(chosen["dropout"]),
                int(chosen["batch_norm"]),
                study.seeds.index(result.trial.seed),
            )
            for name, array in arrays.items():
                array[place] = result.also[name].accuracy
        return cls(arrays["train"], arrays["test"], rates[1], study.rungs[0])

    @property
    def gap(self) -> np.ndarray:
        """Training less test accuracy."""
        return self.train - self.test

    def shares(self) -> dict[str, dict[str, np.ndarray]]:
        """By cell and measure, of each seed."""
        return {
            name: {
                "train": self.train[i, j],
                "test": self.test[i, j],
                "gap": self.gap[i, j],
            }
            for i, j, name in CELLS
        }

    def effects(self) -> dict[str, dict[str, Effect]]:
        """By measure and contrast."""
        return {
            "train": design.effects(self.train),
            "test": design.effects(self.test),
            "gap": design.effects(self.gap),
        }

    def verdicts(self) -> dict[str, dict[str, design.Verdict]]:
        """Of the two halves of the assignment's sentence, for either means."""
        found = self.effects()
        return {
            name: {
                "mitigates overfitting": design.verdict(found["gap"][key], "fall"),
                "enhances generalisation": design.verdict(found["test"][key], "rise"),
            }
            for key, name in (("first", "dropout"), ("second", "batch norm"))
        }

    def text(self, dataset: Dataset) -> str:
        """The section of the report."""
        seeds = self.train.shape[-1]
        images = dataset.train.images
        widths = (math.prod(images.shape[1:]), *FNN.hidden, len(dataset.classes))
        cells = handout.table(
            ["network", "training accuracy", "test accuracy", "gap, points"],
            [
                [
                    name,
                    handout.share(design.mean(self.train[i, j])),
                    handout.share(design.mean(self.test[i, j])),
                    handout.points(design.mean(self.gap[i, j]), sign=False),
                ]
                for i, j, name in CELLS
            ],
        )
        contrasts = {
            "first": "dropout, on average",
            "second": "batch norm, on average",
            "first alone": "dropout alone",
            "second alone": "batch norm alone",
            "both": "both together",
            "interaction": "interaction",
        }
        by_measure = self.effects()
        changes = handout.table(
            ["change, in points", "training accuracy", "test accuracy", "gap"],
            [
                [name, *(handout.points(by_measure[m][key]) for m in MEASURES)]
                for key, name in contrasts.items()
            ],
        )
        return "\n\n".join(
            [
                "## What dropout and batch normalisation change",
                "The assignment says that they *mitigate overfitting and enhance "
                "generalization*. Taken at its word, the first half says that the gap "
                "between training and test accuracy falls, the second that the test "
                "accuracy rises.",
                self._sentence(),
                "![Ablation](figures/ablation.png)",
                cells,
                changes,
                f"Network {'-'.join(map(str, widths))}, {self.epochs} epochs, dropout "
                f"{self.rate:g}, otherwise the settings that the search leaves alone; "
                f"{seeds} seeds. Training accuracy is that of the finished network on "
                f"all {len(images):,} training images, without dropout. "
                f"Brackets are 95 % intervals (Student's) over the seeds, for changes "
                f"over paired differences. The rule: *supported* where the interval of "
                f"the average change lies wholly on the claimed side of 0, *refuted* "
                f"where it lies wholly on the other, else *not shown*. The intervals "
                f"cover seeds, not other networks, data or lengths of training, and "
                f"each stands for itself, not corrected for their number; and a "
                f"gap can fall because training accuracy does, which helps nobody.",
            ]
        )

    def _sentence(self) -> str:
        verdicts, found = self.verdicts(), self.effects()
        said = []
        for key, name in (("first", "Dropout"), ("second", "Batch normalisation")):
            judged = verdicts[name.lower() if key == "first" else "batch norm"]
            train, test, gap = (handout.points(found[m][key]) for m in MEASURES)
            said.append(
                f"**{name}**: mitigates overfitting, *"
                f"{judged['mitigates overfitting']}* (gap {gap} points); "
                f"enhances generalisation, *{judged['enhances generalisation']}* (test "
                f"accuracy {test} points; training accuracy {train})."
            )
        largest = max(abs(found["test"][k].mean) for k in ("first", "second"))
        share = found["test"]["both"].mean
        base = 1 - self.test[0, 0].mean()
        said.append(
            f"Both together take the test error from {base:.2%} to {base - share:.2%}: "
            f"the larger of the two average effects on test accuracy is "
            f"{100 * largest:.2f} points."
        )
        return " ".join(said)
