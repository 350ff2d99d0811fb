"""One rival in a process of its own: `python -m benchmarks.worker BACKEND OPTIONS`.

Reads a JSON request a line on stdin, answers with a line on stdout. A request either
prepares a task, or runs it a number of times; `Worker` in `benchmarks.measure` sends
them. XLA's flags, torch's threads and the import of jaxdl hold for a process, hence
one for each rival.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import cases


class Prepared(NamedTuple):
    """A task that is ready to run."""

    run: Callable[[int], float]
    """Runs it that many times and waits for the result; returns a number that depends
    on it, and that is finite if all went well."""
    parameters: int | None = None
    """Trained parameters, if it has any."""


def serve(backend: Any, options: dict[str, Any]) -> None:
    """Answers requests until stdin ends.

    The memory of an answer is the most that the process held meanwhile, in bytes,
    beyond what it held once the backend had been imported.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints, prints to stderr
    at_start = _restart_peak()
    prepared = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "prepare":
                prepared = None
                gc.collect()
                case = cases.from_json(request["case"])
                prepared = getattr(backend, request["task"])(case, **options)
                answer = {"parameters": prepared.parameters}
                answer["versions"] = backend.versions()
            else:
                assert prepared is not None
                start = time.perf_counter()
                result = prepared.run(request["count"])
                seconds = time.perf_counter() - start
                answer = {"seconds": seconds, "result": result}
        except Exception as error:  # whatever a rival raises is its result
            said = str(error).strip().partition("\n")[0]
            answer = {"failed": f"{type(error).__name__}: {said}"[:200]}
        answer["memory"] = _peak_memory() - at_start
        _restart_peak()
        print(json.dumps(answer), file=answers, flush=True)


def _restart_peak() -> int:
    """Makes the peak that of now (on Linux), and returns it.

    What is free, of compilation for the most part, goes back to the system before.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return _peak_memory()


def _peak_memory() -> int:
    """Most memory that the process has held, in bytes."""
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


if __name__ == "__main__":
    serve(
        importlib.import_module(f"benchmarks.{sys.argv[1]}_rival"),
        json.loads(sys.argv[2]),
    )
