"""Classic image classification, done the functional way, in JAX and Flax.

Importing this package arms the cure for jax 0.10.2's wrong numbers on the CPU
(`jaxdl.runtime`). It does so before JAX starts, whatever the way in, and imports
nothing heavy.
"""

from jaxdl import runtime

runtime.cure()

__version__ = "0.1.0"
