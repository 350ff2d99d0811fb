"""Searches for a proof of convexity, from the parameters forward to the loss.

Each equation of the program adds what can be said of its variable to a book of facts; a
fact keeps the step that gave it. In the end the steps that the last fact rests on are the
proof. What is written here need not be right: `checker.check` decides.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
from flint import fmpq, fmpq_mat

from jaxdl.convexity import exact, polynomial
from jaxdl.convexity.program import Equation, Program, float_of
from jaxdl.convexity.proof import Claim, Form, Kind, Proof, Step

MAX_BASES = 4
"""Shifts that are kept of a variable; the innermost ones come first."""


class Curve(NamedTuple):
    """Which way a function may bend: neither is affine, both is anything."""

    up: bool
    down: bool

    def __add__(self, other: "Curve") -> "Curve":  # type: ignore[override]
        return Curve(self.up or other.up, self.down or other.down)

    def times(self, sign: int) -> "Curve":
        return self if sign > 0 else Curve(self.down, self.up)

    @property
    def kind(self) -> Kind | None:
        names: dict[tuple[bool, bool], Kind] = {
            (False, False): "affine",
            (True, False): "convex",
            (False, True): "concave",
        }
        return names.get((self.up, self.down))


Ends: TypeAlias = tuple[np.ndarray, np.ndarray]
_LENGTHS = tuple(2.0**-k for k in range(0, 60, 4))
"""Half lengths of segments about a point at which a second derivative is negative."""
STRAIGHT, UP, DOWN = Curve(False, False), Curve(True, False), Curve(False, True)


class Fact(NamedTuple):
    """What is known of a variable, and the step that says so."""

    curve: Curve
    step: int
    form: Form = "value"
    shift: int = 0
    base: int | None = None
    at: np.ndarray | None = None
    """Which entry of the base shifts each entry; None without a shift."""


def prove(program: Program, *, algebra: bool = False) -> Proof | None:
    """A proof that the loss is convex, to be checked; None if none is found.

    Args:
        program: The loss.
        algebra: Whether to look at scalars that are polynomials, too.
    """
    book = _Book(program)
    for v in program.inputs:
        book.note(v, STRAIGHT, "parameter")
        book.shift(v)
    for v, values in exact.constants(program).items():
        book.constant(v, values)
    scalars = polynomial.degrees(program) if algebra else {}
    for e in program.equations:
        if e.output not in book.fixed:
            book.equation(e)
            if e.primitive != "move":
                book.shift(e.output)
            if scalars.get(e.output, 9) <= 2 and program.shapes[e.output] == ():
                book.algebra(e.output)
    ends = [f for f in book.plain(program.output) if not f.curve.down]
    return Proof(program, _slice(book.steps, ends[0].step)) if ends else None


def algebraic(program: Program) -> Proof | list[Ends]:
    """The verdict of exact algebra on a polynomial of degree 2, or in one variable.

    Returns:
        A proof, to be checked; or else pairs of points, float64 [n] each, that should be
        a witness; none if the loss is no such polynomial.
    """
    f = polynomial.expand(program, program.output)
    claim = Claim(program.output, "convex")
    if f is None:
        return []
    if program.size == 1:
        second = polynomial.alone(f).derivative().derivative()
        if polynomial.never_negative(second):
            return Proof(program, (Step(claim, "algebra"),))
        ends = itertools.product(polynomial.negative_points(second), _LENGTHS)
        return [(np.array([x - h]), np.array([x + h])) for x, h in ends]
    matrix = polynomial.hessian(f)
    if matrix is None:
        return []
    factors, direction = factor(matrix)
    if direction is None:
        return Proof(program, (Step(claim, "algebra", (), factors),))
    most = max(abs(x) for x in direction)
    floats = np.array([float_of(x / most) for x in direction])
    return [(-floats, floats)]


def _slice(steps: list[Step], last: int) -> tuple[Step, ...]:
    """The steps that `last` rests on, and it, numbered anew."""
    needed, todo = set(), [last]
    while todo:
        if (k := todo.pop()) not in needed:
            needed.add(k)
            todo += steps[k].premises
    number = {k: new for new, k in enumerate(sorted(needed))}
    return tuple(
        Step(s.claim, s.rule, tuple(number[p] for p in s.premises), s.factors)
        for s in (steps[k] for k in sorted(needed))
    )


class _Book:
    """Facts about the variables of a program, and the steps that gave them."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.defined = {e.output: e for e in program.equations}
        self.maxima = [e for e in program.equations if e.primitive == "max"]
        self.steps: list[Step] = []
        self.facts: dict[int, list[Fact]] = defaultdict(list)
        self.signs: dict[int, dict[int, int]] = defaultdict(dict)
        """Of a variable: +1 if it is nowhere negative, -1 if nowhere positive, with the
        step that says so."""
        self.fixed: dict[int, np.ndarray] = {}

    # Writing

    def step(self, claim: Claim, rule: str, premises: tuple[int, ...]) -> int:
        self.steps.append(Step(claim, rule, premises))
        return len(self.steps) - 1

    def note(
        self,
        v: int,
        curve: Curve,
        rule: str,
        *premises: int,
        form: Form = "value",
        shift: int = 0,
        base: int | None = None,
        at: np.ndarray | None = None,
    ) -> None:
        """Adds a fact, unless it says nothing new."""
        if curve.kind is None:
            return
        if not shift:
            base = at = None
        alike = [
            f for f in self.facts[v] if (f.form, f.shift, f.base) == (form, shift, base)
        ]
        if any(f.curve + curve == curve for f in alike):
            return
        if len({f.base for f in self.facts[v]}) > MAX_BASES and shift and not alike:
            return
        k = self.step(Claim(v, curve.kind, form, shift, base), rule, premises)
        self.facts[v].append(Fact(curve, k, form, shift, base, at))
        if shift == 0 and form != "value":
            if not curve.down:
                self.note(v, UP, "weaken", k)
            self.sign(v, 1, "weaken", k)

    def sign(self, v: int, sign: int, rule: str, *premises: int) -> None:
        if sign not in self.signs[v]:
            kind: Kind = "nonnegative" if sign > 0 else "nonpositive"
            self.signs[v][sign] = self.step(Claim(v, kind), rule, premises)

    def shift(self, v: int) -> None:
        """v - v is 0: so what subtracts v can be known but for it."""
        k = self.step(Claim(v, "constant", "value", -1, v), "shift", ())
        shape = self.program.shapes[v]
        at = np.arange(int(np.prod(shape))).reshape(shape)
        self.facts[v].append(Fact(STRAIGHT, k, "value", -1, v, at))

    def constant(self, v: int, values: np.ndarray) -> None:
        if not np.all(exact.finite(values)):
            return
        self.fixed[v] = values
        forms: list[tuple[Form, np.ndarray]] = [
            ("value", exact.finite(values)),
            ("log", values > 0),
            ("root", values >= 0),
        ]
        for form, holds in forms:
            if np.all(holds):
                k = self.step(Claim(v, "constant", form), "data", ())
                self.facts[v].append(Fact(STRAIGHT, k, form))
        for sign in (1, -1):
            if np.all(values * sign >= 0):
                self.sign(v, sign, "data")

    def algebra(self, v: int) -> None:
        if any(not f.curve.down for f in self.plain(v)):
            return
        f = polynomial.expand(self.program, v)
        matrix = None if f is None else polynomial.hessian(f)
        factors = None if matrix is None else factor(matrix)[0]
        if factors is not None:
            self.steps.append(Step(Claim(v, "convex"), "algebra", (), factors))
            self.facts[v].append(Fact(UP, len(self.steps) - 1))

    # Reading

    def plain(self, v: int, form: Form = "value") -> list[Fact]:
        """What is known of v itself, the strongest first."""
        facts = [f for f in self.facts[v] if f.form == form and not f.shift]
        return sorted(facts, key=lambda f: f.curve.up + f.curve.down)

    def of_form(self, v: int, form: Form) -> list[Fact]:
        return [f for f in self.facts[v] if f.form == form]

    def magnitude(self, v: int) -> tuple[int, ...] | None:
        """Steps by which |v| is convex."""
        for f in self.plain(v):
            if f.curve == STRAIGHT:
                return (f.step,)
            if (sign := 1 if f.curve == UP else -1) in self.signs[v]:
                return (f.step, self.signs[v][sign])
        return None

    def combinations(self, inputs: tuple[int, ...], form: Form) -> Iterator[list[Fact]]:
        """One fact of each operand, in all ways."""
        for facts in itertools.product(*(self.of_form(v, form) for v in inputs)):
            yield list(facts)

    # Equations

    def equation(self, e: Equation) -> None:
        known = _HANDLERS.get(e.primitive)
        if known:
            known(self, e)

    def pointwise(
        self, e: Equation, counts: tuple[int, ...], form: Form, to: Form
    ) -> None:
        """A sum of operands with these signs, of the form's values; shifts cancel."""
        shape = self.program.shapes[e.output]
        for facts in self.combinations(e.inputs, form):
            shift = sum(n * f.shift for n, f in zip(counts, facts, strict=True))
            shifted = [f for f in facts if f.shift]
            if abs(shift) > 1 or len({f.base for f in shifted}) > 1:
                continue
            ats = [np.broadcast_to(f.at, shape) for f in shifted if f.at is not None]
            if any(not np.array_equal(at, ats[0]) for at in ats):
                continue
            curve = STRAIGHT
            for n, f in zip(counts, facts, strict=True):
                curve += f.curve.times(n)
            self.note(
                e.output,
                curve,
                "linear",
                *(f.step for f in facts),
                form=to,
                shift=shift,
                base=shifted[0].base if shifted else None,
                at=ats[0] if ats else None,
            )
        if form == to == "value":
            for sign in (1, -1):
                parts = [
                    self.signs[v].get(sign * n)
                    for n, v in zip(counts, e.inputs, strict=True)
                ]
                if None not in parts:
                    self.sign(
                        e.output, sign, "linear", *(p for p in parts if p is not None)
                    )

    def pooled(self, e: Equation) -> None:
        """log of a sum of exponentials, square root of a sum of squares."""
        axes = e.params.get("axes")
        forms: tuple[Form, ...] = ("log", "root")
        for form in forms:
            for facts in self.combinations(e.inputs, form):
                first = facts[0]
                if any((f.shift, f.base) != (first.shift, first.base) for f in facts):
                    continue
                if any(f.curve.down for f in facts):
                    continue
                at = first.at
                if at is not None and axes is not None:
                    at = np.take(
                        np.moveaxis(at, axes, range(len(axes))).reshape(
                            -1, *self.program.shapes[e.output]
                        ),
                        0,
                        axis=0,
                    )
                    whole = np.expand_dims(at, axes)
                    if (whole != first.at).any():
                        continue
                elif at is not None and any(
                    not np.array_equal(f.at, at) for f in facts
                ):
                    continue
                self.note(
                    e.output,
                    UP,
                    "every",
                    *(f.step for f in facts),
                    form=form,
                    shift=first.shift,
                    base=first.base,
                    at=at,
                )

    def alike(
        self, e: Equation, curves: tuple[Curve, ...], signs: tuple[int, ...]
    ) -> None:
        """Where all operands bend one way, or have one sign, so does the result."""
        for curve in curves:
            ways = [
                next((f.step for f in self.plain(v) if f.curve + curve == curve), None)
                for v in e.inputs
            ]
            if None not in ways:
                self.note(e.output, curve, "every", *(w for w in ways if w is not None))
        for sign in signs:
            parts = [self.signs[v].get(sign) for v in e.inputs]
            if None not in parts:
                self.sign(e.output, sign, "every", *(p for p in parts if p is not None))


