"""The function over the real numbers that a loss computes.

JAX traces the loss to a jaxpr; `trace` writes it again with few primitives, so that
what reads it (the checker of proofs, the exact interpreter) stays small enough to be
trusted:

- calls (jit, custom_jvp, custom_vjp, remat) and loops of known length (scan) are
  written out;
- whatever does not change a real number is dropped: stop_gradient, conversions between
  float formats, copies;
- whole numbers, booleans and random bits that do not depend on the parameters are what
  JAX itself makes of them, and so are ranges (iota);
- data movement, products, convolutions and windows are written as `rewriting` has it.

Float literals and closed-over data stand for the exact binary fractions that they are.
A primitive that is not known stays in the list under its own name, and whoever needs
its meaning has to say that there is none. So does arithmetic on whole numbers and
booleans that depend on the parameters: it wraps, truncates and works on bits.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np

from jaxdl.convexity.program import Program
from jaxdl.convexity.rewriting import MOVES, REWRITES, known
from jaxdl.convexity.writer import Writer
from jaxdl.errors import InputError

_CALLS = {
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat2": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
"""Calls, and the parameter that holds what is called."""
_SAME = {"stop_gradient", "copy", "copy_p", "reduce_precision", "optimization_barrier"}
"""What gives the numbers that it takes."""
_OF_BOOLEANS = {
    *MOVES,
    *("eq", "ne", "lt", "le", "gt", "ge", "is_finite"),
    *("and", "or", "not", "select_n", "convert_element_type"),
}
"""What may take or give booleans; sums and maxima of them are other operations."""
_LONGEST_LOOP = 1000


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
    arrays = [_parameter(leaf) for leaf in leaves]
    double = any(a.dtype == np.float64 for a in arrays)
    with jax.enable_x64(double or jax.config.read("jax_enable_x64")):
        closed, shape = jax.make_jaxpr(loss, return_shape=True)(
            jax.tree.unflatten(treedef, arrays)
        )
    results = jax.tree.leaves(shape)
    if len(results) != 1 or results[0].shape != ():
        got = ", ".join(f"{r.dtype}{list(r.shape)}" for r in results) or "nothing"
        raise InputError(
            f"the loss must return one real scalar, got {got}; take the mean over the "
            "examples, say"
        )
    if not jnp.issubdtype(results[0].dtype, jnp.floating):
        raise InputError(
            f"the loss must return a real float, got {results[0].dtype}; convert it"
        )
    with jax.enable_x64(True):  # for indices, and whole numbers of 64 bits
        writer = Writer()
        inputs = [writer.parameter(a.shape) for a in arrays]
        (output,) = _write(writer, closed.jaxpr, closed.consts, inputs)
    return writer.finish(inputs, output, treedef)


def _parameter(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(
            f"parameters must be real floating-point arrays, got {array.dtype}; "
            "convert it, or close over what is no parameter"
        )
    if not np.isfinite(array.astype(np.float64)).all():
        raise InputError(
            "parameters must be finite, got NaN or infinity in example; replace them"
        )
    return array


def _write(
    writer: Writer, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[int]
) -> list[int]:
    """Writes a jaxpr whose inputs are these variables; returns its outputs."""
    env = dict(zip(jaxpr.invars, inputs, strict=True))
    for v, const in zip(jaxpr.constvars, consts, strict=True):
        env[v] = writer.know(known(const))

    def read(atom: Any) -> int:
        if isinstance(atom, jex.Literal):
            aval: Any = atom.aval
            return writer.know(known(np.asarray(atom.val, aval.dtype)))
        return env[atom]

    for eqn in jaxpr.eqns:
        outputs = _equation(writer, eqn, [read(atom) for atom in eqn.invars])
        env.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _equation(writer: Writer, eqn: Any, inputs: list[int]) -> Sequence[int]:
    name = eqn.primitive.name
    if name in _SAME:
        return inputs
    if name in _CALLS:
        return _call(writer, eqn.params[_CALLS[name]], inputs)
    if name == "cond" and writer.knows(inputs[:1]):
        branches, which = eqn.params["branches"], int(writer.data[inputs[0]])
        chosen = branches[min(max(which, 0), len(branches) - 1)]
        return _call(writer, chosen, inputs[1:])
    if name == "scan" and 0 < eqn.params["length"] <= _LONGEST_LOOP:
        return _scan(writer, eqn, inputs)
    if writer.knows(inputs) and (done := _by_jax(writer, eqn, inputs)):
        return done
    shapes = [out.aval.shape for out in eqn.outvars]
    if strange := _not_real(writer, eqn, inputs):
        return [writer.write(strange, inputs, shape) for shape in shapes]
    if name in REWRITES and (done := REWRITES[name](writer, eqn, inputs)):
        return done
    name = {"add_any": "add"}.get(name, name)
    return [writer.write(name, inputs, shape, **eqn.params) for shape in shapes]


def _not_real(writer: Writer, eqn: Any, inputs: Sequence[int]) -> str | None:
    """A name for what is no operation on real numbers, though it shares one's name."""
    name = eqn.primitive.name
    for out in eqn.outvars:
        if not jnp.issubdtype(out.aval.dtype, jnp.floating) and out.aval.dtype != bool:
            return f"{name} giving {out.aval.dtype}"
    if any(jnp.iscomplexobj(atom.aval) for atom in eqn.invars):
        return f"{name} of complex numbers"
    atoms = [a for v, a in zip(inputs, eqn.invars, strict=True) if v not in writer.data]
    booleans = any(atom.aval.dtype == bool for atom in (*atoms, *eqn.outvars))
    return f"{name} of bool" if booleans and name not in _OF_BOOLEANS else None


