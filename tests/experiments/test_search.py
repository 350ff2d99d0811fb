import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from experiments import search_report, searching
from experiments.search import Config
from jaxdl import runtime
from jaxdl.search import journal
from jaxdl.search.results import Result
from jaxdl.search.study import Trial

SPACE = ("--space", "learning_rate=log:0.02:0.5", "hidden=16", "dropout=0:0.5")
TINY = ("--dataset=mnist_embedded", "--devices=1", "--trials=9", "--rungs", "1", "2")


@pytest.fixture(scope="module")
def studies_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("studies")


@pytest.fixture
def study(studies_dir, invoke):
    """Folder of a finished study, made once; what it printed lies beside it."""
    folder = studies_dir / "search" / "finished"
    if not folder.exists():
        done = invoke(
            *("search", *TINY, *SPACE, "--ablation-epochs=1", "--validation=1500"),
            *("--seed=4", "--seeds", 4, f"--out={studies_dir}", "--name=finished"),
        )
        assert done.code == 0 and done.err == "", done
        (studies_dir / "out.txt").write_text(done.out)
    return folder


def lines(path):
    """The journal without the clock."""
    return [
        {key: value for key, value in line.items() if key != "seconds"}
        for line in journal.mend(path)
    ]


def test_prints_data_plan_best_and_test_accuracy(study, studies_dir):
    printed = (studies_dir / "out.txt").read_text()
    assert (
        "Data:    mnist_embedded (8,500 train, 1,500 validation, 2,000 test)" in printed
    )
    assert "Search:  random; 9 trials of 1 epochs; 3 trials of 2 epochs" in printed
    result = json.loads((study / "result.json").read_text())
    test = result["best"]["test"]["accuracy"]
    assert f"Accuracy on the test set: {100 * test:.2f}" in printed
    assert 0.7 < test < 1 and 0.7 < result["best"]["validation"] < 1
    assert not set(printed) & set("\r\x1b")  # no bar where there is no terminal


def test_the_best_is_the_best_of_the_last_rung(study):
    result = json.loads((study / "result.json").read_text())
    entries = lines(study / "journal.jsonl")
    last = [e for e in entries if e["kind"] == "result" and e["rung"] == 1]
    best = max(last, key=lambda e: e["curve"][-1]["accuracy"])
    assert best["curve"][-1]["accuracy"] == result["best"]["validation"]
    (proposed,) = [
        e
        for e in entries
        if e["kind"] == "proposed" and e["configuration"] == best["configuration"]
    ]
    settings = result["best"]["settings"]
    assert {**settings, "hidden": [16]} == proposed["settings"]
    assert proposed["sampler"]["name"] == "random"
    tests = [e for e in entries if e["kind"] == "test"]
    assert [t["accuracy"] for t in tests] == [result["best"]["test"]["accuracy"]]


def test_the_command_of_the_best_trains_it_to_the_same(study, studies_dir, invoke):
    result = json.loads((study / "result.json").read_text())["best"]
    words = shlex.split(result["command"])
    assert words[:3] == ["python", "-m", "experiments.mnist"]
    assert "By itself, to rounding" in (study / "report.md").read_text()
    assert result["config"]["run"]["seed"] == result["split_seed"] == 4
    assert result["config"]["data"]["validation"] == 1500
    done = invoke(
        *("mnist", *words[3:], "--dataset=mnist_embedded", "--devices=1"),
        *(f"--out={studies_dir}", "--name=best"),
    )
    assert done.code == 0, done.err
    metrics = (studies_dir / "mnist" / "best" / "metrics.jsonl").read_text()
    epochs = [json.loads(line) for line in metrics.splitlines()]
    last = [e for e in epochs if e["kind"] == "validation"][-1]
    assert abs(last["accuracy"] - result["validation"]) <= 0.002


def test_a_command_with_another_split_is_said_to_have_one():
    study = searching.study_of(Config(seed=4, seeds=(5, 4), validation=700))

    def result(seed):
        settings = {"learning_rate": 0.1, "dropout": 0.2}
        return Result(Trial(0, seed, settings), 0, (), False, {}, 0.0)

    for seed in (4, 5):
        words = search_report.command(study, result(seed)).split()
        assert "--validation=700" in words and f"--seed={seed}" in words
    assert search_report.alone(study, result(4)) == "By itself, to rounding"
    said = search_report.alone(study, result(5))
    assert (
        "rounding" not in said and "`--seed=5`" in said and "study's `--seed=4`" in said
    )


def test_the_report_has_answer_evidence_and_verdicts(study):
    text = (study / "report.md").read_text()
    assert text.index("**Answer.**") < text.index("## The best configurations")
    for heading in ("What mattered", "Learning curves by rung", "What dropout and"):
        assert f"## {heading}" in text
    verdicts = re.findall(r"\*(supported|refuted|not shown)\* \(", text)
    assert len(verdicts) == 4
    assert "*mnist_embedded has a part of MNIST only.*" in text
    assert "Network 784-512-256-10, 1 epochs, dropout 0.3" in text
    assert "mnist_embedded" in text and "nan" not in text.lower()
    page = (study / "report.html").read_text()
    names = ("parallel", "importance", "rungs", "ablation")
    assert page.count("data:image/png;base64") == len(names)
    for name in names:
        with Image.open(study / "figures" / f"{name}.png") as image:
            image.load()
            assert min(image.size) > 300
            assert len(image.convert("RGB").getcolors(1 << 24)) > 20


