"""Checks a proof of convexity, step by step, and knows nothing of how it was found.

Each rule is a small theorem: its docstring says it, its body asks for its conditions.
To trust a verdict of convexity is to trust these, the meaning that `tracing` gives to
the loss, what `domain` says is always real, and the arithmetic of `exact` and
`polynomial`.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxdl.convexity import domain, exact, polynomial
from jaxdl.convexity.program import Equation, Program
from jaxdl.convexity.proof import Claim, Proof, Step

FLIP = {"affine": "affine", "convex": "concave", "nonnegative": "nonpositive"}
FLIP |= {there: here for here, there in FLIP.items()} | {"constant": "constant"}
IMPLIES = {"constant": ("affine", "convex", "concave"), "affine": ("convex", "concave")}
HIGH = {"value convex", "value nonpositive"}
LOW = {"value concave", "value nonnegative"}
SUMS = {f"value {k}" for k in FLIP} | {"log convex", "root convex"}  # LSE, norms
EVERY = {"add": SUMS, "reduce_sum": SUMS, "max": HIGH, "reduce_max": HIGH, "min": LOW,
         "reduce_min": LOW, "move": SUMS | {f"log {k}" for k in FLIP}}  # fmt: skip
LINEAR = {  # what is a sum of (signed) operands: of their values, or their logarithms
    ("value", "add"): ("value", (1, 1)), ("value", "sub"): ("value", (1, -1)),
    ("value", "neg"): ("value", (-1,)), ("log", "exp"): ("value", (1,)),
    ("log", "mul"): ("log", (1, 1)), ("log", "div"): ("log", (1, -1)),
    ("value", "log"): ("log", (1,)), ("log", "abs"): ("log", (1,)),
}  # fmt: skip
UP, DOWN = ["value convex", "value nonnegative"], ["value concave", "value nonpositive"]
ABS = ["value affine"], UP, DOWN  # each makes |u| convex
ATOMS = {  # what a function of u is, and the ways in which u makes it that
    "abs value convex": ABS, "abs value nonnegative": ([],),
    "even_power value convex": ABS, "even_power value nonnegative": ([],),
    "even_power root convex": ABS, "odd_power value convex": (UP,),
    "sqrt value convex": (["root convex"],), "sqrt value nonnegative": ([],),
    "log1p value convex": (["log convex"],), "odd_power value nonnegative": (UP[1:],),
    "log1p value nonnegative": (UP[1:],), "exp value nonnegative": ([],),
    "max value nonnegative": (UP[1:],), "min value nonpositive": (DOWN[1:],),
    "logistic log concave": (DOWN[:1],), "logistic value nonnegative": ([],),
}  # fmt: skip
SOFTPLUS = "log1p", ("exp", ("neg", ("abs", "d")))
HUBER = ("add", ("mul", "s", ("integer_pow2", ("min", "u", "w"))),
         ("mul", "t", ("sub", "u", ("min", "u", "w"))))  # fmt: skip


class ProofError(Exception):
    """A step does not follow, or the proof does not end in what it should show."""


class Known(NamedTuple):
    """A checked step, and which entry of its base each of its entries is shifted by."""

    claim: Claim
    at: np.ndarray | None

    def says(self, v: int, what: str, shift: int = 0) -> bool:
        """Whether the step says this of v, or more."""
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
    real: dict[int, bool]


def check(program: Program, proof: Proof) -> None:
    """Raises ProofError unless the proof shows that the program's output is convex."""
    equations, done = {e.output: e for e in program.equations}, dict[int, Known]()
    constants, real = exact.constants(program), domain.real(program)
    for k, step in enumerate(proof.steps):
        c, e = step.claim, equations.get(step.claim.variable, Equation("", (), -1, {}))
        try:
            known = [done[p] for p in step.premises]
            place = Place(program, constants, equations, step, known, e, real)
            if not RULES[step.rule](place, c, f"{c.form} {c.kind}"):
                raise ValueError("the rule does not give it")
            done[k] = Known(c, shifted(place, c))
        except (LookupError, ValueError, TypeError) as why:
            raise ProofError(f"step {k} does not follow: {c}: {why}") from why
    if not done or not done[k].says(program.output, "value convex"):
        raise ProofError("the last step must say that the loss is convex")


