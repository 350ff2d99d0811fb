"""A run that is killed and resumed ends with the same bits as one that was not."""

import json
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from experiments import cli
from jaxdl import config as settings
from jaxdl.training import assemble, checkpoints, parallel
from jaxdl.training.assemble import DataFacts

MNIST = ("-m", "experiments.mnist")
PLAIN = (
    "--dataset=mnist_embedded",
    "--hidden=16",
    "--epochs=10",
    "--batch-size=32",
    "--log-every=20",
    "--checkpoint-seconds=0.1",
)
EVERYTHING = (
    "--dataset=mnist_embedded",
    "--hidden=16",
    "--epochs=4",
    "--batch-size=32",
    "--log-every=7",
    "--checkpoint-seconds=0.1",
    "--dropout=0.3",
    "--batch-norm=True",
    "--ema=0.99",
    "--augment=digits",
    "--accumulate=2",
    "--clip-norm=1",
    "--label-smoothing=0.1",
    "--decoupled",
    "--placement=stream",
)


def last_state(path):
    """Digest of the last checkpoint, read back, and its step."""
    stored = json.loads((path / "config.json").read_text())
    config = settings.from_json(stored["config"])
    data = stored["dataset"]
    facts = DataFacts(
        tuple(data["image_shape"]),
        tuple(data["classes"]),
        tuple(data["mean"]),
        tuple(data["std"]),
    )
    per_epoch = data["train"] // config.run.batch_size
    parts = assemble.assemble(
        config,
        facts,
        per_epoch * config.run.epochs,
        per_epoch,
        parallel.choose("jit", 1, 1, 1),
    )
    with checkpoints.open_manager(path / "latest", config.run.keep) as manager:
        found = checkpoints.restore(
            manager, assemble.initial_state(config, parts, facts)
        )
    state = checkpoints.to_host(found[0])
    assert int(state.step) == per_epoch * config.run.epochs
    return checkpoints.digest(state)


def assert_same_run(one, other):
    """Both ended, with the same bits in all that is not a time or a place."""
    assert last_state(one) == last_state(other)
    metrics = "metrics.jsonl"
    assert (one / metrics).read_text() == (other / metrics).read_text()
    results = [json.loads((path / "result.json").read_text()) for path in (one, other)]
    for result in results:
        assert result.pop("wall_seconds") > 0
        assert result.pop("images_per_second") > 0
    assert results[0] == results[1]
    configs = [json.loads((path / "config.json").read_text()) for path in (one, other)]
    for config in configs:
        del config["config"]["run"]["name"]
    assert configs[0] == configs[1]
    assert {p.name for p in one.iterdir()} == {p.name for p in other.iterdir()}
    best = [{p.name for p in (run / "best").iterdir()} for run in (one, other)]
    assert best[0] == best[1]
    # The clock decides which checkpoints there are beside the last; all are whole.
    assert all(p.name.isdigit() for p in (other / "latest").iterdir())


def signalled(process, number, lines, seconds):
    """Sends a signal some seconds after that many lines have been printed.

    Returns (exit code, all it printed, what it said on stderr).
    """
    printed = []
    for _ in range(lines):
        printed.append(process.stdout.readline())
    timer = threading.Timer(seconds, process.send_signal, (number,))
    timer.start()
    out, err = process.communicate(timeout=120)
    timer.cancel()
    return process.returncode, "".join(printed) + out, err


