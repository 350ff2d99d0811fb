"""The four sections of the report on logistic regression: words, tables, figures.

Sentences that hold whatever was measured are mathematics; all others are put together
from the measurements.
"""

# ruff: noqa: RUF001 - sigma, lambda and minus signs are meant
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy.special import expit

from experiments import handout, logistic_fits, logistic_paths, verdicts
from experiments import logistic_data as data
from experiments.verdicts import LOSSES, Claim
from jaxdl import calibration, logistic, plots_logistic, separation
from jaxdl.config import Loss
from jaxdl.logistic import Linear
from jaxdl.search import ablation

Section = tuple[str, dict[str, Figure]]
"""Markdown, and the figures that it shows."""

_NAMES: Mapping[Loss, str] = {"cross_entropy": "cross-entropy", "mse": "squared error"}


def probabilities(claim: Claim) -> Section:
    """Claim 1: calibration, scores and distance to the truth."""
    panels = {}
    for name, (logits, study) in claim.shown["predicted"].items():
        truth = study.test.labels if study.truth is None else study.truth
        panels[name] = {
            loss: calibration.reliability(truth.ravel(), expit(logits[loss]).ravel())
            for loss in LOSSES
        }
    growth = claim.shown["growth"]
    sizes = list(growth)
    by_loss = {loss: np.array([growth[n][loss] for n in sizes]) for loss in LOSSES}
    ratios = handout.table(
        ["training examples", "squared error / cross-entropy", "95 % interval"],
        [
            (f"{size:,}", *_ratio(growth[size]["mse"], growth[size]["cross_entropy"]))
            for size in sizes
        ],
    )
    absolute = verdicts.claim("", verdicts.Evidence(claim.shown["absolute"], {}))
    matters = logistic_fits.MATTERS
    squared, divergence = (
        f"{matters[measure]:g}"
        for measure in (logistic_fits.DISTANCE, logistic_fits.DIVERGENCE)
    )
    text = f"""Both losses are *strictly proper scoring rules* (Gneiting and Raftery
2007): over the whole population each is least for the true P(1|x), and for nothing
else. What a prediction q costs above the truth p is the Kullback-Leibler divergence
KL(p, q) for cross-entropy and (p − q)² for squared error. So neither has a monopoly on
probabilities. They can differ in two places: with *few examples*, and where the model
*cannot express* the truth, since each then comes closest to it in its own distance.

Both are fitted exactly, for each seed with the L2 penalty that has the lowest loss of
the same kind on that seed's validation examples. The Brier score is the mean squared
error of the probabilities on test examples, the log loss their mean cross-entropy. On
generated data, where P(1|x) is known, what these are above those of the truth is
measured instead: the mean (p − q)² and KL(p, q). The calibration error (ECE) has ten
bins of equal count.

![Reliability of both losses](figures/reliability.png)

*What came true over what was predicted, all seeds together; for generated data, what
came true is the known P(1|x).*

![Distance to the truth over the number of examples](figures/distances.png)

*Generated data from a law that the model can express: KL divergence from the truth,
geometric mean over the seeds with its 95 % interval.*

Where the model can express the truth, maximum likelihood, which is cross-entropy, is
efficient: with many examples no other regular estimate comes closer. The divergence
under squared error over that under cross-entropy, geometric mean (each interval for
itself):

{ratios}

These distances go to 0 with many examples, so they are compared relatively below. The
verdict may depend on that: compared absolutely, with {squared} of squared distance and
{divergence} nats of divergence as the least that matters, the same measurements make
the claim *{absolute.verdict}* ({verdicts.tally(absolute.judged)})."""
    return text, {
        "reliability": plots_logistic.reliability(panels),
        "distances": plots_logistic.distances(sizes, by_loss),
    }


