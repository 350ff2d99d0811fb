"""Over which mesh axes of a `shard_map` arrays vary, for primitives of our own."""

import jax
from jax import lax


def alike(*arrays: jax.Array) -> list[jax.Array]:
    """The arrays, each varying over all mesh axes of a `shard_map` that one does.

    As JAX's own operations do with their operands, so that a sum over devices that is
    missing is an error. Its transpose is the sum that their gradients need.
    """
    over = [jax.typeof(array).mat.varying for array in arrays]
    union = frozenset().union(*over)
    return [
        lax.pcast(array, tuple(union - own), to="varying") if union - own else array
        for array, own in zip(arrays, over, strict=True)
    ]
