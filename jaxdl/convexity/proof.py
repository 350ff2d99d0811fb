"""Proofs of convexity: annotations of a program's variables, each with its rule.

The rules are those of disciplined convex programming (Grant, Boyd and Ye 2006, as in
CVXPY) and three that it has not: claims about the logarithm of a variable, which carry
sums of exponentials; claims up to a shift, which carry the subtraction of a maximum as
log-sum-exp is computed; and polynomials of degree 2, or in one variable, by their
Hessian. Nothing here is believed: `checker.check` derives each step anew.
"""

import dataclasses
from typing import Literal, TypeAlias

from flint import fmpq_mat

from jaxdl.convexity.program import Program

Form: TypeAlias = Literal["value", "log", "root"]
Kind: TypeAlias = Literal[
    "constant", "affine", "convex", "concave", "nonnegative", "nonpositive"
]


@dataclasses.dataclass(frozen=True)
class Claim:
    """Of every entry of `variable`, as a function of the parameters: it is `kind`.

    With form "log" the entries are positive and the claim is about their logarithm;
    with "root" they are at least 0 and it is about their square root. With shift s and
    base m it is about the entry plus s times an entry of m: the one that the moves have
    brought it to, whatever function of the parameters m is.
    """

    variable: int
    kind: Kind
    form: Form = "value"
    shift: int = 0
    base: int | None = None

    def __str__(self) -> str:
        name = {"value": "v{}", "log": "log v{}", "root": "sqrt v{}"}[self.form]
        shift = {0: "", 1: " + v{}", -1: " - v{}"}[self.shift].format(self.base)
        return f"{name.format(self.variable)}{shift} is {self.kind}"


@dataclasses.dataclass(frozen=True)
class Step:
    """A claim, the rule that gives it, and the earlier steps that it rests on."""

    claim: Claim
    rule: str
    premises: tuple[int, ...] = ()
    factors: fmpq_mat | None = None
    """For a polynomial: the rows of L and then d, the Hessian being L diag(d) L^T."""


@dataclasses.dataclass(frozen=True)
class Proof:
    """Steps about a program, of which the last says that its output is convex."""

    program: Program
    steps: tuple[Step, ...]

    def summary(self) -> str:
        """What it rests on beyond sums and moves, in one line."""
        defined = {e.output: e for e in self.program.equations}
        names = []
        for step in self.steps:
            e = defined.get(step.claim.variable)
            key = (step.rule, e.primitive if e else "", step.claim.form)
            names.append(_NAMES.get(key) or _NAMES.get((step.rule, "", "")))
        return ", ".join(dict.fromkeys(name for name in names if name)) or "affine"

    def __str__(self) -> str:
        defined = {e.output: e for e in self.program.equations}
        lines = []
        for k, step in enumerate(self.steps):
            premises = "".join(f" [{p}]" for p in step.premises)
            line = f"[{k}] {step.claim}  by {step.rule}{premises}"
            if e := defined.get(step.claim.variable):
                inputs = ", ".join(f"v{v}" for v in e.inputs)
                line += f"  where v{e.output} = {e.primitive}({inputs})"
            lines.append(line)
        return "\n".join(lines)


_NAMES = {
    ("softplus", "", ""): "softplus",
    ("huber", "", ""): "Huber",
    ("algebra", "", ""): "exact Hessian",
    **{("every", name, "log"): "log-sum-exp" for name in ("add", "reduce_sum")},
    **{("every", name, "root"): "norm" for name in ("add", "reduce_sum")},
    **{
        ("every", name, "value"): name.removeprefix("reduce_")
        for name in ("max", "reduce_max", "min", "reduce_min")
    },
    ("atom", "integer_pow", "root"): "square",
    ("atom", "integer_pow", "value"): "power",
    **{("atom", name, "value"): name for name in ("abs", "sqrt", "log1p")},
    ("atom", "logistic", "log"): "log sigmoid",
    ("linear", "exp", "log"): "exp",
}
"""How rules are called where people read of them."""