def test_the_ablation_is_two_by_two_with_five_seeds(study):
    entries = lines(study / "ablation.jsonl")
    results = [e for e in entries if e["kind"] == "result"]
    assert len(results) == 20 and {e["seed"] for e in results} == {0, 1, 2, 3, 4}
    assert all(e["also"].keys() == {"train", "test"} for e in results)
    record = json.loads((study / "result.json").read_text())["ablation"]
    cells = {(0.0, False): [], (0.3, False): [], (0.0, True): [], (0.3, True): []}
    proposed = [e["settings"] for e in entries if e["kind"] == "proposed"]
    for e in sorted(results, key=lambda e: e["seed"]):
        chosen = proposed[e["configuration"]]
        place = chosen["dropout"], chosen["batch_norm"]
        cells[place].append(e["also"]["test"]["accuracy"])
    means = {place: sum(values) / 5 for place, values in cells.items()}
    change = (means[0.3, False] + means[0.3, True]) / 2
    change -= (means[0.0, False] + means[0.0, True]) / 2
    effect = record["effects"]["test"]["first"]
    assert abs(effect["mean"] - change) < 1e-9
    assert effect["low"] < effect["mean"] < effect["high"]


def test_a_finished_study_resumes_to_the_same(study, studies_dir, invoke):
    before = (study / "journal.jsonl").read_bytes()
    result = json.loads((study / "result.json").read_text())
    done = invoke("search", "--resume", f"--out={studies_dir}", "--name=finished")
    assert done.code == 0 and done.err == "", done
    assert (study / "journal.jsonl").read_bytes() == before
    again = json.loads((study / "result.json").read_text())
    clock = {"wall_seconds": 0}
    assert again | clock == result | clock
    report = (study / "report.md").read_text()
    assert "--trials=9 --rungs 1 2" in report and "--resume" not in report


def test_other_settings_are_refused_on_resume(study, studies_dir, invoke):
    done = invoke(
        *("search", "--resume", "--name=finished", f"--out={studies_dir}"),
        "--trials=10",
    )
    assert done.code == 2
    assert "--trials was 9, not 10" in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--space", "lr=0.1"], "no field 'lr' to search"),
        (["--space"], "--space is empty"),
        (["--space", "dropout=0.5:0"], "must begin with the smaller number"),
        (["--space", "learning_rate=log:0:1"], "both ends must be above 0"),
        (["--space", "learning_rate=nan"], "takes finite numbers, not 'nan'"),
        (["--space", "dropout=0:1"], "dropout of fnn must be at least 0"),
        (["--trials=0"], "--trials must be at least 1"),
        (["--trials=x"], "--trials"),
        (["--rungs", "3", "1"], "--rungs must be ascending"),
        (["--sampler=grid"], "a grid needs single values of learning_rate"),
        (["--name=a/b"], "--name must be a plain folder name"),
        (["--seed=-1"], "--seed must be at least 0"),
        (["--ablation-epochs=-1"], "--ablation-epochs must be 0 or more"),
        (["--devices=99"], "--devices must be between 1 and"),
        (["--dataset=mnits"], "unknown dataset 'mnits'"),
        (["--space", "batch_size=8,99999"], "batch_size must be at most 9000"),
        (["--space", "arch=lenet5,vgg11"], "vgg11 in layout 'small' needs images of"),
        (["--resume", "--name=none"], "no run"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(invoke, tmp_path, options, said):
    out = tmp_path / "out"
    data = () if any("dataset" in o for o in options) else ("--dataset=mnist_embedded",)
    done = invoke("search", *data, *options, f"--out={out}")
    assert done.code == 2, done
    assert said in done.err and done.err.count("\n") == 1
    assert not out.exists()


def test_a_cpu_has_a_device_for_each_core_and_no_more(tmp_path, cache_dir):
    """Unlike here, where the tests ask JAX for eight."""
    given = {"JAXDL_CACHE_DIR": str(cache_dir)}
    kept = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    options = ("--dataset=mnist_embedded", "--trials=1", "--rungs", "1", *SPACE)
    more = runtime.cores() + 1
    done = subprocess.run(
        [
            *(sys.executable, "-m", "experiments.search", *options),
            *("--ablation-epochs=0", f"--devices={more}", f"--out={tmp_path / 'out'}"),
        ],
        env=kept | given,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done
    assert f"between 1 and {more - 1}, the number of cpu devices here" in done.stderr
    assert not (tmp_path / "out").exists()


def test_help_teaches_the_space(invoke):
    done = invoke("search", "--help")
    assert done.code == 0
    for text in ("learning_rate=log:0.001:1", "hidden=512,256|1024,512", "--resume"):
        assert text in done.out


@pytest.mark.long
def test_a_study_that_is_killed_goes_on_to_the_same_bits(start, tmp_path):
    options = (
        *("-m", "experiments.search", *TINY, *SPACE, "--ablation-epochs=0"),
        f"--out={tmp_path}",
    )
    whole = start(*options, "--name=whole")
    killed = start(*options, "--name=killed")
    path = tmp_path / "search" / "killed" / "journal.jsonl"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and killed.poll() is None:
        if path.exists() and path.read_bytes().count(b'"result"') >= 4:
            break
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    done = path.read_bytes().count(b'"result"')
    assert 4 <= done < 12, "not killed in the middle"
    resumed = start(
        "-m", "experiments.search", "--resume", f"--out={tmp_path}", "--name=killed"
    )
    for process in (whole, resumed):
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    expected, found = (
        sorted(map(repr, lines(tmp_path / "search" / name / "journal.jsonl")))
        for name in ("whole", "killed")
    )
    assert found == expected
    bests = [
        json.loads((tmp_path / "search" / name / "result.json").read_text())["best"]
        for name in ("whole", "killed")
    ]
    assert bests[0] == bests[1]
