import json


def test_trains_on_synthetic_svhn(svhn_run, runs_dir):
    printed = (runs_dir / "svhn.txt").read_text()
    assert "Data:    synthetic_svhn (810 train, 90 validation, 300 test)" in printed
    assert "Model:   lenet5, 62,006 parameters" in printed
    assert "Epoch 1, Batch 16, Loss: " in printed
    assert "Finished Training\nAccuracy on the test set: " in printed
    result = json.loads((svhn_run / "result.json").read_text())
    assert result["experiment"] == "svhn" and result["arch"] == "lenet5"
    assert result["dataset"]["name"] == "synthetic_svhn"
    assert result["test"]["count"] == 300
    assert len(list((svhn_run / "figures").glob("*.png"))) == 4


def test_facts_of_colour_images_are_kept(svhn_run):
    config = json.loads((svhn_run / "config.json").read_text())
    assert config["config"]["data"]["augment"] == "digits"
    assert config["dataset"]["image_shape"] == [32, 32, 3]
    assert len(config["dataset"]["mean"]) == len(config["dataset"]["std"]) == 3
    assert all(0.2 < m < 0.8 for m in config["dataset"]["mean"])
    assert all(0.05 < s < 0.5 for s in config["dataset"]["std"])
