"""Losses that are polynomials of the parameters, with rational coefficients, exactly.

A polynomial of degree 2 is convex if and only if its Hessian, a matrix of rationals,
has no negative direction; L D L^T decides that without rounding. One in a single
variable is convex if and only if its second derivative has no negative value, which
Sturm's theorem decides. So curvature of 1e-9 or of exactly 0 is told apart from -1e-9.
"""

import itertools
import math
from collections.abc import Mapping

import numpy as np
from flint import acb, fmpq, fmpq_mat, fmpq_mpoly, fmpq_mpoly_ctx, fmpq_poly

from jaxdl.convexity.program import Equation, Program, as_rationals, objects

MAX_PARAMETERS = 256
"""More are not tried: exact elimination takes the cube of it."""
MAX_DEGREE_ALONE = 40
"""Degree up to which a polynomial in one variable is tried."""


def degrees(program: Program) -> Mapping[int, float]:
    """Bounds of the degree of each variable as a polynomial; infinite if it is none."""
    known: dict[int, float] = dict.fromkeys(program.inputs, 1)
    known |= dict.fromkeys(program.data, 0)
    for e in program.equations:
        of = [known[v] for v in e.inputs]
        if e.primitive in ("move", "add", "sub", "neg", "reduce_sum"):
            degree = max(of)
        elif e.primitive in ("mul", "matmul"):
            degree = sum(of)
        elif e.primitive == "integer_pow" and e.params["y"] >= 0:
            degree = of[0] * e.params["y"] if e.params["y"] else 0
        elif e.primitive == "div" and of[1] == 0:
            degree = of[0]
        else:
            degree = math.inf
        known[e.output] = degree
    return known


def expand(program: Program, variable: int) -> fmpq_mpoly | None:
    """A scalar variable as a polynomial of all parameters; None if it is none.

    The generators are the entries of the parameters, in the order of `Program.point`.
    """
    degree = degrees(program)[variable]
    if program.size > MAX_PARAMETERS:
        return None
    if degree > (MAX_DEGREE_ALONE if program.size == 1 else 2):
        return None
    context = fmpq_mpoly_ctx.get([f"p{k}" for k in range(program.size)], "degrevlex")
    generators = iter(context.gens())
    env: dict[int, np.ndarray] = {}
    for v in program.inputs:
        shape = program.shapes[v]
        env[v] = objects([next(generators) for _ in range(math.prod(shape))], shape)
    needed = {variable}
    for e in reversed(program.equations):
        if e.output in needed:
            needed.update(e.inputs)
    try:
        env |= {v: as_rationals(d) for v, d in program.data.items() if v in needed}
        for e in program.equations:
            if e.output in needed:
                env[e.output] = _compute(e, [env[v] for v in e.inputs])
    except (ArithmeticError, TypeError):  # infinite data, or no rational quotient
        return None
    return context.constant(0) + env[variable].item()


def _compute(e: Equation, inputs: list[np.ndarray]) -> np.ndarray:
    match e.primitive:
        case "move":
            result = np.concatenate([x.reshape(-1) for x in inputs])[e.params["at"]]
        case "add":
            result = inputs[0] + inputs[1]
        case "sub":
            result = inputs[0] - inputs[1]
        case "mul":
            result = inputs[0] * inputs[1]
        case "div":
            result = inputs[0] * (fmpq(1) / inputs[1])
        case "neg":
            result = -inputs[0]
        case "integer_pow":
            result = inputs[0] ** e.params["y"]
        case "reduce_sum":
            result = inputs[0].sum(axis=e.params["axes"])
        case "matmul":
            result = inputs[0] @ inputs[1]
        case name:
            raise TypeError(f"{name} of polynomials")
    return result if isinstance(result, np.ndarray) else objects([result], ())


