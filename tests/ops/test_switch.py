"""Switched on, only what is compiled for CPUs changes; switched off, nothing stays."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.interpreters import mlir

from jaxdl import ops
from jaxdl.ops import engine

CPU, OTHERS = ("cpu",), ("cuda", "rocm", "tpu")


def loss(kernel, images):
    """Convolutions, a maximum, a product and a sum, all large enough."""
    numbers = ("NHWC", "HWIO", "NHWC")
    images = lax.conv_general_dilated(
        images + 1j, kernel[..., :8] + 0j, (1, 1), "SAME", dimension_numbers=numbers
    ).imag
    x = lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=numbers
    )
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "SAME")
    x = jnp.tanh(x.reshape(-1, 64) @ jnp.ones((64, 64)))
    return jnp.sum(jnp.sin(x.sum(0)))


def lowered(platforms):
    """The gradient's program for each platform, which need not be there."""
    jax.clear_caches()
    args = jnp.ones((3, 3, 8, 64)), jnp.ones((32, 8, 8, 8))
    traced = jax.jit(lambda *a: jax.grad(loss, (0, 1))(*a)).trace(*args)
    return [traced.lower(lowering_platforms=(p,)).as_text() for p in platforms]


@pytest.fixture(autouse=True)
def off_again():
    ops.disable()
    yield
    ops.disable()
    jax.clear_caches()


def test_other_platforms_are_untouched():
    before = lowered(OTHERS)
    ops.enable()
    assert lowered(OTHERS) == before


def test_rules_are_registered_for_cpus_only():
    def rules():
        tables = {**mlir._platform_specific_lowerings, None: mlir._lowerings}
        return {platform: dict(table) for platform, table in tables.items()}

    before = rules()
    ops.enable()
    after = rules()
    assert {p for p in after if after[p] != before.get(p)} == {"cpu"}


def test_switched_off_it_is_jaxs_own():
    before = lowered(CPU)
    ops.enable()
    ops.enable()
    for chosen in ("native", "pure"):
        with engine.using(chosen):
            assert lowered(CPU) != before
    ops.disable()
    assert lowered(CPU) == before


NEVER_ON = """
from test_switch import CPU, OTHERS, engine, lowered, ops
before = lowered(CPU + OTHERS)
ops.enable()
with engine.using("xla"):
    assert lowered(CPU + OTHERS) == before
ops.disable()
assert lowered(CPU + OTHERS) == before
"""


def test_jaxs_own_is_that_of_a_process_where_it_was_never_on():
    """Here some module may have switched it on and off before."""
    command = [sys.executable, "-c", NEVER_ON]
    done = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_in_the_context_of_xla_it_is_jaxs_own():
    before = lowered(CPU)
    ops.enable()
    with engine.using("xla"):
        assert lowered(CPU) == before
