"""The function over the real numbers that a loss computes, as a short list of equations.

JAX traces the loss to a jaxpr; `trace` writes it again with few primitives, so that what
reads it (the checker of proofs, the exact interpreter) stays small enough to be trusted:

- calls (jit, custom_jvp, custom_vjp, remat) are looked through;
- whatever does not change a real number is dropped: stop_gradient, conversions between
  float formats, copies; `is_finite` and `x != x` have their answer over the reals;
- every data movement (reshape, broadcast, slice, gather by known indices, one case of a
  known condition, ...) becomes one primitive, `move`: out[i] = concatenation of the
  flattened operands [at[i]]. JAX itself computes `at`, by moving indices;
- dot_general and convolutions become moves and `matmul`; windows become moves and sums
  or maxima;
- arithmetic on known numbers is done, in rationals.

Float literals and closed-over data stand for the exact binary fractions that they are.
A primitive that is not known stays in the list under its own name, and whoever needs its
meaning has to say that there is none.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from flint import fmpq
from jax import lax

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
    """A loss over R^n.

    `data` holds what is known: arrays of bool, int or float (exact binary fractions), or
    object arrays of `fmpq` where a number is a rational that float64 does not have.
    """

    shapes: Mapping[int, tuple[int, ...]]
    inputs: tuple[int, ...]
    data: Mapping[int, np.ndarray]
    equations: tuple[Equation, ...]
    output: int
    treedef: Any

    @property
    def size(self) -> int:
        """The number of parameters, n."""
        return sum(math.prod(self.shapes[v]) for v in self.inputs)

    def leaves(self, point: Any) -> list[np.ndarray]:
        """The leaves of a pytree like the example, as float64 arrays.

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

    def constants(self) -> frozenset[int]:
        """The variables that do not depend on the parameters."""
        found = set(self.data)
        for equation in self.equations:
            if found.issuperset(equation.inputs):
                found.add(equation.output)
        return frozenset(found)


def trace(loss: Callable[[Any], Any], example: Any) -> Program:
    """The program of `loss`, a function of pytrees like `example`.

    Traced as JAX would run it: with the dtypes of `example`, and in double precision
    (`jax.enable_x64`) if a leaf is a float64 array.

    Raises:
        InputError: The example is no pytree of finite real arrays, or the loss gives
            something else than a real scalar.
    """
    leaves, treedef = jax.tree.flatten(example)
    if not leaves:
        raise InputError("example has no parameters; pass a pytree of float arrays")
    arrays = [_real(leaf, "a parameter of example") for leaf in leaves]
    double = any(np.asarray(a).dtype == np.float64 for a in arrays)
    with jax.enable_x64(double or bool(jax.config.jax_enable_x64)):
        closed, shape = jax.make_jaxpr(loss, return_shape=True)(
            jax.tree.unflatten(treedef, arrays)
        )
        results = jax.tree.leaves(shape)
        if len(results) != 1 or results[0].shape != ():
            got = ", ".join(f"{r.dtype}{list(r.shape)}" for r in results)
            raise InputError(
                f"the loss must return one real scalar, got {got or 'nothing'}; take "
                "the mean over the examples, say"
            )
        if not jnp.issubdtype(results[0].dtype, jnp.floating):
            raise InputError(
                f"the loss must return a float, got {results[0].dtype}; convert it"
            )
    with jax.enable_x64(True):
        writer = _Writer()
        inputs = [writer.new(np.shape(a)) for a in arrays]
        (output,) = writer.calls(closed.jaxpr, closed.consts, inputs)
    return writer.finish(inputs, output, treedef)


def _real(leaf: Any, what: str) -> np.ndarray:
    array = np.asarray(leaf)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(
            f"{what} must be a real floating-point array, got {array.dtype}; convert it, "
            "or close over what is no parameter"
        )
    if not np.isfinite(array.astype(np.float64)).all():
        raise InputError(f"{what} must be finite, got NaN or infinity in it")
    return array


_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}
_SAME = {"stop_gradient", "copy", "copy_p", "reduce_precision", "optimization_barrier"}
_MOVES = {
    "reshape",
    "broadcast_in_dim",
    "transpose",
    "squeeze",
    "expand_dims",
    "slice",
    "concatenate",
    "pad",
    "rev",
    "split",
    "dynamic_slice",
    "dynamic_update_slice",
    "gather",
    "scatter",
}
"""They take some operands to be moved, the rest (if any) being known whole numbers."""
_MOVED = {"pad": 2, "concatenate": None, "dynamic_update_slice": 2, "scatter": 3}
"""How many operands are moved, where it is not one; None for all."""
_RENAMED = {"add_any": "add"}
_COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
_RATIONAL: Mapping[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
    "abs": abs,
    "max": max,
    "min": min,
}
"""Arithmetic that `_Writer` does on known numbers."""


