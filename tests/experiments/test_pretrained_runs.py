"""Weights out of a run, into another, and what is trained there."""

import hashlib
import json
import re
import shutil

import jax
import numpy as np
import pytest
import torch_reference as reference

from jaxdl import weights
from jaxdl.models import pretrained, registry
from jaxdl.weights import published

LENET = ("--dataset=synthetic_svhn", "--batch-size=50", "--devices=1")
"""As `svhn_run` was made."""


@pytest.fixture
def exported(svhn_run, runs_dir, invoke):
    """The weights of `svhn_run`, written once."""
    path = runs_dir / "lenet.pth"
    if not path.exists():
        done = invoke("export", svhn_run, path)
        assert done.code == 0 and done.err == "", done
        steps, size = 810 // 50, path.stat().st_size / 1e6
        assert done.out.splitlines() == [
            f"Wrote lenet5 of step {steps} (best), trained on synthetic_svhn, to "
            f"{path}: {size:.1f} MB",
            f"Start from it with --arch=lenet5 --pretrained={path}",
        ]
    return path


def test_the_exported_network_scores_what_the_run_scored(
    svhn_run, exported, runs_dir, invoke
):
    """A run that starts from it and hardly moves has the very same accuracy."""
    out, name = f"--out={runs_dir}", "--name=still"
    still = ("--epochs=1", "--learning-rate=1e-12", "--weight-decay=0")
    done = invoke("svhn", *LENET, *still, f"--pretrained={exported}", out, name)
    assert done.code == 0 and done.err == "", done
    scores = [
        json.loads((run / "result.json").read_text())["test"]
        for run in (svhn_run, runs_dir / "svhn" / "still")
    ]
    assert scores[0]["accuracy"] == scores[1]["accuracy"]
    assert scores[0]["loss"] == pytest.approx(scores[1]["loss"], rel=1e-5)


def test_the_head_alone_is_trained_and_said_to_be(exported, runs_dir, tmp_path, invoke):
    """Digits of MNIST, grey and 28x28, after house numbers in colour."""
    source = tmp_path / "house numbers.pth"
    shutil.copy(exported, source)
    arguments = (
        "--dataset=mnist_embedded",
        "--arch=lenet5",
        "--epochs=1",
        "--devices=1",
        "--ema=0.9",
        f"--pretrained={source}",
        "--finetune=head",
        "--image-size=32",
        f"--out={tmp_path}",
        "--name=head",
    )
    done = invoke("mnist", *arguments)
    assert done.code == 0 and done.err == "", done
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    for line in (
        "Model:   lenet5, 61,706 parameters",
        f"Weights: {source} (SHA-256 {digest[:8]})",
        "Trained: head, 850 parameters; the rest is frozen",
        "Images:  resized from 28x28 to 32x32",
    ):
        assert f"\n{line}\n" in done.out
    run = tmp_path / "mnist" / "head"
    said = {"source": str(source), "file": source.name, "sha256": digest}
    result = json.loads((run / "result.json").read_text())
    assert result["pretrained"] == said
    assert (result["trained_parameters"], result["parameters"]) == (850, 61_706)
    assert json.loads((run / "config.json").read_text())["pretrained"] == said

    after = tmp_path / "after.safetensors"
    done = invoke("export", run, after)
    assert "--arch=lenet5 --image-size=32 --pretrained=" in done.out
    old, new = weights.read(source), weights.read(after)
    for name in old:
        colours = old[name].sum(1, keepdims=True) if name == "conv1.weight" else None
        same = np.array_equal(old[name] if colours is None else colours, new[name])
        assert same == (not name.startswith("fc3.")), name

    # What a resumed run needs is in its checkpoints.
    source.unlink()
    again = invoke("mnist", "--resume", "--name=head", f"--out={tmp_path}")
    assert again.code == 0 and "Resumed: after step 70\n" in again.out
    assert json.loads((run / "result.json").read_text()) == result
    # Prediction resizes as training did.
    found = json.loads(invoke("evaluate", run, "--json").out)
    assert found["accuracy"] == result["test"]["accuracy"]


def test_a_run_without_a_checkpoint_begins_again_with_the_same_file(
    exported, tmp_path, invoke
):
    source = tmp_path / "source.pth"
    shutil.copy(exported, source)
    out = f"--out={tmp_path}"
    start = (*LENET, "--epochs=1", f"--pretrained={source}", out)
    assert invoke("svhn", *start, "--name=whole").code == 0
    shutil.copytree(tmp_path / "svhn" / "whole", tmp_path / "svhn" / "killed")
    for folder in ("latest", "best"):  # as if killed before the first one
        shutil.rmtree(tmp_path / "svhn" / "killed" / folder)
    resume = ("--resume", "--name=killed", out)
    again = invoke("svhn", *resume)
    assert again.code == 0 and "Resumed" not in again.out
    metrics = [
        (tmp_path / "svhn" / name / "metrics.jsonl").read_text()
        for name in ("whole", "killed")
    ]
    assert metrics[0] == metrics[1]

    for folder in ("latest", "best"):
        shutil.rmtree(tmp_path / "svhn" / "killed" / folder)
    state = {k: v + 1 for k, v in weights.read(source).items()}
    weights.write(source, state)
    done = invoke("svhn", *resume)
    assert done.code == 2 and done.err.count("\n") == 1
    assert re.search(r"began with another .*source\.pth.*start a new run", done.err)


