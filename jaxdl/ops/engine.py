"""Which engine computes convolutions and the like on the CPU, and what is there.

- "native": oneDNN through XLA's FFI, and kernels of our own; where it was not built,
  "pure" takes its place.
- "pure": forms in JAX that XLA computes well.
- "xla": JAX's own lowering, as without this package.
"""

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Iterator
from typing import Any, Literal, get_args

import jax
from jax._src.sharding_impls import ShardingContext  # no public name leads to it
from jax.interpreters import mlir

from jaxdl.errors import InputError
from jaxdl.ops import native

Engine = Literal["native", "pure", "xla"]
ENGINES: tuple[Engine, ...] = get_args(Engine)

VARIABLE = "JAXDL_ENGINE"
"""Environment variable with the engine to use; "native" without it."""

_chosen = jax.make_user_context(None)


@contextlib.contextmanager
def using(engine: Engine) -> Iterator[None]:
    """Computes with another engine what is compiled in the context.

    Functions under `jit` are compiled anew, and find their earlier programs again after
    it.

    Raises:
        InputError: there is no such engine.
    """
    with _chosen(_checked(engine, "the engine")):
        yield


def current() -> Engine:
    """The engine in force: that of `using`, else of the variable JAXDL_ENGINE.

    Raises:
        InputError: the variable names no engine.
    """
    engine = _checked(_chosen.value or os.environ.get(VARIABLE, "native"), VARIABLE)
    return "pure" if engine == "native" and missing() else engine


@functools.cache
def missing() -> str | None:
    """Why there is no native engine here; None where there is one."""
    library = native.load()
    return None if isinstance(library, ctypes.CDLL) else library


def described() -> str:
    """The engine in force, and why it is not the native one where that was wanted."""
    wanted = _chosen.value or os.environ.get(VARIABLE, "native")
    reason = f" (native: {missing()})" if wanted == "native" and missing() else ""
    return f"{current()}{reason}"


def for_lowering(ctx: mlir.LoweringRuleContext) -> Engine:
    """The engine for an operation that is being lowered.

    A call into native code is opaque to XLA's partitioner, which would gather its
    operands on every device. So under `jit` over a mesh, JAX's own lowering serves,
    while in a `shard_map` over the whole mesh, or a `pmap`, where each device has its
    part, ours does. Arrays whose types name an axis of a mesh are JAX's too: there an
    operation must say how its result is spread, on a single device as well.

    JAX's own also serves for `jax.export`: what it writes must run where there is no
    jaxdl, and its sizes may be unknown. So ask this before looking at sizes.
    """
    if ctx.module_context.lowering_parameters.for_export:
        return "xla"
    context: Any = ctx.module_context.axis_context
    if isinstance(context, ShardingContext) and context.num_devices > 1:
        return "xla"
    manual = getattr(context, "manual_axes", None)  # of a `shard_map`
    if manual is not None and manual != frozenset(context.mesh.axis_names):
        return "xla"
    arrays: Any = ctx.avals_in
    if any(axis is not None for a in arrays for axis in a.sharding.spec):
        return "xla"
    return current()


@functools.cache
def keep_memory() -> None:
    """Lets malloc keep what is freed, where that is glibc's.

    XLA allocates its arrays anew at each call. Where malloc hands them back in between,
    the kernel clears every page again, for up to half of the time of a batch norm.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, top_pad, mmap_max = -1, -2, -4  # malloc.h
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(top_pad, 2**26)


def release_memory() -> None:
    """Gives back to the system what malloc has kept so far, where that is glibc's.

    For now and then: a compilation, and every checkpoint, leave some in the arenas of
    their threads, which came to 3.1 GiB in a run of ResNet-50, and with time to more.
    """
    if not sys.platform.startswith("linux"):
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _checked(engine: str, what: str) -> Engine:
    for known in ENGINES:
        if engine == known:
            return known
    raise InputError(f"{what} must be one of {', '.join(ENGINES)}, not {engine!r}")
