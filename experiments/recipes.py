r"""How each architecture is trained on SVHN: the recipes of `experiments.compare`.

SGD with Nesterov's momentum on a one-cycle schedule (Smith and Topin 2018,
"Super-Convergence"), digits moved, turned and cut out but never flipped, soft labels
(Szegedy et al. 2016), and evaluation of an average of the weights.

A recipe is searched on validation data alone by `experiments.search`, which takes any
architecture. LeNet-5's comes from

    python -m experiments.search --dataset=synthetic_svhn --ablation-epochs=0 \
        --trials=12 --rungs 3 9 --space arch=lenet5 augment=none,digits \
        learning_rate=log:0.02:0.5 weight_decay=log:5e-5:1e-3 \
        label_smoothing=0,0.1 ema=0.999

ResNet's are the usual ones, and a search of ResNet-18 with the ImageNet stem finds no
better: of nine drawn settings (rates 0.02 to 0.5, decays 5e-5 to 2e-3, both kinds of
labels; --rungs 2 6) the best has 92.04 % of the validation images after 6 epochs, and
of the six of

    python -m experiments.search --dataset=synthetic_svhn --ablation-epochs=0 \
        --sampler=grid --trials=6 --rungs 6 --space arch=resnet18 layout=torchvision \
        learning_rate=0.1,0.2 weight_decay=5e-4,1e-3,2e-3 augment=digits \
        label_smoothing=0.1 ema=0.999

the recipe's own is the first, with 92.06 (the next three have 91.96 to 91.98).

AlexNet's and VGG's rates are those in use for such networks at this batch size. A grid
around AlexNet's (--rungs 3; rates 0.015, 0.03, 0.06; decays 2e-4, 1e-3) has 88.36 and
88.70, 89.30 and 89.70, 89.04 and 89.98 % of the validation images, and one of
VGG-16-BN's rate (--rungs 2; 0.02, 0.05, 0.1, 0.2) has 91.12, 92.10, 92.34 and 92.28:
differences from the recipes' neighbours that 5,000 images do not establish, so that
both stay. VGG's without batch norm has not been searched.

Nothing here imports JAX.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple, cast

from jaxdl.config import Config, DataConfig, ModelConfig, OptimConfig, RunConfig
from jaxdl.errors import InputError
from jaxdl.models import registry
from jaxdl.search import space
from jaxdl.weights.published import FILES

Layout = Literal["small", "torchvision"]


class Network(NamedTuple):
    """An architecture in one of its layouts."""

    arch: str
    layout: Layout | None
    """None where there is but one."""

    @property
    def written(self) -> str:
        """As the command line has it: arch, or arch/layout."""
        return f"{self.arch}/{self.layout}" if self.layout else self.arch


class Entry(NamedTuple):
    """A network with a seed: one run of the comparison."""

    network: Network
    seed: int
    pretrained: bool = False
    """Whether it starts from torchvision's ImageNet weights."""

    @property
    def name(self) -> str:
        """Of its run, and so of the folder: resnet18-torchvision-seed0."""
        start = "-imagenet" if self.pretrained else ""
        return f"{self.network.written.replace('/', '-')}{start}-seed{self.seed}"


_BASE = Config(
    data=DataConfig(augment="digits"),
    optim=OptimConfig(
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        schedule="onecycle",
        label_smoothing=0.1,
        ema=0.999,
    ),
    run=RunConfig(batch_size=128),
)


def _recipe(learning_rate: float, epochs: int, **changed: object) -> Config:
    changed = {"learning_rate": learning_rate, "epochs": epochs, **changed}
    return space.applied(_BASE, changed)


_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")

RECIPES: Mapping[str, Config] = MappingProxyType(
    {
        # All that went on to the last rung of the search had no augmentation.
        "lenet5": _recipe(0.08, 30, augment="none", weight_decay=2e-4),
        "alexnet": _recipe(0.03, 20),
        # Without batch norm VGG starts on a plateau and leaves it at small rates only.
        **{f"vgg{n}": _recipe(0.02, 15, clip_norm=1.0) for n in (11, 13, 16, 19)},
        **{f"vgg{n}_bn": _recipe(0.05, 15) for n in (11, 13, 16, 19)},
        **{name: _recipe(0.1, 15) for name in _RESNETS},
    }
)
"""The whole recipe of each architecture, in any layout, but for what a command says."""


