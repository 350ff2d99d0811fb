"""Checks a proof of convexity, step by step, and knows nothing of how it was found.

Each rule is a small theorem: its docstring says it, its body asks for its conditions. To
trust a verdict of convexity is to trust these, the meaning that `tracing` gives to the
loss, and the arithmetic of `exact` and `polynomial`.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxdl.convexity import exact, polynomial
from jaxdl.convexity.program import Equation, Program
from jaxdl.convexity.proof import Claim, Proof, Step

FLIP = {"affine": "affine", "convex": "concave", "nonnegative": "nonpositive"}
FLIP |= {there: here for here, there in FLIP.items()} | {"constant": "constant"}
IMPLIES = {"constant": ("affine", "convex", "concave"), "affine": ("convex", "concave")}
HIGH, LOW = (
    {"value convex", "value nonpositive"},
    {"value concave", "value nonnegative"},
)
SUMS = {f"value {k}" for k in FLIP} | {"log convex", "root convex"}  # LSE, norms
EVERY = {"add": SUMS, "reduce_sum": SUMS, "max": HIGH, "reduce_max": HIGH, "min": LOW,
         "reduce_min": LOW, "move": SUMS | {f"log {k}" for k in FLIP}}  # fmt: skip
LINEAR = {  # what is a sum of (signed) operands: of their values, or their logarithms
    ("value", "add"): ("value", 1, 1), ("value", "sub"): ("value", 1, -1),
    ("value", "neg"): ("value", -1), ("log", "exp"): ("value", 1),
    ("log", "mul"): ("log", 1, 1), ("log", "div"): ("log", 1, -1),
    ("value", "log"): ("log", 1), ("log", "abs"): ("log", 1),
}  # fmt: skip
ABS = ["value affine"], ["value convex", "value nonnegative"], ["value concave",
       "value nonpositive"]  # fmt: skip
ATOMS = {  # what a function of u is, and the ways in which u makes it that
    "abs value convex": ABS, "even_power value convex": ABS, "even_power root convex": ABS,
    "odd_power value convex": ABS[1:2], "sqrt value convex": (["root convex"],),
    "expm1 value convex": (["value convex"],), "log1p value convex": (["log convex"],),
    "logistic log concave": (["value concave"],), "logistic value nonnegative": ([],),
    "max value nonnegative": (["value nonnegative"],), "exp value nonnegative": ([],),
    "min value nonpositive": (["value nonpositive"],), "abs value nonnegative": ([],),
    "log1p value nonnegative": (["value nonnegative"],), "sqrt value nonnegative": ([],),
    "even_power value nonnegative": ([],),
}  # fmt: skip
SOFTPLUS = ("add", ("max", "a", "b"),
            ("log1p", ("exp", ("neg", ("abs", ("sub", "a", "b"))))))  # fmt: skip
HUBER = ("add", ("mul", "s", ("integer_pow2", ("min", "u", "w"))),
         ("mul", "t", ("sub", "u", ("min", "u", "w"))))  # fmt: skip


class ProofError(Exception):
    """A step does not follow, or the proof does not end in what it should show."""


class Known(NamedTuple):
    """A checked step, and which entry of its base each of its entries is shifted by."""

    claim: Claim
    at: np.ndarray | None

    def says(self, v: int, what: str, shift: int = 0) -> bool:
        c, (form, kind) = self.claim, what.split()
        implied = kind == c.kind or kind in IMPLIES.get(c.kind, ())
        return implied and (c.variable, c.form, c.shift) == (v, form, shift)


class Place(NamedTuple):
    """Where a step stands: the equation of its variable, and what it rests on."""

    program: Program
    constants: dict[int, np.ndarray]
    equations: dict[int, Equation]
    step: Step
    known: list[Known]
    e: Equation


def check(program: Program, proof: Proof) -> None:
    """Raises ProofError unless the proof shows that the program's output is convex."""
    equations = {e.output: e for e in program.equations}
    constants, done = exact.constants(program), list[Known]()
    for k, step in enumerate(proof.steps):
        try:
            known = [done[p] for p in step.premises if p >= 0]
            e = equations.get(step.claim.variable, Equation("", (), -1, {}))
            place, c = Place(program, constants, equations, step, known, e), step.claim
            if not RULES[step.rule](place, c, f"{c.form} {c.kind}"):
                raise ValueError("the rule does not give it")
            done.append(Known(c, shifted(place, c)))
        except (LookupError, ValueError, TypeError, AttributeError) as why:
            raise ProofError(f"step {k} does not follow: {step.claim}: {why}") from why
    if not done or not done[-1].says(program.output, "value convex"):
        raise ProofError("the last step must say that the loss is convex")


def shifted(p: Place, c: Claim) -> np.ndarray | None:
    """Where the entries read the claim's base: where the premises do, which must agree."""
    shape, old = p.program.shapes[c.variable], [k for k in p.known if k.at is not None]
    if p.step.rule == "shift":
        return np.arange(np.prod(shape, dtype=int)).reshape(shape)
    if p.e.primitive == "move" and p.step.rule == "every" and old:
        reads = [np.concatenate([k.at.ravel() for k in p.known])[p.e.params["at"]]]
    elif p.e.primitive.startswith("reduce_") and p.step.rule == "every":
        axes = p.e.params["axes"]
        reads = [f(k.at, axis=axes) for k in old for f in (np.min, np.max)]
    else:
        reads = [np.broadcast_to(k.at, shape) for k in old]
    bases = {k.claim.base for k in old} | ({c.base} if c.shift else set())
    if len(bases) > 1 or any((r != reads[0]).any() for r in reads):
        raise ValueError("entries are shifted by different entries")
    return reads[0] if c.shift else None


