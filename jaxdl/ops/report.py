"""Which engine computes each convolution of a function, without running it."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax.extend import core

from jaxdl.ops import conv, engine
from jaxdl.ops.geometry import Convolution, recognise


class Row(NamedTuple):
    """One convolution of a program."""

    layer: str
    """Where it stands: the names of the modules around it."""
    convolution: Convolution | None
    """What it is; None for what stays with XLA: groups, one or three dimensions."""
    engine: str
    """What computes it; for the native engine with oneDNN's name of the algorithm."""


def convolutions(function: Callable[..., Any], *args: Any) -> list[Row]:
    """The convolutions of a function of JAX arrays, in the order of the program.

    Args:
      function: anything that `jax.make_jaxpr` takes, such as a loss's gradient.
      *args: its arguments, or their `jax.ShapeDtypeStruct`s.
    """
    jaxpr = jax.make_jaxpr(function)(*args)
    return [_row(equation, names) for equation, names in _equations(jaxpr.jaxpr, "")]


def _row(equation: Any, names: str) -> Row:
    left, right, result = (v.aval for v in (*equation.invars, *equation.outvars))
    found = recognise(left, right, result, equation.params)
    if found is None or engine.current() == "xla":
        return Row(names, found, "xla")
    said, _ = conv.choose(found, engine.current())
    return Row(names, found, said)


def _equations(jaxpr: core.Jaxpr, outer: str) -> Iterator[tuple[Any, str]]:
    """The convolutions in a program and in the programs that it calls."""
    for equation in jaxpr.eqns:
        names = "/".join(filter(None, (outer, str(equation.source_info.name_stack))))
        if equation.primitive is jax.lax.conv_general_dilated_p:
            yield equation, names
        for inner in core.jaxprs_in_params(equation.params):
            yield from _equations(inner, names)