def shifted(p: Place, c: Claim) -> np.ndarray | None:
    """Where the entries read the claim's base: where all premises do."""
    shape, old = p.program.shapes[c.variable], [k for k in p.known if k.claim.shift]
    if p.step.rule in ("shift", "softplus"):
        return np.arange(np.prod(shape, dtype=int)).reshape(shape)
    ats = [np.asarray(k.at) for k in old]
    if p.e.primitive == "move" and p.step.rule == "every" and old:
        ats = [np.concatenate([at.reshape(-1) for at in ats])[p.e.params["at"]]]
    elif p.e.primitive.startswith("reduce_") and p.step.rule == "every":
        ats = [f(at, axis=p.e.params["axes"]) for at in ats for f in (np.min, np.max)]
    bases = {k.claim.base for k in old} | ({c.base} if c.shift else set())
    if len(bases) > 1 or any((at != ats[0]).any() for at in ats):
        raise ValueError("entries are shifted by different entries")
    return np.broadcast_to(ats[0], shape) if c.shift else None


def parameter(p: Place, c: Claim, what: str) -> bool:
    """A parameter is affine."""
    return c == Claim(c.variable, "affine") and c.variable in p.program.inputs


def data(p: Place, c: Claim, what: str) -> bool:
    """What does not depend on the parameters is constant, and its sign can be seen."""
    x = p.constants[c.variable]
    signs = {"log constant": x > 0, "root constant": x >= 0, "value constant": True,
             "value nonnegative": x >= 0, "value nonpositive": x <= 0}  # fmt: skip
    return not c.shift and bool(np.all(signs[what] & exact.finite(x)))


def shift(p: Place, c: Claim, what: str) -> bool:
    """The difference v - v is the constant 0, where v is always a real number."""
    v = c.variable
    return p.real[v] and c == Claim(v, "constant", shift=-1, base=v)


def weaken(p: Place, c: Claim, what: str) -> bool:
    """Both exp(log u) and (sqrt u)^2 are convex if these are, and not negative."""
    (k,), kinds = p.known, {"value convex": ["convex"], "value nonnegative": FLIP}
    ways = [f"{f} {kind}" for kind in kinds.get(what, ()) for f in ("log", "root")]
    whole = not c.shift and any(k.says(c.variable, way) for way in ways)
    return whole or k.says(c.variable, what, c.shift)


def every(p: Place, c: Claim, what: str) -> bool:
    """What all operands are, the operation makes of them, according to EVERY."""
    pairs = zip(p.known, p.e.inputs, strict=True)
    added = c.shift and c.form != "log" and p.e.primitive in ("add", "reduce_sum")
    fits = what in EVERY[p.e.primitive] and not added
    return fits and all(k.says(v, what, c.shift) for k, v in pairs)


def linear(p: Place, c: Claim, what: str) -> bool:
    """Sums of what is alike, differences of what is opposite; shifts add up."""
    form, counts = LINEAR[c.form, p.e.primitive]
    places = list(zip(counts, p.known, p.e.inputs, strict=True))
    kinds = {1: c.kind, -1: FLIP[c.kind]}
    alike = all(k.says(v, f"{form} {kinds[n]}", k.claim.shift) for n, k, v in places)
    return alike and sum(n * k.claim.shift for n, k, _ in places) == c.shift


