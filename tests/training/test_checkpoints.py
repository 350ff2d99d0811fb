"""Checkpoints come back to the bit, or not at all."""

import ctypes
import functools
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_run import bits

from jaxdl.errors import InputError
from jaxdl.training import checkpoints

# Orbax leaves pending callbacks behind when a read fails.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)

RECORD = {"best_accuracy": 1 / 3, "best_epoch": 2, "seconds": 1.5}


@functools.cache
def tiny() -> tiny_run.Tiny:
    return tiny_run.make(tiny_run.with_(ema=0.9))


@functools.cache
def trained(steps: int = 2):
    return tiny().train(steps)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A folder with the checkpoints of steps 2 and 3."""
    folder = tmp_path_factory.mktemp("run") / "latest"
    with checkpoints.open_manager(folder, 2) as manager:
        for steps in (2, 3):
            checkpoints.save(manager, trained(steps), {**RECORD, "best_epoch": steps})
    return folder


@pytest.fixture
def folder(written, tmp_path) -> Path:
    """A copy of it to damage."""
    return Path(shutil.copytree(written, tmp_path / "latest"))


def restored(folder: Path, like=None):
    with checkpoints.open_manager(folder, 2) as manager:
        return checkpoints.restore(manager, tiny().state if like is None else like)


def test_a_state_comes_back_to_the_bit(written) -> None:
    state, record = restored(written)
    assert bits(state) == bits(trained(3))
    assert record == {**RECORD, "best_epoch": 3}
    assert state.key.dtype == trained(3).key.dtype
    assert state.ema is not None


def test_a_restored_state_computes_the_same_bits(written) -> None:
    state, _ = restored(written)
    program, data, order = tiny().programs.train, tiny().data, tiny().order()
    resumed = program(tiny().start(state), data, order, 3, 2)
    assert bits(resumed) == bits(trained(5))


def test_values_of_every_kind_come_back(tmp_path) -> None:
    """NaN with its payload, infinities, negative zero, denormals."""
    odd = np.array([0x7FC00123, 0xFF800000, 0x80000000, 1, 0x7F7FFFFF], np.uint32)
    state = tiny().state._replace(
        variables={"params": {"odd": odd.view(np.float32)}},
        opt_state=(),
        ema=None,
    )
    with checkpoints.open_manager(tmp_path, 1) as manager:
        checkpoints.save(manager, state, RECORD)
    found, _ = restored(tmp_path, state)
    assert bits(found) == bits(state)


def test_no_checkpoint_is_no_error(tmp_path) -> None:
    assert restored(tmp_path / "new") is None


def test_the_last_k_are_kept(tmp_path) -> None:
    with checkpoints.open_manager(tmp_path, 3) as manager:
        for step in range(1, 8):
            state = tiny().state._replace(step=jnp.int32(step))
            checkpoints.save(manager, state, RECORD)
        manager.wait_until_finished()
        assert sorted(manager.all_steps()) == [5, 6, 7]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["5", "6", "7"]


def test_a_step_that_is_there_is_left_alone(folder) -> None:
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    with checkpoints.open_manager(folder, 2) as manager:
        checkpoints.save(manager, trained(3), RECORD)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_a_damaged_step_that_is_there_is_replaced(folder) -> None:
    for path in files(folder, 3):
        path.write_bytes(b"")
    record = {**RECORD, "best_epoch": 3}
    with checkpoints.open_manager(folder, 2) as manager:
        checkpoints.save(manager, trained(3), record)
    state, found = restored(folder)
    assert bits(state) == bits(trained(3)) and found == record


def test_the_state_may_be_consumed_while_it_is_saved(tmp_path) -> None:
    """The save goes on in the background; the next step reuses the memory."""
    state = tiny().start(trained(2))
    expected = bits(state)
    program, data, order = tiny().programs.train, tiny().data, tiny().order()
    with checkpoints.open_manager(tmp_path, 1) as manager:
        checkpoints.save(manager, state, RECORD)
        program(state, data, order, 2, 4)
        manager.wait_until_finished()
    assert bits(restored(tmp_path)[0]) == expected


def files(folder: Path, step: int) -> list[Path]:
    return sorted(p for p in (folder / str(step)).rglob("*") if p.is_file())


def test_a_truncated_file_makes_the_one_before_count(folder) -> None:
    for path in files(folder, 3):
        if path.parent.name == "d":  # the data itself
            with path.open("r+b") as file:
                file.truncate(path.stat().st_size // 2)
    state, record = restored(folder)
    assert bits(state) == bits(trained(2))
    assert record["best_epoch"] == 2


@given(st.data())
@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_no_damage_to_one_file_gives_a_wrong_state(written, tmp_path, data) -> None:
    """Whatever is flipped, cut or lost: step 3 whole, or step 2 whole."""
    folder = tmp_path / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(written, folder)
    whole = [f for f in files(folder, 3) if f.stat().st_size]
    (record_file,) = [f for f in whole if f.parts[-2:] == ("record", "metadata")]
    path = data.draw(st.sampled_from(whole) | st.just(record_file))
    content = bytearray(path.read_bytes())
    kind = data.draw(st.sampled_from(["flip", "flip", "cut", "lose"]))
    place = data.draw(st.integers(0, len(content) - 1))
    if kind == "flip":
        content[place] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
    elif kind == "cut":
        path.write_bytes(content[:place])
    else:
        path.unlink()
    state, record = restored(folder)
    step = int(state.step)
    assert bits(state) == bits(trained(step))
    assert record == {**RECORD, "best_epoch": step}


def test_what_its_run_has_bettered_meanwhile_is_not_called_damaged(folder) -> None:
    with checkpoints.open_manager(folder, 2) as manager:
        assert manager.all_steps() == [2, 3]
        shutil.move(folder / "3", folder / "4")  # as by another process
        shutil.rmtree(folder / "2")
        state, record = checkpoints.restore(manager, tiny().state)
    assert int(state.step) == 3 and record["best_epoch"] == 3


def test_where_all_are_damaged_the_line_says_so(folder) -> None:
    for step in (2, 3):
        for path in files(folder, step):
            path.write_bytes(b"")
    with pytest.raises(InputError) as caught:
        restored(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert "step 2" in message and "step 3" in message and str(folder) in message


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden": (9,)},
        {"hidden": (8, 8)},
        {"batch_norm": False},
        {"ema": None},
        {"momentum": 0.0},
    ],
    ids=str,
)
def test_a_checkpoint_of_another_run_is_refused(written, changes) -> None:
    other = tiny_run.make(tiny_run.with_(tiny().config, **changes))
    with pytest.raises(InputError, match="another model") as caught:
        restored(written, other.state)
    assert "\n" not in str(caught.value)


def test_forgotten_are_the_later_ones_only(folder) -> None:
    with checkpoints.open_manager(folder, 2) as manager:
        checkpoints.forget_after(manager, 2)
        assert manager.all_steps() == [2]
        assert manager.latest_step() == 2


def test_a_folder_that_cannot_be_is_an_input_error(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file") as caught:
        checkpoints.open_manager(tmp_path / "file" / "latest", 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("limit", [0, 20_000])
def test_a_full_disk_is_one_line(tmp_path, limit) -> None:
    """No file of that process may grow further: a disk that is full."""
    code = f"""
        import resource
        from pathlib import Path
        import jax, jax.numpy as jnp, numpy as np, optax
        from jaxdl.errors import InputError
        from jaxdl.models import registry
        from jaxdl.training import checkpoints, state
        model = registry.build("fnn", num_classes=3, hidden=(500,))
        first = state.create(model, optax.sgd(0.1), (8, 8, 1), jax.random.key(0))
        with checkpoints.open_manager(Path({str(tmp_path)!r}), 2) as manager:
            resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
            for step in (1, 2):
                try:
                    save = first._replace(step=jnp.int32(step))
                    checkpoints.save(manager, save, dict(a=1))
                    checkpoints.wait(manager)
                except InputError as error:
                    print(error)
            print(*manager.all_steps())
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    first, second, steps = process.stdout.split("\n")[:3]
    assert first == second
    assert first.startswith(f"cannot save a checkpoint in {tmp_path}: File too large;")
    assert not steps, "a checkpoint that could not be written counts"


