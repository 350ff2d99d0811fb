"""Checkpoints with Orbax: saved in the background, verified when they are read.

Orbax renames finished checkpoints into place, so a killed process leaves none half
done; but it stores no digest of their content. Each checkpoint therefore carries one,
and `restore` passes over a checkpoint that does not match it.
"""

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxdl.errors import InputError
from jaxdl.ops import engine
from jaxdl.training.state import TrainState

Manager: TypeAlias = ocp.CheckpointManager


def open_manager(directory: Path, keep: int) -> Manager:
    """Opens a folder of checkpoints that keeps the `keep` most recent ones.

    Raises:
      InputError: the folder cannot be made or written.
    """
    try:
        return Manager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
        )
    except OSError as error:
        raise InputError(
            f"cannot write checkpoints to {directory}: {error.strerror or error}; "
            f"choose another folder with --out"
        ) from error


def save(manager: Manager, state: TrainState, record: Mapping[str, Any]) -> None:
    """Saves the state under its step, in the background; does nothing if it is there.

    A resumed run comes by a step again, with the same bits; what is there then is kept
    if it is whole, and replaced if it is damaged.

    Args:
      manager: from `open_manager`.
      state: the state; replicated over devices.
      record: JSON-serialisable facts to keep with it.

    Raises:
      InputError: this checkpoint, or the one before, cannot be written.
    """
    host = to_host(state)
    step = int(host.step)
    there = step in manager.all_steps()
    if there:
        with contextlib.suppress(Exception):  # Orbax and TensorStore raise many kinds
            _read(manager, step, state)
            return
    engine.release_memory()
    with _writing(manager):
        if there:
            manager.delete(step)
        manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(host),
                record=ocp.args.JsonSave({**record, "digest": digest((host, record))}),
            ),
            force=True,
        )


def wait(manager: Manager) -> None:
    """Returns when all that was saved is whole on the disk.

    Raises:
      InputError: the last checkpoint cannot be written.
    """
    with _writing(manager):
        manager.wait_until_finished()


def restore(
    manager: Manager, like: TrainState
) -> tuple[TrainState, dict[str, Any]] | None:
    """Restores the most recent checkpoint whose content matches its digest.

    Args:
      manager: from `open_manager`.
      like: a state of the same structure, for shapes and dtypes.

    Returns:
      (state on the host, its record), or None where there is no checkpoint at all.

    Raises:
      InputError: there are checkpoints, but none is whole, or they belong to another
        model.
    """
    failures: list[str] = []
    gone = True
    while gone:  # of a run that goes on: it deletes what it has bettered
        failures.clear()
        gone = False
        for step in sorted(manager.all_steps(read=True), reverse=True):
            try:
                host, record = _read(manager, step, like)
            except Exception as error:  # as in `save`
                failures.append(f"step {step}: {_first_line(error)}")
                gone = gone or not _stays(manager, step)
                continue
            return from_host(host), record
    if failures:
        raise InputError(
            f"no checkpoint in {manager.directory} can be restored "
            f"({'; '.join(failures)}); it is damaged or of another model: "
            f"start a new run under another --name"
        )
    return None


def _stays(manager: Manager, step: int) -> bool:
    """Whether a checkpoint that cannot be read is still there a moment later."""
    time.sleep(0.2)  # Orbax deletes one file after the other
    return (Path(manager.directory) / str(step)).exists()


def forget_after(manager: Manager, step: int) -> None:
    """Deletes the checkpoints of later steps, passed over as damaged."""
    for later in [s for s in manager.all_steps() if s > step]:
        manager.delete(later)


def to_host(state: TrainState) -> TrainState:
    """The state as NumPy arrays; the key becomes its raw uint32 data.

    On a CPU they are views, whose memory no step takes while they are there; Orbax
    copies NumPy arrays before `save` returns.
    """
    return jax.device_get(state._replace(key=jax.random.key_data(state.key)))


def from_host(host: TrainState) -> TrainState:
    """Inverse of `to_host`, still on the host but for the key."""
    return host._replace(key=jax.random.wrap_key_data(host.key))


def digest(tree: Any) -> str:
    """SHA-256 over names, shapes, dtypes and bytes of a tree of arrays and numbers."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        name = jax.tree_util.keystr(path)
        sha.update(f"{name} {array.dtype} {array.shape}\n".encode())
        sha.update(array.reshape(-1).view(np.uint8).data)
    return sha.hexdigest()


def _read(
    manager: Manager, step: int, like: TrainState
) -> tuple[TrainState, dict[str, Any]]:
    """A checkpoint, on the host; raises an error if it is damaged or does not fit."""
    raw = like._replace(key=jax.eval_shape(jax.random.key_data, like.key))
    template = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), raw)
    item = manager.restore(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardRestore(template), record=ocp.args.JsonRestore()
        ),
    )
    # Orbax gives a NumPy array as it was stored, whatever the template's shape.
    for (path, wanted), found in zip(
        jax.tree_util.tree_leaves_with_path(template),
        jax.tree.leaves(item.state),
        strict=True,
    ):
        if found.shape != wanted.shape:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(f"{name} has shape {found.shape}, not {wanted.shape}")
    record = dict(item.record)
    said = record.pop("digest", None)
    if digest((item.state, record)) != said:
        raise ValueError("its content does not match its digest")
    return item.state, record


@contextlib.contextmanager
def _writing(manager: Manager) -> Iterator[None]:
    """Turns what Orbax raises where a disk is full, or a folder gone, into one line."""
    try:
        yield
    except (OSError, ValueError) as error:  # TensorStore raises ValueError
        code = re.search(r"(?:os_error_code='|Errno )(\d+)", str(error))
        reason = os.strerror(int(code[1])) if code else _first_line(error)
        raise InputError(
            f"cannot save a checkpoint in {manager.directory}: {reason}; make room, "
            f"and go on with --resume, or choose another folder with --out"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
