import importlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import cli, measure

COMMANDS = (
    "conv",
    "step",
    "epoch",
    "compile",
    "memory",
    "inference",
    "hvp",
    "search",
)


@pytest.fixture
def call(monkeypatch, capsys):
    def call(command, *args):
        monkeypatch.setattr(sys, "argv", [command, *map(str, args)])
        try:
            cli.run(importlib.import_module(f"benchmarks.{command}").main)
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(call, command):
    code, out, _ = call(command, "--help")
    assert code == 0
    assert f"python -m benchmarks.{command}" in out and "--rounds" in out


def test_help_loads_neither_jax_nor_torch():
    names = ", ".join(f"benchmarks.{name}" for name in COMMANDS)
    code = f"import sys, {names}; print({{'jax', 'torch'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.parametrize(
    ("command", "args", "said"),
    [
        ("step", ["--networks", "resnet19"], "--networks knows fnn, lenet5"),
        ("step", ["--rivals", "tensorflow"], "--rivals knows 'jaxdl'"),
        ("step", ["--rounds=0"], "--rounds must be at least 1, not 0"),
        ("inference", ["--batch-size", "0"], "--batch-size must be at least 1, not 0"),
        ("compile", ["--seconds=0"], "--seconds must be positive, not 0"),
        ("conv", ["--layers", "3,3"], "--layers takes size,inputs,outputs,kernel"),
        ("conv", ["--layers", "8,3,3,2"], "kernels of odd size, not '8,3,3,2'"),
        ("epoch", ["--images=10"], "--images must be at least a batch of 64, not 10"),
        ("memory", ["--no-such-option"], "--no-such-option"),
        ("hvp", ["--networks", "vgg16"], "--networks"),
        ("hvp", ["--rivals", "torch nhwc"], "--rivals knows 'jaxdl'"),
        ("step", ["--rivals", "jaxdl", "jaxdl"], "--rivals: jaxdl is given twice"),
        ("hvp", ["--batch-size", "8", "8"], "--batch-size: 8 is given twice"),
        ("conv", ["--layers", "8,3,3,1", "8,3,3,1"], "--layers: 8,3,3,1 is given"),
        ("search", ["--hidden", "8", "8"], "--hidden: 8 is given twice"),
        ("search", ["--hidden", "8,x"], "--hidden takes sizes such as 512,256"),
        ("step", ["--batch-size"], "--batch-size takes at least one value"),
        ("memory", ["--networks"], "--networks takes at least one value"),
        ("inference", ["--rivals"], "--rivals takes at least one value"),
        ("conv", ["--layers"], "--layers takes at least one value"),
        ("epoch", ["--precision"], "--precision takes at least one value"),
        ("step", ["--name=a/b"], "--name must be a plain file name, not 'a/b'"),
        ("step", ["--name="], "--name must be a plain file name, not ''"),
    ],
)
def test_bad_input_is_one_line_and_code_2(call, tmp_path, command, args, said):
    code, out, err = call(command, f"--out={tmp_path}", *args)
    assert code == 2 and out == ""
    assert err.count("\n") == 1 and said in err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_of_no_use_is_told_before_measuring(call, tmp_path, command):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", "/proc"):
        code, out, err = call(command, f"--out={folder}")
        assert code == 2 and out == ""
        assert err.count("\n") == 1 and "choose another with --out" in err


def test_records_of_the_repository_are_written_only_where_asked(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["step"])
    config = cli.parse("step", cli.Networks, "")
    assert (config.out, config.name) == (Path("checkpoints/benchmarks"), None)
    assert (tmp_path / config.out).is_dir() and not any(config.out.iterdir())


def test_an_architecture_alone_is_all_its_layouts():
    names = [network.name for network in cli.chosen(["resnet18", "lenet5"])]
    assert names == ["lenet5", "resnet18/torchvision", "resnet18/small"]


def test_a_step_is_measured_whole(call, tmp_path):
    args = ["--rounds=1", "--seconds=0.01", "--networks", "fnn", "--batch-size", "4"]
    args += ["--rivals", "jaxdl", "flax", "--out", tmp_path / "new", "--name=here"]
    code, out, err = call("step", *args)
    assert code == 0, err
    assert "fnn, batch 4" in out and "jaxdl : best flax" in out and "GFLOP/s" in out
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"here.json", "here.png"}
    results = json.loads((tmp_path / "new" / "here.json").read_text())["results"]
    assert [r["rival"] for r in results] == ["jaxdl", "flax"]
    assert all(r["parameters"] == 535_818 and r["seconds"][0] > 0 for r in results)


def test_a_step_is_reported_though_no_rival_answers_in_time(call, tmp_path):
    args = ["--rounds=1", "--timeout=0.001", "--networks", "fnn", "--rivals", "jaxdl"]
    code, out, err = call("step", *args, "--out", tmp_path)
    assert code == 0, err
    assert "fnn, batch 128, jaxdl: over 0.001 s" in out
    assert "matrix product, float32: no rival has computed it" in out
    assert "nan" not in out


def test_trials_of_a_search_are_measured(call, tmp_path):
    args = [
        "--rounds=1",
        "--seconds=0.01",
        "--hidden",
        "8",
        "--no-lenet",
        "--images=640",
    ]
    args += ["--rivals", "jaxdl spread", "--out", tmp_path]
    code, out, err = call("search", *args)
    assert code == 0, err
    assert "fnn 8 batch norm" in out and "trials/s" in out
    results = json.loads((tmp_path / "search.json").read_text())["results"]
    assert {r["parameters"] for r in results} == {6272 + 8 + 90, 6272 + 16 + 90}
    assert all(16 / r["seconds"][0] == pytest.approx(r["figures"][0]) for r in results)


def test_the_products_of_a_search_are_measured(call, tmp_path):
    if missing := measure.installed(["torch"])[1]:
        pytest.skip(missing[0])
    args = ["--rounds=1", "--seconds=0.01", "--hidden", "256", "--images=640"]
    args += ["--no-lenet", "--rivals", "torch", "products alone", "--out", tmp_path]
    code, out, err = call("search", *args)
    assert code == 0, err
    assert "products alone : best torch" in out
    _, products = json.loads((tmp_path / "search.json").read_text())["results"][:2]
    assert products["rival"] == "products alone" and products["seconds"][0] > 0


def test_what_a_signal_leaves_does_not_replace_a_record(call, monkeypatch, tmp_path):
    prepare = measure.Worker.prepare

    def stop_at_second(self, task, case, timeout):
        if case.arch == "lenet5":
            signal.raise_signal(signal.SIGINT)
        return prepare(self, task, case, timeout)

    monkeypatch.setattr(measure.Worker, "prepare", stop_at_second)
    (tmp_path / "inference.json").write_text("an older record")
    args = ["--rounds=1", "--seconds=0.01", "--networks", "fnn", "lenet5", "alexnet"]
    args += ["--batch-size", "2", "--rivals", "jaxdl"]
    code, out, _ = call("inference", *args, "--out", tmp_path)
    assert code == 130
    assert "lenet5, batch 2, jaxdl: stopped" in out
    assert (tmp_path / "inference.json").read_text() == "an older record"
    kept = json.loads((tmp_path / "inference-stopped.json").read_text())["results"]
    assert [one["failed"] for one in kept] == [None, "stopped", "stopped"]
    assert kept[0]["figures"][0] > 0
