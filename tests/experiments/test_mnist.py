import json
import re
import shutil
import struct

from PIL import Image
from tensorboardX.proto.event_pb2 import Event

FILES = {
    ".lock",
    "config.json",
    "metrics.jsonl",
    "latest",
    "best",
    "tensorboard",
    "figures",
    "result.json",
}


def test_prints_the_lines_of_the_assignment(mnist_run, runs_dir):
    printed = (runs_dir / "mnist.txt").read_text()
    head, log = printed.split("\n\n")[-1], printed.splitlines()
    assert "Data:    mnist_embedded (9,000 train, 1,000 validation, 2,000 test)" in head
    assert "Model:   fnn, 12,730 parameters" in head
    assert f"Run:     {mnist_run}" in head
    loss = r"Epoch (\d), Batch (\d+), Loss: \d+\.\d{3}"
    told = [m.groups() for m in map(re.compile(loss).fullmatch, log) if m]
    batches = ("30", "60", "70")
    assert told == [(epoch, batch) for epoch in "12" for batch in batches]
    accuracy = json.loads((mnist_run / "result.json").read_text())["test"]["accuracy"]
    assert log[-3:] == [
        "Finished Training",
        f"Accuracy on the test set: {100 * accuracy:.2f}",
        f"Results and figures: {mnist_run}",
    ]
    assert not set(printed) & set("\r\x1b")  # no bar where there is no terminal


def test_leaves_everything_in_the_run_folder(mnist_run):
    assert {path.name for path in mnist_run.iterdir()} == FILES
    config = json.loads((mnist_run / "config.json").read_text())
    assert config["experiment"] == "mnist"
    assert config["config"]["model"]["hidden"] == [16]
    assert config["config"]["run"]["name"] == "finished"
    assert config["dataset"]["name"] == "mnist_embedded"
    assert config["dataset"]["image_shape"] == [28, 28, 1]
    assert config["surroundings"]["jax"]
    steps = {int(path.name) for path in (mnist_run / "latest").iterdir()}
    assert steps == {70, 140}


def test_result_says_what_came_out_and_from_what(mnist_run):
    result = json.loads((mnist_run / "result.json").read_text())
    expected = {
        "experiment": "mnist",
        "arch": "fnn",
        "seed": 0,
        "epochs": 2.0,
        "steps": 140,
        "ended": "done",
        "parameters": 28 * 28 * 16 + 16 + 16 * 10 + 10,
    }
    assert {name: result[name] for name in expected} == expected
    assert result["dataset"] == {
        "name": "mnist_embedded",
        "train": 9000,
        "validation": 1000,
        "test": 2000,
    }
    assert result["test"]["count"] == 2000 and result["validation"]["count"] == 1000
    assert 0.7 < result["test"]["accuracy"] < 1
    assert 0.7 < result["validation"]["accuracy"] < 1
    assert result["wall_seconds"] > 0 and result["images_per_second"] > 0


def test_metrics_have_a_line_for_each_in_the_log(mnist_run):
    lines = (mnist_run / "metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line) for line in lines]
    where = [(m["kind"], m["epoch"], m["step"]) for m in metrics]
    assert where == [
        ("train", 1, 30),
        ("train", 1, 60),
        ("train", 1, 70),
        ("validation", 1, 70),
        ("train", 2, 100),
        ("train", 2, 130),
        ("train", 2, 140),
        ("validation", 2, 140),
    ]
    rates = [m["learning_rate"] for m in metrics if m["kind"] == "train"]
    assert rates == sorted(rates, reverse=True) and rates[0] < 0.1  # cosine
    losses = [m["loss"] for m in metrics if m["kind"] == "train"]
    assert losses[-1] < losses[0] / 2


def events(path):
    """Events of a file, read by TensorFlow's description of its record format."""
    content = path.read_bytes()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        yield Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]


def test_tensorboard_has_the_scalars_of_the_metrics(mnist_run):
    scalars = {
        (value.tag, event.step): value.simple_value
        for path in (mnist_run / "tensorboard").iterdir()
        for event in events(path)
        for value in event.summary.value
    }
    expected = {
        (f"{m['kind']}/{name}", m["step"]): m[name]
        for m in map(json.loads, (mnist_run / "metrics.jsonl").read_text().splitlines())
        for name in ("loss", "accuracy", "learning_rate")
        if name in m
    }
    assert scalars.keys() == expected.keys()
    assert all(abs(scalars[k] - expected[k]) < 1e-6 for k in expected)


def test_figures_are_pictures(mnist_run):
    figures = {path.name: path for path in (mnist_run / "figures").iterdir()}
    assert figures.keys() == {
        "curves.png",
        "confusion.png",
        "per_class.png",
        "mistakes.png",
    }
    for path in figures.values():
        with Image.open(path) as image:
            image.load()
            assert min(image.size) > 300
            assert len(image.convert("RGB").getcolors(1 << 24)) > 20


def test_resuming_a_finished_run_reports_the_same(mnist_run, runs_dir, invoke):
    before = json.loads((mnist_run / "result.json").read_text())
    metrics = (mnist_run / "metrics.jsonl").read_bytes()
    done = invoke(
        *("mnist", "--resume", "--profile", "--name=finished", f"--out={runs_dir}")
    )
    assert done.code == 0 and done.err == ""
    assert "Resumed: after step 140\n" in done.out and "Changed: " not in done.out
    assert "Batch" not in done.out and "No trace: " in done.out
    assert json.loads((mnist_run / "result.json").read_text()) == before
    assert (mnist_run / "metrics.jsonl").read_bytes() == metrics


def test_resuming_elsewhere_says_what_has_changed(mnist_run, tmp_path, invoke):
    shutil.copytree(mnist_run, tmp_path / "mnist" / "moved")
    path = tmp_path / "mnist" / "moved" / "config.json"
    described = json.loads(path.read_text())
    described["surroundings"] |= {"engine": "xla", "jaxlib": "0.1"}
    path.write_text(json.dumps(described))
    done = invoke("mnist", "--resume", f"--out={tmp_path}")
    assert done.code == 0 and done.err == ""
    (line,) = [x for x in done.out.splitlines() if x.startswith("Changed: ")]
    assert "jaxlib was 0.1, is 0." in line and "engine was xla, is " in line
    assert "numpy" not in line and "device" not in line
