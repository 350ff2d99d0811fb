"""The report on logistic regression: words, tables and figures from the evidence.

Sentences that hold whatever was measured are mathematics; all others are put together
from the measurements.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy import stats
from scipy.special import expit

from experiments import handout, logistic_paths, verdicts
from experiments import logistic_data as data
from experiments.verdicts import LOSSES, Evidence, Finding, Judged, Verdict
from jaxdl import calibration, logistic, plots_logistic, runs
from jaxdl.config import Loss
from jaxdl.logistic import Linear

STATEMENTS = (
    "Cross-entropy gives better probabilities than squared error.",
    "Cross-entropy is faster to optimise.",
    "Cross-entropy has a single best answer, and squared error has not.",
    "Cross-entropy is more robust to class imbalance.",
)
_NAMES: Mapping[Loss, str] = {"cross_entropy": "cross-entropy", "mse": "squared error"}


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim with what was found."""

    statement: str
    judged: Sequence[Judged]
    verdict: Verdict
    shown: Mapping[str, Any]


def judged(evidence: Sequence[Evidence]) -> list[Claim]:
    """The claims with their verdicts, in the order of `STATEMENTS`."""
    claims = []
    for statement, found in zip(STATEMENTS, evidence, strict=True):
        findings = verdicts.judge(found.comparisons)
        claims.append(
            Claim(statement, findings, verdicts.verdict(findings), found.shown)
        )
    return claims


def write(path: Path, claims: Sequence[Claim], seeds: int, seconds: float) -> Path:
    """Writes report, figures and, when they are whole, result.json.

    Returns:
      The path of the HTML file.

    Raises:
      InputError: a file cannot be written.
    """
    sections = (_probabilities, _optimisation, _single_answer, _imbalance)
    bodies, figures = [], {}
    for number, (claim, section) in enumerate(zip(claims, sections, strict=True), 1):
        text, drawn = section(claim)
        figures |= drawn
        bodies.append(
            f"## {number}. {claim.statement}\n\n"
            f"**{claim.verdict.capitalize()}.** {because(claim.judged)}\n\n{text}\n\n"
            f"{comparison_table(claim.judged)}"
        )
    command = f"python -m experiments.logistic --seeds={seeds}"
    page = handout.write(
        path,
        "\n\n".join(
            [
                _opening(claims),
                *bodies,
                _closing(seeds),
                handout.provenance(command, DATA, seconds),
            ]
        )
        + "\n",
        figures,
    )
    runs.write_json(path / "result.json", _record(claims, seeds, seconds))
    return page


DATA = (
    "scikit-learn's breast cancer (569 tumours) and digits (1,797 images of 8x8 pixels) "
    "and the embedded part of MNIST (12,000 images), all real; and generated data, "
    "called so wherever they appear"
)


def _opening(claims: Sequence[Claim]) -> str:
    rows = [
        (number, claim.statement, f"**{claim.verdict}**", _tally(claim.judged))
        for number, claim in enumerate(claims, 1)
    ]
    return f"""# Why cross-entropy, and not squared error, in logistic regression?

Logistic regression says P(1|x) = σ(z) with a linear logit z = w·x + b. It can be fitted
by the mean cross-entropy, −log P(label), or by the mean squared error (σ(z) − y)². Four
reasons are usually given for cross-entropy. This page puts each to the test.

## The answer

{handout.table(["", "claim", "verdict", "comparisons"], rows)}

Two facts need no measurement. Cross-entropy is convex in the weights, so every minimum is
a global one; squared error *after the sigmoid* is not. And the derivative by the logit is
σ(z) − y for cross-entropy but 2(σ(z) − y)·σ(z)(1 − σ(z)) for squared error: its last
factors vanish where the model is sure, also where it is sure and wrong. What these facts
are worth in practice is what the measurements below say.

## How a verdict is reached

{verdicts.RULE}"""