@pytest.fixture
def published_weights(tmp_path, monkeypatch):
    """A file in torch's cache, of random numbers, in the stead of ResNet-18's.

    Its name, its digest, and the variables in it.
    """
    module = registry.build("resnet18", num_classes=1000, layout="torchvision")
    random = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: (0.05 * random.standard_normal(leaf.shape, np.float32)) ** 2,
        jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 32, 32, 3))),
    )
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    pretrained.save(folder / "made.pth", variables)
    digest = hashlib.sha256((folder / "made.pth").read_bytes()).hexdigest()
    name = f"resnet18-{digest[:8]}.pth"
    (folder / "made.pth").rename(folder / name)
    monkeypatch.setitem(published.FILES, "resnet18", (name,))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return name, digest, variables


def test_published_weights_are_found_and_used_as_they_want(
    tmp_path, invoke, published_weights
):
    name, digest, variables = published_weights
    done = invoke(
        "svhn",
        *LENET,
        "--arch=resnet18",
        "--pretrained=imagenet",
        "--finetune=head",
        "--epochs=1",
        f"--out={tmp_path}",
        "--name=imagenet",
    )
    assert done.code == 0, done
    assert f"Weights: ImageNet, {name} (SHA-256 {digest[:8]})\n" in done.out
    assert "Trained: head, 5,130 parameters; the rest is frozen\n" in done.out
    run, file = tmp_path / "svhn" / "imagenet", tmp_path / "out.pth"
    done = invoke("export", run, file)
    options = "--arch=resnet18 --layout=torchvision --normalise=imagenet"
    assert f"Start from it with {options} --pretrained=" in done.out
    found = weights.read(file)
    for key, array in pretrained.to_torch(variables, batches=16).items():
        assert key.startswith("fc.") or np.array_equal(found[key], array), key
    torch = reference.torch()
    net = reference.torchvision_models().resnet18(num_classes=10)
    net.load_state_dict(torch.load(file, weights_only=True), strict=True)


@pytest.mark.long
@pytest.mark.parametrize("given", ["by name", "by a run"])
def test_published_weights_are_transferred(tmp_path, invoke, published_weights, given):
    """From scratch, too, in their layout, and on images as they want them."""
    options = ["--pretrained=imagenet"]
    if given == "by a run":
        run = ("--arch=resnet18", *options, "--epochs=1", f"--out={tmp_path}")
        done = invoke("svhn", *LENET, *run, "--name=imagenet")
        assert done.code == 0, done
        options = [f"--source={tmp_path}/svhn/imagenet"]
    done = invoke(
        *("transfer", "--dataset=mnist_embedded_colour", *options, "--labels", "20"),
        *("--seeds", "0", "1", "--steps=5", "--batch-size=10", f"--out={tmp_path}"),
        *("--arms", "scratch", "head"),
    )
    assert done.code == 0, done


BAD = {
    "no file": (["--pretrained=nope.pth"], ["--pretrained", "imagenet", "nope.pth"]),
    "no weight file": (["--pretrained=README"], ["README", "is not"]),
    "empty": (["--pretrained="], ["--pretrained", "imagenet"]),
    "none published": (["--pretrained=imagenet"], ["lenet5", "alexnet, vgg, resnet"]),
    "layout": (
        ["--arch=vgg11", "--pretrained=imagenet", "--layout=small"],
        ["--layout=torchvision", "small"],
    ),
    "too small": (
        ["--arch=alexnet", "--pretrained=imagenet"],
        ["63x63", "32x32", "--image-size=63"],
    ),
    "another network": (
        ["--arch=alexnet", "--pretrained=EXPORTED"],
        ["alexnet in layout 'small'", "unexpected", "conv1.weight"],
    ),
    "another size": (
        ["--pretrained=EXPORTED", "--image-size=40"],
        ["fc1.weight", "(120, 400)"],
    ),
    "frozen at random": (["--finetune=head"], ["--finetune=head", "--pretrained"]),
    "no such part": (["--finetune=tail"], ["'tail'", "last-block", "--finetune"]),
    "no head": (
        ["--arch=lenet5_1998", "--pretrained=EXPORTED", "--finetune=head"],
        ["--finetune=head", "--finetune=last-block"],
    ),
    "decay": (["--layer-decay=1.5"], ["--layer-decay", "1.5"]),
    "size": (["--image-size=-1"], ["--image-size", "-1"]),
    "rule": (["--normalise=none"], ["--normalise", "imagenet"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_nothing_is_written(case, exported, tmp_path, invoke):
    arguments, parts = BAD[case]
    (tmp_path / "README").write_text("no weights")
    runs = tmp_path / "runs"
    arguments = [
        a.replace("README", f"{tmp_path}/README").replace("EXPORTED", str(exported))
        for a in arguments
    ]
    done = invoke("svhn", *LENET, f"--out={runs}", *arguments)
    assert done.code == 2 and done.out == "", done
    assert done.err.startswith("error: ") and done.err.count("\n") == 1
    assert all(part in done.err for part in parts), done.err
    assert not runs.exists()


def test_export_refuses_what_it_cannot_write(svhn_run, tmp_path, invoke):
    for run, file, said in (
        (svhn_run, tmp_path / "weights.npz", ".safetensors or .pth"),
        (svhn_run, tmp_path / "none" / "weights.pth", "none"),
        (tmp_path, tmp_path / "weights.pth", "is not a run"),
    ):
        done = invoke("export", run, file)
        assert done.code == 2 and done.out == "", done
        assert said in done.err and done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