def optimisation(claim: Claim) -> Section:
    """Claim 2: gradients on confident mistakes, and steps of gradient descent."""
    slopes, races = claim.shown["slopes"], claim.shown["races"]
    gap = max(
        float(np.abs(slopes[loss] / slopes[f"closed {loss}"] - 1).max())
        for loss in LOSSES
    )
    gradients = handout.table(
        ["z", "P(1|x)", "slope, cross-entropy", "slope, squared error", "ratio"],
        [
            (
                f"{slopes['logit'][i]:.0f}",
                f"{expit(slopes['logit'][i]):.2g}",
                *(f"{abs(slopes[loss][i]):.3g}" for loss in LOSSES),
                f"{slopes['cross_entropy'][i] / slopes['mse'][i]:,.0f}",
            )
            for i in np.searchsorted(slopes["logit"], [0.0, -2.0, -4.0, -8.0, -16.0])
        ],
    )
    panels = {
        name: {
            start: {loss: race[loss]["accuracy"][i] for loss in LOSSES}
            for i, start in enumerate(logistic_paths.STARTS)
        }
        for name, race in races.items()
    }
    rates = logistic_paths.RATES
    steps = logistic_paths.STEPS
    text = f"""For an example of class 1, by the logit z (`jax.grad` and the closed
forms agree to {gap:.0e}, relatively):

{gradients}

![Gradient over the logit](figures/slopes.png)

A slope that is smaller everywhere costs nothing: a larger learning rate makes up for
it. One that is smaller only where the model is sure and wrong may cost something, from
a start where it is. So the rates are tuned, for each loss and each start: out of
{len(rates)}, from 1/2 to 2^15 times 1/λ (λ: the largest eigenvalue of the features'
second moments), the one with the fewest steps on {logistic_paths.TUNING_SEEDS} seeds
that are not measured. Gradient descent on {logistic_paths.EXAMPLES} examples with L2
{logistic_paths.L2:g} starts from zero, from a good place (least squares, scaled to
logits of deviation 2) or saturated (the same, reversed, deviation 10: sure and wrong).
It has arrived at the training accuracy of both optima less half a point; or, by *own
loss*, when 1 % is left of its own loss's way from zero to its optimum. At {steps:,}
steps it is cut off and counted with these. No step counts as one.

![Steps over the learning rate](figures/rates.png)

*Median steps to the accuracy over the learning rate, all seeds; the dotted line is the
limit.*

What tuning rescues is seen at the saturated start, with a rate tuned for it, and with
the rate that is best from zero, which is what one has if one does not know that the
start is bad. The rates chosen for accuracy, and the share of seeds that arrived:

{_chosen_rates(races)}

In the table below steps are geometric means, and the gain is squared error's steps
over cross-entropy's."""
    return text, {
        "slopes": plots_logistic.slopes(
            slopes["logit"], {loss: slopes[loss] for loss in LOSSES}
        ),
        "rates": plots_logistic.rates(rates, panels, steps),
    }


def single_answer(claim: Claim) -> Section:
    """Claim 3: minima and plateaus; and separable data, where there is no optimum."""
    ends, descents = claim.shown["ends"], claim.shown["descents"]
    where = handout.table(
        ["data", "loss", "the best", "another", "plateau", "different minima, at most"],
        [
            (
                name,
                _NAMES[loss],
                *(f"{of[loss][kind].mean():.1%}" for kind in logistic_paths.ENDS),
                max(len(_minima(of[loss], s)) for s in range(len(of[loss]["best"]))),
            )
            for name, of in ends.items()
            for loss in LOSSES
        ],
    )
    valleys = next(iter(ends.values()))
    found = ", ".join(f"({a:.2f}, {b:.2f})" for a, b, _ in _minima(valleys["mse"], 0))
    features, labels = data.breast_cancer()
    divided = "are" if separation.separable(features, labels) else "are not"
    steps = next(iter(descents.values()))["steps"]
    text = f"""**Where an optimum exists.** From {logistic_paths.START_COUNT} random
starts for each seed (logits of deviation 5), Newton's method with damping runs to a
gradient below 1e-10. Where it ends is *the best* minimum that was found, *another* one
(gradient below 1e-8, all eigenvalues of the Hessian above 1e-9), or a *plateau*
(neither).

{where}

![Both objectives over two weights](figures/surfaces.png)

*Constructed data after Auer, Herbster and Warmuth (1996), seed 0: on each axis ten
examples near 1 speak for a positive weight and five near 10 for a negative one. Squared
error may give up either, on either axis. The stars are the minima at which starts
ended; for squared error {found}.*

**Where none exists.** If a plane separates the classes, longer weights are always
better, so *neither* loss has an optimum. This is no rare case: all of breast cancer's
{len(labels)} tumours {divided} separable by their {features.shape[1]} features.
Gradient descent on cross-entropy then runs to infinity, like ln t after t steps, in the
direction of the *maximum margin* (Soudry et al. 2018). The theorem does not ask for
convexity: squared error after a sigmoid falls off like exp(−2m) at margin m, so where
gradient descent brings it down to 0 it has the same limit, at half the speed.

![Length and angle along gradient descent](figures/divergence.png)

{_limits(descents)}

*Mean over the seeds, with the half-width of its 95 % interval; the gain in length is
over the last factor of ten in t. The maximum margin comes from a solver of its own
(non-negative least squares); the bias counts as a weight.*

![Boundaries along gradient descent](figures/boundaries.png)

*Generated data, seed 0.*

An L2 penalty gives cross-entropy one optimum again, whatever the data, since a strictly
convex function has no second; for squared error it guarantees nothing."""
    panels = {
        name: {
            loss: (of[loss]["length"], of[loss]["angle"], _limit(of, loss))
            for loss in LOSSES
        }
        for name, of in descents.items()
    }
    return text, {
        "surfaces": _surfaces(valleys),
        "divergence": plots_logistic.divergence(steps, panels),
        "boundaries": _boundaries(claim.shown["blobs"], descents),
    }


