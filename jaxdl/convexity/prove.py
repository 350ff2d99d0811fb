"""Searches for a proof of convexity, from the parameters forward to the loss.

Each equation of the program adds what can be said of its variable to a book of facts; a
fact keeps the step that gave it. In the end the steps that the last fact rests on are
the proof. What is written here need not be right: `checker.check` decides.
"""

from collections.abc import Callable, Mapping

import numpy as np

from jaxdl.convexity import domain, exact, polynomial
from jaxdl.convexity.book import DOWN, STRAIGHT, UP, Book
from jaxdl.convexity.program import Equation, Program
from jaxdl.convexity.proof import Proof, Step


def prove(program: Program, *, algebra: bool = False) -> Proof | None:
    """A proof that the loss is convex, to be checked; None if none is found.

    Args:
        program: The loss.
        algebra: Whether to look at scalars that are polynomials, too.
    """
    book = Book(program)
    for v in program.inputs:
        book.note(v, STRAIGHT, "parameter")
        book.shift(v)
    for v, values in exact.constants(program).items():
        book.constant(v, values)
    scalars = polynomial.degrees(program) if algebra else {}
    real = domain.real(program)
    for e in program.equations:
        if e.output not in book.fixed:
            if handler := _HANDLERS.get(e.primitive):
                handler(book, e)
            if e.primitive != "move" and real[e.output]:
                book.shift(e.output)
            if scalars.get(e.output, 9) <= 2 and program.shapes[e.output] == ():
                book.algebra(e.output)
    ends = [f for f in book.plain(program.output) if not f.curve.down]
    return Proof(program, _slice(book.steps, ends[0].step)) if ends else None


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


def _add(book: Book, e: Equation) -> None:
    _huber(book, e)
    book.pointwise(e, (1, 1), "value", "value")
    book.pooled(e)


def _sub(book: Book, e: Equation) -> None:
    book.pointwise(e, (1, -1), "value", "value")


def _neg(book: Book, e: Equation) -> None:
    book.pointwise(e, (-1,), "value", "value")


def _product(book: Book, e: Equation) -> None:
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


def _move(book: Book, e: Equation) -> None:
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


def _reduce_sum(book: Book, e: Equation) -> None:
    book.alike(e, (STRAIGHT, UP, DOWN), (1, -1))
    book.pooled(e)


def _max(book: Book, e: Equation) -> None:
    top = e.primitive in ("max", "reduce_max")
    book.alike(e, (UP,) if top else (DOWN,), (-1,) if top else (1,))
    sign = 1 if top else -1
    if e.primitive in ("max", "min"):
        for v in e.inputs:
            if sign in book.signs[v]:
                book.sign(e.output, sign, "atom", book.signs[v][sign])


def _exp(book: Book, e: Equation) -> None:
    book.pointwise(e, (1,), "value", "log")
    book.sign(e.output, 1, "atom")


def _log(book: Book, e: Equation) -> None:
    book.pointwise(e, (1,), "log", "value")


def _abs(book: Book, e: Equation) -> None:
    book.pointwise(e, (1,), "log", "log")
    if steps := book.magnitude(e.inputs[0]):
        book.note(e.output, UP, "atom", *steps)
    book.sign(e.output, 1, "atom")


def _power(book: Book, e: Equation) -> None:
    (v,), y = e.inputs, e.params["y"]
    if y < 0:
        return
    steps = book.magnitude(v)
    if y % 2 == 0:
        if steps:
            book.note(e.output, UP, "atom", *steps, form="root")
        book.sign(e.output, 1, "atom")
    elif 1 in book.signs[v]:
        book.sign(e.output, 1, "atom", book.signs[v][1])
        facts = [f for f in book.plain(v) if not f.curve.down]
        for f in facts[:1]:
            book.note(e.output, UP, "atom", f.step, book.signs[v][1])


def _sqrt(book: Book, e: Equation) -> None:
    for f in book.plain(e.inputs[0], "root"):
        if not f.curve.down:
            book.note(e.output, UP, "atom", f.step)
    book.sign(e.output, 1, "atom")


def _log1p(book: Book, e: Equation) -> None:
    _softplus(book, e)
    (v,) = e.inputs
    for f in book.plain(v, "log"):
        if not f.curve.down:
            book.note(e.output, UP, "atom", f.step)
    if 1 in book.signs[v]:
        book.sign(e.output, 1, "atom", book.signs[v][1])


def _logistic(book: Book, e: Equation) -> None:
    for f in book.plain(e.inputs[0]):
        if not f.curve.up:
            book.note(e.output, DOWN, "atom", f.step, form="log")
    book.sign(e.output, 1, "atom")


_HANDLERS: Mapping[str, Callable[[Book, Equation], None]] = {
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
    "logistic": _logistic,
}


def _parts(book: Book, v: int, *names: str) -> list[int]:
    """The operands at the end of a chain of one-operand primitives; empty if none."""
    for name in names:
        e = book.defined.get(v)
        if e is None or e.primitive != name:
            return []
        operands, v = list(e.inputs), e.inputs[0]
    return operands


def _softplus(book: Book, e: Equation) -> None:
    """As JAX's logaddexp has it, log1p(exp(-|a - b|)) is convex but for max(a, b)."""
    ends = _parts(book, e.output, "log1p", "exp", "neg", "abs")
    if not ends:
        return
    apart = book.defined.get(ends[0])
    for top in book.maxima:
        a, b = top.inputs
        zero = b in book.fixed and bool(np.all(book.fixed[b] == 0))
        minus = apart and apart.primitive == "sub" and apart.inputs == (a, b)
        if not minus and not (zero and a == ends[0]):
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


def _huber(book: Book, e: Equation) -> None:
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