class _Writer:
    """Writes a program, equation by equation; variables are numbered as they come."""

    def __init__(self) -> None:
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.data: dict[int, np.ndarray] = {}
        self.equations: list[Equation] = []

    def new(self, shape: Sequence[int]) -> int:
        self.shapes[len(self.shapes)] = tuple(shape)
        return len(self.shapes) - 1

    def know(self, array: np.ndarray) -> int:
        variable = self.new(np.shape(array))
        self.data[variable] = array
        return variable

    def write(
        self, primitive: str, inputs: Sequence[int], shape: Sequence[int], **params: Any
    ) -> int:
        output = self.new(shape)
        self.equations.append(Equation(primitive, tuple(inputs), output, params))
        return output

    def calls(
        self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[int]
    ) -> list[int]:
        """Writes a jaxpr whose inputs are these variables; returns its outputs."""
        env = dict(zip(jaxpr.invars, inputs, strict=True))
        env |= {
            v: self.know(_known(c))
            for v, c in zip(jaxpr.constvars, consts, strict=True)
        }

        def read(atom: Any) -> int:
            if isinstance(atom, jex.Literal):
                return self.know(_known(atom.val))
            return env[atom]

        for eqn in jaxpr.eqns:
            outputs = self.equation(eqn, [read(atom) for atom in eqn.invars])
            env.update(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def equation(self, eqn: Any, inputs: list[int]) -> list[int]:
        name = _RENAMED.get(eqn.primitive.name, eqn.primitive.name)
        if name in _CALLS:
            inner = eqn.params[_CALLS[name]]
            if isinstance(inner, jex.ClosedJaxpr):
                return self.calls(inner.jaxpr, inner.consts, inputs)
            return self.calls(inner, (), inputs)
        if name in _SAME:
            return inputs
        shapes = [out.aval.shape for out in eqn.outvars]
        if all(v in self.data for v in inputs) and (done := self.natively(eqn, inputs)):
            return done
        if name in _MOVES and (moved := self.movement(name, eqn, inputs)):
            return moved
        method = getattr(self, f"do_{name}", None)
        if method and (result := method(eqn, inputs)) is not None:
            return [result]
        if len(shapes) > 1:  # none of the known primitives has several outputs
            return [self.write(name, inputs, shape) for shape in shapes]
        if name in _RATIONAL and all(v in self.data for v in inputs):
            return [self.rational(name, inputs)]
        return [self.write(name, inputs, shapes[0], **eqn.params)]

    # Known numbers

    def natively(self, eqn: Any, inputs: list[int]) -> list[int] | None:
        """Whole numbers, booleans and random bits: what JAX itself makes of them."""
        floats = [v.aval for v in (*eqn.invars, *eqn.outvars)]
        exact = not any(jnp.issubdtype(a.dtype, jnp.floating) for a in floats)
        if not exact and eqn.primitive.name != "bitcast_convert_type":
            return None
        args = [
            jnp.asarray(self.data[v], atom.aval.dtype)
            if not jnp.issubdtype(atom.aval.dtype, jax.dtypes.extended)
            else self.data[v]
            for v, atom in zip(inputs, eqn.invars, strict=True)
        ]
        out = eqn.primitive.bind(*args, **eqn.params)
        results = out if eqn.primitive.multiple_results else [out]
        return [self.know(_known(result)) for result in results]

    def rational(self, name: str, inputs: list[int]) -> int:
        operands = np.broadcast_arrays(*[as_rationals(self.data[v]) for v in inputs])
        values = np.frompyfunc(_RATIONAL[name], len(operands), 1)(*operands)
        return self.know(_as_floats(np.asarray(values, object)))

    def compare(self, name: str, inputs: list[int]) -> int | None:
        a, b = inputs
        if a == b and a not in self.data:  # x != x asks for NaN, which no real is
            answer = name in ("eq", "le", "ge")
            return self.know(np.full(self.shapes[a], answer))
        if a in self.data and b in self.data:
            left, right = self.data[a], self.data[b]
            if object in (left.dtype, right.dtype):
                left, right = as_rationals(left), as_rationals(right)
            return self.know(_COMPARISONS[name](left, right).astype(bool))
        return None

    # Data movement

    def move(self, inputs: Sequence[int], at: np.ndarray) -> int:
        """out[i] = the concatenation of the flattened operands, at at[i]."""
        starts = np.cumsum([0, *(math.prod(self.shapes[v]) for v in inputs)])
        which = np.searchsorted(starts, at.reshape(-1), side="right") - 1
        used = np.unique(which)
        if len(used) == 1:  # the usual case, and the rest may have been an infinity
            (source,) = used
            only, at = inputs[source], at - starts[source]
            if only in self.data:
                return self.know(self.data[only].reshape(-1)[at])
            if (
                at.shape == self.shapes[only]
                and (at.ravel() == np.arange(at.size)).all()
            ):
                return only
            return self.write("move", [only], at.shape, at=at)
        if all(inputs[k] in self.data for k in used):
            parts = [self.data[v].reshape(-1) for v in inputs]
            if not any(part.dtype == object for part in parts):
                return self.know(np.concatenate(parts)[at])
        return self.write("move", inputs, at.shape, at=at)

    def movement(self, name: str, eqn: Any, inputs: list[int]) -> list[int] | None:
        count = _MOVED.get(name, 1)
        count = len(inputs) if count is None else count
        moved, known = inputs[:count], inputs[count:]
        if name == "scatter":
            moved, known = [inputs[0], inputs[2]], [inputs[1]]
        if not all(v in self.data for v in known):
            return None
        starts = np.cumsum([1, *(math.prod(self.shapes[v]) for v in moved)])
        indices: list[Any] = [
            jnp.arange(
                start, start + math.prod(self.shapes[v]), dtype=jnp.int64
            ).reshape(self.shapes[v])
            for v, start in zip(moved, starts, strict=False)
        ]
        rest = [jnp.asarray(self.data[v]) for v in known]
        params = dict(eqn.params)
        if name == "gather":  # outside: the default is NaN, here index 0
            params["fill_value"] = 0
        if name == "scatter":
            indices = [indices[0], *rest, indices[1]]
            rest = []
        for key in ("sharding", "out_sharding"):
            if key in params:
                params[key] = None
        out = eqn.primitive.bind(*indices, *rest, **params)
        results = out if eqn.primitive.multiple_results else [out]
        ats = [np.asarray(result) - 1 for result in results]
        if any((at < 0).any() for at in ats):
            return None  # reads outside of the operand
        return [self.move(moved, at) for at in ats]

    def do_select_n(self, eqn: Any, inputs: list[int]) -> int | None:
        which, *cases = inputs
        if which not in self.data:
            return None
        shape = self.shapes[cases[0]]
        choice = np.broadcast_to(self.data[which].astype(np.int64), shape)
        size = math.prod(shape)
        return self.move(cases, choice * size + np.arange(size).reshape(shape))

    # Primitives written in terms of others

    def do_convert_element_type(self, eqn: Any, inputs: list[int]) -> int | None:
        (v,) = inputs
        new = eqn.params["new_dtype"]
        old = eqn.invars[0].aval.dtype
        if v in self.data:
            if jnp.issubdtype(new, jnp.floating):
                return self.know(_known(self.data[v], exactly=True))
            return None
        both = jnp.issubdtype(old, jnp.floating) and jnp.issubdtype(new, jnp.floating)
        return v if both else None

    def do_is_finite(self, eqn: Any, inputs: list[int]) -> int | None:
        (v,) = inputs
        if v not in self.data:  # every real number is
            return self.know(np.ones(self.shapes[v], bool))
        if self.data[v].dtype == object:
            return self.know(np.ones(self.shapes[v], bool))
        return self.know(np.isfinite(self.data[v]))

    def do_eq(self, eqn: Any, inputs: list[int]) -> int | None:
        return self.compare("eq", inputs)

    def do_ne(self, eqn: Any, inputs: list[int]) -> int | None:
        return self.compare("ne", inputs)

    def do_lt(self, eqn: Any, inputs: list[int]) -> int | None:
        return self.compare("lt", inputs)

    def do_le(self, eqn: Any, inputs: list[int]) -> int | None:
        return self.compare("le", inputs)

    def do_gt(self, eqn: Any, inputs: list[int]) -> int | None:
        return self.compare("gt", inputs)

    def do_ge(self, eqn: Any, inputs: list[int]) -> int | None:
        return self.compare("ge", inputs)

    def do_max(self, eqn: Any, inputs: list[int]) -> int | None:
        return self.without(inputs, -np.inf)

    def do_min(self, eqn: Any, inputs: list[int]) -> int | None:
        return self.without(inputs, np.inf)

    def without(self, inputs: list[int], neutral: float) -> int | None:
        """The other operand, if one is nothing but the neutral element."""
        for v, other in (inputs, inputs[::-1]):
            known = self.data.get(v)
            if (
                known is not None
                and known.dtype != object
                and (known == neutral).all()
                and len(self.shapes[other]) >= len(self.shapes[v])
            ):
                return other
        return None

    def do_clamp(self, eqn: Any, inputs: list[int]) -> int:
        low, x, high = inputs
        shape = self.shapes[x]
        return self.write("min", [self.write("max", [x, low], shape), high], shape)

    def do_mul(self, eqn: Any, inputs: list[int]) -> int | None:
        a, b = inputs
        if a == b and a not in self.data:
            return self.write("integer_pow", [a], self.shapes[a], y=2)
        return None

    def do_square(self, eqn: Any, inputs: list[int]) -> int:
        return self.write("integer_pow", inputs, self.shapes[inputs[0]], y=2)

    def do_pow(self, eqn: Any, inputs: list[int]) -> int | None:
        base, power = inputs
        known = self.data.get(power)
        if (
            known is None
            or known.dtype == object
            or base in self.data
            or not known.size
        ):
            return None
        y = float(known.flat[0])
        if not (known == y).all() or not y.is_integer() or abs(y) > 1000:
            return None
        return self.write("integer_pow", [base], self.shapes[base], y=int(y))

    def do_dot_general(self, eqn: Any, inputs: list[int]) -> int:
        (contract_a, contract_b), (batch_a, batch_b) = eqn.params["dimension_numbers"]
        a, b = inputs
        if a == b and (contract_a, batch_a) == (contract_b, batch_b):
            if len(contract_a) + len(batch_a) == len(self.shapes[a]):  # sum of squares
                return self.sum_of_squares(a, contract_a, batch_a)
        free_a, left = self.matrices(a, batch_a, contract_a, last=True)
        free_b, right = self.matrices(b, batch_b, contract_b, last=False)
        (n, rows, _), (_, _, columns) = self.shapes[left], self.shapes[right]
        product = self.write("matmul", [left, right], (n, rows, columns))
        shape = [self.shapes[a][d] for d in batch_a] + free_a + free_b
        return self.move([product], np.arange(math.prod(shape)).reshape(shape))

    def sum_of_squares(
        self, v: int, contract: Sequence[int], batch: Sequence[int]
    ) -> int:
        square = self.write("integer_pow", [v], self.shapes[v], y=2)
        kept = [d for d in range(len(self.shapes[v])) if d not in contract]
        shape = [self.shapes[v][d] for d in kept]
        total = self.write("reduce_sum", [square], shape, axes=tuple(contract))
        at = np.arange(math.prod(shape)).reshape(shape)
        return self.move([total], at.transpose([kept.index(d) for d in batch]))

    def matrices(
        self, v: int, batch: Sequence[int], contract: Sequence[int], *, last: bool
    ) -> tuple[list[int], int]:
        """Free dimensions, and v as [batch, free, contracted], or the latter swapped."""
        shape = self.shapes[v]
        free = [d for d in range(len(shape)) if d not in (*batch, *contract)]
        order = [*batch, *free, *contract] if last else [*batch, *contract, *free]
        sizes = [math.prod(shape[d] for d in dims) for dims in (batch, free, contract)]
        at = np.arange(math.prod(shape)).reshape(shape).transpose(order)
        at = at.reshape(sizes if last else [sizes[0], sizes[2], sizes[1]])
        return [shape[d] for d in free], self.move([v], at)

    def windows(self, v: int, patches: Callable[[Any], Any], padding: float) -> int:
        """`patches` of v's indices; those of padding (0) read `padding`."""
        size = math.prod(self.shapes[v])
        indices = jnp.arange(1, size + 1, dtype=jnp.float64).reshape(self.shapes[v])
        at = np.asarray(patches(indices)).astype(np.int64) - 1
        if (at >= 0).all():
            return self.move([v], at)
        at = np.where(at < 0, size, at)
        return self.move([v, self.know(np.asarray(padding))], at)

    def do_conv_general_dilated(self, eqn: Any, inputs: list[int]) -> int | None:
        p = eqn.params
        if p["feature_group_count"] != 1 or p["batch_group_count"] != 1:
            return None
        numbers = p["dimension_numbers"]
        lhs, rhs = inputs
        kernel = self.shapes[rhs]
        spatial = [kernel[d] for d in numbers.rhs_spec[2:]]

        def patches(x: jax.Array) -> jax.Array:  # [N, C * window, *out]
            return lax.conv_general_dilated_patches(
                jnp.transpose(x, numbers.lhs_spec),
                spatial,
                p["window_strides"],
                p["padding"],
                lhs_dilation=p["lhs_dilation"],
                rhs_dilation=p["rhs_dilation"],
                precision=lax.Precision.HIGHEST,
            )

        def rows(x: jax.Array) -> jax.Array:  # [1, N * out, C * window]
            found = jnp.moveaxis(patches(x), 1, -1)
            return found.reshape(1, -1, found.shape[-1])

        left = self.windows(lhs, rows, 0.0)
        at = np.arange(math.prod(kernel)).reshape(kernel).transpose(numbers.rhs_spec)
        right = self.move([rhs], at.reshape(1, at.shape[0], -1).swapaxes(1, 2))
        product = self.write(
            "matmul", [left, right], (1, self.shapes[left][1], len(at))
        )
        out = eqn.outvars[0].aval.shape  # laid out by out_spec; ours is [N, *out, K]
        ours = [
            out[numbers.out_spec[0]],
            *(out[d] for d in numbers.out_spec[2:]),
            len(at),
        ]
        order = np.moveaxis(np.arange(math.prod(ours)).reshape(ours), -1, 1)
        return self.move([product], order.transpose(np.argsort(numbers.out_spec)))

    def do_reduce_window_sum(self, eqn: Any, inputs: list[int]) -> int:
        return self.window(eqn, inputs, "reduce_sum", 0.0)

    def do_reduce_window_max(self, eqn: Any, inputs: list[int]) -> int:
        return self.window(eqn, inputs, "reduce_max", -np.inf)

    def do_reduce_window_min(self, eqn: Any, inputs: list[int]) -> int:
        return self.window(eqn, inputs, "reduce_min", np.inf)

    def window(
        self, eqn: Any, inputs: list[int], name: str, padding: float
    ) -> int | None:
        p = eqn.params
        if any(d != 1 for d in (*p["base_dilation"], *p["window_dilation"])):
            return None
        size, stride = p["window_dimensions"], p["window_strides"]

        def patches(x: jax.Array) -> np.ndarray:  # [*out, window]
            padded = np.pad(np.asarray(x), p["padding"])
            found = np.lib.stride_tricks.sliding_window_view(padded, size)
            found = found[tuple(slice(None, None, s) for s in stride)]
            return found.reshape(*found.shape[: padded.ndim], -1)

        if name != "reduce_sum":  # an entry twice changes no maximum
            inner = patches
            patches = lambda x: (  # noqa: E731
                lambda found: np.where(found == 0, found.max(-1, keepdims=True), found)
            )(inner(x))
        moved = self.windows(inputs[0], patches, padding)
        return self.write(name, [moved], self.shapes[moved][:-1], axes=(len(size),))

    # The end

    def finish(self, inputs: list[int], output: int, treedef: Any) -> Program:
        """Without what the output does not need."""
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


def _known(value: Any, *, exactly: bool = False) -> np.ndarray:
    """A known array as NumPy has it: bool, int, float32 or float64, or typed keys."""
    if hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.extended):
        return value
    array = np.asarray(value)
    if array.dtype == object or array.dtype == np.float64:
        return array
    if jnp.issubdtype(array.dtype, jnp.floating):
        return array.astype(np.float64)
    if exactly:
        floats = array.astype(np.float64)
        if array.dtype.itemsize == 8 and (floats.astype(array.dtype) != array).any():
            return as_rationals(array)
        return floats
    return array


def as_rationals(array: np.ndarray) -> np.ndarray:
    """An object array of `fmpq`, each the number itself.

    Raises:
        ArithmeticError: A number is not finite.
    """
    if array.dtype == object:
        return array
    if array.dtype == np.float64 and not np.isfinite(array).all():
        raise ArithmeticError("data with NaN or infinity")
    flat = [fmpq(*x.as_integer_ratio()) for x in array.reshape(-1).tolist()]
    out = np.empty(len(flat), object)
    out[:] = flat
    return out.reshape(array.shape)


def _as_floats(array: np.ndarray) -> np.ndarray:
    """The same numbers as float64, if it has all of them."""
    floats = np.array([float_of(x) for x in array.reshape(-1)]).reshape(array.shape)
    finite = np.isfinite(floats).all()
    return floats if finite and (as_rationals(floats) == array).all() else array


def float_of(x: fmpq) -> float:
    """The float64 nearest to a rational; infinite if it is too large."""
    try:
        return int(x.p) / int(x.q)
    except OverflowError:
        return math.inf if x > 0 else -math.inf