def hessian(polynomial: fmpq_mpoly) -> fmpq_mat | None:
    """The Hessian of a polynomial of degree 2 at most; None if the degree is higher."""
    n = polynomial.context().nvars()
    entries = fmpq_mat(n, n)
    for powers, coefficient in polynomial.to_dict().items():
        which = [k for k, power in enumerate(powers) for _ in range(power)]
        if len(which) > 2:
            return None
        if len(which) == 2:
            i, j = which
            entries[i, j] = entries[j, i] = coefficient * (2 if i == j else 1)
    return entries


def convex_by(program: Program, variable: int, factors: fmpq_mat | None) -> bool:
    """Whether a scalar variable is a polynomial that these factors show to be convex.

    Args:
        program: The loss.
        variable: One of its scalars.
        factors: The rows of L, [n, n], and one more, d: the Hessian is L diag(d) L^T.
            None for a polynomial in one variable, which needs none.
    """
    polynomial = expand(program, variable)
    if polynomial is None:
        return False
    if factors is None:
        if program.size != 1:
            return False
        return never_negative(alone(polynomial).derivative().derivative())
    *rows, d = factors.tolist()
    scaled = [[x * scale for x, scale in zip(row, d, strict=True)] for row in rows]
    product = fmpq_mat(scaled) * fmpq_mat(rows).transpose()
    return min(d) >= 0 and product == hessian(polynomial)


def alone(polynomial: fmpq_mpoly) -> fmpq_poly:
    """A polynomial in one variable, as flint's own type for these."""
    coefficients: dict[int, fmpq] = {
        powers[0]: c for powers, c in polynomial.to_dict().items()
    }
    top = max(coefficients, default=0)
    return fmpq_poly([coefficients.get(k, fmpq(0)) for k in range(top + 1)])


def never_negative(p: fmpq_poly) -> bool:
    """Whether p(x) >= 0 for all real x, by Sturm's theorem on its odd factors."""
    if p.degree() <= 0:
        return bool(p.degree() < 0 or p[0] >= 0)
    if p.degree() % 2 or p[p.degree()] < 0:
        return False
    odd = [part for part, times in _squarefree(p) if times % 2]
    return all(_real_roots(part) == 0 for part in odd)


def _squarefree(p: fmpq_poly) -> list[tuple[fmpq_poly, int]]:
    """Yun's algorithm: parts without double roots, and how often each divides p."""
    common = p.gcd(p.derivative())
    part, rest = p // common, p.derivative() // common
    found, times = [], 1
    while part.degree() > 0:
        rest = rest - part.derivative()
        divisor = part.gcd(rest) if rest else part / part[part.degree()]
        if divisor.degree() > 0:
            found.append((divisor, times))
        part, rest, times = part // divisor, rest // divisor, times + 1
    return found


def _real_roots(p: fmpq_poly) -> int:
    """How many real roots p has, which has no double ones (Sturm 1829)."""
    chain = [p, p.derivative()]
    while chain[-1].degree() > 0:
        chain.append(-(chain[-2] % chain[-1]))
    leading = [(q[q.degree()], q.degree()) for q in chain if q]
    right = [c > 0 for c, _ in leading]
    left = [(c > 0) != bool(degree % 2) for c, degree in leading]
    changes = [
        sum(a != b for a, b in itertools.pairwise(signs)) for signs in (left, right)
    ]
    return changes[0] - changes[1]


def negative_points(p: fmpq_poly) -> list[float]:
    """Numbers at which p is negative, if it is anywhere: its roots, between, beyond."""
    if p.degree() <= 0:
        return [] if never_negative(p) else [0.0]
    found: list[tuple[acb, int]] = p.complex_roots()  # type: ignore[assignment]
    roots = sorted(float(root.real.mid()) for root, _ in found if 0 in root.imag)
    spread = 2 * max(1.0, *map(abs, roots)) if roots else 1.0
    ends = [-spread, *roots, spread]
    middles = [(a + b) / 2 for a, b in itertools.pairwise(ends)]
    return [x for x in (*ends, *middles) if p(fmpq(*x.as_integer_ratio())) < 0]