def imbalance(claim: Claim) -> Section:
    """Claim 4: measures over the ratio of the classes."""
    table = claim.shown["table"]
    names = list(dict.fromkeys(name for name, _ in table))
    ratios = list(dict.fromkeys(ratio for _, ratio in table))
    measures = list(dict.fromkeys(one.comparison.measure for one in claim.judged))
    panels = {
        name: {
            measure: {
                loss: np.array([table[name, ratio][loss][measure] for ratio in ratios])
                for loss in LOSSES
            }
            for measure in measures
        }
        for name in names
    }
    by_measure = handout.table(
        ["measure", "comparisons"],
        [
            (
                measure,
                verdicts.tally(
                    one for one in claim.judged if one.comparison.measure == measure
                ),
            )
            for measure in measures
        ],
    )
    means = (
        "minority recall, threshold 1/2",
        "minority recall, class weights",
        "minority recall, threshold moved",
        "AUC",
        "AUC, class weights",
        "PR-AUC",
        "PR-AUC, class weights",
    )
    levels = handout.table(
        ["data, ratio", "rare examples", "loss", *means],
        [
            (
                f"{name}, 1:{ratio}",
                claim.shown["rare"][name, ratio],
                _NAMES[loss],
                *(f"{table[name, ratio][loss][mean].mean():.3f}" for mean in means),
            )
            for name in names
            for ratio in ratios
            for loss in LOSSES
        ],
    )
    rarest = max(ratios)
    recalls = "; ".join(
        f"{name}: {_NAMES[loss]} {table[name, rarest][loss][means[0]].mean():.1%}"
        for name in names
        for loss in LOSSES
    )
    text = f"""One rare example (class 1) for 1 to {rarest:,} common ones; as many of
them as the table says, fewer where common ones would not suffice. Real: the eights of
MNIST's embedded part against all other digits, averaged to 4x4 pixels. Generated: two
normal distributions in 5 dimensions, their means 2 deviations apart. Both losses are
fitted exactly, each with the penalty that its own loss chooses on the validation
examples of the seed: plainly, with the threshold at 1/2 or moved to the share of the
rare class; or with class weights that give both classes the same mass. PR-AUC (average
precision) is taken at the ratio of the training data.

Neither loss knows that the rare class matters more. At 1:{rarest:,} and the threshold
of 1/2, the share of the rare examples that is found: {recalls}. So is cross-entropy
more robust? By measure, over both data sets and the ratios from 1:{ratios[1]} on:

{by_measure}

![Measures over the ratio](figures/imbalance.png)

*Means over the seeds with their 95 % intervals, not enlarged for the overlap of their
splits, as those of the verdicts are.*

{levels}"""
    return text, {"imbalance": plots_logistic.imbalance(ratios, panels)}


def _ratio(above: np.ndarray, below: np.ndarray) -> tuple[str, str]:
    """Geometric mean of above / below over the seeds, and its 95 % interval."""
    mean, low, high = np.exp(ablation.mean(np.log(above / below)))
    return f"{mean:.2f}", f"{low:.2f} to {high:.2f}"


