"""The words and tables of `experiments.convexity`'s report.

Import it late: it brings JAX.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import convexity_table as table
from experiments import handout
from experiments.convexity_findings import (
    Answer,
    Findings,
    negative,
    trace,
    zeros,
)
from experiments.convexity_linear import DIGITS, MEANS, Descents
from experiments.convexity_networks import Spectra
from jaxdl.convexity import Convex, NotConvex
from jaxdl.convexity.problems import WIDTH


def text(found: Findings, said: Answer, seconds: float) -> str:
    """The report, in Markdown."""
    least, points = found.descents[0].optimum, table.POINTS
    assert least is not None
    rank, apart = least.features_rank, f"{100 * least.gap:.1f} %"
    return f"""# Which losses are convex, and is it the logarithm that decides?

**The question.** "With linear activations the mean squared error (MSE) guarantees a
convex problem; cross-entropy (CE) does not, because the logarithm is non-linear." Is
that so? Convex means convex in the parameters, over all their values: what training
sees.

**The answer. {said.whole}.**

- MSE. {_capital(said.mse)}.
- CE on the logits. {_capital(said.cross_entropy)}.
- The logarithm is no obstacle: it cancels the exponential of the softmax, which would
  bend the loss. With a single layer, MSE behind a sigmoid, without any logarithm, is
  {found.verdicts()["sigmoid + MSE"]}.
- Not convex does not mean hopeless: see "Deep linear networks".

## The verdicts

{_verdicts_table(found.rows)}

*Convex* rests on a proof: a chain of rules about the loss as it is computed, each step
of which a separate checker has accepted. *Not convex* rests on a witness: two points a
and b with f((a + b)/2) > (f(a) + f(b))/2, verified in interval arithmetic, so that no
rounding can be blamed. The gap is a lower bound of the left side less the right. Proofs
and witnesses are in `certificates.txt` in full, and `python -m experiments.convexity
--check FOLDER` verifies those in `certificates.json` anew. Hidden layers have {WIDTH}
units. "linear + CE" is the network that `python -m experiments.mnist --hidden` trains,
from the library's own model and loss.

The smallest eigenvalue is that of the whole Hessian, the least that was seen over
{points} random points, the point where all parameters are zero and, where there is
a witness, its midpoint. It illustrates and proves nothing: for a convex loss it is zero
or more everywhere; where it is negative, the loss bends downwards. ("0" means: within a
millionth of the largest eigenvalue, as some losses compute in float32.)

![Losses along their witnesses](figures/witnesses.png)

*Each loss that is not convex along its witness, from a to b and a little beyond. A
convex function lies on or below every chord; at the midpoint these lie above.*

![Losses over planes](figures/slices.png)

*Colours are losses; dark is low. Above, around the point where all parameters are zero,
along the two most curved directions: bowls. Below, around the midpoint (orange) of a
witness (white), along it and along the most curved direction across it.*

## Why

- **One linear layer.** The outputs z = W x + b are affine in (W, b), and a convex
  function of affine ones is convex. The square is convex. So is the CE on logits,
  log Σ exp(z_k) - z_y, as log-sum-exp is (Boyd and Vandenberghe 2004, section 3.1.5).
  To be non-linear is one thing, not to be convex another.
- **MSE behind a sigmoid** is bounded. A convex function that is bounded from above on
  the whole space is constant, and this one is not.
- **Hidden layers.** Change the sign of one linear layer and of the weights behind it,
  and the network computes the same. Were the loss convex, the point halfway could not
  be worse; but there these weights are all zero, and the network ignores its input. So
  no loss that gains from looking at the input is convex in a deep linear network,
  whatever its outputs are compared by. In a ReLU network exchange hidden units instead:
  units that are all alike would have to do as well as any. The smallest case is
  f(u, v) = (u v - 1)²: it is 0 at (1, 1) and at (-1, -1), and 1 halfway.

## Deep linear networks: not convex, and yet no bad local minima

Under MSE every local minimum of a linear network is a global one, and every other
critical point a saddle (Baldi and Hornik 1989 for two layers; Kawaguchi 2016 for any
depth), if features and labels are in general position: the features have full rank
(here {rank} of {least.features}), and the variances that the fit explains are distinct
(here neighbours differ by {apart} or more; that of the sum of the one-hot labels, which
is always one, is left out). The minimum is known in closed form: the least-squares fit,
projected on as many principal components as the narrowest layer has units, {WIDTH}.

