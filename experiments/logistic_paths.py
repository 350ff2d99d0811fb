"""The way to the optimum (claim 2), and whether there is one and only one (claim 3).

In float64 (`jax.enable_x64()`).
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from experiments import logistic_data as data
from experiments.logistic_data import Part, Study
from experiments.verdicts import LOSSES, Comparison, Evidence, progress
from jaxdl import logistic, separation
from jaxdl.config import Loss
from jaxdl.logistic import Linear

STEPS = 1000
"""Gradient descent stops there."""
EXAMPLES = 300
"""To train on."""
TUNING_SEEDS = 4
"""Seeds that choose the rates, and that nothing is measured on."""
RATES = 2.0 ** np.arange(-1, 16)
"""Multiples of 1 / (largest eigenvalue of the features' second moments)."""
STARTS = ("good", "zero", "saturated")
CARRIED = "saturated, rate of zero"
"""From the saturated start, at the rate that is best from zero."""
L2 = 1e-3
FASTER = float(np.log2(1.25))
"""A quarter more steps is the smallest difference that matters."""

START_COUNT = 16
ENDS = ("best", "minimum", "plateau")
DESCENT = 2**15
"""Steps of gradient descent on separable data."""


def optimisation(seeds: int) -> Evidence:
    """Steps of gradient descent to a given accuracy and loss, at tuned rates."""
    total = seeds + TUNING_SEEDS
    studies = [
        data.splits("breast cancer", *data.breast_cancer(), total, train=EXAMPLES),
        data.splits("digits, odd or even", *data.odd_digits(), total, train=EXAMPLES),
        data.generated("logistic", total, EXAMPLES),
    ]
    comparisons, races = [], {}
    for study in progress(studies, "2 optimisation"):
        race = _races(study)
        races[study.name] = race
        for start in (*STARTS, CARRIED):
            for measure in ("accuracy", "own loss"):
                comparisons.append(
                    Comparison(
                        study.name,
                        f"steps to {measure}, {start}",
                        {
                            loss: np.log2(
                                np.maximum(steps(race[loss], start, measure), 1)
                            )
                            for loss in LOSSES
                        },
                        matters=FASTER,
                        ratio=True,
                    )
                )
    return Evidence(comparisons, {"races": races, "slopes": slopes()})


def slopes() -> dict[str, np.ndarray]:
    """Derivatives of both losses by the logit for label 1: closed form and measured."""
    z = np.linspace(-16, 16, 129)
    sigma = expit(z)
    found = {"logit": z}
    for loss in LOSSES:
        slope = jax.vmap(jax.grad(logistic.LOSSES[loss]), in_axes=(0, None))
        found[loss] = np.asarray(slope(jnp.asarray(z), jnp.ones(())))
    found["closed cross_entropy"] = sigma - 1
    found["closed mse"] = 2 * (sigma - 1) * sigma * (1 - sigma)
    return found


@functools.partial(jax.jit, static_argnums=0)
def _optima(
    loss: Loss, features: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Objective and accuracy at the penalised optima of all seeds, from zero."""

    def optimum(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = logistic.newton(loss, logistic.zeros(x), x, y, l2=L2)
        return found.value, _accuracy(found.model, x, y)

    return jax.vmap(optimum)(features, labels)


def _accuracy(model: Linear, features: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.mean((logistic.logits(model, features) > 0) == (labels > 0.5))


def _races(study: Study) -> dict[Loss, dict[str, np.ndarray]]:
    optima = {loss: _optima(loss, *study.train) for loss in LOSSES}
    # What both optima have, less half a point: both losses race to the same accuracy.
    target = np.minimum(*(np.asarray(optima[loss][1]) for loss in LOSSES)) - 0.005
    return {loss: _race(loss, study, optima[loss][0], target) for loss in LOSSES}


def _race(
    loss: Loss, study: Study, best: jax.Array, target: np.ndarray
) -> dict[str, np.ndarray]:
    """First recorded steps [start, rate, seed] at which the targets are met."""
    recorded = np.unique(np.geomspace(1, STEPS, 160).astype(int))
    recorded = np.concatenate([[0], recorded])
    x, y = map(jnp.asarray, study.train)
    accuracy, value = _paths(loss, x, y, best, tuple(recorded.tolist()))
    return {
        "accuracy": _first(recorded, np.asarray(accuracy) >= target[:, None]),
        "own loss": _first(recorded, np.asarray(value) < 0.01),
    }


def _first(recorded: np.ndarray, met: np.ndarray) -> np.ndarray:
    """The first recorded step that meets it, or the limit where none does."""
    return np.where(met.any(-1), recorded[met.argmax(-1)], STEPS)


def steps(race: Mapping[str, np.ndarray], start: str, measure: str) -> np.ndarray:
    """Steps of the measured seeds [S] at the rate that the tuning seeds choose."""
    chosen = rate(race, start, measure)
    begun = STARTS.index("saturated" if start == CARRIED else start)
    return race[measure][begun, chosen, TUNING_SEEDS:]


def rate(race: Mapping[str, np.ndarray], start: str, measure: str) -> int:
    """The index of the rate with the fewest steps (geometric mean, tuning seeds)."""
    tried_from = STARTS.index("zero" if start == CARRIED else start)
    tuning = race[measure][tried_from, :, :TUNING_SEEDS]
    return int(np.log(np.maximum(tuning, 1)).mean(-1).argmin())


@functools.partial(jax.jit, static_argnums=(0, 4))
def _paths(
    loss: Loss,
    features: jax.Array,
    labels: jax.Array,
    best: jax.Array,
    recorded: tuple[int, ...],
) -> tuple[jax.Array, jax.Array]:
    """Accuracy and own loss along the descent, [start, rate, seed, recorded].

    The loss is what is left of the way from the start at zero to the optimum.
    """

    def one_seed(
        x: jax.Array, y: jax.Array, best: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        scale = jnp.linalg.eigvalsh(x.T @ x / len(y))[-1]
        zero = logistic.zeros(x)
        worst = logistic.objective(loss, zero, x, y)
        centred = jnp.linalg.lstsq(x, 2 * y - 1)[0]
        centred = centred / jnp.std(x @ centred)
        # Logits of deviation 2, right; and of 10, wrong.
        starts = jnp.stack([2 * centred, 0 * centred, -10 * centred])

        def run(weights: jax.Array, rate: jax.Array) -> tuple[jax.Array, jax.Array]:
            path = logistic.descend(
                loss,
                Linear(weights, zero.bias),
                x,
                y,
                learning_rate=rate / scale,
                steps=recorded,
                l2=L2,
            )
            values = jax.vmap(lambda m: logistic.objective(loss, m, x, y, l2=L2))(path)
            left = (values - best) / (worst - best)
            return jax.vmap(lambda m: _accuracy(m, x, y))(path), left

        over_rates = jax.vmap(run, in_axes=(None, 0))
        return jax.vmap(over_rates, in_axes=(0, None))(starts, jnp.asarray(RATES))

    return jax.vmap(one_seed, out_axes=2)(features, labels, best)


def uniqueness(seeds: int) -> Evidence:
    """Where many starts end, and what happens where a plane separates the classes."""
    valleys = data.stacked([data.four_valleys(seed) for seed in range(seeds)])
    three_eight = data.subsets(*data.three_or_eight(), seeds, 100)
    blobs = data.stacked([data.blobs(seed) for seed in range(seeds)])
    settings = [
        ("generated, four valleys", valleys, 0.0),
        (
            "breast cancer, 10 means",
            data.subsets(*data.breast_cancer(10), seeds, 400),
            0.0,
        ),
        ("digits 4x4, odd or even", data.subsets(*data.odd_digits(4), seeds, 600), 0.0),
        ("digits, 3 or 8, with L2", three_eight, 1e-3),
    ]
    comparisons, ends = [], {}
    for name, part, l2 in progress(settings, "3a optima"):
        ends[name] = {loss: _ends(loss, part, l2) for loss in LOSSES}
        comparisons.append(
            Comparison(
                name,
                "share of starts that end at the best optimum",
                {loss: ends[name][loss]["best"].mean(1) for loss in LOSSES},
                matters=0.01,
                higher_is_better=True,
            )
        )
    descents = {}
    separable = [("generated, a gap between", blobs), ("digits, 3 or 8", three_eight)]
    for name, part in progress(separable, "3b no optimum"):
        descents[name] = _separated(part)
        # A plane divides the classes, with no point on it, or there were no margin just
        # now; along it both losses fall for ever towards 0, which they never reach.
        exists = np.array(
            [not separation.separable(x, y) for x, y in zip(*part, strict=True)], float
        )
        comparisons.append(
            Comparison(
                f"{name}, without L2",
                "share of data sets that have an optimum",
                dict.fromkeys(LOSSES, exists),
                matters=0.01,
                higher_is_better=True,
            )
        )
    return Evidence(comparisons, {"ends": ends, "descents": descents, "blobs": blobs})


def _ends(loss: Loss, part: Part, l2: float) -> dict[str, np.ndarray]:
    """Where Newton's method ends from random starts, [S, start]."""
    seeds, _, width = part.features.shape
    rng = np.random.default_rng(1)
    # Logits of deviation 5 or so: sure, and as often wrong as right.
    scale = 5 / np.sqrt((part.features**2).mean((1, 2)) * width)
    starts = rng.standard_normal((seeds, START_COUNT, width)) * scale[:, None, None]
    found = _newtons(loss, *map(jnp.asarray, (starts, *part)), l2)
    value, slope = np.asarray(found.value), np.asarray(found.slope)
    minimum = (slope < 1e-8) & (np.asarray(found.curvature) > 1e-9)
    lowest = np.where(minimum, value, np.inf).min(1, keepdims=True)
    best = minimum & (value <= lowest + 1e-9)
    return {
        "best": best,
        "minimum": minimum & ~best,
        "plateau": ~minimum,
        "value": value,
        "weights": np.asarray(found.model.weights),
        "bias": np.asarray(found.model.bias),
    }


@functools.partial(jax.jit, static_argnums=0)
def _newtons(
    loss: Loss, starts: jax.Array, features: jax.Array, labels: jax.Array, l2: float
) -> logistic.Optimum:
    def end(weights: jax.Array, x: jax.Array, y: jax.Array) -> logistic.Optimum:
        start = Linear(weights, jnp.zeros((), x.dtype))
        return logistic.newton(loss, start, x, y, l2=l2, iterations=200)

    over_starts = jax.vmap(end, in_axes=(0, None, None))
    return jax.vmap(over_starts)(starts, features, labels)


def _separated(part: Part) -> dict[str, Any]:
    """Length, angle to the maximum margin and share of it along the descent, [S, T]."""
    margins = [separation.max_margin(x, y) for x, y in zip(*part, strict=True)]
    target = np.stack([np.append(*margin) for margin in margins])
    steps = np.unique(np.geomspace(1, DESCENT, 60).astype(int))
    found: dict[str, Any] = {"steps": steps, "target": target}
    for loss in LOSSES:
        path = _descents(loss, *map(jnp.asarray, part), tuple(steps.tolist()))
        models = np.concatenate(
            [np.asarray(path.weights), np.asarray(path.bias)[..., None]], axis=-1
        )
        length = np.linalg.norm(models, axis=-1)
        along = np.einsum("std,sd->st", models, target)
        largest = 1 / np.linalg.norm(target, axis=-1)[:, None]
        cosine = along / length * largest
        signed = np.einsum("snd,std->stn", part.features, models[..., :-1])
        signed = (signed + models[..., -1:]) * (2 * part.labels - 1)[:, None]
        found[loss] = {
            "length": length,
            "angle": np.degrees(np.arccos(np.clip(cosine, -1, 1))),
            "margin": signed.min(-1) / length / largest,
            "models": models,
        }
    return found


@functools.partial(jax.jit, static_argnums=(0, 3))
def _descents(
    loss: Loss, features: jax.Array, labels: jax.Array, steps: tuple[int, ...]
) -> Linear:
    def run(x: jax.Array, y: jax.Array) -> Linear:
        extended = jnp.concatenate([x, jnp.ones((len(y), 1), x.dtype)], axis=1)
        largest = jnp.linalg.eigvalsh(extended.T @ extended / len(y))[-1]
        # 1/L for cross-entropy, below 1/L for squared error.
        return logistic.descend(
            loss, logistic.zeros(x), x, y, learning_rate=4 / largest, steps=steps
        )

    return jax.vmap(run)(features, labels)
