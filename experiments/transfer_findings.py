"""What a study of `experiments.transfer` has found: its numbers, and what follows.

Import it late: it brings JAX.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.transfer import Config
from experiments.transfer_source import Origin
from experiments.transfer_trials import Result
from jaxdl import config as settings
from jaxdl.data.sources import Dataset
from jaxdl.search import ablation
from jaxdl.search.ablation import Effect


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

    @property
    def source(self) -> str:
        """What the source was trained on, in words."""
        known = self.origin.dataset
        return "weights of a file" if known.startswith("unknown") else known

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

    def best(self, labels: int) -> str:
        """The arm from the source that is best on the validation images."""

        def accuracy(arm: str) -> float:
            ends = [result.curve[-1] for result in self.of(arm, labels)]
            return float(np.mean([end.accuracy for end in ends]))

        return max(self.others, key=accuracy)

    def difference(self, arm: str, labels: int) -> Effect:
        """Accuracy less that from scratch, seed by seed."""
        place = self.labels.index(labels)
        return ablation.mean(
            self.accuracies(arm)[place] - self.accuracies("scratch")[place]
        )