def _closing(seeds: int) -> str:
    laws = "; ".join(f"*{name}*: {law}" for name, law in data.LAWS.items())
    return f"""## Limits

Linear models and two classes only. {seeds} seeds. The intervals for real tables speak of
other random splits of the same table, not of other tables. Squared error here is always
that of the probability; squared error of the raw output (linear regression on 0 and 1) is
convex, and another method. The generated laws, in 5 dimensions with |u| = 1: {laws}.

## References

- A. Albert and J. A. Anderson (1984), *On the existence of maximum likelihood estimates
  in logistic regression models*, Biometrika 71.
- P. Auer, M. Herbster and M. Warmuth (1996), *Exponentially many local minima for single
  neurons*, NIPS 8.
- T. Gneiting and A. Raftery (2007), *Strictly proper scoring rules, prediction, and
  estimation*, JASA 102.
- C. Nadeau and Y. Bengio (2003), *Inference for the generalization error*, Machine
  Learning 52.
- D. Soudry, E. Hoffer, M. Nacson, S. Gunasekar and N. Srebro (2018), *The implicit bias of
  gradient descent on separable data*, JMLR 19."""


# The sections, one for each claim.


def _probabilities(claim: Claim) -> tuple[str, dict[str, Figure]]:
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
    ratios = [
        (size, *_ratio(growth[size]["mse"], growth[size]["cross_entropy"]))
        for size in sizes
    ]
    said = "; ".join(
        f"{size:,} examples: {mean:.2f} ({low:.2f} to {high:.2f})"
        for size, mean, low, high in ratios
    )
    text = f"""Both losses are *strictly proper scoring rules* (Gneiting and Raftery 2007):
over the whole population each is least for the true P(1|x), and for nothing else. What a
prediction q costs above the truth p is the Kullback-Leibler divergence KL(p, q) for
cross-entropy and (p − q)² for squared error. So neither has a monopoly on probabilities.
They can differ in two places: with *few examples*, and where the model *cannot express*
the truth, since each then comes closest to it in its own distance.

Both are fitted exactly, each with the L2 penalty that has the lowest loss of its own kind
on validation examples. "Brier score" is the mean squared error of the probabilities on
test examples, "log loss" their mean cross-entropy; on generated data, where P(1|x) is
known, both are given above those of the truth, as the mean of (p − q)² and of KL(p, q).
The calibration error (ECE) has ten bins of equal count.

![Reliability of both losses](figures/reliability.png)

*What came true over what was predicted, all seeds together; for generated data, what came
true is the known P(1|x).*

![Distance to the truth over the number of examples](figures/distances.png)

*Generated data from a law that the model can express: KL divergence from the truth,
geometric mean over the seeds with its 95 % interval.*

Where the model can express the truth, maximum likelihood, which is cross-entropy, is
efficient: no other consistent estimate does better with many examples. Measured, the
divergence under squared error over that under cross-entropy (geometric mean, 95 %
interval): {said}."""
    return text, {
        "reliability": plots_logistic.reliability(panels),
        "distances": plots_logistic.distances(sizes, by_loss),
    }