def _call(writer: Writer, inner: Any, inputs: Sequence[int]) -> list[int]:
    if isinstance(inner, jex.ClosedJaxpr):
        return _write(writer, inner.jaxpr, inner.consts, inputs)
    return _write(writer, inner, (), inputs)


def _scan(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int]:
    """A loop of known length, written out."""
    p = eqn.params
    first, length = p["num_consts"] + p["num_carry"], p["length"]
    consts, carry = (
        list(inputs[: p["num_consts"]]),
        list(inputs[p["num_consts"] : first]),
    )
    rows: list[list[int]] = []
    for k in reversed(range(length)) if p["reverse"] else range(length):
        slices = []
        for v in inputs[first:]:
            shape = writer.shapes[v]
            at = np.arange(int(np.prod(shape))).reshape(shape)[k]
            slices.append(writer.move([v], np.asarray(at)))
        outputs = _call(writer, p["jaxpr"], [*consts, *carry, *slices])
        carry = outputs[: len(carry)]
        rows.append(outputs[len(carry) :])
    if p["reverse"]:
        rows.reverse()
    stacked = []
    for out, parts in zip(
        eqn.outvars[len(carry) :], zip(*rows, strict=True), strict=True
    ):
        shape = out.aval.shape
        stacked.append(
            writer.move(parts, np.arange(int(np.prod(shape))).reshape(shape))
        )
    return [*carry, *stacked]


def _by_jax(writer: Writer, eqn: Any, inputs: Sequence[int]) -> list[int] | None:
    """What JAX makes of known whole numbers, booleans and random bits."""
    avals = [atom.aval for atom in (*eqn.invars, *eqn.outvars)]
    floats = any(jnp.issubdtype(aval.dtype, jnp.inexact) for aval in avals)
    if floats and eqn.primitive.name not in ("bitcast_convert_type", "iota"):
        return None
    args = [
        jnp.asarray(writer.data[v], atom.aval.dtype)
        if isinstance(writer.data[v], np.ndarray)
        else writer.data[v]  # a key
        for v, atom in zip(inputs, eqn.invars, strict=True)
    ]
    out = eqn.primitive.bind(*args, **eqn.params)
    results = out if eqn.primitive.multiple_results else [out]
    return [writer.know(known(result)) for result in results]