def _add(book: _Book, e: Equation) -> None:
    _huber(book, e)
    book.pointwise(e, (1, 1), "value", "value")
    book.pooled(e)


def _sub(book: _Book, e: Equation) -> None:
    book.pointwise(e, (1, -1), "value", "value")


def _neg(book: _Book, e: Equation) -> None:
    book.pointwise(e, (-1,), "value", "value")


def _product(book: _Book, e: Equation) -> None:
    counts = (1, -1) if e.primitive == "div" else (1, 1)
    if e.primitive != "matmul":
        book.pointwise(e, counts, "log", "log")
    a, b = e.inputs
    if b in book.fixed:
        factor, v = book.fixed[b], a
    elif a in book.fixed and e.primitive != "div":
        factor, v = book.fixed[a], b
    else:
        return
    if e.primitive == "div" and not np.all((factor > 0) | (factor < 0)):
        return
    signs = [sign for sign in (1, -1) if np.all(factor * sign >= 0)]
    for f in book.plain(v):
        if f.curve == STRAIGHT:
            book.note(e.output, STRAIGHT, "scale", f.step)
        elif signs:
            book.note(e.output, f.curve.times(signs[0]), "scale", f.step)
    for f in book.plain(v, "root"):
        if 1 in signs:
            book.note(e.output, UP, "scale", f.step, form="root")
    for sign, k in list(book.signs[v].items()):
        if signs:
            book.sign(e.output, sign * signs[0], "scale", k)


