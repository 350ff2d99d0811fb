"""The report on logistic regression: words, tables and figures from the evidence.

Sentences that hold whatever was measured are mathematics; all others are put together
from the measurements.
"""

# ruff: noqa: RUF001 - sigma and minus signs are meant
import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import handout, logistic_sections, verdicts
from experiments import logistic_data as data
from experiments.verdicts import LOSSES, Claim, Evidence, Finding, Judged
from jaxdl import runs

STATEMENTS = (
    "Cross-entropy gives better probabilities than squared error.",
    "Cross-entropy is faster to optimise.",
    "Cross-entropy has a single best answer, and squared error has not.",
    "Cross-entropy is more robust to class imbalance.",
)

DATA = (
    "scikit-learn's breast cancer (569 tumours) and digits (1,797 images of 8x8 "
    "pixels) and the embedded part of MNIST (12,000 images), all real; and generated "
    "data, called so wherever they appear"
)


def claims(evidence: Sequence[Evidence]) -> list[Claim]:
    """The claims with their verdicts, in the order of `STATEMENTS`."""
    return list(map(verdicts.claim, STATEMENTS, evidence))


def write(path: Path, found: Sequence[Claim], seeds: int, seconds: float) -> Path:
    """Writes report, figures and, when they are whole, result.json.

    Returns:
      The path of the HTML file.

    Raises:
      InputError: a file cannot be written.
    """
    sections = (
        logistic_sections.probabilities,
        logistic_sections.optimisation,
        logistic_sections.single_answer,
        logistic_sections.imbalance,
    )
    bodies: list[str] = []
    figures: dict[str, Figure] = {}
    for number, (claim, section) in enumerate(zip(found, sections, strict=True), 1):
        text, drawn = section(claim)
        figures |= drawn
        bodies.append(
            f"## {number}. {claim.statement}\n\n"
            f"**{claim.verdict.capitalize()}**: {verdicts.tally(claim.judged)}.\n\n"
            f"{text}\n\n{comparison_table(claim.judged)}"
        )
    command = f"python -m experiments.logistic --seeds={seeds}"
    page = handout.write(
        path,
        "\n\n".join(
            [
                _opening(found),
                *bodies,
                _closing(seeds),
                handout.provenance(command, DATA, seconds),
            ]
        )
        + "\n",
        figures,
    )
    runs.write_json(path / "result.json", _record(found, seeds, seconds))
    return page


def _opening(claims: Sequence[Claim]) -> str:
    rows = [
        (number, claim.statement, f"**{claim.verdict}**", verdicts.tally(claim.judged))
        for number, claim in enumerate(claims, 1)
    ]
    answers = "\n".join(
        f"{number}. **{claim.verdict.capitalize()}.**\n{because(claim.judged)}"
        for number, claim in enumerate(claims, 1)
    )
    return f"""# Why cross-entropy, and not squared error, in logistic regression?

Logistic regression says P(1|x) = σ(z) with a linear logit z = w·x + b. It can be fitted
by the mean cross-entropy, −log P(label), or by the mean squared error (σ(z) − y)². Four
reasons are usually given for cross-entropy. This page puts each to the test.

## The answer

{handout.table(["", "claim", "verdict", "comparisons"], rows)}

{answers}

Two facts need no measurement. Cross-entropy is convex in the weights, so every
minimum is a global one; squared error *after the sigmoid* is not. And the derivative
by the logit is σ(z) − y for cross-entropy but 2(σ(z) − y)·σ(z)(1 − σ(z)) for squared
error: its last factors vanish where the model is sure, also where it is sure and
wrong. What these facts are worth in practice is what the measurements below say.

## How a verdict is reached

{verdicts.RULE}"""


def _closing(seeds: int) -> str:
    laws = "; ".join(f"*{name}*: {law}" for name, law in data.LAWS.items())
    return f"""## Limits

Linear models and two classes only. {seeds} seeds. The intervals for real tables speak
of other random splits of the same table, not of other tables. Squared error here is
always that of the probability; squared error of the raw output (linear regression on
0 and 1) is convex, and another method. The generated laws, in 5 dimensions with |u| =
1: {laws}.

## References

- A. Albert and J. A. Anderson (1984), *On the existence of maximum likelihood estimates
  in logistic regression models*, Biometrika 71.
- P. Auer, M. Herbster and M. Warmuth (1996), *Exponentially many local minima for
  single neurons*, NIPS 8.
- T. Gneiting and A. Raftery (2007), *Strictly proper scoring rules, prediction, and
  estimation*, JASA 102.
- C. Nadeau and Y. Bengio (2003), *Inference for the generalization error*, Machine
  Learning 52.
- D. Soudry, E. Hoffer, M. Nacson, S. Gunasekar and N. Srebro (2018), *The implicit
  bias of gradient descent on separable data*, JMLR 19."""


def because(found: Sequence[Judged]) -> str:
    """What the comparisons say, by finding, as an indented list."""
    words: dict[Finding, str] = {
        "for": "Cross-entropy is better",
        "against": "Squared error is better",
        "equal": "Too small a difference to matter",
        "open": "Open",
    }
    lines = []
    for finding, word in words.items():
        by_measure: dict[str, list[str]] = {}
        for one in found:
            if one.finding == finding:
                compared = one.comparison
                by_measure.setdefault(compared.measure, []).append(compared.setting)
        count = sum(map(len, by_measure.values()))
        if not count:
            continue
        line = f"   - {word} in {count} of {len(found)}"
        if finding in ("for", "against"):
            said = (f"*{m}*: {'; '.join(where)}" for m, where in by_measure.items())
            line += ". " + ". ".join(f"In {one}" for one in said)
        lines.append(line + ".")
    return "\n".join(lines)


def comparison_table(found: Iterable[Judged]) -> str:
    """A row for each comparison."""
    rows = []
    for one in found:
        comparison = one.comparison
        means = [comparison.values[loss].mean() for loss in LOSSES]
        if comparison.ratio:
            levels = [f"{2**mean:.3g}" for mean in means]
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
    comparison["values"] = {
        loss: values.tolist() for loss, values in comparison["values"].items()
    }
    if np.isnan(found["effect"]):
        found["effect"] = None
    return comparison | found
