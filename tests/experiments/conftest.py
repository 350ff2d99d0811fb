"""Runs of the experiments, in this process or, where it takes that, in another."""

import importlib
import os
import signal
import subprocess
import sys
from typing import NamedTuple

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from experiments import cli
from jaxdl import ops
from jaxdl.data import official, synthetic_svhn


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    """Compiled programs, and a small synthetic_svhn in the place of the full one."""
    path = tmp_path_factory.mktemp("cache")
    parts = {
        "train": synthetic_svhn.generate("train", count=900),
        "test": synthetic_svhn.generate("test", count=300),
    }
    entry = path / "data" / f"synthetic_svhn-{synthetic_svhn.VERSION}"
    official.keep(entry, official.flat(parts), [])
    return path


@pytest.fixture
def invoke(monkeypatch, capsys, cache_dir):
    """Calls an experiment's main function as `python -m experiments.NAME` does."""
    compiled = jax.config.jax_compilation_cache_dir
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setenv("JAXDL_CACHE_DIR", str(cache_dir))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("JAXDL_RAW_DIR", raising=False)
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def call(name, *arguments):
        module = importlib.import_module(f"experiments.{name}")
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        code = 0
        try:
            cli.run_or_exit(module.main)
        except SystemExit as end:
            code = end.code or 0
        assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
        return Done(code, *capsys.readouterr())

    yield call
    jax.config.update("jax_compilation_cache_dir", compiled)
    compilation_cache.reset_cache()  # else all that is compiled later is written too
    ops.disable()


@pytest.fixture(scope="session")
def start(cache_dir):
    """Starts Python with such arguments; the experiments have one device there."""

    def begin(*arguments):
        environment = os.environ | {
            "JAX_NUM_CPU_DEVICES": "1",
            "JAXDL_CACHE_DIR": str(cache_dir),
            "COLUMNS": "80",
        }
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    return begin


TINY = (
    "--dataset=mnist_embedded",
    "--hidden=16",
    "--epochs=2",
    "--log-every=30",
    "--devices=1",
)


@pytest.fixture(scope="session")
def runs_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def mnist_run(runs_dir, invoke):
    """Folder of a finished MNIST run, made once; what it printed lies beside it."""
    path = runs_dir / "mnist" / "finished"
    if not path.exists():
        done = invoke("mnist", *TINY, f"--out={runs_dir}", "--name=finished")
        assert done.code == 0 and done.err == "", done
        (runs_dir / "mnist.txt").write_text(done.out)
    return path


@pytest.fixture
def svhn_run(runs_dir, invoke):
    """Folder of a finished run of LeNet-5 on a small synthetic_svhn."""
    path = runs_dir / "svhn" / "finished"
    if not path.exists():
        done = invoke(
            "svhn",
            "--dataset=synthetic_svhn",
            "--augment=digits",
            "--epochs=1",
            "--batch-size=50",
            "--devices=1",
            f"--out={runs_dir}",
            "--name=finished",
        )
        assert done.code == 0 and done.err == "", done
        (runs_dir / "svhn.txt").write_text(done.out)
    return path
