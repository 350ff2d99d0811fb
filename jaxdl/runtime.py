"""The cure for silently wrong numbers on the CPU, and the check that it took.

Under `jit`, jaxlib 0.10.2 hands some reductions on the CPU to YNNPACK, which returns
the values of other rows for a vmapped matrix-vector product followed by a sum
(https://github.com/jax-ml/jax/issues/39103). Per-example losses and Hessians have
exactly that form. XLA reads its flags once, when the first backend starts; so the cure
is armed when `jaxdl` is imported, and `check` refuses to go on where it came too late.
"""

import contextlib
import functools
import hashlib
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from jaxdl.errors import InputError

# The flag exists in these versions only, and XLA aborts the process on a flag that it
# does not know; so other versions get the self-check alone.
_AFFECTED_JAXLIB = ("0.10.2",)
_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
CURE = f"{_FLAG}=-reduce,-individual_convolution"
"""The first part is the cure. The second is for speed: YNNPACK's convolutions are up to
four times slower than XLA's own, and our pure forms (`jaxdl.ops.forms`) use these."""


class WrongNumbersError(RuntimeError):
    """XLA's CPU backend computes wrong values in this process."""


def cure() -> None:
    """Arms the cure in `XLA_FLAGS`, unless the flag is set already.

    Must run before JAX starts a backend; later it has no effect, which `check` finds.
    """
    if metadata.version("jaxlib") not in _AFFECTED_JAXLIB:
        return
    flags = os.environ.get("XLA_FLAGS", "")
    if _FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {CURE}".strip()


def check_if_started() -> None:
    """Runs `check` where JAX has started before, so that the cure may be too late.

    Does not import JAX, and does nothing where it is yet to start.

    Raises:
        WrongNumbersError: from `check`.
    """
    # JAX has no public name for this. Where it drops this one, `start` still checks.
    bridge = sys.modules.get("jax._src.xla_bridge")
    started = getattr(bridge, "backends_are_initialized", None)
    if started is not None and started():
        check()


@functools.cache
def check() -> None:
    """Computes the known wrong case on the CPU and compares it with the exact value.

    Takes some 50 ms, once per process. Runs when `jaxdl` is imported after JAX has
    started, and else from `start`.

    Raises:
        WrongNumbersError: the cure is not in force.
    """
    import jax

    try:
        jax.local_devices(backend="cpu")
    except RuntimeError:  # JAX_PLATFORMS has left it out: nothing is computed there
        return
    found = last_row_squared_norm()
    if found != 32768.0**2:
        raise WrongNumbersError(
            f"XLA computes wrong numbers on this CPU (jaxlib "
            f"{metadata.version('jaxlib')}: {found:.0f} instead of {32768**2}). "
            f"Import jaxdl before JAX computes anything, or start Python with "
            f"XLA_FLAGS={CURE}"
        )


def start(cache_dir: Path) -> None:
    """Makes JAX ready for a run; call it once, before anything is computed.

    Joins the other processes where `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and
    `JAX_PROCESS_ID` are set, makes CPUs fast (`jaxdl.ops`), keeps compiled programs
    in `cache_dir` from one run to the next, and runs `check`.

    Raises:
        InputError: the variables are incomplete, or there is no device of the platform
            that JAX_PLATFORMS names.
        WrongNumbersError: from `check`.
    """
    import jax

    from jaxdl import ops

    if os.environ.get("JAX_COORDINATOR_ADDRESS"):
        jax.distributed.initialize(
            num_processes=_number("JAX_NUM_PROCESSES"),
            process_id=_number("JAX_PROCESS_ID"),
        )
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:  # JAX has no words for the first
        raise InputError(
            f"JAX finds no device (JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}"
            f"{f': {error}' if str(error) else ''}); install JAX for it, for instance "
            f"pip install 'jax[cuda13]', or unset JAX_PLATFORMS"
        ) from error
    ops.enable()
    # Where nothing can be kept, a run only starts later.
    programs = cache_dir / "xla" / processor_digest()
    with contextlib.suppress(OSError):
        programs.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(programs))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    check()


def processor_digest() -> str:
    """A name for this kind of processor: its instruction set, as 12 hex digits.

    XLA loads a compiled program on another processor too, and then dies of an
    instruction that it does not have; folders shared over a cluster need one of each.
    """
    features = sorted(
        {line for line in cpu_info() if line.startswith(("flags", "Features"))}
    )
    described = "\n".join([platform.machine(), *features])
    return hashlib.sha256(described.encode()).hexdigest()[:12]


def cores() -> int:
    """How many of the machine's cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS or Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_info() -> list[str]:
    """What Linux says of the processors, by line; nothing elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def cpu_flags() -> set[str]:
    """Instruction sets of the processors, as Linux calls them; none elsewhere."""
    lines = [line for line in cpu_info() if line.startswith("flags")]
    return set(lines[0].partition(":")[2].split()) if lines else set()


def _number(variable: str) -> int:
    value = os.environ.get(variable, "")
    if not value.isdecimal():
        raise InputError(
            f"{variable} must be a whole number where JAX_COORDINATOR_ADDRESS is set, "
            f"not {value!r}"
        )
    return int(value)


def last_row_squared_norm() -> float:
    """Squared norm of the row (32768, 0, 0), computed the way that goes wrong."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxdl.ops import engine

    rows = np.zeros((32769, 3), np.float32)
    rows[:, 0] = np.arange(32769)
    identity = jnp.eye(3, dtype=jnp.float32)

    @jax.jit
    def squared_norms(rows: jax.Array) -> jax.Array:
        return jax.vmap(lambda row: jnp.sum((identity @ row) ** 2))(rows)

    # Our own engine takes this product and would hide the fault, which remains in those
    # that it leaves to XLA.
    cpu = jax.local_devices(backend="cpu")[0]
    with engine.using("xla"), jax.default_device(cpu):
        return float(squared_norms(rows)[-1])