def _optimisation(claim: Claim) -> tuple[str, dict[str, Figure]]:
    slopes, races = claim.shown["slopes"], claim.shown["races"]
    gap = max(
        float(np.abs(slopes[loss] / slopes[f"closed {loss}"] - 1).max())
        for loss in LOSSES
    )
    z = np.array([0.0, -2.0, -4.0, -8.0, -16.0])
    at = np.searchsorted(slopes["logit"], z)
    rows = [
        (
            f"{z:.0f}",
            f"{expit(z):.2g}",
            *(f"{abs(slopes[loss][i]):.3g}" for loss in LOSSES),
            f"{slopes['cross_entropy'][i] / slopes['mse'][i]:,.0f}",
        )
        for z, i in zip(z, at, strict=True)
    ]
    panels = {
        name: {
            start: {loss: race[loss]["accuracy"][i] for loss in LOSSES}
            for i, start in enumerate(logistic_paths.STARTS)
        }
        for name, race in races.items()
    }
    chosen = []
    for name, race in races.items():
        for start in (*logistic_paths.STARTS, logistic_paths.CARRIED):
            cells: list[str] = []
            for loss in LOSSES:
                rate = logistic_paths.rate(race[loss], start, "accuracy")
                steps = logistic_paths.steps(race[loss], start, "accuracy")
                reached = (steps < logistic_paths.STEPS).mean()
                cells += [
                    f"2^{np.log2(logistic_paths.RATES[rate]):.0f}",
                    f"{reached:.0%}",
                ]
            chosen.append((name, start, *cells))
    text = f"""For an example of class 1, by the logit z (`jax.grad` and the closed forms
agree to {gap:.0e}, relatively):

{
        handout.table(
            ["z", "P(1|x)", "slope, cross-entropy", "slope, squared error", "ratio"],
            rows,
        )
    }

![Gradient over the logit](figures/slopes.png)

A small slope alone costs nothing: a larger learning rate makes up for it. So the rates are
tuned, for each loss and each start: out of {
        len(logistic_paths.RATES)
    }, from 1/2 to 2^15
times 1/λ (λ: the largest eigenvalue of the features' second moments), the one with the
fewest steps on {
        logistic_paths.TUNING_SEEDS
    } seeds that are not measured. Gradient descent
on {logistic_paths.EXAMPLES} examples with L2 {
        logistic_paths.L2:g} starts from zero, from
a good place (least squares, scaled to logits of deviation 2) or saturated (the same,
reversed, deviation 10: sure and wrong). It ends with the training accuracy of both optima
less half a point, or when 1 % is left of its own loss's way from zero to its optimum; at
{logistic_paths.STEPS:,} steps it is cut off and counted with these.

![Steps over the learning rate](figures/rates.png)

*Median steps to the accuracy over the learning rate, all seeds; the dotted line is the
limit.*

What tuning rescues is seen in the last two starts of each table: at the saturated start
with a rate tuned for it, and with the rate that was best from zero, which is what one has
if one does not know that the start is bad. The rates chosen for accuracy, and the share of
seeds that reached it:

{
        handout.table(
            [
                "data",
                "start",
                "rate, cross-entropy",
                "reached",
                "rate, squared error",
                "reached",
            ],
            chosen,
        )
    }

In the table below the losses' steps are geometric means, and the gain is squared error's
steps over cross-entropy's."""
    return text, {
        "slopes": plots_logistic.slopes(
            slopes["logit"], {loss: slopes[loss] for loss in LOSSES}
        ),
        "rates": plots_logistic.rates(
            logistic_paths.RATES, panels, logistic_paths.STEPS
        ),
    }


