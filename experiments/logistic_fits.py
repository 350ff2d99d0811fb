"""What the optima are worth: probabilities (claim 1) and rare classes (claim 4).

Both losses are fitted exactly, each with the penalty that validation chooses, so that
nothing depends on how they are optimised. In float64 (`jax.enable_x64()`).
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sklearn
from scipy.special import entr, expit, logit
from sklearn import metrics

from experiments import logistic_data as data
from experiments.logistic_data import Part, Study
from experiments.verdicts import LOSSES, Comparison, Evidence, progress
from jaxdl import calibration, logistic
from jaxdl.config import Loss
from jaxdl.logistic import Linear

PENALTIES = 10.0 ** np.arange(-6, 1)
"""Strengths of the L2 penalty. Each loss chooses one on each seed's validation part."""

SIZES = (50, 100, 200, 400, 800, 1600)
"""Training examples of the law that the model can express; the others have the last."""

RATIOS = (1, 10, 100, 1000)
"""Common examples for each rare one."""

DISTANCE, DIVERGENCE = "squared distance from the truth", "KL divergence from the truth"
MATTERS = {
    "calibration error": 0.005,
    "Brier score": 0.001,
    DISTANCE: 0.001,
    "log loss": 0.005,
    DIVERGENCE: 0.005,
}
"""The smallest difference that matters to claim 1, by measure."""
RELATIVE = float(np.log2(1.1))
"""Distances to the truth are compared relatively, since with many examples all go to 0.
They fall like 1/N, so a tenth is a tenth more examples."""
IMBALANCE_MATTERS = {
    "balanced accuracy, threshold 1/2": 0.01,
    "balanced accuracy, class weights": 0.01,
    "balanced accuracy, threshold moved": 0.01,
    "AUC": 0.005,
    "PR-AUC": 0.01,
}
"""The same for claim 4."""


def probability(seeds: int) -> Evidence:
    """Calibration and scores of both losses, each with a penalty chosen for it."""
    studies = [
        data.splits("breast cancer", *data.breast_cancer(), seeds),
        data.splits("digits, odd or even", *data.odd_digits(), seeds),
        *(data.generated(law, seeds, SIZES[-1]) for law in data.LAWS),
    ]
    comparisons: list[Comparison] = []
    absolute: list[Comparison] = []
    predicted, growth = {}, {}
    for study in progress(studies, "1 probabilities"):
        sizes = SIZES if study.name == "generated, logistic" else (None,)
        for size in sizes:
            found = {loss: _test_logits(loss, study, size) for loss in LOSSES}
            scores = {
                loss: [_scores(study, seed, z) for seed, z in enumerate(found[loss])]
                for loss in LOSSES
            }
            if size:
                growth[size] = {
                    loss: np.array([s[DIVERGENCE] for s in of_loss])
                    for loss, of_loss in scores.items()
                }
            if size in (None, SIZES[0], SIZES[-1]):
                name = study.name + (f", {size:,} examples" if size else "")
                predicted[name] = (found, study)
                comparisons += _compared(study, name, scores, relative=True)
                absolute += _compared(study, name, scores, relative=False)
    return Evidence(
        comparisons,
        {"predicted": predicted, "growth": growth, "absolute": absolute},
    )


def _compared(
    study: Study,
    name: str,
    scores: Mapping[Loss, Sequence[Mapping[str, float]]],
    relative: bool,
) -> list[Comparison]:
    """Of every measure; distances to the truth relatively, if so asked."""
    comparisons = []
    for measure in scores["mse"][0]:
        ratio = relative and measure in (DISTANCE, DIVERGENCE)
        values = {
            loss: np.array([s[measure] for s in of_loss])
            for loss, of_loss in scores.items()
        }
        if ratio:
            values = {loss: np.log2(value) for loss, value in values.items()}
        comparisons.append(
            Comparison(
                name,
                measure,
                values,
                matters=RELATIVE if ratio else MATTERS[measure],
                overlap=study.overlap,
                ratio=ratio,
            )
        )
    return comparisons


def _scores(study: Study, seed: int, z: np.ndarray) -> dict[str, float]:
    """Of the logits [N], against the labels or, where it is known, against P(1|x).

    What the Brier score and the log loss are above those of the truth is the squared
    distance and the Kullback-Leibler divergence from it.
    """
    q = expit(z)
    if study.truth is None:
        y = study.test.labels[seed]
        return {
            "calibration error": calibration.expected_calibration_error(y, q),
            "Brier score": float(metrics.brier_score_loss(y, q)),
            "log loss": float(metrics.log_loss(y, q)),
        }
    p = study.truth[seed]
    divergence = np.logaddexp(0, z) - p * z - entr(p) - entr(1 - p)
    return {
        "calibration error": calibration.expected_calibration_error(p, q),
        DISTANCE: float(np.mean((p - q) ** 2)),
        DIVERGENCE: float(np.mean(divergence)),
    }


