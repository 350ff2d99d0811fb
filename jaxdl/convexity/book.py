"""What is known of the variables of a program while a proof is looked for."""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxdl.convexity import exact, polynomial
from jaxdl.convexity.algebra import factor
from jaxdl.convexity.program import Equation, Program
from jaxdl.convexity.proof import Claim, Form, Kind, Step

MAX_BASES = 4
"""Shifts that are kept of a variable; the innermost ones come first."""


class Curve(NamedTuple):
    """Which way a function may bend: neither is affine, both is anything."""

    up: bool
    down: bool

    def __add__(self, other: "Curve") -> "Curve":  # type: ignore[override]
        return Curve(self.up or other.up, self.down or other.down)

    def times(self, sign: int) -> "Curve":
        """Of the function with this sign before it."""
        return self if sign > 0 else Curve(self.down, self.up)

    @property
    def kind(self) -> Kind | None:
        """As a claim has it; None where it may bend either way."""
        names: dict[tuple[bool, bool], Kind] = {
            (False, False): "affine",
            (True, False): "convex",
            (False, True): "concave",
        }
        return names.get((self.up, self.down))


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


class Book:
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
        """Writes a step down and returns its number."""
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
        """Adds that v is nowhere negative (1), or nowhere positive (-1)."""
        if sign not in self.signs[v]:
            kind: Kind = "nonnegative" if sign > 0 else "nonpositive"
            self.signs[v][sign] = self.step(Claim(v, kind), rule, premises)

    def shift(self, v: int) -> None:
        """As v - v is 0, what subtracts v can be known but for it."""
        k = self.step(Claim(v, "constant", "value", -1, v), "shift", ())
        shape = self.program.shapes[v]
        at = np.arange(int(np.prod(shape))).reshape(shape)
        self.facts[v].append(Fact(STRAIGHT, k, "value", -1, v, at))

    def constant(self, v: int, values: np.ndarray) -> None:
        """Adds what can be seen of a variable that has these values throughout."""
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
        """Adds that a quadratic scalar is convex, if nothing else has said so."""
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
        """What is known of v in this form, with shifts or without."""
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

    # What follows of sums and their like

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
        """The log of a sum of exponentials, the square root of one of squares."""
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
                    not np.array_equal(np.asarray(f.at), at) for f in facts
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
