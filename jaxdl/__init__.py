"""Classic image classification, done the functional way, in JAX and Flax.

Importing this package arms the cure for jax 0.10.2's wrong numbers on the CPU
(`jaxdl.runtime`). It does so before JAX starts, whatever the way in, and imports
nothing heavy. Imported after JAX has started, it computes the known wrong case at once,
and raises `WrongNumbersError` where the cure came too late.
"""

from jaxdl import runtime

runtime.cure()
runtime.check_if_started()

__version__ = "0.1.0"
