"""The rivals, their processes, and timing in turns.

Each rival is a process that waits while another computes. A round runs each of them
once, A B C A B C, so that whatever else the machine does hits all alike; the first run
of each, which compiles, is not counted.
"""

import contextlib
import dataclasses
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any, Generic, Self, TypeVar

from tqdm import tqdm

from benchmarks import cases
from benchmarks.cases import Case
from experiments import cli
from jaxdl import runtime


@dataclasses.dataclass(frozen=True)
class Rival:
    """How the process of a rival is started."""

    backend: str
    """The module benchmarks.<backend>_rival."""
    needs: tuple[str, ...]
    """Packages without which it is left out."""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Passed to the functions of the module."""
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    """Added to the environment of the process."""
    flags: str = ""
    """Added to XLA's flags."""


C = TypeVar("C", bound=Case)

_TORCH = ("torch", "torchvision")
RIVALS = {
    "jaxdl": Rival("jaxdl", (), environment={"JAXDL_ENGINE": "native"}),
    "jaxdl pure": Rival("jaxdl", (), environment={"JAXDL_ENGINE": "pure"}),
    "torch nchw": Rival("torch", _TORCH, {"channels_last": False}),
    "torch nhwc": Rival("torch", _TORCH, {"channels_last": True}),
    "torch compile": Rival("torch", _TORCH, {"channels_last": True, "compile": True}),
    "flax": Rival("flax", ()),
    "flax+cure": Rival("flax", (), flags=runtime.CURE),
    "keras": Rival("keras", ("keras",), environment={"KERAS_BACKEND": "jax"}),
}
"""By their names in tables. "flax" is plain Flax with XLA's default flags, "flax+cure"
the same with jaxdl's cure for wrong numbers."""

EPOCH_RIVALS = {
    **{name: RIVALS[name] for name in ("jaxdl", "jaxdl pure")},
    "jaxdl without input": dataclasses.replace(
        RIVALS["jaxdl"], options={"resident": False}
    ),
    "torch memory nchw": RIVALS["torch nchw"],
    "torch memory nhwc": RIVALS["torch nhwc"],
    **{
        f"{library} loader {workers}": Rival(
            "torch",
            _TORCH,
            {"channels_last": True, "workers": workers, "pil": library != "torch"},
        )
        for library in ("torch", "torchvision")
        for workers in (0, 2)
    },
    **{name: RIVALS[name] for name in ("flax", "flax+cure")},
}
"""Those of whole epochs."""


HVP_RIVALS = {
    **{name: RIVALS[name] for name in ("jaxdl", "jaxdl pure")},
    **{
        f"torch {method}": Rival("torch", _TORCH, {"method": method})
        for method in ("double backward", "func", "func compiled")
    },
    **{
        name: Rival("torch", (*_TORCH, name), {"method": name})
        for name in ("curvlinops", "pyhessian")
    },
    **{name: RIVALS[name] for name in ("flax", "flax+cure")},
}
"""Those of products with a Hessian."""

_A_CORE_EACH = {"JAX_NUM_CPU_DEVICES": str(runtime.cores())}
SEARCH_RIVALS = {
    "jaxdl spread": Rival("jaxdl", (), {"lanes": 1}, _A_CORE_EACH),
    "jaxdl vmap": Rival("jaxdl", (), {"lanes": 8}, _A_CORE_EACH),
    "torch": Rival("torch", _TORCH, {"fused": False}),
    "torch fused": Rival("torch", _TORCH, {"fused": True}),
    "torch 1 thread": Rival("torch", _TORCH, {"fused": True, "threads": 1}),
    "products alone": Rival("torch", _TORCH, {"products": True}),
}
"""Those of a search: trials one on each core, or eight mapped over on each; and torch
with one trial after the other, its SGD in its default form or fused. "products alone"
is what a search could be at best that spends no time on anything but its products."""


STOPPED = "stopped"
"""Why there is no figure of what a signal came before."""


class FailedError(Exception):
    """A rival cannot do a case; the message says why in a few words."""


