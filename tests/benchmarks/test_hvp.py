"""PyTorch's ways to a Hessian-vector product agree; the command measures and writes."""

import json
from importlib.util import find_spec

import pytest

from benchmarks import cases, cli, hvp, measure


def test_ways_of_torch_agree():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from benchmarks import torch_models, torch_rival

    torch.manual_seed(0)
    net = torch_models.build(cases.Digits("lenet5", None)).double()
    images, labels = torch.randn(3, 1, 28, 28).double(), torch.tensor([1, 0, 7])
    params = dict(net.named_parameters())
    vector = [torch.cos(p.detach() * 100) for p in params.values()]
    found = {
        name: product(net, torch.nn.CrossEntropyLoss(), params, images, labels)(vector)
        for name, product in torch_rival.PRODUCTS.items()
        if name != "func compiled"
        and (" " in name or find_spec(name) or name == "func")
    }
    reference = found.pop("double backward")
    assert found
    for name, product in found.items():
        for ours, theirs in zip(product, reference, strict=True):
            torch.testing.assert_close(ours, theirs, msg=name)


def test_all_that_is_built_on_torch_counts_as_it():
    built = [n for n, rival in measure.HVP_RIVALS.items() if rival.backend == "torch"]
    assert built and all(name.startswith(hvp.TORCH) for name in built)


def test_a_product_is_measured_whole(monkeypatch, capsys, tmp_path):
    options = ["--rounds=1", "--seconds=0.01", "--networks", "fnn", "--batch-size=4"]
    options += ["--rivals", "jaxdl", "flax", f"--out={tmp_path}"]
    monkeypatch.setattr("sys.argv", ["hvp", *options])
    cli.run(hvp.main)
    out = capsys.readouterr().out
    assert "products/s" in out and "jaxdl : best flax" in out
    results = json.loads((tmp_path / "hvp.json").read_text())["results"]
    assert [r["rival"] for r in results] == ["jaxdl", "flax"]
    assert all(r["parameters"] == 535_818 and r["seconds"][0] > 0 for r in results)