def _mean(values: np.ndarray, digits: int) -> str:
    """The mean over the seeds, with half of its 95 % interval."""
    found = ablation.mean(values)
    return f"{found.mean:.{digits}f} ± {found.high - found.mean:.{digits}f}"


def _chosen_rates(races: Mapping[str, Any]) -> str:
    rows = []
    for name, race in races.items():
        for start in (*logistic_paths.STARTS, logistic_paths.CARRIED):
            cells: list[str] = []
            for loss in LOSSES:
                chosen = logistic_paths.rate(race[loss], start, "accuracy")
                steps = logistic_paths.steps(race[loss], start, "accuracy")
                cells.append(f"2^{np.log2(logistic_paths.RATES[chosen]):.0f}")
                cells.append(f"{(steps < logistic_paths.STEPS).mean():.0%}")
            rows.append((name, start, *cells))
    header = [
        f"{what}, {_NAMES[loss]}" for loss in LOSSES for what in ("rate", "arrived")
    ]
    return handout.table(["data", "start", *header], rows)


def _limit(descent: Mapping[str, Any], loss: Loss) -> float:
    """The length gained per unit of ln t in the limit, after Soudry et al."""
    length = float(np.linalg.norm(descent["target"], axis=-1).mean())
    return length if loss == "cross_entropy" else length / 2


def _limits(descents: Mapping[str, Any]) -> str:
    rows = []
    for name, found in descents.items():
        steps = found["steps"]
        tenth = int(np.argmin(np.abs(steps - steps[-1] / 10)))
        for loss in LOSSES:
            length, angle = found[loss]["length"], found[loss]["angle"]
            gained = length[:, -1] - length[:, tenth]
            rows.append(
                (
                    name,
                    _NAMES[loss],
                    _mean(gained / np.log(steps[-1] / steps[tenth]), 2),
                    f"{_limit(found, loss):.2f}",
                    _mean(angle[:, tenth], 1),
                    _mean(angle[:, -1], 1),
                    _mean(100 * found[loss]["margin"][:, -1], 1),
                )
            )
    return handout.table(
        [
            "data",
            "loss",
            "length per unit of ln t",
            "in the limit (theory)",
            f"degrees off, t = {steps[tenth]:,}",
            f"degrees off, t = {steps[-1]:,}",
            "margin then, % of the largest",
        ],
        rows,
    )


def _minima(found: Mapping[str, np.ndarray], seed: int) -> np.ndarray:
    """The different minima at which a seed's starts ended, [M, D + 1]."""
    ended = found["best"][seed] | found["minimum"][seed]
    points = np.column_stack([found["weights"][seed], found["bias"][seed]])[ended]
    kept: list[np.ndarray] = []
    for point in points:
        if all(np.abs(point - other).max() > 1e-3 for other in kept):
            kept.append(point)
    return np.reshape(kept, (len(kept), found["weights"].shape[-1] + 1))


def _surfaces(ends: Mapping[Loss, Mapping[str, np.ndarray]]) -> Figure:
    x, y = map(jnp.asarray, data.four_valleys(0))
    axis = np.linspace(-1.2, 3.2, 121)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)
    values, minima = {}, {}
    for loss in LOSSES:

        def height(weights: jax.Array, loss: Loss = loss) -> jax.Array:
            model = Linear(weights, jnp.zeros((), weights.dtype))
            return logistic.objective(loss, model, x, y)

        values[loss] = np.asarray(
            jax.jit(jax.vmap(jax.vmap(height)))(jnp.asarray(grid))
        )
        points = _minima(ends[loss], 0)[:, :2]
        minima[loss] = points[((points > axis[0]) & (points < axis[-1])).all(1)]
    return plots_logistic.surfaces(axis, values, minima)


def _boundaries(blobs: data.Part, descents: Mapping[str, Any]) -> Figure:
    """Of seed 0, after few steps, some, and all."""
    found = next(iter(descents.values()))
    steps = found["steps"]
    wanted = [int(np.abs(steps - count).argmin()) for count in (10, 300, steps[-1])]
    models = {
        loss: {int(steps[i]): Linear(models[0, i, :2], models[0, i, 2]) for i in wanted}
        for loss, models in ((loss, found[loss]["models"]) for loss in LOSSES)
    }
    margin = found["target"][0]
    return plots_logistic.boundaries(
        blobs.features[0], blobs.labels[0], models, Linear(margin[:2], margin[2])
    )