def scale(p: Place, c: Claim, what: str) -> bool:
    """A constant factor >= 0 changes nothing, one <= 0 turns convex into concave."""
    a, b = p.e.inputs
    by, v = (b, a) if b in p.constants or p.e.primitive == "div" else (a, b)
    x, (k,) = p.constants[by], p.known
    usable = exact.finite(x) & ((x > 0) | (x < 0) | (p.e.primitive != "div"))
    known = p.e.primitive in ("mul", "div", "matmul") and not c.shift and usable.all()
    plus = np.all(x >= 0) and what in SUMS - {"log convex"}
    minus = np.all(x <= 0) and c.form == "value"
    same, opposite = k.says(v, what), k.says(v, f"value {FLIP[c.kind]}")
    straight = what in ("value constant", "value affine")
    return bool(known and (((straight or plus) and same) or (minus and opposite)))


def atom(p: Place, c: Claim, what: str) -> bool:
    """A function of one operand (or max, min of several), according to ATOMS."""
    y = p.e.params.get("y", -1)  # of integer_pow; the negative ones are no atoms
    name = p.e.primitive if y < 0 else ("odd_power" if y % 2 else "even_power")
    pairs, ways = [(k, v) for k in p.known for v in p.e.inputs], ATOMS[f"{name} {what}"]
    says = [all(any(k.says(v, need) for k, v in pairs) for need in way) for way in ways]
    return not c.shift and any(says)


def matches(p: Place, pattern: Any, v: int, found: dict[str, int]) -> bool:
    """Whether v is computed as the pattern says; its names go to `found`."""
    if isinstance(pattern, str):
        return found.setdefault(pattern, v) == v
    e, (name, *parts) = p.equations[v], pattern
    same = f"{e.primitive}{e.params.get('y', '')}" == name
    pairs = zip(parts, e.inputs, strict=True)
    return same and all(matches(p, part, u, found) for part, u in pairs)


def softplus(p: Place, c: Claim, what: str) -> bool:
    """With m = max(a, b), log(1 + e^-|a - b|) + m is log(e^a + e^b), convex as such."""
    found: dict[str, int] = {}
    top = p.equations[-1 if c.base is None else c.base]
    (a, b), m, shapes = top.inputs, p.constants.get(top.inputs[1]), p.program.shapes
    if not matches(p, SOFTPLUS, c.variable, found) or top.primitive != "max":
        return False
    e = p.equations.get(found["d"], top)
    apart = e.primitive == "sub" and e.inputs == (a, b)
    above_zero = found["d"] == a and m is not None and bool(np.all(m == 0))
    fits = shapes[top.output] == shapes[c.variable] and (apart or above_zero)
    convex = [k.says(v, "value convex") for k, v in zip(p.known, (a, b), strict=True)]
    return fits and all(convex) and c == Claim(c.variable, "convex", "value", 1, c.base)


def huber(p: Place, c: Claim, what: str) -> bool:
    """Let q = min(u, w): s q^2 + t (u - q) is convex, and increases with u >= 0.

    So it is for s, w >= 0 and t >= 2 s w, all finite (t tells): the slope is 2 s u, and
    t beyond w.
    """
    found: dict[str, int] = {}
    if not matches(p, HUBER, c.variable, found) or c.shift:
        return False
    s, t, w = (exact.balls(p.constants[found[x]]) for x in "stw")
    slopes = (s >= 0) & (w >= 0) & (t >= 2 * s * w) & exact.finite(t)
    (curve, sign), u = p.known, found["u"]
    convex = curve.says(u, "value convex") and sign.says(u, "value nonnegative")
    return bool(np.all(slopes)) and convex and what == "value convex"


def algebra(p: Place, c: Claim, what: str) -> bool:
    """A polynomial is convex if its Hessian is L diag(d) L^T with d >= 0.

    One of a single variable is, if its second derivative is never negative.
    """
    shown = polynomial.convex_by(p.program, c.variable, p.step.factors)
    return shown and not c.shift and what == "value convex"


_RULES = parameter, data, shift, weaken, every, linear, scale, atom
RULES = {rule.__name__: rule for rule in (*_RULES, softplus, huber, algebra)}