def _single_answer(claim: Claim) -> tuple[str, dict[str, Figure]]:
    ends, descents = claim.shown["ends"], claim.shown["descents"]
    rows = [
        (
            name,
            _NAMES[loss],
            *(
                f"{found[loss][kind].mean():.1%}"
                for kind in ("best", "minimum", "plateau")
            ),
            int(
                np.max(
                    [_distinct(found[loss], s) for s in range(len(found[loss]["best"]))]
                )
            ),
        )
        for name, found in ends.items()
        for loss in LOSSES
    ]
    limits = []
    panels: dict[str, Any] = {}
    for name, found in descents.items():
        predicted = np.linalg.norm(found["target"], axis=-1)
        panels[name] = {}
        for loss, share in zip(LOSSES, (1.0, 0.5), strict=True):
            length, angle = found[loss]["length"], found[loss]["angle"]
            tenth = int(np.argmin(np.abs(found["steps"] - found["steps"][-1] / 10)))
            span = np.log(found["steps"][-1] / found["steps"][tenth])
            slope = (length[:, -1] - length[:, tenth]) / span
            panels[name][loss] = (length, angle, float(share * predicted.mean()))
            limits.append(
                (
                    name,
                    _NAMES[loss],
                    _mean(slope, 2),
                    f"{share * predicted.mean():.2f}",
                    _mean(angle[:, tenth], 2),
                    _mean(angle[:, -1], 2),
                )
            )
    first = next(iter(ends.values()))
    steps = next(iter(descents.values()))["steps"]
    text = f"""**Where an optimum exists.** From {
        logistic_paths.START_COUNT
    } random starts for
each seed (logits of deviation 5), Newton's method with damping runs to a gradient below
1e-10. Where it ends is *the best* minimum that was found, *another* one (gradient below
1e-8, all eigenvalues of the Hessian above 1e-9), or a *plateau* (neither).

{
        handout.table(
            [
                "data",
                "loss",
                "the best",
                "another",
                "a plateau",
                "different minima, at most",
            ],
            rows,
        )
    }

![Both objectives over two weights](figures/surfaces.png)

*Constructed data after Auer, Herbster and Warmuth (1996), seed 0: on each axis ten
examples near 1 speak for a positive weight and five near 10 for a negative one. Squared
error may give up either, on either axis. The stars are the minima at which the starts
ended ({_minima(first["mse"])} for squared error).*

**Where none exists.** If a plane separates the classes, longer weights are always better,
so *neither* loss has an optimum. All of breast cancer's {
        _separable()
    }. Gradient descent on
cross-entropy then runs to infinity, like ln t after t steps, in the direction of the
*maximum margin* (Soudry et al. 2018). The theorem does not ask for convexity: squared
error after a sigmoid falls off like exp(−2m) at margin m, and has the same limit at half
the speed.

![Length and angle along gradient descent](figures/divergence.png)

{
        handout.table(
            [
                "data",
                "loss",
                "length gained per unit of ln t",
                "in the limit (theory)",
                f"degrees to the maximum margin, t = {steps[-1] // 10:,}",
                f"t = {steps[-1]:,}",
            ],
            limits,
        )
    }

*Mean over the seeds, with the half-width of its 95 % interval; over the last factor of ten
in t. The maximum margin comes from a solver of its own (non-negative least squares); the
bias counts as a weight.*

![Boundaries along gradient descent](figures/boundaries.png)

*Generated data, seed 0.* An L2 penalty gives cross-entropy one optimum again, whatever the
data, since a strictly convex function has no second; for squared error it proves
nothing."""
    return text, {
        "surfaces": _surfaces(first),
        "divergence": plots_logistic.divergence(steps, panels),
        "boundaries": _boundaries(claim.shown["blobs"], descents),
    }


def _imbalance(claim: Claim) -> tuple[str, dict[str, Figure]]:
    table = claim.shown["table"]
    names = list(dict.fromkeys(name for name, _ in table))
    ratios = list(dict.fromkeys(ratio for _, ratio in table))
    drawn = (
        "balanced accuracy",
        "balanced accuracy, class weights",
        "balanced accuracy, threshold moved",
        "AUC",
        "PR-AUC",
    )
    panels = {
        name: {
            measure: {
                loss: np.array([table[name, ratio][loss][measure] for ratio in ratios])
                for loss in LOSSES
            }
            for measure in drawn
        }
        for name in names
    }
    measures = (
        "minority recall",
        "minority recall, class weights",
        "minority recall, threshold moved",
        "AUC",
        "AUC, class weights",
        "PR-AUC",
        "PR-AUC, class weights",
    )
    rows = [
        (
            f"{name}, 1:{ratio}",
            _NAMES[loss],
            *(
                f"{table[name, ratio][loss][measure].mean():.3f}"
                for measure in measures
            ),
        )
        for name in names
        for ratio in ratios
        for loss in LOSSES
    ]
    rarest = max(ratios)
    recalls = "; ".join(
        f"{name}: {_NAMES[loss]} {table[name, rarest][loss]['minority recall'].mean():.1%}, "
        f"with the threshold moved "
        f"{table[name, rarest][loss]['minority recall, threshold moved'].mean():.1%}"
        for name in names
        for loss in LOSSES
    )
    text = f"""One rare example (class 1) for 1 to {rarest:,} common ones; the rarer, the fewer
there are of them. Both losses are fitted exactly, each with its own best penalty. Either
plainly, with the threshold at 1/2 or moved to the share of the rare class; or with class
weights that give both classes the same mass. PR-AUC (average precision) is taken at the
ratio of the training data.

Neither loss knows that the rare class matters more. At 1:{rarest:,} and the threshold of
1/2 the share of the rare examples that was found is: {recalls}.

![Measures over the ratio](figures/imbalance.png)

*Means over the seeds with their 95 % intervals.*

{handout.table(["data, ratio", "loss", *measures], rows)}"""
    return text, {"imbalance": plots_logistic.imbalance(ratios, panels)}


