"""The wrong numbers of jaxlib 0.10.2 with and without the cure, in fresh processes."""

import os
import platform
import subprocess
import sys
import textwrap
from importlib import metadata

import pytest

from jaxdl import runtime
from jaxdl.errors import InputError

RIGHT = 32768.0**2

affected = pytest.mark.skipif(
    metadata.version("jaxlib") != "0.10.2" or platform.machine() != "x86_64",
    reason="jaxlib 0.10.2 on x86-64 is what was seen to compute wrong numbers",
)


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh interpreter; XLA_FLAGS is what the caller says, or unset."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
    }
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=inherited | {"JAX_PLATFORMS": "cpu"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def printed(code: str, **environment: str) -> str:
    process = python(code, **environment)
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


# The trap written out once more, so that the test does not lean on what it tests.
TRAP = """
    import jax, jax.numpy as jnp, numpy as np
    rows = np.zeros((32769, 3), np.float32)
    rows[:, 0] = np.arange(32769)
    eye = jnp.eye(3)
    norms = jax.jit(jax.vmap(lambda row: jnp.sum((eye @ row) ** 2)))
    print(float(norms(rows)[-1]))
"""


@affected
def test_without_the_cure_the_number_is_wrong() -> None:
    assert float(printed(TRAP)) != RIGHT


def test_with_the_cure_the_number_is_right() -> None:
    assert float(printed("    import jaxdl" + TRAP)) == RIGHT


def test_the_cure_works_when_jax_is_imported_first_but_not_started() -> None:
    assert float(printed("    import jax, jaxdl" + TRAP)) == RIGHT


@pytest.mark.parametrize(
    "module", ["jaxdl.runtime", "jaxdl.losses", "experiments.models"]
)
def test_every_way_in_arms_the_cure(module: str) -> None:
    assert float(printed(f"    import {module}" + TRAP)) == RIGHT


def test_this_process_is_cured() -> None:
    runtime.check()
    assert runtime.last_row_squared_norm() == RIGHT


@affected
def test_the_import_refuses_where_the_cure_comes_too_late() -> None:
    process = python(
        """
        import jax
        jax.devices()
        import jaxdl
        """
    )
    assert process.returncode == 1
    last = process.stderr.strip().splitlines()[-1]
    assert "WrongNumbersError" in last
    assert "1073741824" in last  # what is right,
    assert runtime.CURE in last  # and the way out


@affected
def test_an_import_after_the_start_passes_where_the_user_set_the_cure() -> None:
    code = "    import jax; jax.devices(); import jaxdl" + TRAP
    assert float(printed(code, XLA_FLAGS=runtime.CURE)) == RIGHT


@affected
def test_start_refuses_a_flag_of_the_user_that_lets_the_fault_through(tmp_path) -> None:
    process = python(
        f"""
        from pathlib import Path
        from jaxdl import runtime
        try:
            runtime.start(Path({str(tmp_path)!r}))
        except runtime.WrongNumbersError as error:
            print(error)
        """,
        XLA_FLAGS="--xla_cpu_experimental_ynn_fusion_type=-individual_convolution",
    )
    assert process.returncode == 0, process.stderr
    assert "wrong numbers" in process.stdout
    assert len(process.stdout.strip().splitlines()) == 1


@affected
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (None, runtime.CURE),
        ("", runtime.CURE),
        ("--xla_a=1 --xla_b=2", f"--xla_a=1 --xla_b=2 {runtime.CURE}"),
        (runtime.CURE, runtime.CURE),
        (f"--xla_a=1 {runtime.CURE},+dot", f"--xla_a=1 {runtime.CURE},+dot"),
    ],
)
def test_the_users_flags_are_kept(monkeypatch, flags, expected) -> None:
    monkeypatch.delenv("XLA_FLAGS")
    if flags is not None:
        monkeypatch.setenv("XLA_FLAGS", flags)
    runtime.cure()
    assert os.environ["XLA_FLAGS"] == expected
    runtime.cure()  # a second time changes nothing
    assert os.environ["XLA_FLAGS"] == expected


def test_other_versions_get_no_flag_that_they_do_not_know(monkeypatch) -> None:
    monkeypatch.setattr(runtime.metadata, "version", lambda package: "0.10.1")
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1")
    runtime.cure()
    assert os.environ["XLA_FLAGS"] == "--xla_a=1"


def test_importing_jaxdl_imports_neither_jax_nor_numpy() -> None:
    code = """
        import sys
        import jaxdl
        import jaxdl.config, jaxdl.errors, jaxdl.runtime, jaxdl.runs
        heavy = {"jax", "jaxlib", "flax", "optax", "numpy", "tensorflow"}
        print(*sorted(heavy & sys.modules.keys()))
    """
    assert printed(code) == ""


def test_start_keeps_compiled_programs(tmp_path) -> None:
    code = f"""
        from pathlib import Path
        from jaxdl import runtime
        runtime.start(Path({str(tmp_path)!r}))
    """
    printed(code)
    assert list((tmp_path / "xla" / runtime.processor_digest()).iterdir())


@pytest.mark.parametrize("missing", ["JAX_NUM_PROCESSES", "JAX_PROCESS_ID"])
@pytest.mark.parametrize("value", [None, "two", "-1"])
def test_incomplete_variables_are_an_input_error(
    monkeypatch, tmp_path, missing, value
) -> None:
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    if value is None:
        monkeypatch.delenv(missing)
    else:
        monkeypatch.setenv(missing, value)
    with pytest.raises(InputError, match=missing):
        runtime.start(tmp_path)


def test_a_platform_that_is_not_here_is_one_line() -> None:
    code = """
        import pathlib
        from jaxdl import runtime
        from jaxdl.errors import InputError
        try:
            runtime.start(pathlib.Path("."))
        except InputError as error:
            print(error)
    """
    said = printed(code, JAX_PLATFORMS="nowhere")
    assert said.startswith("JAX finds no device (JAX_PLATFORMS=nowhere")
    assert "\n" not in said


def test_without_a_cpu_among_the_platforms_there_is_nothing_to_check(
    monkeypatch,
) -> None:
    import jax

    def none(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", none)
    runtime.check.__wrapped__()
