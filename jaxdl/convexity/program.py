"""The form in which a loss is reasoned about: a short list of equations over the reals.

`tracing` writes a loss down in it; `exact`, `polynomial` and `search` interpret it, and
proofs are about its variables.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flint import fmpq

from jaxdl.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Equation:
    """output = primitive(*inputs), with variables named by numbers."""

    primitive: str
    inputs: tuple[int, ...]
    output: int
    params: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A loss over R^n, as equations in the order of their computation."""

    shapes: Mapping[int, tuple[int, ...]]
    """Of every variable."""
    inputs: tuple[int, ...]
    """The parameters, one variable for each leaf of the pytree."""
    data: Mapping[int, np.ndarray]
    """What is known: bool, int, float64 (exact binary fractions), or object arrays of
    `fmpq` where float64 has not got a rational."""
    equations: tuple[Equation, ...]
    output: int
    """The loss, of shape ()."""
    treedef: Any
    """The structure of the parameters."""

    @property
    def size(self) -> int:
        """The number of parameters, n."""
        return sum(math.prod(self.shapes[v]) for v in self.inputs)

    def leaves(self, point: Any) -> list[np.ndarray]:
        """The leaves of a pytree like the parameters, as float64 arrays.

        Raises:
            InputError: It has another structure or shape, or is not finite.
        """
        leaves, treedef = jax.tree.flatten(point)
        if treedef != self.treedef:
            raise InputError(f"a point must be like {self.treedef}, got {treedef}")
        arrays = [np.asarray(leaf, np.float64) for leaf in leaves]
        wanted = [self.shapes[v] for v in self.inputs]
        if [a.shape for a in arrays] != wanted:
            shapes = [a.shape for a in arrays]
            raise InputError(f"a point must have shapes {wanted}, got {shapes}")
        if not all(np.isfinite(a).all() for a in arrays):
            raise InputError("a point must be finite, got NaN or infinity in it")
        return arrays

    def point(self, vector: np.ndarray) -> Any:
        """The pytree of float64 arrays with the entries of `vector`, float64 [n]."""
        shapes = [self.shapes[v] for v in self.inputs]
        ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
        parts = np.split(np.asarray(vector, np.float64), ends)
        leaves = [part.reshape(s) for part, s in zip(parts, shapes, strict=True)]
        return jax.tree.unflatten(self.treedef, leaves)


def as_rationals(array: np.ndarray) -> np.ndarray:
    """An object array of `fmpq`, each the number itself.

    Raises:
        ArithmeticError: A number is not finite.
    """
    if array.dtype == object:
        return array
    if array.dtype == np.float64 and not np.isfinite(array).all():
        raise ArithmeticError("data with NaN or infinity")
    return objects(
        [fmpq(*x.as_integer_ratio()) for x in array.reshape(-1).tolist()], array.shape
    )


def objects(values: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    """An object array; NumPy would take some of flint's numbers for sequences."""
    out = np.empty(len(values), object)
    for k, value in enumerate(values):
        out[k] = value
    return out.reshape(shape)


def floats(array: np.ndarray) -> np.ndarray:
    """The nearest float64 of known numbers."""
    if array.dtype != object:
        return array.astype(np.float64)
    return np.array([float_of(x) for x in array.reshape(-1)]).reshape(array.shape)


def float_of(x: fmpq) -> float:
    """The float64 nearest to a rational; infinite if there is none so large."""
    try:
        return int(x.p) / int(x.q)
    except OverflowError:
        return math.inf if x > 0 else -math.inf
