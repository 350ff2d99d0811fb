"""What a study of `experiments.convexity` leaves behind: words, figures, numbers.

Import it late: it brings JAX.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments import convexity_certificates as certificates
from experiments import convexity_table as table
from experiments import convexity_text, handout
from experiments.convexity_findings import (
    Findings,
    answer,
    negative,
    trace,
    zeros,
)
from experiments.convexity_linear import DIGITS, MEANS
from experiments.convexity_networks import Spectra
from jaxdl import plots_convexity as plots
from jaxdl import runs
from jaxdl.convexity import NotConvex, spectrum

SLICED = (
    *("logistic on logits", "linear + MSE", "linear + CE"),
    *("sigmoid + MSE", "deep linear 2 + MSE", "deep linear 2 + CE"),
)
"""The losses that are drawn over a plane."""


def write(
    folder: Path, found: Findings, figures: Mapping[str, Figure], seconds: float
) -> Path:
    """Writes the report and its data into the folder.

    Returns:
      The path of the HTML file.

    Raises:
      InputError: the folder or a file cannot be written.
    """
    page = handout.write(
        folder, convexity_text.text(found, answer(found.verdicts()), seconds), figures
    )
    runs.write_text(folder / "certificates.txt", certificates.to_text(found.rows))
    runs.write_json(folder / certificates.FILE, certificates.to_json(found.rows))
    runs.write_json(folder / "result.json", result(found, seconds))
    return page


def summary(found: Findings) -> str:
    """A few lines for the terminal."""
    lines = [f"{row.name:22} {row.verdict}" for row in found.rows]
    lines += [
        f"{one.title}: eigenvalues from {one.values[0]:.4g} to {one.values[1]:.4g}"
        for one in found.spectra
    ]
    said = answer(found.verdicts())
    return "\n".join([*lines, f"{said.whole}."])


def figures(found: Findings) -> dict[str, Figure]:
    """All figures, by name."""
    curved = [row for row in found.rows if isinstance(row.verdict, NotConvex)]
    by_name = {row.name: row for row in found.rows}
    images = "; ".join(dict.fromkeys(one.data for one in found.spectra))
    return {
        "witnesses": plots.segments(
            [table.segment(row) for row in curved],
            "Losses along their witnesses (breast cancer)",
        ),
        "slices": plots.slices(
            [table.plane(by_name[name]) for name in SLICED],
            "Losses over a plane of their parameters (breast cancer)",
        ),
        "descents": plots.gaps(
            {f"{one.loss}, {one.depth} layers": one.gaps for one in found.descents},
            "Deep linear networks: MSE (8x8 digits), CE (breast cancer)",
        ),
        "spectra": plots.densities(
            [_density(one) for one in found.spectra],
            f"Eigenvalues of the Hessian of the mean cross-entropy\n({images})",
        ),
    }


def result(found: Findings, seconds: float) -> dict[str, Any]:
    """The numbers, for programs."""
    return {
        "experiment": "convexity",
        "answer": answer(found.verdicts())._asdict(),
        "data": {
            "table": table.DATA,
            "deep linear, MSE": DIGITS,
            "deep linear, CE": MEANS,
        },
        "losses": [
            {
                "name": row.name,
                "parameters": row.parameters,
                "verdict": row.word,
                "certificate": str(row.verdict),
                "gap": row.verdict.witness.gap
                if isinstance(row.verdict, NotConvex)
                else None,
                **row.curvature._asdict(),
            }
            for row in found.rows
        ],
        "deep_linear": [
            {
                "depth": one.depth,
                "loss": one.loss,
                "minimum": one.least,
                "closed_form": one.optimum and one.optimum._asdict(),
                "final_gaps": [float(gap[-1]) for gap in one.gaps],
                "smallest_eigenvalue": float(one.eigenvalues[0]),
                "largest_eigenvalue": float(one.eigenvalues[-1]),
                "zero_eigenvalues": zeros(one),
                "flat_directions": one.flat,
            }
            for one in found.descents
        ],
        "networks": [
            {
                "title": one.title,
                "data": one.data,
                "parameters": one.parameters,
                "loss": one.loss,
                "smallest": float(one.values[0]),
                "largest": float(one.values[1]),
                "residuals": one.residuals.tolist(),
                "trace": _estimate(trace(one)),
                "negative_share": _estimate(negative(one)),
                "gauss_newton_smallest_node": float(one.gauss_newton.nodes.min()),
                "nodes": one.hessian.nodes.tolist(),
                "weights": one.hessian.weights.tolist(),
            }
            for one in found.spectra
        ],
        "seconds": round(seconds, 1),
        "device": runs.device_name(),
        "versions": runs.versions(),
    }


def _estimate(found: spectrum.Estimate) -> dict[str, Any]:
    """For JSON, which has no NaN: one random vector has no standard error."""
    error = found.standard_error
    return {
        "value": found.value,
        "standard_error": None if np.isnan(error) else error,
    }


def _density(one: Spectra) -> plots.Density:
    low, high = (float(value) for value in one.values)
    margin = 0.06 * (high - low)
    grid = np.linspace(low - margin, high + margin, 2400)
    width = 0.002 * (high - low)

    def smoothed(found: spectrum.Quadrature) -> np.ndarray:
        return np.asarray(spectrum.density(found, jnp.asarray(grid), width=width))

    return plots.Density(
        one.title,
        grid,
        hessian=smoothed(one.hessian),
        gauss_newton=smoothed(one.gauss_newton),
        smallest=low,
        largest=high,
    )