# Pieces of the sections.


def because(found: Sequence[Judged]) -> str:
    """What the comparisons say, by finding, each with its measures and settings."""
    words: Mapping[Finding, str] = {
        "for": "Cross-entropy is better in",
        "against": "Squared error is better in",
        "equal": "The difference is too small to matter in",
        "open": "Open:",
    }
    sentences = []
    for finding, word in words.items():
        chosen = [one.comparison for one in found if one.finding == finding]
        if not chosen:
            continue
        sentence = f"{word} {len(chosen)} of {len(found)}"
        if finding in ("for", "against"):
            by_measure: dict[str, list[str]] = {}
            for comparison in chosen:
                by_measure.setdefault(comparison.measure, []).append(comparison.setting)
            sentence += ": " + "; ".join(
                f"{measure} ({', '.join(_quoted(settings))})"
                for measure, settings in by_measure.items()
            )
        sentences.append(sentence + ".")
    return " ".join(sentences)


def comparison_table(found: Iterable[Judged]) -> str:
    """A row for each comparison."""
    rows = []
    for one in found:
        comparison = one.comparison
        means = [comparison.cross_entropy.mean(), comparison.mse.mean()]
        if comparison.steps:
            levels = [f"{2**mean - 1:.1f}" for mean in means]
            gain = f"x {2**one.mean:.2f} ({2**one.low:.2g} to {2**one.high:.2g})"
            matters = f"x {2**comparison.matters:.2f}"
        else:
            levels = [f"{mean:.4f}" for mean in means]
            gain = f"{one.mean:+.4f} ({one.low:+.4f} to {one.high:+.4f})"
            matters = f"{comparison.matters:g}"
        effect = "" if np.isnan(one.effect) else f"{one.effect:+.2f}"
        rows.append(
            (
                comparison.setting,
                comparison.measure,
                *levels,
                gain,
                matters,
                effect,
                one.finding,
            )
        )
    return handout.table(
        [
            "data",
            "measure",
            "cross-entropy",
            "squared error",
            "gain of cross-entropy (interval)",
            "what matters",
            "effect size d",
            "finding",
        ],
        rows,
    )


def _tally(found: Sequence[Judged]) -> str:
    findings = [one.finding for one in found]
    kinds: tuple[Finding, ...] = ("for", "against", "equal", "open")
    return ", ".join(f"{findings.count(k)} {k}" for k in kinds if k in findings)


def _quoted(settings: Sequence[str]) -> list[str]:
    return [setting.replace(", ", " / ") for setting in settings]


def _ratio(above: np.ndarray, below: np.ndarray) -> tuple[float, float, float]:
    """Geometric mean of above / below over the seeds, with its 95 % interval."""
    logs = np.log(above / below)
    reach = stats.t.ppf(0.975, len(logs) - 1) * stats.sem(logs)
    mean = logs.mean()
    return float(np.exp(mean)), float(np.exp(mean - reach)), float(np.exp(mean + reach))


