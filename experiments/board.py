"""Scalars for TensorBoard, written in the thread that has them.

tensorboardX's own SummaryWriter hands events to a thread through a bounded queue. Where
the disk is full that thread dies, and the training then waits for ever.
"""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax


@contextlib.contextmanager
def _absent(module: str) -> Iterator[None]:
    """A module that nobody has imported yet cannot be imported meanwhile."""
    hidden = sys.modules.setdefault(module, None) is None  # type: ignore[arg-type]
    try:
        yield
    finally:
        if hidden:
            del sys.modules[module]


# tensorboardX imports torch wherever it is installed: half of the time that a run takes
# to start, for conversions that nobody asks for here.
with _absent("torch"):
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.summary import scalar


@contextlib.contextmanager
def opened(directory: Path, first: int) -> Iterator[EventsWriter | None]:
    """A file of events, in the first process only.

    TensorBoard forgets what earlier files say of the steps after `first`.

    Raises:
      OSError: the directory cannot be written.
    """
    if jax.process_index() != 0:
        yield None
        return
    directory.mkdir(exist_ok=True)
    board = EventsWriter(str(directory / "events"))
    start = SessionLog(status=SessionLog.SessionStatus.Value("START"))
    board.write_event(Event(wall_time=time.time(), step=first, session_log=start))
    with contextlib.closing(board):
        yield board


def write(board: EventsWriter, step: int, scalars: Mapping[str, float]) -> None:
    """Writes scalars of one step, by tag, such as "train/loss".

    Raises:
      OSError: the disk is full ...
    """
    for tag, value in scalars.items():
        summary = scalar(tag, value)
        board.write_event(Event(wall_time=time.time(), step=step, summary=summary))
    board.flush()
