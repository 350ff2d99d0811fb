"""A comparison from end to end: trained, killed, gone on with, spoilt; its table."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time

import pytest

from experiments import compare, compare_table, comparing, recipes
from jaxdl import runs

EPOCHS = "--epochs=8"
TINY = ("--dataset=synthetic_svhn", "--architectures", "lenet5")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tmp_path_factory.mktemp("comparisons")


@pytest.fixture
def comparison(made, invoke, monkeypatch):
    """Folder of a comparison of two seeds, made once."""
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")  # of its processes
    folder = made / "compare" / "svhn"
    if not folder.exists():
        done = invoke("compare", *TINY, "--seeds", 0, 1, EPOCHS, f"--out={made}")
        assert done.code == 0, done
        assert f"Table: {folder / 'RESULTS.html'}" in done.out
    return folder


@pytest.fixture
def copy(comparison, tmp_path):
    """The comparison in another place, to be spoilt."""
    return shutil.copytree(comparison, tmp_path / "compare" / "svhn")


def table(folder):
    return (folder / "RESULTS.md").read_text()


def rows(folder):
    with (folder / "results.csv").open() as file:
        return list(csv.DictReader(file))


def test_entries_are_ordinary_runs_and_the_table_has_them(comparison):
    for seed in (0, 1):
        run = comparison / f"lenet5-seed{seed}"
        result = json.loads((run / "result.json").read_text())
        assert result["seed"] == seed and result["epochs"] == 8
        assert (run / "figures" / "confusion.png").exists()
    (row,) = rows(comparison)
    assert (row["architecture"], row["seeds"]) == ("lenet5", "0 1")
    assert int(row["parameters"]) == 62006
    # 2 x (28^2 x 6 x 75 + 10^2 x 16 x 150 + 400 x 120 + 120 x 84 + 84 x 10)
    assert int(row["flops"]) == 1_303_440
    accuracies = [
        json.loads((comparison / f"lenet5-seed{s}" / "result.json").read_text())["test"]
        for s in (0, 1)
    ]
    mean = sum(one["accuracy"] for one in accuracies) / 2
    assert float(row["test_accuracy"]) == pytest.approx(mean)
    assert row["interval_over"] == "seeds" and row["synthetic"] == "True"
    text = table(comparison)
    (line,) = [line for line in text.splitlines() if line.startswith("| LeNet-5 | -")]
    assert "synthetic_svhn (synthetic)" in line and "34.67" in line
    assert "| 8 (recipe: 30) |" in line and "fewer epochs than in the recipe" in text
    assert "These are not results on SVHN" in text
    assert EPOCHS in text
    page = (comparison / "RESULTS.html").read_text()
    assert page.count("data:image/png;base64") == 3  # cost, curves, a confusion matrix


def test_what_is_finished_stays_as_it_is(comparison, made, invoke):
    before = (comparison / "lenet5-seed0" / "result.json").stat().st_mtime_ns
    done = invoke("compare", *TINY, EPOCHS, f"--out={made}")
    assert done.code == 0 and "lenet5-seed0: finished" in done.out
    assert (comparison / "lenet5-seed0" / "result.json").stat().st_mtime_ns == before


def test_other_settings_are_named_and_not_mixed_in(copy, tmp_path, invoke):
    done = invoke("compare", *TINY, "--epochs=3", f"--out={tmp_path}")
    assert done.code == 1
    assert "--epochs was 8, not 3" in done.err and "--name" in done.err
    path = copy / "lenet5-seed1" / "config.json"
    stored = json.loads(path.read_text())
    stored["config"]["optim"]["learning_rate"] = 0.5
    path.write_text(json.dumps(stored))
    assert invoke("compare", "--table-only", f"--out={tmp_path}").code == 0
    good, other = rows(copy)
    if good["differs"]:
        good, other = other, good
    assert (good["seeds"], other["seeds"]) == ("0", "1")
    assert other["differs"] == "--learning-rate was 0.5, not 0.08"
    above, below = table(copy).split("## Runs with other settings")
    assert "| LeNet-5 |" in above and "--learning-rate was 0.5" in below
    assert "--seeds 0 " in below and "--seeds 1 " not in below  # that is refused


def test_rows_of_one_network_have_names_of_their_own(copy, tmp_path, invoke):
    path = copy / "lenet5-seed1" / "config.json"
    stored = json.loads(path.read_text())
    stored["config"]["run"]["epochs"] = 9
    path.write_text(json.dumps(stored))
    assert invoke("compare", "--table-only", f"--out={tmp_path}").code == 0
    answer, _, recipes = table(copy).partition("## How")
    for text in (answer, recipes):
        assert "LeNet-5 (8 epochs)" in text and "LeNet-5 (9 epochs)" in text


def test_what_is_svhns_is_not_called_synthetic_beside_what_is(copy, tmp_path, invoke):
    path = copy / "lenet5-seed1" / "result.json"
    result = json.loads(path.read_text())
    result["dataset"]["name"] = "svhn_cropped"
    path.write_text(json.dumps(result))
    assert invoke("compare", "--table-only", f"--out={tmp_path}").code == 0
    text = table(copy)
    assert "**Those on synthetic_svhn (synthetic) are not results on SVHN.**" in text
    for data in ("svhn_cropped", "synthetic_svhn (synthetic)"):
        assert f"The row on {data}, LeNet-5, seed" in text


def test_a_failed_entry_stops_no_other_and_the_table_says_why(copy, tmp_path, invoke):
    for name in ("lenet5-seed0", "lenet5-seed1"):
        (copy / name / "result.json").unlink()
    latest = copy / "lenet5-seed0" / "latest"
    shutil.rmtree(latest)
    latest.write_text("not a folder")
    done = invoke("compare", *TINY, "--seeds", 0, 1, EPOCHS, f"--out={tmp_path}")
    assert done.code == 1
    assert done.err.endswith("error: no result of lenet5-seed0\n")
    (row,) = rows(copy)
    assert row["seeds"] == "1"
    (line,) = [x for x in table(copy).splitlines() if x.startswith("| lenet5-seed0")]
    assert "failed: " in line and "latest" in line


def until(process, text):
    """Reads what a process prints up to a line that has the text in it."""
    while text not in (line := process.stdout.readline()):
        assert line or process.poll() is None


def test_stopped_and_killed_it_ends_with_the_same_bits(comparison, start, tmp_path):
    command = ("-m", "experiments.compare", *TINY, EPOCHS, f"--out={tmp_path}")
    run = tmp_path / "compare" / "svhn" / "lenet5-seed0"

    process = start(*command)
    until(process, "Epoch 2")
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Stopped after step" in said
    assert said.endswith("Stopped; the same command goes on from here.\n")
    assert not (run / "result.json").exists()

    process = start(*command)
    until(process, "Resumed: after step")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)  # until the entry's process has ended as well
    while runs.is_claimed(run):
        time.sleep(0.05)
    assert not (run / "result.json").exists()

    process = start(*command)
    said, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "lenet5-seed0: unfinished" in said and "Resumed: after step" in said
    both = (run, comparison / "lenet5-seed0")
    read = [(path / "metrics.jsonl").read_text() for path in both]
    assert read[0] == read[1]
    results = [json.loads((path / "result.json").read_text()) for path in both]
    for result in results:
        del result["wall_seconds"], result["images_per_second"]
    assert results[0] == results[1]


def test_what_another_process_is_at_work_on_is_left_to_it(
    copy, tmp_path, monkeypatch, invoke
):
    (copy / "lenet5-seed0" / "result.json").unlink()
    monkeypatch.setattr(comparing, "_in_a_process", None)  # must not be called
    with runs.claimed(copy / "lenet5-seed0"):
        done = invoke("compare", *TINY, EPOCHS, f"--out={tmp_path}")
    assert done.code == 0 and "another process is at work" in done.out
    (line,) = [x for x in table(copy).splitlines() if x.startswith("| lenet5-seed0")]
    assert "8 of 8 epochs done" in line


HELP = """
import runpy, sys
sys.argv[1:] = ["--help"]
try:
    runpy.run_module("experiments.{name}", run_name="__main__")
