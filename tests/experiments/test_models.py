import json
import subprocess
import sys
import time

import pytest

from experiments import cli, models
from jaxdl.errors import InputError
from jaxdl.models import registry


def run(*args):
    command = [sys.executable, "-m", "experiments.models", *args]
    return subprocess.run(command, capture_output=True, text=True)


def test_lists_every_architecture_as_json():
    done = run("--size=28", "--channels=1", "--json")
    listed = {row["name"]: row for row in json.loads(done.stdout)}
    assert tuple(listed) == registry.names()
    assert listed["lenet5"]["parameters"] == 61_706
    assert listed["fnn"]["flops"] == 2 * (784 * 512 + 512 * 256 + 256 * 10)
    assert listed["vgg16"]["parameters"] is None  # 28 pixels are too few
    assert listed["vgg16"]["min_size"] == 32


def test_table_has_a_line_per_architecture():
    config = models.Config(size=32)
    lines = models.table(config, models.rows(config)).splitlines()
    assert "32x32x3, 10 classes" in lines[0]
    by_name = {line.split()[0]: line for line in lines[3:]}
    assert tuple(by_name) == registry.names()
    assert by_name["lenet5"].split()[2:] == ["-", "62,006", "1.3", ">=", "20x20"]


def test_layout_changes_those_that_have_it():
    rows = models.rows(models.Config(layout="torchvision", classes=1000, size=64))
    found = {row.name: row for row in rows}
    assert found["resnet18"].parameters == 11_689_512
    assert found["fnn"].layout is None


def test_bad_input_is_one_line_and_code_2(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["models", "--size=0"])
    with pytest.raises(SystemExit, match="2"):
        cli.run_or_exit(models.main)
    message = capsys.readouterr().err
    assert message == "error: --size must be at least 1, got 0\n"
    with pytest.raises(InputError, match="--classes"):
        models.rows(models.Config(classes=-1))


def test_help_loads_no_jax():
    started = time.perf_counter()
    done = run("--help")
    assert done.returncode == 0 and "--layout" in done.stdout
    assert time.perf_counter() - started < 10  # 0.2 s when the machine is idle
    code = "import sys, experiments.models; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