Under CE, and any convex and differentiable loss of the outputs, every local minimum
is a global one too if no hidden layer is narrower than both the input and the output
(Laurent and von Brecht 2018). With two classes {WIDTH} units are enough. On classes
that a linear network separates CE has no minimum, only an infimum of zero; so it is
trained here on features that do not separate them. The hidden layers then change
nothing that the network can compute: the global minimum is that of a single layer, a
convex problem (scikit-learn's Newton method). Only the difference of the two logits
counts, and that has as many degrees of freedom as there are features, and one; all
other directions are flat. This is evidence from a handful of starts on one table; the
theorem is the proof.

{_descents_table(found.descents)}

![Gradient descent of deep linear networks](figures/descents.png)

*Gradient descent, with momentum and in float64, from random starts: {_reached(found)}
(CE is computed in float32, which rounds it to some 1e-8.)* The zero eigenvalues are no
accident. Any invertible matrix may be put behind a layer and its inverse before the
next, and a shift of a bias undone by the next one's: each hidden layer of {WIDTH} units
gives {WIDTH} x {WIDTH} + {WIDTH} directions along which nothing changes.

## A real network: LeNet-5

{_spectra_table(found.spectra)}

![Spectral densities](figures/spectra.png)

*The density of the Hessian's eigenvalues, and of its Gauss-Newton part J^T H J, which
is what it would be if the network were linear in its parameters (J is the Jacobian of
the logits, H the Hessian of CE in the logits). H is positive semi-definite, as CE is
convex in the logits, and so is J^T H J: all negative curvature comes from the network,
none from the logarithm.*

The ends of the spectrum are from Lanczos' method on Hessian-vector products, each with
the distance within which an eigenvalue lies; the densities from stochastic Lanczos
quadrature (Ubaru, Chen and Saad 2017; Ghorbani, Krishnan and Xiao 2019), each node
drawn as a narrow Gaussian. "±" in the last two columns is a standard error over the
random vectors. All this is computed in float32: a negative eigenvalue far beyond its
error tells that the loss is not convex near that point, without the rigour of the table
above.

## Sources

- P. Baldi, K. Hornik. Neural networks and principal component analysis: learning from
  examples without local minima. Neural Networks 2, 1989.
- S. Boyd, L. Vandenberghe. Convex Optimization. Cambridge University Press, 2004.
- B. Ghorbani, S. Krishnan, Y. Xiao. An investigation into neural net optimization via
  Hessian eigenvalue density. ICML 2019.
- K. Kawaguchi. Deep learning without poor local minima. NeurIPS 2016.
- T. Laurent, J. von Brecht. Deep linear networks with arbitrary loss: all local minima
  are global. ICML 2018.
- S. Ubaru, J. Chen, Y. Saad. Fast estimation of tr(f(A)) via stochastic Lanczos
  quadrature. SIAM Journal on Matrix Analysis and Applications 38, 2017.

## How this was computed

{_provenance(found, seconds)}
"""


def _provenance(found: Findings, seconds: float) -> str:
    networks = "; ".join(dict.fromkeys(one.data for one in found.spectra))
    return handout.provenance(
        handout.command("convexity"),
        f"the table and its figures: {table.DATA}; deep linear networks under MSE: "
        f"{DIGITS}, under CE: {MEANS}; the spectra: {networks}",
        seconds,
    )


def _verdicts_table(rows: Sequence[table.Row]) -> str:
    lines = []
    for row in rows:
        verdict, seen = row.verdict, row.curvature
        if isinstance(verdict, Convex):
            certificate, gap = f"proof: {verdict.proof.summary()}", "none can exist"
        elif isinstance(verdict, NotConvex):
            certificate = "witness, in interval arithmetic"
            gap = f"gap >= {verdict.witness.gap:.3g}"
        else:
            certificate, gap = verdict.tried, ""
        smallest = "0" if seen.zero else f"{seen.smallest:.3g}"
        where = "" if seen.zero else f", at {seen.where}"
        lines.append(
            [
                *(row.name, row.parameters, f"**{row.word}**", certificate),
                *(f"{smallest}{where}", gap),
            ]
        )
    header = ["loss", "parameters", "verdict", "certificate", "smallest eigenvalue"]
    return handout.table([*header, "witness"], lines)


def _descents_table(found: Sequence[Descents]) -> str:
    lines = []
    for one in found:
        ends = [abs(float(gap[-1])) for gap in one.gaps]
        lines.append(
            [
                f"{one.depth} layers, {one.loss}",
                len(ends),
                f"{one.least:.6f}",
                f"{max(ends):.1e}",
                zeros(one),
                one.flat,
                f"{one.eigenvalues[0]:.1e} / {one.eigenvalues[-1]:.3g}",
            ]
        )
    header = ["network", "starts", "global minimum", "farthest end from it"]
    header += ["zero eigenvalues at the end", "flat directions, by theory"]
    return handout.table([*header, "smallest / largest eigenvalue"], lines)


def _reached(found: Findings) -> str:
    """In words, how many starts have come to the global minimum."""
    ends = [
        abs(float(gap[-1])) <= 1e-6 * one.least
        for one in found.descents
        for gap in one.gaps
    ]
    if all(ends):
        return (
            "slower here,\nfaster there, but always to the global minimum, up to "
            "rounding."
        )
    return (
        f"{sum(ends)} of {len(ends)} have come\nwithin a millionth of the global "
        f"minimum, the others are on their way, or stuck."
    )


def _spectra_table(found: Sequence[Spectra]) -> str:
    lines = []
    for one in found:
        share, whole = negative(one), trace(one)
        lines.append(
            [
                f"{one.title}; {one.data}",
                f"{one.parameters:,}",
                f"{one.loss:.4f}",
                *(
                    f"{value:.4g} ± {residual:.0e}"
                    for value, residual in zip(one.values, one.residuals, strict=True)
                ),
                f"{one.gauss_newton.nodes.min():.0e}",
                _plus_minus(100 * share.value, 100 * share.standard_error) + " %",
                _plus_minus(whole.value, whole.standard_error),
            ]
        )
    header = ["network", "parameters", "loss", "smallest eigenvalue"]
    header += ["largest eigenvalue", "smallest seen of the Gauss-Newton part"]
    header += ["eigenvalues below -0.001 of the largest", "trace"]
    return handout.table(header, lines)


def _plus_minus(value: Any, error: Any) -> str:
    """A mean and its standard error, where there is one."""
    bare = f"{float(value):,.3g}"
    if np.isnan(error):
        return bare
    return f"{bare} ± " + (f"{error:,.0f}" if error >= 100 else f"{error:.2g}")


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