finally:
    print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("name", ["compare", "lenet_failure"])
def test_help_teaches_and_imports_nothing_heavy(name):
    command = [sys.executable, "-c", HELP.format(name=name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"Examples:\n    python -m experiments.{name}\n" in done.stdout
    assert not set(done.stderr.split()) & {"jax", "numpy", "matplotlib", "scipy"}


BAD = {
    "arch": (["--architectures", "lenet6"], ["lenet6", "lenet5"]),
    "layout": (
        ["--architectures", "resnet18/big"],
        ["resnet18/big", "resnet18/small", "resnet18/torchvision"],
    ),
    "no layout": (
        ["--architectures", "lenet5/small"],
        ["lenet5/small", "write lenet5"],
    ),
    "no recipe": (["--architectures", "fnn"], ["fnn", "vgg16_bn"]),
    "none": (["--architectures"], ["--architectures", "one"]),
    "twice": (["--architectures", "vgg11", "vgg11/small"], ["vgg11/small", "twice"]),
    "seed twice": (["--seeds", "1", "1"], ["--seeds", "1", "twice"]),
    "seed": (["--seeds", "-1"], ["--seed", "-1"]),
    "epochs": (["--epochs=0"], ["--epochs", "0"]),
    "name": (["--name=a/b"], ["--name", "a/b"]),
    "data": (["--dataset=svhm"], ["svhm", "svhn_cropped"]),
    "images too small": (
        ["--dataset=synthetic_svhn", "--architectures", "alexnet/torchvision"],
        ["63x63", "32x32", "small"],
    ),
    "no table": (["--table-only", "--name=none"], ["none", "train one first"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_writes_nothing(case, invoke, tmp_path):
    arguments, words = BAD[case]
    done = invoke("compare", *arguments, f"--out={tmp_path}")
    assert done.code == 2 and done.err.count("\n") == 1
    assert all(word in done.err for word in words), done.err
    assert not list(tmp_path.iterdir())


def test_how_a_process_ended_is_said_in_words():
    assert "SIGKILL" in comparing._how_it_ended(-9)
    assert "memory" in comparing._how_it_ended(-9)
    assert comparing._how_it_ended(-11) == "it was ended by SIGSEGV"
    assert comparing._how_it_ended(3) == "it ended with exit code 3"


def test_whoever_came_second_has_not_failed(copy, tmp_path, monkeypatch):
    """The other process made the folder after this one had looked for it."""
    config = compare.Config(out=tmp_path, architectures=("lenet5",))
    (entry,) = recipes.entries(("lenet5",), (0,))
    failure = compare_table.failure(copy, entry.name)

    begin = subprocess.Popen

    def child(*arguments, **options):
        comparing.note(failure, "the run is there already")
        return begin(("false",), stdin=subprocess.PIPE)

    monkeypatch.setattr(subprocess, "Popen", child)
    with runs.claimed(copy / entry.name):
        comparing._in_a_process(config, copy, entry, lambda: False)
    assert not failure.exists()


def test_a_reason_is_noted_whoever_raises(tmp_path):
    path = compare_table.failure(tmp_path, "one")
    with pytest.raises(MemoryError), comparing.noting_failure(path):
        raise MemoryError
    assert json.loads(path.read_text())["reason"].startswith("MemoryError")
