import importlib.util
import os
import pty
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments import cli
from jaxdl.config import Config, RunConfig
from jaxdl.errors import InputError

EXPERIMENTS = (
    *("mnist", "svhn", "compare", "lenet_failure", "transfer"),
    *("logistic", "convexity", "search"),
    *("evaluate", "predict", "models", "export", "parity"),
)
HEAVY = {
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax",
    "numpy",
    "scipy",
    "PIL",
    "matplotlib",
    "tensorboardX",
    "tensorflow_datasets",
    "tqdm",
    "sklearn",
}
HELP = """
import runpy, sys
sys.argv[1:] = ["--help"]
try:
    runpy.run_module("experiments.{name}", run_name="__main__")
finally:
    print("MODULES", *sys.modules, file=sys.stderr)
"""


def help_of(name):
    environment = os.environ | {"COLUMNS": "80"}
    environment.pop("JAXDL_RAW_DIR", None)
    command = [sys.executable, "-c", HELP.format(name=name)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_a_run_does_not_wait_for_torch():
    """tensorboardX imports it wherever it is; whoever wants it later still gets it."""
    code = "import sys, experiments.classify; assert 'torch' not in sys.modules"
    if importlib.util.find_spec("torch"):
        code += "; import torch"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_help_is_quick_and_reads_well(name):
    began = time.perf_counter()
    done = help_of(name)
    assert time.perf_counter() - began < 10  # 0.2 s where nothing else runs
    assert done.returncode == 0
    modules = {module.partition(".")[0] for module in done.stderr.split()}
    assert "tyro" in modules and not modules & HEAVY
    text = done.stdout
    assert "Examples:\n    python -m experiments." in text
    assert "(default: " in text
    for line in text.splitlines():
        # tyro does not wrap the usage; what is indented is to be copied as it is.
        limit = 120 if line.startswith("usage:") else 88 if line[:1] == " " else 80
        assert len(line) <= limit
    assert "\n\nExamples:" in text and not text.startswith("\n")


def test_help_of_a_run_has_groups_and_defaults():
    text = help_of("mnist").stdout
    for group in ("data options", "model options", "optim options", "run options"):
        assert f" {group} " in text
    assert re.search(r"--batch-size INT.*?\(default: 128\)", text, re.DOTALL)
    assert re.search(r"--arch STR.*?\(default: fnn\)", text, re.DOTALL)


# Arguments, and what the one line must have in it: the bad value, what is allowed.
BAD = {
    "unknown option": (["--epochz=3"], ["--epochz=3", "--help"]),
    "unknown option, near": (["--epochz", "3"], ["--epochz", "--epochs"]),
    "no option": (["extra"], ["extra", "--help"]),
    "ill-typed": (["--epochs=many"], ["--epochs", "'many'", "INT", "--help"]),
    "ill-typed list": (["--hidden", "9", "x"], ["--hidden", "'x'", "INT"]),
    "no such choice": (["--augment=flip"], ["'flip'", "digits", "--augment"]),
    "value missing": (["--name"], ["--name"]),
    "unknown arch": (["--arch=resnet19"], ["resnet19", "resnet18"]),
    "unknown set": (["--dataset=mnits"], ["mnits", "mnist"]),
    "negative rate": (["--learning-rate=-0.1"], ["--learning-rate", "-0.1"]),
    "rate not a number": (["--learning-rate=nan"], ["--learning-rate", "nan"]),
    "momentum": (["--momentum=1"], ["--momentum", "1.0"]),
    "no batch": (["--batch-size=0"], ["--batch-size", "0"]),
    "batch too large": (["--batch-size=9001"], ["--batch-size", "9000", "9001"]),
    "batch of one": (
        ["--batch-size=1", "--devices=1", "--batch-norm=True"],
        ["batch norm", "--batch-size", "--accumulate"],
    ),
    "batch and devices": (["--batch-size=63", "--devices=2"], ["63", "2", "64"]),
    "devices": (["--devices=9"], ["--devices", "9", "8"]),
    "epochs": (["--epochs=-1"], ["--epochs", "-1"]),
    "dropout": (["--dropout=1.5"], ["dropout", "1.5"]),
    "option of another arch": (["--arch=lenet5", "--hidden=3"], ["hidden", "lenet5"]),
    "image too small": (["--arch=vgg16"], ["vgg16", "32x32", "28x28"]),
    "no raw folder": (["--dataset=mnist", "--raw-dir=/no/dir"], ["/no/dir"]),
    "no name": (["--name=a/b"], ["--name", "a/b"]),
    "resume nothing": (["--resume"], ["no run", "--resume"]),
    "resume a missing run": (["--resume", "--name=gone"], ["gone"]),
    "out is a file": (["--out=FILE"], ["FILE", "--out"]),
    "out below a file": (["--out=FILE/runs"], ["FILE", "--out"]),
    "too much memory": (["--hidden=100000000000"], ["emory"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case, invoke, tmp_path):
    arguments, parts = BAD[case]
    (tmp_path / "FILE").touch()
    arguments = [a.replace("=FILE", f"={tmp_path}/FILE") for a in arguments]
    runs = tmp_path / "runs"
    done = invoke("mnist", "--dataset=mnist_embedded", f"--out={runs}", *arguments)
    assert done.code == 2
    assert done.err.startswith("error: ") and done.err.count("\n") == 1
    assert all(part in done.err for part in parts), done.err
    if case != "too much memory":
        assert done.out == "" and not runs.exists()
    assert (tmp_path / "FILE").read_bytes() == b""


def test_damaged_raw_file_is_named(invoke, tmp_path):
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3")
    for name in (*names, "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte.gz").write_bytes(b"\x1f\x8b\x08 damaged")
    for dataset in ("mnist", "auto"):  # what was handed over is never passed over
        done = invoke(
            "mnist",
            f"--dataset={dataset}",
            f"--raw-dir={tmp_path}",
            f"--out={tmp_path}/runs",
        )
        assert done.code == 2 and done.out == "" and done.err.count("\n") == 1
        assert "ubyte.gz" in done.err
        assert not (tmp_path / "runs").exists()


def test_run_that_is_there_is_left_alone(mnist_run, runs_dir, invoke):
    before = {p: p.stat().st_mtime_ns for p in mnist_run.rglob("*")}
    done = invoke(
        "mnist", "--dataset=mnist_embedded", f"--out={runs_dir}", "--name=finished"
    )
    assert done.code == 2 and done.out == "" and done.err.count("\n") == 1
    assert "finished is there already" in done.err and "--resume" in done.err
    assert {p: p.stat().st_mtime_ns for p in mnist_run.rglob("*")} == before


def test_a_run_that_was_moved_goes_on_where_it_is(mnist_run, tmp_path, invoke):
    before = {p: p.stat().st_mtime_ns for p in mnist_run.rglob("*")}
    moved = shutil.copytree(mnist_run, tmp_path / "mnist" / "moved")
    done = invoke("mnist", "--resume", "--name=moved", f"--out={tmp_path}")
    assert done.code == 0, done
    assert f"Results and figures: {moved}\n" in done.out
    assert {p: p.stat().st_mtime_ns for p in mnist_run.rglob("*")} == before


@pytest.mark.parametrize(
    "text",
    ["{}", '{"config": {}, "dataset": {}}', '{"config": {"data": 1}, "dataset": {}}'],
)
def test_what_describes_no_run_is_refused(text, tmp_path, invoke):
    (tmp_path / "mnist" / "odd").mkdir(parents=True)
    (tmp_path / "mnist" / "odd" / "config.json").write_text(text)
    done = invoke("mnist", "--resume", "--name=odd", f"--out={tmp_path}")
    assert done.code == 2 and done.out == "" and done.err.count("\n") == 1


def test_resume_lists_the_runs_there_are(mnist_run, runs_dir, invoke):
    done = invoke("mnist", f"--out={runs_dir}", "--name=other", "--resume")
    assert done.code == 2 and "runs there: finished" in done.err


def test_resume_without_a_name_takes_the_latest(tmp_path):
    for age, name in enumerate((".killed-as-it-began", "new", "old", "oldest")):
        path = tmp_path / "mnist" / name / "config.json"
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    config = Config(run=RunConfig(out=tmp_path))
    assert cli.run_to_resume("mnist", config).name == "new"


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (InputError("bad"), "bad", 2),
        (PermissionError(13, "Permission denied", "/x"), "Permission denied: /x", 2),
        (OSError(28, "No space left on device"), "No space left on device", 2),
        (type("DivergedError", (RuntimeError,), {})("step 3"), "step 3", 1),
    ],
)
def test_known_failures_are_one_line(error, line, code, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as end:
        cli.run_or_exit(main)
    assert end.value.code == code
    assert capsys.readouterr().err == f"error: {line}\n"


def test_unknown_failures_keep_their_traceback():
    def main():
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        cli.run_or_exit(main)


def test_divergence_is_one_line_and_code_1(invoke, tmp_path):
    done = invoke(
        "mnist",
        "--dataset=mnist_embedded",
        "--hidden=16",
        "--learning-rate=1e30",
        "--schedule=constant",
        "--devices=1",
        "--loss=mse",
        "--epochs=1",
        f"--out={tmp_path}",
    )
    assert done.code == 1 and done.err.count("\n") == 1
    assert done.err.startswith("error: ") and "not finite" in done.err
    assert "--learning-rate" in done.err


def test_bar_on_a_terminal(cache_dir, tmp_path):
    """Images per second and the time left; the lines of the log stand whole."""
    ours, theirs = pty.openpty()
    environment = os.environ | {
        "JAXDL_CACHE_DIR": str(cache_dir),
        "JAX_NUM_CPU_DEVICES": "1",
        "TERM": "xterm",
    }
    environment.pop("COLUMNS", None)
    subprocess.run(["stty", "cols", "80", "rows", "24"], stdin=theirs, check=True)
    process = subprocess.Popen(
        [
            sys.executable,
            *("-m", "experiments.mnist", "--dataset=mnist_embedded", "--hidden=16"),
            *("--epochs=2", "--log-every=30", f"--out={tmp_path}"),
        ],
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    shown = bytearray()

    def read():
        try:
            while piece := os.read(ours, 1 << 16):
                shown.extend(piece)
        except OSError:  # the other end is closed
            return

    reader = threading.Thread(target=read)
    reader.start()
    assert process.wait(timeout=120) == 0
    reader.join()
    os.close(ours)
    text = shown.decode().replace("\r\n", "\n")
    bars = re.findall(r"\r *(\d+)%\|[^\r\n]*?\[\d\d:\d\d<([^\]\r\n]*images/s)\]", text)
    assert bars and bars[-1][0] == "100"
    assert any(re.match(r"\d\d:\d\d, +[\d.]+k? images/s", left) for _, left in bars)
    # What a terminal shows of a line is what follows its last carriage return.
    seen = [line.rpartition("\r")[2] for line in text.split("\n")]
    batches = [line for line in seen if line.startswith("Epoch") and "Batch" in line]
    assert len(batches) == 6
    assert all(re.fullmatch(r"Epoch \d, Batch \d+, Loss: [\d.]+", b) for b in batches)
    assert "Finished Training" in seen
    assert Path(seen[-2].removeprefix("Results and figures: ")).is_dir()
