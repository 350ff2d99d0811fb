import json
import shutil

import pytest


@pytest.fixture
def copied(mnist_run, tmp_path):
    """A run to damage."""
    return shutil.copytree(mnist_run, tmp_path / "copied")


@pytest.mark.parametrize("which", ["mnist_run", "svhn_run"])
def test_equals_the_accuracy_of_the_result(which, invoke, request):
    run = request.getfixturevalue(which)
    result = json.loads((run / "result.json").read_text())
    done = invoke("evaluate", run, "--json")
    assert done.code == 0 and done.err == ""
    found = json.loads(done.out)
    assert found["accuracy"] == result["test"]["accuracy"]
    assert found["loss"] == pytest.approx(result["test"]["loss"], rel=1e-6)
    assert found["count"] == result["test"]["count"]
    assert found["dataset"] == result["dataset"]["name"]
    on_validation = json.loads(
        invoke("evaluate", run, "--json", "--split=validation").out
    )
    assert on_validation["accuracy"] == result["validation"]["accuracy"]


def test_text_has_the_same_figures(mnist_run, invoke):
    found = json.loads(invoke("evaluate", mnist_run, "--json").out)
    lines = invoke("evaluate", mnist_run).out.splitlines()
    assert "on mnist_embedded, test, 2,000 images" in lines[0]
    assert lines[1:11] == [
        f"  {name}: {100 * accuracy:.2f}"
        for name, accuracy in found["accuracy_by_class"].items()
    ]
    assert lines[-2:] == [
        f"Loss on the test set: {found['loss']:.4f}",
        f"Accuracy on the test set: {100 * found['accuracy']:.2f}",
    ]
    # The embedded test set is balanced: its accuracy is the mean of the classes'.
    mean = sum(found["accuracy_by_class"].values()) / 10
    assert mean == pytest.approx(found["accuracy"])


def test_latest_checkpoint_and_training_split(mnist_run, invoke):
    done = invoke(
        "evaluate", mnist_run, "--checkpoint=latest", "--split=train", "--json"
    )
    found = json.loads(done.out)
    assert found["step"] == 140 and found["count"] == 9000


def refused(done):
    assert done.code == 2 and done.out == ""
    assert done.err.startswith("error: ") and done.err.count("\n") == 1
    return done.err


def test_not_a_run(tmp_path, invoke):
    assert "is not a run" in refused(invoke("evaluate", tmp_path))
    assert "is not a run" in refused(invoke("evaluate", tmp_path / "none"))
    (tmp_path / "file").touch()
    assert "file" in refused(invoke("evaluate", tmp_path / "file"))


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"config": []}',
        '{"config": {"data": 3}}',
        '{"config": {"data": {}}}',
    ],
)
def test_config_that_is_none(copied, invoke, content):
    (copied / "config.json").write_text(content)
    refused(invoke("evaluate", copied))


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": None},
        {"train": "9000"},
        {"image_shape": [28, 28]},
        {"mean": []},
        {"std": [0.0]},
        {"std": ["x"]},
        {"classes": []},
    ],
)
def test_description_of_data_that_cannot_be(copied, invoke, wrong):
    described = json.loads((copied / "config.json").read_text())
    described["dataset"] |= wrong
    (copied / "config.json").write_text(json.dumps(described))
    assert "config.json" in refused(invoke("evaluate", copied))
    file = copied / "weights.pth"
    refused(invoke("export", copied, file))
    assert not file.exists()


def test_checkpoint_of_another_model(copied, invoke):
    config = (copied / "config.json").read_text()
    (copied / "config.json").write_text(config.replace("16\n", "17\n"))
    assert "of another model" in refused(invoke("evaluate", copied))


def test_damaged_checkpoint_is_never_used(copied, invoke):
    data = [p for p in (copied / "best").rglob("d/*") if p.stat().st_size > 10_000]
    assert data
    for path in data:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert "damaged" in refused(invoke("evaluate", copied))
    assert invoke("evaluate", copied, "--checkpoint=latest").code == 0


def test_missing_checkpoint(copied, invoke):
    shutil.rmtree(copied / "best")
    assert "has no best checkpoint" in refused(invoke("evaluate", copied))
    assert not (copied / "best").exists()
