"""What makes JAX fast on a CPU: convolutions, products, pooling, sums, shuffles.

    import jaxdl.ops
    jaxdl.ops.enable()

is all that a program needs, whatever library its model is written with: from then on
what JAX compiles for the CPU runs on the engine that is best at its shape (`engine`).
GPU and TPU are untouched. `jaxdl.ops.using("xla")` is a context without it, and so is
the environment variable JAXDL_ENGINE=xla. `python -m jaxdl.ops` says what is active.
"""

from jaxdl.ops import conv, dot, engine, pool, reduce, sort
from jaxdl.ops.engine import using

__all__ = ["disable", "enable", "using"]


def enable() -> None:
    """Makes what is compiled for the CPU from now on run on the engine.

    What was compiled before stays as it is. Calling it again changes nothing. What
    another process has compiled and serialised (`jax.experimental`'s
    `serialize_executable`) runs once `jaxdl.ops.engine.missing()` has loaded the native
    engine here.
    """
    engine.keep_memory()
    conv.enable()
    dot.enable()
    pool.enable()
    reduce.enable()
    sort.enable()


def disable() -> None:
    """Gives the CPU back to JAX's own lowering."""
    conv.disable()
    dot.disable()
    pool.disable()
    reduce.disable()
    sort.disable()