def _move(book: _Book, e: Equation) -> None:
    first, *rest = e.inputs
    for f in list(book.facts[first]):
        facts = [f]
        for v in rest:
            same = [
                g
                for g in book.facts[v]
                if (g.form, g.shift, g.base) == (f.form, f.shift, f.base)
            ]
            facts += sorted(same, key=lambda g: g.curve.up + g.curve.down)[:1]
        if len(facts) < len(e.inputs):
            continue
        curve = STRAIGHT
        for g in facts:
            curve += g.curve
        at = None
        if f.shift:
            ats = [g.at.reshape(-1) for g in facts if g.at is not None]
            at = np.concatenate(ats)[e.params["at"]]
        book.note(
            e.output,
            curve,
            "every",
            *(g.step for g in facts),
            form=f.form,
            shift=f.shift,
            base=f.base,
            at=at,
        )
    book.alike(e, (), (1, -1))


def _reduce_sum(book: _Book, e: Equation) -> None:
    book.alike(e, (STRAIGHT, UP, DOWN), (1, -1))
    book.pooled(e)


def _max(book: _Book, e: Equation) -> None:
    top = e.primitive in ("max", "reduce_max")
    book.alike(e, (UP,) if top else (DOWN,), (-1,) if top else (1,))
    sign = 1 if top else -1
    if e.primitive in ("max", "min"):
        for v in e.inputs:
            if sign in book.signs[v]:
                book.sign(e.output, sign, "atom", book.signs[v][sign])
    elif sign in book.signs[e.inputs[0]]:
        pass  # the largest of entries of one sign: rarely of use