def parameter(p: Place, c: Claim, what: str) -> bool:
    """A parameter is affine."""
    return c == Claim(c.variable, "affine") and c.variable in p.program.inputs


def data(p: Place, c: Claim, what: str) -> bool:
    """What does not depend on the parameters is constant, and its sign can be seen."""
    x = p.constants[c.variable]
    holds = {"value constant": exact.finite(x), "log constant": x > 0, "root constant": x >= 0,
             "value nonnegative": x >= 0, "value nonpositive": x <= 0}  # fmt: skip
    return not c.shift and bool(np.all(holds[what] & exact.finite(x)))


def shift(p: Place, c: Claim, what: str) -> bool:
    """v - v is the constant 0, whatever v is."""
    return c == Claim(c.variable, "constant", "value", -1, c.variable)


def weaken(p: Place, c: Claim, what: str) -> bool:
    """u = exp(log u) and u = (sqrt u)^2 are convex if these are, and not negative."""
    (k,), kinds = p.known, {"value convex": ["convex"], "value nonnegative": FLIP}
    ways = [f"{f} {kind}" for kind in kinds.get(what, ()) for f in ("log", "root")]
    whole = not c.shift and any(k.says(c.variable, way) for way in ways)
    return whole or k.says(c.variable, what, c.shift)


def every(p: Place, c: Claim, what: str) -> bool:
    """What all operands are, is what the operation makes of them, according to EVERY."""
    pairs = zip(p.known, p.e.inputs, strict=True)
    added = c.shift and c.form == "value" and p.e.primitive in ("add", "reduce_sum")
    fits = what in EVERY[p.e.primitive] and not added
    return fits and all(k.says(v, what, c.shift) for k, v in pairs)


def linear(p: Place, c: Claim, what: str) -> bool:
    """Sums of what is alike, differences of what is opposite; shifts add up likewise."""
    form, *counts = LINEAR[c.form, p.e.primitive]
    places = list(zip(counts, p.known, p.e.inputs, strict=True))
    kinds = {1: c.kind, -1: FLIP[c.kind]}
    alike = all(k.says(v, f"{form} {kinds[n]}", k.claim.shift) for n, k, v in places)
    return alike and sum(n * k.claim.shift for n, k, _ in places) == c.shift


def scale(p: Place, c: Claim, what: str) -> bool:
    """A constant factor >= 0 changes nothing, one <= 0 turns convex into concave."""
    a, b = p.e.inputs
    by, v = (b, a) if b in p.constants or p.e.primitive == "div" else (a, b)
    x, (k,), kinds = p.constants[by], p.known, ("value constant", "value affine")
    usable = exact.finite(x) & ((x > 0) | (x < 0) | (p.e.primitive != "div"))
    known = p.e.primitive in ("mul", "div", "matmul") and not c.shift and usable.all()
    return known and (
        (what in kinds and k.says(v, what))
        or (np.all(x >= 0) and what in SUMS - {"log convex"} and k.says(v, what))
        or (np.all(x <= 0) and c.form == "value" and k.says(v, f"value {FLIP[c.kind]}"))
    )


def atom(p: Place, c: Claim, what: str) -> bool:
    """A function of one operand (or max, min of several), according to ATOMS."""
    y = p.e.params.get("y", -1)
    powers = {True: "even_power", False: "odd_power"} if y >= 0 else {}
    ways = ATOMS[f"{powers.get(y % 2 == 0, p.e.primitive)} {what}"]
    says = {
        w
        for way in ways
        for w in way
        for k in p.known
        for v in p.e.inputs
        if k.says(v, w)
    }
    return not c.shift and any(says.issuperset(way) for way in ways)


def matches(p: Place, pattern: Any, v: int, found: dict[str, int]) -> bool:
    """Whether v is computed as the pattern says; its names go to `found`."""
    if isinstance(pattern, str):
        return found.setdefault(pattern, v) == v
    e = p.equations[v]
    return f"{e.primitive}{e.params.get('y', '')}" == pattern[0] and all(
        matches(p, part, u, found)
        for part, u in zip(pattern[1:], e.inputs, strict=True)
    )


def softplus(p: Place, c: Claim, what: str) -> bool:
    """max(a, b) + log(1 + e^-|a - b|) = log(e^a + e^b): convex, increasing, above both."""
    found: dict[str, int] = {}
    if not matches(p, SOFTPLUS, c.variable, found) or c.shift:
        return False
    each = [any(k.says(found[x], what) for k in p.known) for x in "ab"]
    return {"value convex": all(each), "value nonnegative": any(each)}[what]


def huber(p: Place, c: Claim, what: str) -> bool:
    """s q^2 + t (u - q) with q = min(u, w) is convex and increases with u >= 0, where
    s, w >= 0 and t >= 2 s w: its slope is 2 s u, and t beyond w."""
    found: dict[str, int] = {}
    if not matches(p, HUBER, c.variable, found) or c.shift or what != "value convex":
        return False
    s, t, w = (exact.balls(p.constants[found[x]]) for x in "stw")
    slopes = np.all(s >= 0) and np.all(w >= 0) and np.all(t >= 2 * s * w)
    curved, sign = p.known
    u = found["u"]
    return bool(slopes) and curved.says(u, what) and sign.says(u, "value nonnegative")


def algebra(p: Place, c: Claim, what: str) -> bool:
    """A polynomial is convex if its Hessian is L diag(d) L^T, d >= 0; one of a single
    variable, if its second derivative is never negative."""
    is_it = polynomial.convex_by(p.program, c.variable, p.step.factors)
    return is_it and not c.shift and what == "value convex"


RULES = {f.__name__: f for f in (parameter, data, shift, weaken, every, linear, scale, atom,
                                 softplus, huber, algebra)}  # fmt: skip