def test_a_checkpoint_is_of_the_moment_of_its_saving(tmp_path) -> None:
    """Whatever is in the state's memory while it is written."""
    state = tiny().start(trained(2))
    expected = bits(state)
    with checkpoints.open_manager(tmp_path, 1) as manager:
        checkpoints.save(manager, state, {})
        for leaf in jax.tree.leaves(state._replace(key=None)):
            ctypes.memset(leaf.unsafe_buffer_pointer(), 0xFF, leaf.nbytes)
    assert bits(state) != expected
    found = restored(tmp_path)
    assert found is not None and bits(found[0]) == expected


def test_the_host_keeps_its_values_when_the_state_is_gone() -> None:
    state = tiny().start(trained(2))
    expected = bits(state)
    host = checkpoints.to_host(state)
    for leaf in jax.tree.leaves(state):
        leaf.delete()
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(host))
    assert bits(checkpoints.from_host(host)) == expected


def test_the_digest_tells_apart() -> None:
    a = np.arange(6, dtype=np.int32)
    trees = [
        {"a": a},
        {"b": a},
        {"a": a.reshape(2, 3)},
        {"a": a.astype(np.uint32)},
        {"a": a[::-1]},
        {"a": a, "b": np.zeros(0)},
        {"a": np.asfortranarray(a.reshape(2, 3))[:, :2]},
    ]
    assert len({checkpoints.digest(tree) for tree in trees}) == len(trees)
    chex.assert_equal(checkpoints.digest({"a": a}), checkpoints.digest({"a": a.copy()}))
    wide = np.arange(6).reshape(2, 3)
    fortran = np.asfortranarray(wide)
    assert checkpoints.digest([wide]) == checkpoints.digest([fortran])