def _mean(values: np.ndarray, digits: int) -> str:
    """The mean over the seeds, with half of its 95 % interval."""
    reach = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{values.mean():.{digits}f} ± {reach:.{digits}f}"


def _separable() -> str:
    features, labels = data.breast_cancer()
    divided = logistic.separable(features, labels)
    word = "are" if divided else "are not"
    return (
        f"{len(labels)} tumours {word} separable by their {features.shape[1]} features"
    )


def _at_minima(found: Mapping[str, np.ndarray], seed: int) -> np.ndarray:
    """The different minima at which a seed's starts ended, [M, D + 1]."""
    ended = found["best"][seed] | found["minimum"][seed]
    points = np.column_stack([found["weights"][seed], found["bias"][seed]])[ended]
    kept: list[np.ndarray] = []
    for point in points:
        if all(np.abs(point - other).max() > 1e-3 for other in kept):
            kept.append(point)
    return np.reshape(kept, (len(kept), found["weights"].shape[-1] + 1))


def _distinct(found: Mapping[str, np.ndarray], seed: int) -> int:
    return len(_at_minima(found, seed))


def _minima(found: Mapping[str, np.ndarray]) -> str:
    points = _at_minima(found, 0)[:, :2]
    return ", ".join(f"({first:.2f}, {second:.2f})" for first, second in points)


def _surfaces(ends: Mapping[Loss, Mapping[str, np.ndarray]]) -> Figure:
    x, y = map(jnp.asarray, data.four_valleys(0))
    axis = np.linspace(-1.2, 3.2, 121)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    values, minima = {}, {}
    for loss in LOSSES:

        def height(weights: jax.Array, loss: Loss = loss) -> jax.Array:
            model = Linear(weights, jnp.zeros((), weights.dtype))
            return logistic.objective(loss, model, x, y)

        heights = jax.jit(jax.vmap(height))(jnp.asarray(grid))
        values[loss] = np.asarray(heights).reshape(len(axis), -1)
        points = _at_minima(ends[loss], 0)[:, :2]
        minima[loss] = points[(np.abs(points - 1) <= 2.2).all(1)]
    return plots_logistic.surfaces(axis, values, minima)


def _boundaries(blobs: data.Part, descents: Mapping[str, Any]) -> Figure:
    found = next(iter(descents.values()))
    wanted = np.unique([np.abs(found["steps"] - n).argmin() for n in (10, 300, 32768)])
    models = {
        loss: {
            int(found["steps"][i]): Linear(*np.split(found[loss]["models"][0, i], [2]))
            for i in wanted
        }
        for loss in LOSSES
    }
    models = {
        loss: {n: Linear(m.weights, m.bias[0]) for n, m in by_step.items()}
        for loss, by_step in models.items()
    }
    margin = found["target"][0]
    return plots_logistic.boundaries(
        blobs.features[0], blobs.labels[0], models, Linear(margin[:2], margin[2])
    )


def _record(claims: Sequence[Claim], seeds: int, seconds: float) -> dict[str, Any]:
    return {
        "experiment": "logistic",
        "data": DATA,
        "seeds": seeds,
        "claims": [
            {
                "statement": claim.statement,
                "verdict": claim.verdict,
                "comparisons": [_plain(one) for one in claim.judged],
            }
            for claim in claims
        ],
        "wall_seconds": round(seconds, 1),
        "device": runs.device_name(),
        "versions": runs.versions(),
    }


def _plain(one: Judged) -> dict[str, Any]:
    """A comparison for JSON: the values of every seed too; no NaN."""
    found = dataclasses.asdict(one)
    comparison = found.pop("comparison")
    for loss in LOSSES:
        comparison[loss] = comparison[loss].tolist()
    if np.isnan(found["effect"]):
        found["effect"] = None
    return comparison | found
