"""The settings under which `experiments.lenet_failure` trains LeNet-5.

Beside a good recipe and a plain baseline, SGD with momentum 0.9 at a rate of 0.01 on
normalised pixels, each has one fault; but where momentum is left out, and for 1998's
network, the rate may be another too.
"""

import dataclasses
from typing import Literal

from experiments import recipes
from jaxdl.config import OptimConfig

Pixels = Literal["normalised", "0 to 1", "0 to 255"]
Labels = Literal["right", "one less", "no zeros"]
Start = Literal["random", "mnist", "mnist, then trained"]


def _sgd(learning_rate: float, momentum: float = 0.9) -> OptimConfig:
    return OptimConfig(
        learning_rate=learning_rate,
        momentum=momentum,
        nesterov=False,
        weight_decay=0.0,
        schedule="constant",
    )


@dataclasses.dataclass(frozen=True)
class Setting:
    """One way to train LeNet-5, and perhaps to spoil it."""

    name: str
    """In tables and figures."""
    optim: OptimConfig = dataclasses.field(default_factory=lambda: _sgd(0.01))
    arch: Literal["lenet5", "lenet5_1998"] = "lenet5"
    augment: Literal["none", "digits", "handwriting"] = "none"
    pixels: Pixels = "normalised"
    """As the network gets them in training."""
    test_pixels: Pixels = "normalised"
    """As it gets them in the test."""
    labels: Labels = "right"
    """Of training. SVHN's files call the digit 0 "10". "one less": all labels less
    one, 10 being 9, where the test has the digits. "no zeros": a 10 among ten classes
    has no target, so that no 0 is ever learnt."""
    start: Start = "random"
    """Weights to begin with. "mnist" has no training on the data at all."""
    steps: int | None = None
    """Stop after so many steps."""


RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
"""Of SGD without momentum."""

_HEAD = dataclasses.replace(_sgd(0.01), finetune="head")

_RECIPE = recipes.RECIPES["lenet5"]

SETTINGS = (
    Setting(
        "recipe of experiments.compare", _RECIPE.optim, augment=_RECIPE.data.augment
    ),
    Setting("baseline: momentum 0.9, rate 0.01"),
    *(Setting(f"no momentum, rate {rate:g}", _sgd(rate, 0.0)) for rate in RATES),
    Setting("momentum 0.9, rate 0.001", _sgd(0.001)),
    Setting("momentum 0.9, rate 0.3", _sgd(0.3)),
    Setting("pixels 0 to 1", pixels="0 to 1", test_pixels="0 to 1"),
    Setting("pixels 0 to 255", pixels="0 to 255", test_pixels="0 to 255"),
    Setting("normalised in training only", test_pixels="0 to 1"),
    Setting("labels one less in training", labels="one less"),
    Setting("zeros without a target", labels="no zeros"),
    Setting("100 steps", steps=100),
    Setting("1998's network, no momentum, rate 0.01", _sgd(0.01, 0.0), "lenet5_1998"),
    Setting("1998's network, momentum 0.9, rate 0.0001", _sgd(1e-4), "lenet5_1998"),
    Setting("from MNIST, not trained further", start="mnist"),
    Setting("from MNIST, only the head trained", _HEAD, start="mnist, then trained"),
)
"""The first is the one that does well."""
