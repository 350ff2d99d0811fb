"""What a network costs: its parameters and floating-point operations, without running.

Both come from one abstract evaluation of the module's initialisation; no array is made.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend import core


def parameters(module: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Number of trained parameters (batch statistics are none).

    Args:
        module: Network, called with one array.
        input_shape: Shape of that array; it matters where a dense layer sees pixels.
    """
    _, (_, variables) = _trace(module, input_shape)
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def flops(module: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Floating-point operations of one forward pass over an array of `input_shape`.

    Multiplications and additions of convolutions and matrix products, a multiply-add
    being two; padding counts as if it were pixels, as is the custom. Papers and
    torchvision's tables count multiply-adds: half of this.

    Args:
        module: Network, called with one array.
        input_shape: Shape of that array, the batch included.
    """
    jaxpr, _ = _trace(module, input_shape)
    return _count(jaxpr.jaxpr)


@functools.lru_cache(maxsize=8)
def _trace(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Jaxpr and result shapes of `init_with_output`, random draws being free."""
    init = functools.partial(module.init_with_output, jax.random.key(0))
    x = jax.ShapeDtypeStruct(input_shape, jnp.float32)
    return jax.make_jaxpr(init, return_shape=True)(x)


def _count(jaxpr: core.Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name in ("conv_general_dilated", "dot_general"):
            avals: Any = [v.aval for v in (*equation.invars, *equation.outvars)]
            left, right, out = (aval.shape for aval in avals)
        if name == "conv_general_dilated":
            features = right[parameters["dimension_numbers"].rhs_spec[0]]
            total += 2 * math.prod(out) * math.prod(right) // features
        elif name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            total += 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)
        else:
            repeats = parameters.get("length", 1)  # of a scan
            for inner in core.jaxprs_in_params(parameters):
                total += repeats * _count(inner)
    return total
