"""Set up before any test module: eight CPU devices, SIGINT, and the cure."""

import os
import signal

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")

import jaxdl  # noqa: F401  (arms the cure before JAX starts)

# isort: split
import jax
import pytest

# What starts in the background (nohup, a job of a script) may ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled_programs():
    """JAX keeps every program, some MiB each: 5 GiB in each process by the end."""
    yield
    jax.clear_caches()
