"""Two real processes of two devices each compute what one process does."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run

from jaxdl.training import checkpoints, loop
from jaxdl.training.loop import Finished, Record

SCRIPT = Path(__file__).with_name("one_of_two_processes.py")


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def run_two(kind: str, placed: str, folder: Path) -> list[dict[str, np.ndarray]]:
    """What each of the two processes found."""
    common = os.environ | {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}",
        "JAX_NUM_PROCESSES": "2",
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), kind, placed, str(folder)],
            env=common | {"JAX_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    codes = [process.returncode for process in processes]
    assert codes == [0, 0], "\n\n".join(output[-4000:] for output in outputs)
    return [dict(np.load(folder / f"{i}.npz")) for i in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same run on four devices of one process, never stopped."""
    folder = tmp_path_factory.mktemp("alone")
    tiny = tiny_run.make(tiny_run.with_(**tiny_run.EVERYTHING))
    with (
        checkpoints.open_manager(folder / "latest", 2) as latest,
        checkpoints.open_manager(folder / "best", 1) as best,
    ):
        *_, end = loop.fit(
            tiny.start(),
            Record(),
            tiny.data,
            tiny_run.VALIDATION,
            tiny.programs,
            loop.Schedule(2, tiny_run.STEPS, 4, 1e9, None),
            latest,
            best,
        )
    assert isinstance(end, Finished)
    state = end.state._replace(key=jax.random.key_data(end.state.key))
    return state, tiny.programs.evaluate(end.state.ema, tiny_run.VALIDATION)


@pytest.mark.parametrize(
    ("kind", "placed"), [("jit", "resident"), ("pmap", "streamed")]
)
def test_two_processes_compute_what_one_does(tmp_path, alone, kind, placed) -> None:
    """A step of everything, a stop that one process hears of, a resume, a score."""
    state, scores = alone
    found = run_two(kind, placed, tmp_path)
    for name in found[0]:  # both processes hold the same bits
        np.testing.assert_array_equal(found[0][name], found[1][name], err_msg=name)
    for i, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(state)):
        np.testing.assert_allclose(
            found[0][f"leaf_{i}"],
            leaf,
            rtol=1e-3,
            atol=1e-4,
            err_msg=jax.tree_util.keystr(path),
        )
    np.testing.assert_allclose(found[0]["logits"], scores.logits, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found[0]["losses"], scores.losses, rtol=1e-3, atol=1e-4)
    assert found[0]["best_step"] == found[0]["best_epoch"] * tiny_run.STEPS
