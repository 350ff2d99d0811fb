"""torch gets its best: a fused SGD, which trains the same weights as the default."""

import numpy as np
import pytest

from benchmarks import cases

NETWORK = cases.Network("lenet5", None, 4)


@pytest.fixture
def rival():
    pytest.importorskip("torch", reason="torch is not installed")
    return pytest.importorskip("benchmarks.torch_rival")


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_fused_step_has_the_same_weights(rival, channels_last):
    import torch

    def trained(**options):
        torch.manual_seed(0)
        net, images = rival._network(NETWORK, channels_last)
        labels = torch.randint(0, cases.CLASSES, (NETWORK.batch,))
        step = rival._trainer(net, **options)
        for _ in range(3):
            step(images, labels)
        return list(net.parameters())

    for ours, theirs in zip(trained(), trained(fused=None), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_steps_and_epochs_are_fused(rival, monkeypatch, tmp_path):
    made = []

    def sgd(*args, **options):
        made.append(original(*args, **options))
        return made[-1]

    original = rival.torch.optim.SGD
    monkeypatch.setattr(rival.torch.optim, "SGD", sgd)
    images, labels = tmp_path / "images.npy", tmp_path / "labels.npy"
    np.save(images, np.zeros((4, 32, 32, 3), np.uint8))
    np.save(labels, np.zeros(4, np.int32))
    epoch = cases.Epoch(NETWORK, str(images), str(labels), 4)
    rival.step(NETWORK, channels_last=True).run(1)
    rival.epoch(epoch, channels_last=False).run(1)
    assert [each.defaults["fused"] for each in made] == [True, True]