FINE_TUNED_SIZE = 64
"""Side of the images for networks that start from ImageNet's weights, made for 224:
the least that all of them take, at four times the cost of 32."""

FINE_TUNED_RATE = 0.1
"""Their learning rate, as a part of the recipe's. Like the size it is common practice,
and not searched: the weights could not be had where the recipes were made."""


def parse(text: str, *, pretrained: bool = False) -> Network:
    """Reads `arch` or `arch/layout`; without a layout the architecture's first counts.

    Args:
      text: as on the command line.
      pretrained: ImageNet's weights are wanted, which only one layout has.

    Raises:
      InputError: no such architecture or layout, or one without a recipe or weights.
    """
    arch, slash, layout = text.partition("/")
    known = registry.spec(arch)
    if arch not in RECIPES:
        raise InputError(
            f"--architectures: {arch} has no recipe; there are {', '.join(RECIPES)}"
        )
    if pretrained and (arch not in FILES or layout not in ("", "torchvision")):
        raise InputError(
            f"--pretrained: no weights are published for {text}; name --architectures "
            f"of {', '.join(FILES)}, in layout torchvision"
        )
    if pretrained:
        return Network(arch, "torchvision")
    if not slash:
        return Network(arch, cast(Layout, known.layouts[0]) if known.layouts else None)
    if layout not in known.layouts:
        allowed = " or ".join(f"{arch}/{name}" for name in known.layouts) or arch
        raise InputError(f"--architectures: write {allowed}, not {text!r}")
    return Network(arch, cast(Layout, layout))


def entries(
    architectures: Sequence[str], seeds: Sequence[int], *, pretrained: bool = False
) -> list[Entry]:
    """Every network with every seed; all networks of a seed before the next seed.

    Raises:
      InputError: from `parse`; none at all, or one that is given twice.
    """
    for option, values in (("architectures", architectures), ("seeds", seeds)):
        if not values:
            raise InputError(f"--{option} needs at least one")
    networks = [parse(text, pretrained=pretrained) for text in architectures]
    for option, given in (
        ("architectures", [n.written for n in networks]),
        ("seeds", [*map(str, seeds)]),
    ):
        if twice := {one for one in given if given.count(one) > 1}:
            raise InputError(f"--{option}: {', '.join(sorted(twice))} is given twice")
    return [Entry(network, seed, pretrained) for seed in seeds for network in networks]


def config_of(
    entry: Entry,
    data: DataConfig,
    run: RunConfig,
    *,
    epochs: int | None,
    precision: Literal["float32", "bfloat16"],
) -> Config:
    """The settings of an entry's run.

    Args:
      entry: what is trained.
      data: gives the data set and its folders; the recipe gives the augmentation.
      run: gives the folder of the results.
      epochs: in the place of the recipe's.
      precision: of the activations.
    """
    recipe, pretrained, size = RECIPES[entry.network.arch], None, None
    if entry.pretrained:
        rate = FINE_TUNED_RATE * recipe.optim.learning_rate
        recipe = space.applied(recipe, {"learning_rate": rate})
        pretrained, size = "imagenet", FINE_TUNED_SIZE
    return dataclasses.replace(
        recipe,
        data=dataclasses.replace(
            data, augment=recipe.data.augment, image_size=size, normalise=None
        ),
        model=ModelConfig(
            arch=entry.network.arch,
            layout=entry.network.layout,
            precision=precision,
            pretrained=pretrained,
        ),
        run=dataclasses.replace(
            recipe.run,
            epochs=recipe.run.epochs if epochs is None else epochs,
            seed=entry.seed,
            out=run.out,
            name=entry.name,
        ),
    )
