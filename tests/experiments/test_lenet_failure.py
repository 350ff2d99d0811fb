import dataclasses
import json
import re

import jax
import numpy as np
import pytest

from experiments import lenet_settings, lenet_study
from experiments.lenet_report import Tried
from experiments.lenet_settings import Setting
from jaxdl.data.sources import Split
from jaxdl.search import journal
from jaxdl.training import assemble, parallel
from jaxdl.training.assemble import DataFacts

FACTS = DataFacts((32, 32, 3), tuple("0123456789"), (0.4, 0.5, 0.6), (0.1, 0.2, 0.3))


def split(count=256):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
    return Split(images, rng.integers(0, 10, count).astype(np.int32))


def test_labels_are_misread_as_the_files_invite_to():
    digits = Split(np.zeros((10, 32, 32, 3), np.uint8), np.arange(10, dtype=np.int32))
    stored = np.where(digits.labels == 0, 10, digits.labels)  # SVHN's own labels
    less = lenet_study._mislabelled(digits, Setting("a", labels="one less"))
    np.testing.assert_array_equal(less.labels, stored - 1)
    one_hot = stored[:, None] == np.arange(10)  # a label of 10 has no target
    without = lenet_study._mislabelled(digits, Setting("a", labels="no zeros"))
    np.testing.assert_array_equal(without.labels, digits.labels[one_hot.any(1)])
    assert lenet_study._mislabelled(digits, Setting("a")) is digits


@pytest.mark.parametrize(
    ("pixels", "white"), [("0 to 1", 1.0), ("0 to 255", 255.0), ("normalised", 6.0)]
)
def test_pixels_come_to_the_network_as_said(pixels, white):
    facts = lenet_study._seen(FACTS, pixels)
    assert (1.0 - facts.mean[0]) / facts.std[0] == pytest.approx(white)


def test_only_the_head_moves_where_only_the_head_is_trained():
    config = lenet_study.config_of(Setting("a"), 0, 1)
    parts = assemble.assemble(config, FACTS, 1, 1, parallel.choose("jit", 1, 128, 1))
    start = jax.device_get(assemble.initial_state(config, parts, FACTS).variables)
    optim = dataclasses.replace(config.optim, finetune="head")
    config = dataclasses.replace(config, optim=optim)
    found = lenet_study.train(config, FACTS, split(), start=start)
    after = jax.device_get(found.variables)
    assert not found.diverged
    for layer, params in after["params"].items():
        same = np.array_equal(params["kernel"], start["params"][layer]["kernel"])
        assert same == (layer != "fc3"), layer


def test_a_rate_beyond_all_measure_is_called_diverged():
    setting = Setting("a", lenet_settings._sgd(1e12))
    config = lenet_study.config_of(setting, 0, 1)
    assert lenet_study.train(config, FACTS, split()).diverged


def test_verdicts():
    def verdict(*accuracies):
        return Tried(Setting("a"), accuracies, 0).verdict

    assert verdict(0.30, 0.38) == "about 34.67"
    assert verdict(0.2, 0.8) == "undecided"
    assert verdict(0.10, 0.20, 0.75) == "undecided"  # the mean is there, no seed is
    assert verdict(0.385, 0.41, 0.435) == "undecided"  # "above" by its mean alone
    assert verdict(0.19, 0.20) == "below" and verdict(0.80, 0.81) == "above"


def test_a_study_leaves_a_report_and_goes_on_from_its_journal(
    invoke, monkeypatch, tmp_path
):
    some = [lenet_settings.SETTINGS[0], Setting("labels", labels="one less")]
    monkeypatch.setattr(lenet_study, "SETTINGS", some)
    arguments = (
        *("--dataset=synthetic_svhn", "--images=256", "--epochs=1"),
        *("--seeds", 0, 1, f"--out={tmp_path}"),
    )
    done = invoke("lenet_failure", *arguments)
    assert done.code == 0, done
    folder = tmp_path / "lenet_failure" / "svhn"
    lines = journal.mend(folder / "journal.jsonl")
    assert [(e["setting"], e["seed"]) for e in lines] == [
        (setting.name, seed) for setting in some for seed in (0, 1)
    ]
    text = (folder / "report.md").read_text()
    assert "This is `synthetic_svhn`, not SVHN" in text
    result = json.loads((folder / "result.json").read_text())
    shares = result["settings"][some[0].name]["accuracies"]
    assert shares == [e["accuracy"] for e in lines[:2]]

    kept = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    (folder / "journal.jsonl").write_text("".join(kept[:3]) + kept[3][:20])
    assert invoke("lenet_failure", *arguments).code == 0
    again = journal.mend(folder / "journal.jsonl")
    assert [e["accuracy"] for e in again] == [e["accuracy"] for e in lines]
    spent = sum(e["seconds"] for e in again)  # the first session's too
    assert f" in {spent:.0f} s on " in (folder / "report.md").read_text()

    other = invoke("lenet_failure", *arguments, "--epochs=2")
    assert other.code == 2 and "epochs" in other.err and "--name" in other.err


def test_images_that_leave_no_batch_without_zeros_are_refused_at_once(
    invoke, monkeypatch, tmp_path
):
    """The number that is named suffices, and no smaller one does."""
    some = [Setting("zeros without a target", labels="no zeros")]
    monkeypatch.setattr(lenet_study, "SETTINGS", some)
    arguments = ("--dataset=synthetic_svhn", "--epochs=1", f"--out={tmp_path}")
    done = invoke("lenet_failure", *arguments, f"--images={lenet_study.BATCH}")
    assert done.code == 2 and done.err.count("\n") == 1
    assert not list(tmp_path.iterdir())
    least = int(re.search(r"--images must be at least (\d+)", done.err)[1])
    done = invoke("lenet_failure", *arguments, f"--images={least - 1}")
    assert done.code == 2 and f"at least {least}" in done.err
    assert not list(tmp_path.iterdir())
    done = invoke("lenet_failure", *arguments, f"--images={least}")
    assert done.code == 0, done


BAD = {
    "epochs": (["--epochs=0"], ["--epochs", "0"]),
    "images": (["--images=5"], ["--images", "5", "128"]),
    "too many": (["--images=100000"], ["--images", "100000", "at most"]),
    "one seed": (["--seeds", "3"], ["--seeds", "two"]),
    "seed twice": (["--seeds", "3", "3"], ["--seeds", "once"]),
    "name": (["--name=.."], ["--name", ".."]),
    "data": (["--dataset=mnist_embedded"], ["32x32", "mnist_embedded"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_writes_nothing(case, invoke, tmp_path):
    arguments, words = BAD[case]
    done = invoke("lenet_failure", *arguments, f"--out={tmp_path}")
    assert done.code == 2 and done.err.count("\n") == 1
    assert all(word in done.err for word in words), done.err
    assert not list(tmp_path.iterdir())
