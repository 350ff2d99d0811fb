"""The command; what it measures is tested in tests/models/test_parity_full.py."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch_reference as reference

from experiments import parity, parity_measure, parity_torch
from experiments.parity import ParityConfig
from experiments.parity_measure import Float32, Single
from jaxdl.errors import InputError


def test_what_does_not_fit_is_left_out():
    config = ParityConfig(("alexnet", "vgg11"), (64, 32, 64))
    assert parity.cases(config) == [("alexnet", 64), ("vgg11", 32), ("vgg11", 64)]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--architectures", "lenet5"], "--architectures knows alexnet, .*'lenet5'"),
        (["--architectures"], "--architectures needs at least one of alexnet, vgg11"),
        (["--architectures", "alexnet", "--sizes", "32"], "--sizes .*alexnet 63.* 32"),
        (["--weights", "none.pth"], "--weights needs --architectures"),
        (
            ["--architectures", "vgg11", "--weights", "none.pth"],
            "--weights: there is no file none.pth",
        ),
    ],
)
def test_bad_input_is_one_line_and_code_2(invoke, options, line):
    done = invoke("parity", *options)
    assert done.code == 2 and done.out == ""
    assert done.err.count("\n") == 1
    assert re.match(f"error: {line}", done.err)


def test_without_torch_it_says_what_to_install(invoke, monkeypatch):
    monkeypatch.setattr(parity_torch.importlib.util, "find_spec", lambda name: None)
    done = invoke("parity", "--architectures", "resnet18")
    assert done.code == 2
    assert done.err == (
        "error: torch is not installed, with which jaxdl is compared; "
        "pip install -e '.[parity]'\n"
    )


def test_help_loads_neither_jax_nor_torch():
    code = (
        "import sys, experiments.parity; print({'jax', 'torch'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_a_difference_that_is_no_number_is_the_largest():
    ones, spoilt = np.ones(3), np.array([1.0, np.nan, 1.0])
    for place in ("a", "b"):
        ours = {"a": ones, "b": ones} | {place: spoilt}
        assert np.isnan(parity_measure.difference(ours, {"a": ones, "b": ones}))


def test_faults_name_what_is_beyond_its_tolerance():
    assert parity_measure.faults(Single(1e-10, 0.0, 1e-10, 0.0)) == []
    assert parity_measure.faults(Single(float("nan"), 0.0, 2e-9, 0.0)) == [
        "logits: nan, 1.0e-09 allowed",
        "gradients: 2.0e-09, 1.0e-09 allowed",
    ]
    flipped = Float32(1e-6, 1e-6, 1e-6, 0.02, 0.01, 5)
    assert parity_measure.faults(flipped) == []
    assert parity_measure.faults(flipped._replace(gradients=0.031))
    assert parity_measure.faults(2e-7) == ["after ten steps: 2.0e-07, 1.0e-07 allowed"]


def test_a_file_of_another_network_is_refused(tmp_path):
    torch, models = reference.torch(), reference.torchvision_models()
    path = tmp_path / "mine.pth"
    torch.save(models.resnet18(num_classes=3).state_dict(), path)
    with pytest.raises(InputError, match=r"resnet34 does not load .*mine\.pth"):
        parity_measure.subject("resnet34", path)


@pytest.mark.long
def test_weights_of_a_file(tmp_path, invoke):
    torch, path = reference.torch(), tmp_path / "mine.pth"
    reference.torchvision_models()
    torch.save(parity_torch.network("resnet18", 7, seed=5).state_dict(), path)
    options = ("--architectures", "resnet18", "--sizes", "32", "--weights", path)
    done = invoke("parity", *options, "--json")
    assert done.code == 0, done
    (row,) = json.loads(done.out)
    assert row["weights"] == str(path)
    assert 0 < row["float64"]["logits"] < 1e-9
