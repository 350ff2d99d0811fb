import dataclasses
import json
import os
import signal
import subprocess

import pytest

from benchmarks import cases, measure
from benchmarks.measure import Effort, FailedError, Rival, Worker
from jaxdl import runtime

PRODUCT = cases.Product(size=8)


@pytest.mark.parametrize(
    "case",
    [
        cases.Network("fnn", None, 3, "bfloat16"),
        cases.Convolution(4, 3, 2, 1, "weight gradient"),
        PRODUCT,
        cases.Epoch(cases.Network("lenet5", None), "a.npy", "b.npy", 7),
    ],
)
def test_a_case_survives_json(case):
    assert cases.from_json(json.loads(json.dumps(cases.to_json(case)))) == case


def test_a_record_has_no_file_of_the_measurement():
    network = cases.Network("lenet5", None)
    record = cases.to_record(cases.Epoch(network, "a.npy", "b.npy", 7))
    assert record == {"kind": "Epoch", "network": vars(network), "count": 7}
    assert cases.to_record(network) == cases.to_json(network)


def test_flops_of_a_layer_and_of_a_product():
    layer = cases.Convolution(32, 64, 64, 3, "forward", batch=64)
    assert layer.flops == 4_831_838_208  # 64 images x 1024 pixels x 36,864 x 2
    assert cases.Product(2048).flops == 17_179_869_184  # 2^34


def test_a_worker_computes_reports_failures_and_ends():
    with Worker(Rival("flax", ())) as worker:
        ready = worker.prepare("product", PRODUCT, 60)
        assert ready["parameters"] is None and "jax" in ready["versions"]
        assert worker.run(3, 60)["seconds"] > 0
        with pytest.raises(FailedError, match="AttributeError"):
            worker.prepare("no such task", PRODUCT, 60)
        process = worker._process
        with pytest.raises(FailedError, match=r"over 0\.01 s"):
            worker.prepare("step", cases.Network("resnet18"), 0.01)
        assert process.poll() is not None
        worker.prepare("product", PRODUCT, 60)  # in a new process
        process = worker._process
    assert process.poll() is not None


def test_a_worker_that_cannot_start_says_why():
    with (
        Worker(Rival("no_such", ())) as worker,
        pytest.raises(FailedError, match="No module named"),
    ):
        worker.prepare("step", PRODUCT, 60)


def test_only_the_cured_flax_has_the_cure(monkeypatch):
    environments = {}

    def popen(command, *, env, **options):
        environments[name] = env
        raise OSError

    monkeypatch.setenv("XLA_FLAGS", f"--xla_a=1 {runtime.CURE}")
    monkeypatch.setattr(subprocess, "Popen", popen)
    for name in ("flax", "flax+cure", "jaxdl pure"):
        with Worker(measure.RIVALS[name]) as worker, pytest.raises(OSError):
            worker.prepare("product", PRODUCT, 1)
    assert environments["flax"]["XLA_FLAGS"] == "--xla_a=1"
    assert environments["flax+cure"]["XLA_FLAGS"] == f"--xla_a=1 {runtime.CURE}"
    assert environments["jaxdl pure"]["JAXDL_ENGINE"] == "pure"
    assert environments["flax"].get("JAXDL_ENGINE") == os.environ.get("JAXDL_ENGINE")


class Fake:
    """A worker whose repetitions take as long as its name says; notes every run."""

    runs: list[tuple[str, int]] = []  # noqa: RUF012

    def __init__(self, rival):
        self.name = rival.backend

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def prepare(self, task, case, timeout):
        if self.name == "broken":
            raise FailedError("is broken")
        return {"parameters": 5, "versions": {self.name: "1"}, "memory": 100}

    def run(self, count, timeout):
        self.runs.append((self.name, count))
        return {"seconds": float(self.name) * count, "result": 0.0, "memory": 70}


@pytest.fixture
def fake(monkeypatch):
    names = ("0.5", "0.1", "broken")
    monkeypatch.setattr(measure, "Worker", Fake)
    monkeypatch.setattr(measure, "RIVALS", {n: Rival(n, ()) for n in names})
    monkeypatch.setattr(Fake, "runs", [])
    return names


def test_rivals_run_in_turns_and_first_runs_do_not_count(fake):
    slow, fast, broken = measure.compare("product", [PRODUCT], fake, Effort(2, 1.0))
    warm = [("0.5", 1), ("0.5", 1), ("0.1", 1), ("0.1", 1)]
    assert Fake.runs == [*warm, *[("0.5", 2), ("0.1", 10)] * 2]
    assert slow.seconds == [0.5, 0.5] and fast.median == pytest.approx(0.1)
    assert broken.failed == "is broken" and broken.seconds == []


def test_fresh_processes_have_as_many_first_runs_as_rounds(fake):
    found = measure.compare_fresh("product", [PRODUCT], fake[:2], Effort(3, 1.0))
    assert found[0].first == [0.5] * 3
    assert found[0].first_memory == [100] * 3 and found[0].memory == [70] * 3


@pytest.mark.parametrize("compare", [measure.compare, measure.compare_fresh])
def test_a_signal_leaves_the_cases_that_were_done(fake, monkeypatch, compare):
    def run(self, count, timeout):
        if len(Fake.runs) == 8:  # in the second case
            signal.raise_signal(signal.SIGTERM)
        return _run(self, count, timeout)

    _run = Fake.run
    monkeypatch.setattr(Fake, "run", run)
    before = signal.getsignal(signal.SIGTERM)
    products = [dataclasses.replace(PRODUCT, size=size) for size in (8, 9, 10)]
    found = compare("product", products, fake[:2], Effort(1, 1.0))
    assert [one.case.size for one in found] == [8, 8, 9, 9, 10, 10]
    assert [one.failed for one in found] == [None] * 2 + [measure.STOPPED] * 4
    assert [len(one.seconds) for one in found] == [1, 1, 0, 0, 0, 0]
    assert signal.getsignal(signal.SIGTERM) == before


def test_different_networks_are_noticed(fake, monkeypatch):
    monkeypatch.setattr(
        Fake,
        "prepare",
        lambda self, *_: {"parameters": self.name, "versions": {}, "memory": 0},
    )
    with pytest.raises(AssertionError, match="different networks"):
        measure.compare("product", [PRODUCT], fake[:2], Effort(1, 1.0))


def test_a_rival_that_is_not_installed_is_left_out_and_named(monkeypatch):
    missing = dataclasses.replace(measure.RIVALS["keras"], needs=("no_such_package",))
    monkeypatch.setitem(measure.RIVALS, "keras", missing)
    present, notes = measure.installed(("jaxdl", "keras"))
    assert present == ["jaxdl"]
    assert notes == ["keras: left out, no_such_package not installed"]