def _exp(book: _Book, e: Equation) -> None:
    book.pointwise(e, (1,), "value", "log")
    book.sign(e.output, 1, "atom")


def _log(book: _Book, e: Equation) -> None:
    book.pointwise(e, (1,), "log", "value")


def _abs(book: _Book, e: Equation) -> None:
    book.pointwise(e, (1,), "log", "log")
    if steps := book.magnitude(e.inputs[0]):
        book.note(e.output, UP, "atom", *steps)
    book.sign(e.output, 1, "atom")


def _power(book: _Book, e: Equation) -> None:
    (v,), y = e.inputs, e.params["y"]
    if y < 0:
        return
    steps = book.magnitude(v)
    if y % 2 == 0:
        if steps:
            book.note(e.output, UP, "atom", *steps, form="root")
        book.sign(e.output, 1, "atom")
    elif 1 in book.signs[v] and steps:
        facts = [f for f in book.plain(v) if not f.curve.down]
        for f in facts[:1]:
            book.note(e.output, UP, "atom", f.step, book.signs[v][1])


def _sqrt(book: _Book, e: Equation) -> None:
    for f in book.plain(e.inputs[0], "root"):
        if not f.curve.down:
            book.note(e.output, UP, "atom", f.step)
    book.sign(e.output, 1, "atom")


def _log1p(book: _Book, e: Equation) -> None:
    _softplus(book, e)
    (v,) = e.inputs
    for f in book.plain(v, "log"):
        if not f.curve.down:
            book.note(e.output, UP, "atom", f.step)
    if 1 in book.signs[v]:
        book.sign(e.output, 1, "atom", book.signs[v][1])


def _expm1(book: _Book, e: Equation) -> None:
    for f in book.plain(e.inputs[0]):
        if not f.curve.down:
            book.note(e.output, UP, "atom", f.step)


def _logistic(book: _Book, e: Equation) -> None:
    for f in book.plain(e.inputs[0]):
        if not f.curve.up:
            book.note(e.output, DOWN, "atom", f.step, form="log")
    book.sign(e.output, 1, "atom")