def _test_logits(loss: Loss, study: Study, size: int | None) -> np.ndarray:
    """Logits of the test examples [S, N], after training on the first `size`.

    The choice of the penalty is made on half as many. The other examples keep their
    place with weight 0, so that all sizes share one compiled program.
    """
    weights = [
        np.broadcast_to(
            np.arange(count) < (size // part if size else count), (1, count)
        )
        for part, count in (
            (1, study.train.labels.shape[1]),
            (2, study.validation.labels.shape[1]),
        )
    ]
    models = tuned(loss, study, *(w.astype(float) for w in weights))
    return np.asarray(_logits(models, study.test.features))


@jax.jit
def _logits(models: Linear, features: jax.Array) -> jax.Array:
    return jax.vmap(logistic.logits)(models, features)


def tuned(
    loss: Loss, study: Study, training: np.ndarray, judging: np.ndarray
) -> Linear:
    """Optima [S, ...], each of the penalty with its seed's lowest validation loss.

    Seeds choose for themselves: where they are splits of one table, what another seed
    validates on is in part what this one is tested on.

    Args:
      loss: its name.
      study: the data.
      training: weights of the training examples, [S, N] or, for all seeds, [1, N].
      judging: weights of the validation examples, likewise.
    """
    return _tuned(
        loss,
        study.train,
        np.broadcast_to(training, study.train.labels.shape),
        study.validation,
        np.broadcast_to(judging, study.validation.labels.shape),
        PENALTIES,
    )


@functools.partial(jax.jit, static_argnums=0)
def _tuned(
    loss: Loss,
    train: Part,
    training: jax.Array,
    validation: Part,
    judging: jax.Array,
    penalties: jax.Array,
) -> Linear:
    def optimum(
        l2: jax.Array, x: jax.Array, y: jax.Array, w: jax.Array
    ) -> logistic.Optimum:
        return logistic.newton(
            loss,
            logistic.zeros(x),
            x,
            y,
            l2=l2,
            weights=w,
            iterations=50,
            tolerance=1e-8,
        )

    def score(model: Linear, x: jax.Array, y: jax.Array, w: jax.Array) -> jax.Array:
        return logistic.objective(loss, model, x, y, weights=w)

    def best(seed: tuple[Any, ...]) -> Linear:
        """A seed's optimum of the penalty with the lowest validation loss."""
        known, training, held, judging = seed
        every = jax.vmap(optimum, in_axes=(0, None, None, None))
        models = every(penalties, known.features, known.labels, training).model
        scores = jax.vmap(score, in_axes=(0, None, None, None))(
            models, held.features, held.labels, judging
        )
        return jax.tree.map(lambda leaf: leaf[jnp.argmin(scores)], models)

    # One seed after another, for the processor's cache; its penalties side by side.
    return jax.lax.map(best, (train, training, validation, judging))


def imbalance(seeds: int) -> Evidence:
    """Both losses on rarer and rarer positives, plain, weighted and thresholded."""
    eights = data.mnist_eights()
    sources = {
        "generated, two normals": (data.two_normals, 500),
        "MNIST (embedded), 8 or not": (lambda _: eights, 300),
    }
    comparisons, table, counts = [], {}, {}
    settings = [(name, ratio) for name in sources for ratio in RATIOS]
    for name, ratio in progress(settings, "4 imbalance"):
        draw, keep = sources[name]
        study = data.imbalanced(name, draw, ratio, seeds, keep)
        # Thousands of scores, and their parameters are ours.
        with sklearn.config_context(skip_parameter_validation=True):
            scores = {loss: _imbalance_scores(loss, study, ratio) for loss in LOSSES}
        table[name, ratio] = scores
        counts[name, ratio] = int(study.train.labels[0].sum())
        if ratio == 1:
            continue
        for measure, matters in IMBALANCE_MATTERS.items():
            comparisons.append(
                Comparison(
                    f"{name}, 1:{ratio}",
                    measure,
                    {loss: scores[loss][measure] for loss in LOSSES},
                    matters=matters,
                    higher_is_better=True,
                    overlap=study.overlap,
                )
            )
    return Evidence(comparisons, {"table": table, "rare": counts})


def _imbalance_scores(loss: Loss, study: Study, ratio: int) -> dict[str, np.ndarray]:
    """Each measure for every seed [S]. PR-AUC is at the training data's ratio."""
    rare = study.train.labels.mean()
    found: dict[str, list[float]] = {}
    for suffix, train_rare in (("", rare), (", class weights", 0.5)):
        # The validation set is brought to the ratio that the training set stands for.
        models = tuned(
            loss,
            study,
            _reweighted(study.train.labels, train_rare),
            _reweighted(study.validation.labels, train_rare),
        )
        for z, y in zip(
            np.asarray(_logits(models, study.test.features)),
            study.test.labels,
            strict=True,
        ):
            w = _reweighted(y, 1 / (1 + ratio))
            scores = {
                "balanced accuracy, threshold 1/2": metrics.balanced_accuracy_score(
                    y, z > 0
                ),
                "minority recall, threshold 1/2": metrics.recall_score(y, z > 0),
                "AUC": metrics.roc_auc_score(y, z),
                "PR-AUC": metrics.average_precision_score(y, z, sample_weight=w),
            }
            if not suffix:
                moved = z > logit(rare)
                scores |= {
                    "balanced accuracy, threshold moved": (
                        metrics.balanced_accuracy_score(y, moved)
                    ),
                    "minority recall, threshold moved": metrics.recall_score(y, moved),
                }
            for measure, score in scores.items():
                name = measure.removesuffix(", threshold 1/2") if suffix else measure
                found.setdefault(name + suffix, []).append(float(score))
    return {measure: np.array(scores) for measure, scores in found.items()}


def _reweighted(labels: np.ndarray, rare: float) -> np.ndarray:
    """Weights with which class 1 makes up that share, over the last axis."""
    share = labels.mean(-1, keepdims=True)
    return np.where(labels > 0.5, rare / share, (1 - rare) / (1 - share))