class Worker:
    """The process of a rival; started when first asked, and again after it died."""

    def __init__(self, rival: Rival) -> None:
        self._rival = rival
        self._process: subprocess.Popen[str] | None = None
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  (__exit__ closes it)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        self._said.close()

    def prepare(self, task: str, case: Case, timeout: float) -> dict[str, Any]:
        """Makes a task ready: parameters, versions, memory.

        Raises:
          FailedError: it raised an error, or took longer than `timeout` seconds.
        """
        request = {"do": "prepare", "task": task, "case": cases.to_json(case)}
        return self._ask(request, timeout)

    def run(self, count: int, timeout: float) -> dict[str, Any]:
        """Runs the task: seconds, result, memory.

        Raises:
          FailedError: as `prepare`, or the result is not finite.
        """
        answer = self._ask({"do": "run", "count": count}, timeout)
        if not math.isfinite(answer["result"]):
            raise FailedError("not finite")
        return answer

    def stop(self) -> None:
        """Ends the process."""
        if self._process is None:
            return
        with contextlib.suppress(BrokenPipeError, subprocess.TimeoutExpired):
            self._process.communicate(timeout=10)  # the end of stdin ends it
        self._process.kill()
        self._process.wait()
        self._process = None

    def _ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        process = self._process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        alarm = threading.Timer(timeout, process.kill)
        alarm.start()
        line = ""
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        late = not alarm.is_alive()
        alarm.cancel()
        if line:
            answer = json.loads(line)
            if "failed" in answer:
                raise FailedError(answer["failed"])
            return answer
        self.stop()
        self._said.seek(0)
        said = [line for line in self._said.read().splitlines() if line.strip()]
        raise FailedError(f"over {timeout:g} s" if late else (said or ["died"])[-1])

    def _start(self) -> subprocess.Popen[str]:
        self._said.truncate(0)
        variables = {
            **os.environ,
            # The cure that importing jaxdl has put into this process is not for all.
            "XLA_FLAGS": " ".join(
                os.environ.get("XLA_FLAGS", "").replace(runtime.CURE, "").split()
                + self._rival.flags.split()
            ),
            "JAX_ENABLE_COMPILATION_CACHE": "false",
            "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
            "JAX_PLATFORMS": "cpu",  # as all of PyTorch's are, GPU or not
            **self._rival.environment,
        }
        command = ["-m", "benchmarks.worker", self._rival.backend]
        return subprocess.Popen(
            [sys.executable, *command, json.dumps(self._rival.options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env=variables,
        )


@dataclasses.dataclass
class Measured(Generic[C]):
    """What one rival did with one case."""

    case: C
    rival: str
    seconds: list[float] = dataclasses.field(default_factory=list)
    """Of one repetition, by round."""
    first: list[float] = dataclasses.field(default_factory=list)
    """Seconds of each first run, compilation included."""
    first_memory: list[int] = dataclasses.field(default_factory=list)
    """Most bytes held up to then, beyond the imports; right in a fresh process."""
    memory: list[int] = dataclasses.field(default_factory=list)
    """The same in the run that follows."""
    parameters: int | None = None
    """Trained parameters."""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    """Of what computed."""
    failed: str | None = None
    """Why there is no figure."""

    @property
    def median(self) -> float:
        """Median seconds of one repetition; NaN where it failed."""
        return statistics.median(self.seconds) if self.seconds else math.nan


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long each rival is measured."""

    rounds: int = 7
    """Rounds; in each, every rival runs once."""
    seconds: float = 1.0
    """Length of a run, at least one repetition."""
    timeout: float = 300.0
    """A rival that does not answer for this long has failed, in seconds."""


def find(name: str) -> Rival:
    """The rival of that name."""
    return {**RIVALS, **EPOCH_RIVALS, **HVP_RIVALS, **SEARCH_RIVALS}[name]


def installed(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The rivals that can be had here, and a line about each that cannot."""
    present, notes = [], []
    for name in names:
        missing = [p for p in find(name).needs if find_spec(p) is None]
        if missing:
            notes.append(f"{name}: left out, {' and '.join(missing)} not installed")
        else:
            present.append(name)
    return present, notes


def compare(
    task: str, listed: Sequence[C], rivals: Sequence[str], effort: Effort
) -> list[Measured[C]]:
    """Measures every rival on every case, in turns, in processes that live on.

    Args:
      task: a function of the rivals' modules.
      listed: cases that it takes.
      rivals: names of `RIVALS`, all installed.
      effort: how long.

    Returns:
      Cases x rivals, in this order; after SIGINT or SIGTERM those that were not done
      have failed as `STOPPED`.
    """
    with contextlib.ExitStack() as stack:
        workers = {r: stack.enter_context(Worker(find(r))) for r in rivals}

        def measure(found: list[Measured[C]], stopped: cli.StopOnSignal) -> None:
            counts = {
                one.rival: _first_runs(task, one, workers[one.rival], effort)
                for one in found
                if not stopped()
            }
            for one in found * effort.rounds:
                if not stopped():
                    _one_run(one, workers[one.rival], counts[one.rival], effort)

        return _of_each(listed, rivals, measure, task)


def compare_fresh(
    task: str, listed: Sequence[C], rivals: Sequence[str], effort: Effort
) -> list[Measured[C]]:
    """The same with a fresh process each time: for first runs, and for memory."""

    def measure(found: list[Measured[C]], stopped: cli.StopOnSignal) -> None:
        for one in found * effort.rounds:
            if not stopped():
                with Worker(find(one.rival)) as worker:
                    count = _first_runs(task, one, worker, effort)
                    _one_run(one, worker, count, effort)

    return _of_each(listed, rivals, measure, task)


def _of_each(
    listed: Sequence[C],
    rivals: Sequence[str],
    measure: Callable[[list[Measured[C]], cli.StopOnSignal], None],
    title: str,
) -> list[Measured[C]]:
    """Measures case by case, until a signal comes; that ends all if none is done."""
    results: list[Measured[C]] = []
    with cli.StopOnSignal() as stopped:
        for case in tqdm(listed, title, disable=None):
            found = [Measured(case, rival) for rival in rivals]
            if not stopped():
                measure(found, stopped)
            if stopped():  # whatever a rival has of this case, others have less
                for one in found:
                    one.failed, one.seconds = STOPPED, []
            results += _of_one_network(found)
    if stopped.signal and all(one.failed == STOPPED for one in results):
        signal.raise_signal(stopped.signal)
    return results


def product_rate(precision: cases.Precision, effort: Effort) -> float:
    """FLOP/s of a product of two matrices of 2048x2048, by JAX or by torch.

    NaN where both have failed.
    """
    rivals, _ = installed(("flax+cure", "torch nchw"))
    product = cases.Product(precision=precision)
    found = compare("product", [product], rivals, effort)
    rates = (product.flops / one.median for one in found if one.seconds)
    return max(rates, default=math.nan)


def _first_runs(task: str, one: Measured[Any], worker: Worker, effort: Effort) -> int:
    """Prepares the case and warms up; returns how many repetitions fill a run."""
    with _noting(one):
        ready = worker.prepare(task, one.case, effort.timeout)
        one.parameters, one.versions = ready["parameters"], ready["versions"]
        first = worker.run(1, effort.timeout)
        again = worker.run(1, effort.timeout)
        one.first.append(first["seconds"])
        one.first_memory.append(max(ready["memory"], first["memory"]))
        one.memory.append(again["memory"])
        return max(1, round(effort.seconds / again["seconds"]))
    return 0


def _one_run(one: Measured[Any], worker: Worker, count: int, effort: Effort) -> None:
    if one.failed is None:
        with _noting(one):
            answer = worker.run(count, effort.timeout)
            one.seconds.append(answer["seconds"] / count)


def _of_one_network(found: list[Measured[C]]) -> list[Measured[C]]:
    """The same, checked: all rivals have trained equally many parameters."""
    sizes = {one.rival: one.parameters for one in found if one.parameters is not None}
    assert len(set(sizes.values())) <= 1, f"different networks: {sizes}"
    return found


@contextlib.contextmanager
def _noting(one: Measured[Any]) -> Iterator[None]:
    """Makes a failure a remark."""
    try:
        yield
    except FailedError as error:
        one.failed, one.seconds = str(error), []
