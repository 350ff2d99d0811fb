"""Settings that are arguments of a compiled program, where several runs share one.

A setting is a number that is known when the program is traced, or a traced array that
stands for the value of each run. What a number decides when it is known (0 means no
dropout at all) a traced one decides when it is computed.
"""

import jax


def is_off(value: float | jax.Array | None) -> bool:
    """Whether a setting is known to do nothing: None or 0, and not traced."""
    return not isinstance(value, jax.Array) and not value