_HANDLERS = {
    "add": _add,
    "sub": _sub,
    "neg": _neg,
    "mul": _product,
    "div": _product,
    "matmul": _product,
    "move": _move,
    "reduce_sum": _reduce_sum,
    "max": _max,
    "min": _max,
    "reduce_max": _max,
    "reduce_min": _max,
    "exp": _exp,
    "log": _log,
    "abs": _abs,
    "integer_pow": _power,
    "sqrt": _sqrt,
    "log1p": _log1p,
    "expm1": _expm1,
    "logistic": _logistic,
}


def _parts(book: _Book, v: int, *names: str) -> list[int]:
    """The operands at the end of a chain of one-operand primitives; empty if none."""
    for name in names:
        e = book.defined.get(v)
        if e is None or e.primitive != name:
            return []
        operands, v = list(e.inputs), e.inputs[0]
    return operands


def _softplus(book: _Book, e: Equation) -> None:
    """As JAX's logaddexp has it, log1p(exp(-|a - b|)) is convex but for max(a, b)."""
    ends = _parts(book, e.output, "log1p", "exp", "neg", "abs")
    if not ends:
        return
    apart = book.defined.get(ends[0])
    for top in book.maxima:
        a, b = top.inputs
        zero = b in book.fixed and bool(np.all(book.fixed[b] == 0))
        if not (apart and apart.primitive == "sub" and apart.inputs == (a, b)):
            if not (zero and a == ends[0]):
                continue
        ways = [[f for f in book.plain(v) if not f.curve.down] for v in (a, b)]
        shape = book.program.shapes[e.output]
        if all(ways) and shape == book.program.shapes[top.output]:
            book.note(
                e.output,
                UP,
                "softplus",
                *(way[0].step for way in ways),
                shift=1,
                base=top.output,
                at=np.arange(int(np.prod(shape))).reshape(shape),
            )


def _huber(book: _Book, e: Equation) -> None:
    """Optax's Huber loss, of the magnitude u."""
    low, high = (_parts(book, v, "mul") for v in e.inputs)
    if len(low) != 2 or len(high) != 2:
        return
    capped = _parts(book, low[1], "integer_pow")
    rest = _parts(book, high[1], "sub")
    bounds = _parts(book, capped[0], "min") if capped else []
    if len(bounds) != 2 or len(rest) != 2 or bounds[0] != rest[0]:
        return
    u = bounds[0]
    for f in book.plain(u):
        if not f.curve.down and 1 in book.signs[u]:
            book.note(e.output, UP, "huber", f.step, book.signs[u][1])


def factor(matrix: fmpq_mat) -> tuple[fmpq_mat | None, list[fmpq] | None]:
    """Either factors of a positive semidefinite matrix, or a direction that is negative.

    Args:
        matrix: Symmetric, [n, n], of rationals.

    Returns:
        (factors, None) where the first n rows are unit lower triangular L and the last
        is d >= 0, with L diag(d) L^T = matrix; or (None, x) with x^T matrix x < 0.
    """
    n = matrix.nrows()
    rest = [[matrix[i, j] for j in range(n)] for i in range(n)]
    lower = [[fmpq(i == j) for j in range(n)] for i in range(n)]
    d = [fmpq(0)] * n
    for k in range(n):
        pivot = d[k] = rest[k][k]
        if pivot < 0:
            return None, _against(lower, {k: fmpq(1)})
        if pivot == 0:
            for j in range(k + 1, n):
                if b := rest[j][k]:  # [[0, b], [b, c]] is negative at (t, 1)
                    t = -(rest[j][j] + 1) / (2 * b)
                    return None, _against(lower, {k: t, j: fmpq(1)})
            continue
        for i in range(k + 1, n):
            if not rest[i][k]:
                continue
            ratio = lower[i][k] = rest[i][k] / pivot
            for j in range(k + 1, i + 1):
                rest[i][j] -= ratio * rest[j][k]
                rest[j][i] = rest[i][j]
    return fmpq_mat([*lower, d]), None


def _against(lower: list[list[fmpq]], right: Mapping[int, fmpq]) -> list[fmpq]:
    """x with L^T x = right, by back substitution."""
    n = len(lower)
    x = [right.get(k, fmpq(0)) for k in range(n)]
    for k in reversed(range(n)):
        for j in range(k + 1, n):
            if lower[j][k] and x[j]:
                x[k] -= lower[j][k] * x[j]
    return x
