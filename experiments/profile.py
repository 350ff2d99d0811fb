"""A trace of some steps, for Perfetto (https://ui.perfetto.dev) or TensorBoard."""

from collections.abc import Iterator
from pathlib import Path

import jax

from jaxdl.training import loop

FIRST, LAST = 2, 3
"""The trace lies between these two slices: the first compile, and find the pace."""


def told(folder: Path) -> str:
    """A line that says where the trace is, or why there is none."""
    if any(folder.rglob("perfetto_trace.json.gz")):
        return f"Trace, for https://ui.perfetto.dev: {folder}"
    return "No trace: the run was over before its third call of steps (--profile)"


def traced(events: Iterator[loop.Event], folder: Path) -> Iterator[loop.Event]:
    """Passes the events of `loop.fit` on, and traces what happens between two of them.

    Args:
      events: of the loop.
      folder: gets plugins/profile/<time>/, with perfetto_trace.json.gz in it.
    """
    slices, running = 0, False
    try:
        for event in events:
            if isinstance(event, loop.Progressed):
                slices += 1
            if slices == FIRST and not running:
                jax.profiler.start_trace(folder, create_perfetto_trace=True)
                running = True
            elif slices == LAST and running:
                jax.profiler.stop_trace()
                slices, running = LAST + 1, False
            yield event
    finally:
        if running:
            jax.profiler.stop_trace()