def finished(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert err == ""
    assert out.splitlines()[-3] == "Finished Training"
    return out


def test_killed_at_random_moments(start, tmp_path):
    whole, killed = (f"--name={name}" for name in ("whole", "killed"))
    out, run = f"--out={tmp_path}", tmp_path / "mnist" / "killed"
    begin, again = (*MNIST, *PLAIN, out, killed), (*MNIST, "--resume", out, killed)
    finished(start(*MNIST, *PLAIN, out, whole))
    chance = random.Random(0)

    # While it starts: then either the same command goes on or --resume does.
    signalled(start(*begin), signal.SIGKILL, 0, chance.uniform(0.5, 2))
    process = start(*(again if run.exists() else begin))
    resumed_from = []
    for lines in (5, 8, 25):
        code, said, err = signalled(
            process, signal.SIGKILL, lines, chance.uniform(0, 0.3)
        )
        assert code in (0, -signal.SIGKILL) and err == ""
        resumed_from += re.findall(r"Resumed: after step ([\d,]+)", said)
        # What a kill at another moment may leave:
        (run / "latest" / "77.orbax-checkpoint-tmp").mkdir()
        (run / ".result.json.123").touch()
        (run / "figures").mkdir(exist_ok=True)
        (run / "figures" / ".curves.png.abc.tmp").touch()
        process = start(*again)
    resumed_from += re.findall(r"Resumed: after step ([\d,]+)", finished(process))
    steps = [int(step.replace(",", "")) for step in resumed_from]
    assert steps and steps == sorted(steps)
    assert_same_run(tmp_path / "mnist" / "whole", run)
    assert not list(run.glob("figures/.*"))


def test_killed_after_the_best_checkpoint_it_goes_on_from_that(
    mnist_run, tmp_path, invoke
):
    run = shutil.copytree(mnist_run, tmp_path / "mnist" / "killed")
    (best,) = (int(path.name) for path in (run / "best").iterdir())
    for path in (run / "latest").iterdir():
        if int(path.name) >= best:
            shutil.rmtree(path)
    (run / "result.json").unlink()
    done = invoke("mnist", "--resume", f"--out={tmp_path}")
    assert done.code == 0 and f"Resumed: after step {best}\n" in done.out
    assert_same_run(mnist_run, run)


def test_without_its_best_checkpoint_a_run_has_no_result(mnist_run, tmp_path, invoke):
    run = shutil.copytree(mnist_run, tmp_path / "mnist" / "spoilt")
    shutil.rmtree(run / "best")
    (run / "result.json").unlink()
    done = invoke("mnist", "--resume", f"--out={tmp_path}")
    assert done.code == 2 and not (run / "result.json").exists()
    assert "the best checkpoint is gone" in done.err


def test_a_run_of_one_step_for_each_epoch_can_be_stopped(start, tmp_path):
    options = ("--dataset=mnist_embedded", "--hidden=8", "--batch-size=8000")
    command = (*MNIST, *options, "--epochs=100000", f"--out={tmp_path}")
    code, said, err = signalled(start(*command), signal.SIGTERM, 12, 0.05)
    assert code == 128 + signal.SIGTERM and err == ""
    assert "it is saved" in said


def test_stopped_by_signals_with_everything_on(start, tmp_path):
    out = f"--out={tmp_path}"
    finished(start(*MNIST, *EVERYTHING, out, "--name=whole"))
    command = [*MNIST, *EVERYTHING, out, "--name=stopped twice"]
    steps = [0]
    for number, lines in ((signal.SIGTERM, 10), (signal.SIGINT, 20)):
        code, said, err = signalled(start(*command), number, lines, 0.05)
        assert code == 128 + number and err == ""
        *_, stopped, how = said.splitlines()
        found = re.fullmatch(
            r"Stopped after step ([\d,]+); it is saved. Go on with:", stopped
        )
        steps.append(int(found[1].replace(",", "")))
        python, *command = shlex.split(how)
        assert python == "python"
    assert steps[0] < steps[1] < steps[2]
    code, *_ = signalled(start(*command), signal.SIGKILL, 15, 0.1)
    assert code == -signal.SIGKILL
    log = finished(start(*command))
    assert "Resumed: after step" in log
    assert_same_run(tmp_path / "mnist" / "whole", tmp_path / "mnist" / "stopped twice")


def test_changed_settings_on_resume_are_named(mnist_run, runs_dir, invoke):
    here = (f"--out={runs_dir}", "--name=finished", "--resume")
    done = invoke("mnist", *here, "--seed=3", "--hidden", "8", "4")
    assert done.code == 2 and done.out == ""
    assert "--seed was 0, not 3" in done.err and "--hidden was 16, not 8 4" in done.err
    same = invoke("mnist", *here, "--seed=0", "--hidden=16")
    assert same.code == 0
    assert done.err.count("\n") == 1


INTERRUPTED = """
import os, signal, sys
from experiments import cli

def main():
    os.kill(os.getpid(), signal.{name})
    {then}

cli.run_or_exit(main, stopped=cli.RESUMES)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_signal_before_training_is_one_line(name):
    code = INTERRUPTED.format(name=name, then="raise AssertionError('not reached')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    number = getattr(signal, name)
    assert done.returncode == 128 + number
    assert done.stderr == (
        f"error: ended by {name}; a run that had begun can go on with --resume\n"
    )


def test_a_second_signal_is_not_held():
    before = signal.getsignal(signal.SIGINT)
    with cli.StopOnSignal() as stop:
        assert not stop()
        signal.raise_signal(signal.SIGTERM)
        assert stop() and stop.signal == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


LIMITED = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
runpy.run_module("experiments.mnist", run_name="__main__")
"""


def test_disk_that_fills_up_leaves_a_run_that_goes_on(start, tmp_path):
    """A limit on the size of files stands for the disk: Orbax meets it the same way."""
    pytest.importorskip("resource")
    here = (f"--out={tmp_path}", "--name=full")
    process = start("-c", LIMITED, *PLAIN[:2], "--epochs=2", *here)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.count("\n") == 1
    assert err.startswith("error: cannot save a checkpoint in ")
    assert "File too large; make room" in err and "nothing was saved" in err
    finished(start(*MNIST, "--resume", *here))
    kept = {path.name for path in (tmp_path / "mnist/full/latest").iterdir()}
    assert kept == {"70", "140"}
