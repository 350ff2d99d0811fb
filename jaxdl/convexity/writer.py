"""Writes a program down, equation by equation, and does what can be done on the way.

Arithmetic on known numbers is done in rationals, and every movement of data becomes one
primitive, `move`: out[i] = the concatenation of the flattened operands, at at[i].
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from jaxdl.convexity import domain
from jaxdl.convexity.program import Equation, Program, as_rationals, floats, objects

RATIONAL: Mapping[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
    "abs": abs,
    "max": max,
    "min": min,
}
"""What is done at once where all operands are known."""


class Writer:
    """A program in the making; variables are numbered as they come."""

    def __init__(self) -> None:
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.data: dict[int, np.ndarray] = {}
        self.equations: list[Equation] = []
        self.defined: dict[int, Equation] = {}
        self.ranges: dict[int, domain.Range] = {}
        self.seen: dict[Any, int] = {}
        """Of what was written, so that equal things are one variable."""

    def new(self, shape: Sequence[int]) -> int:
        """A variable of this shape."""
        self.shapes[len(self.shapes)] = tuple(shape)
        return len(self.shapes) - 1

    def parameter(self, shape: Sequence[int]) -> int:
        """A variable of which nothing is known but that it is real."""
        v = self.new(shape)
        self.ranges[v] = domain.PARAMETER
        return v

    def know(self, array: Any) -> int:
        """A variable of which the value is known."""
        key = _key(array) if isinstance(array, np.ndarray) else id(array)
        if key not in self.seen:
            self.seen[key] = self.new(np.shape(array))
            self.data[self.seen[key]] = array
            self.ranges[self.seen[key]] = domain.of_data(array)
        return self.seen[key]

    def knows(self, variables: Sequence[int]) -> bool:
        """Whether the values of all of these are known."""
        return all(v in self.data for v in variables)

    def real(self, v: int) -> bool:
        """Whether a variable is a real number whatever the parameters."""
        return self.ranges[v].real

    def write(
        self,
        primitive: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        /,
        **params: Any,
    ) -> int:
        """An equation, of which the variable is returned; or its known value."""
        if primitive in RATIONAL and self.knows(inputs):
            arrays = [self.data[v] for v in inputs]
            if (done := _rationally(RATIONAL[primitive], arrays)) is not None:
                return self.know(done)
        marks = tuple(
            (name, _key(p) if isinstance(p, np.ndarray) else str(p))
            for name, p in params.items()
        )
        key = (primitive, tuple(inputs), marks, tuple(shape))
        if key not in self.seen:
            output = self.seen[key] = self.new(shape)
            e = self.defined[output] = Equation(
                primitive, tuple(inputs), output, params
            )
            self.equations.append(e)
            self.ranges[output] = domain.of(e, self.ranges, self.shapes, self.data)
        return self.seen[key]

    def move(self, inputs: Sequence[int], at: np.ndarray) -> int:
        """out[i] = the concatenation of the flattened operands, at at[i]."""
        starts = np.cumsum([0, *(math.prod(self.shapes[v]) for v in inputs)])
        which = np.searchsorted(starts, at.reshape(-1), side="right") - 1
        used = np.unique(which)
        if len(used) == 1:  # the usual case; what is not read may be an infinity
            source, at = inputs[used[0]], at - starts[used[0]]
            if source in self.data:
                return self.know(self.data[source].reshape(-1)[at])
            same = at.shape == self.shapes[source]
            if same and (at.reshape(-1) == np.arange(at.size)).all():
                return source
            return self.write("move", [source], at.shape, at=at)
        parts = [self.data[v].reshape(-1) for v in inputs if v in self.data]
        if len(parts) == len(inputs) and len({part.dtype for part in parts}) == 1:
            return self.know(np.concatenate(parts)[at])
        return self.write("move", inputs, at.shape, at=at)

    def finish(self, inputs: Sequence[int], output: int, treedef: Any) -> Program:
        """The program, without what its output does not need."""
        needed, kept = {output}, []
        for equation in reversed(self.equations):
            if equation.output in needed:
                needed.update(equation.inputs)
                kept.append(equation)
        return Program(
            {v: s for v, s in self.shapes.items() if v in needed or v in inputs},
            tuple(inputs),
            {v: d for v, d in self.data.items() if v in needed},
            tuple(reversed(kept)),
            output,
            treedef,
        )


def _key(array: np.ndarray) -> tuple[Any, ...]:
    if array.dtype == object:
        return (array.shape, *map(str, array.reshape(-1)))
    digest = hashlib.blake2b(array.tobytes()).digest()
    return (array.shape, array.dtype.str, digest)


def _rationally(
    function: Callable[..., Any], arrays: Sequence[np.ndarray]
) -> np.ndarray | None:
    """The function of known numbers; None if they are not finite, or it is not."""
    try:
        operands = np.broadcast_arrays(*[as_rationals(array) for array in arrays])
        rows = zip(*(o.reshape(-1).tolist() for o in operands), strict=True)
        values = [function(*row) for row in rows]
    except ArithmeticError:
        return None
    shape = operands[0].shape
    exact = objects(values, shape)
    nearest = floats(exact)
    if np.isfinite(nearest).all() and (as_rationals(nearest) == exact).all():
        return nearest
    return exact


Rewrite: TypeAlias = Callable[[Writer, Any, Sequence[int]], list[int] | None]
"""Of the equation of a jaxpr, with these variables for its inputs; returns its outputs,
or None where the equation is to stay as it is."""


def indices(shape: Sequence[int]) -> np.ndarray:
    """The places of the entries of an array, in its shape."""
    return np.arange(math.prod(shape)).reshape(shape)
