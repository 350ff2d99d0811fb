"""Every architecture by name: what it is, what it accepts, how it is built.

The facts about an architecture stand here once; errors, help and tables derive from
them. Importing this module loads neither JAX nor Flax: `build` does, when called.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxdl.errors import InputError

if TYPE_CHECKING:
    import flax.linen as nn
    from jax.typing import DTypeLike

    from jaxdl.config import ModelConfig

LISTING = "`python -m experiments.models` lists all"

Blocks = tuple[tuple[str, ...], ...]
"""Names of layers (top-level modules), block by block from the logits to the pixels."""


@dataclasses.dataclass(frozen=True)
class Arch:
    """What is known of an architecture without building it."""

    name: str
    """The name of `--arch`; torchvision's own where torchvision has the network."""
    family: str
    """The module of `jaxdl.models` that builds it."""
    title: str
    """Its name in tables and figures."""
    min_sizes: tuple[tuple[str | None, int], ...]
    """Smallest side of an image, in pixels, for each layout; the first is the default
    layout, and None stands for an architecture that has but one."""
    options: tuple[str, ...] = ()
    """The options that `build` takes for it."""
    heads: tuple[str, ...] = ()
    """The dense layer that gives the logits, in each of the layouts of `min_sizes`."""
    torchvision: str | None = None
    """The name in `torchvision.models` of what layout "torchvision" equals."""
    has_dropout: bool = False
    """Whether it has dropout layers, and so needs a "dropout" key in training."""
    has_batch_norm: bool = False
    """Whether it always has batch statistics (for fnn they are an option)."""

    @property
    def layouts(self) -> tuple[str, ...]:
        """The layouts that it has, the default first; empty where there is but one."""
        return tuple(layout for layout, _ in self.min_sizes if layout)

    def min_size(self, layout: str | None = None) -> int:
        """Smallest side of an image in `layout` (None: the default one), in pixels."""
        return dict(self.min_sizes)[layout] if layout else self.min_sizes[0][1]

    def head(self, layout: str | None = None) -> str | None:
        """The dense layer that gives the logits in `layout`; None if there is none."""
        names = [known for known, _ in self.min_sizes]
        heads = dict(zip(names, self.heads, strict=False))
        return heads.get(layout or names[0])


def _vgg(depth: int, batch_norm: bool) -> Arch:
    name = f"vgg{depth}" + "_bn" * batch_norm
    return Arch(
        name,
        "vgg",
        f"VGG-{depth}" + "-BN" * batch_norm,
        (("small", 32), ("torchvision", 32)),
        ("dropout", "layout"),
        heads=("classifier", "classifier_6"),
        torchvision=name,
        has_dropout=True,
        has_batch_norm=batch_norm,
    )


def _resnet(depth: int) -> Arch:
    return Arch(
        f"resnet{depth}",
        "resnet",
        f"ResNet-{depth}",
        (("small", 1), ("torchvision", 1)),
        ("layout",),
        heads=("fc", "fc"),
        torchvision=f"resnet{depth}",
        has_batch_norm=True,
    )


_ARCHS = (
    Arch(
        "fnn",
        "fnn",
        "FNN",
        ((None, 1),),
        ("hidden", "activation", "batch_norm", "dropout"),
        heads=("head",),
        has_dropout=True,
    ),
    Arch("lenet5", "lenet", "LeNet-5", ((None, 20),), heads=("fc3",)),
    Arch("lenet5_1998", "lenet", "LeNet-5 (1998)", ((None, 20),)),
    Arch(
        "alexnet",
        "alexnet",
        "AlexNet",
        (("small", 15), ("torchvision", 63)),
        ("dropout", "layout"),
        heads=("classifier_6", "classifier_6"),
        torchvision="alexnet",
        has_dropout=True,
    ),
    *(
        _vgg(depth, batch_norm)
        for batch_norm in (False, True)
        for depth in (11, 13, 16, 19)
    ),
    *(_resnet(depth) for depth in (18, 34, 50, 101, 152)),
)
_BY_NAME = {arch.name: arch for arch in _ARCHS}
_ACTIVATIONS = ("relu", "gelu", "tanh", "sigmoid")


def names() -> tuple[str, ...]:
    """The names of all architectures, small ones first."""
    return tuple(_BY_NAME)


def spec(name: str) -> Arch:
    """The facts about architecture `name`.

    Raises:
        InputError: There is none of that name; the message suggests the nearest.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    near = difflib.get_close_matches(name.lower().replace("-", ""), names(), n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise InputError(f"unknown architecture {name!r}: {hint}{LISTING}")


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raise InputError unless `name` has all `options`, and with such values."""
    arch = spec(name)
    for option, value in options.items():
        if option not in arch.options:
            having = [a.name for a in _ARCHS if option in a.options]
            has = ", ".join(arch.options) or "none"
            raise InputError(
                f"{name} has no option {option!r} (its options: {has}); "
                + (f"only {_families(having)} have it" if having else LISTING)
            )
        if problem := _problem(arch, option, value):
            raise InputError(f"{option} of {name} {problem}, got {value!r}")


def _families(archs: list[str]) -> str:
    return ", ".join(dict.fromkeys(_BY_NAME[name].family for name in archs))


def _problem(arch: Arch, option: str, value: Any) -> str | None:
    """What `value` should have been, or None if it is as it should be."""
    known = isinstance(value, int | float)  # a traced number was checked before
    if option == "dropout" and known and not 0 <= value < 1:
        return "must be at least 0 and less than 1"
    if option == "hidden" and not (
        isinstance(value, Sequence)
        and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in value)
    ):
        return "must be whole numbers of at least 1, as in 512 256"
    if option == "activation" and value not in _ACTIVATIONS:
        return f"must be one of {', '.join(_ACTIVATIONS)}"
    if option == "layout" and value not in arch.layouts:
        return f"must be one of {', '.join(arch.layouts)}"
    return None


def options_for(name: str, config: ModelConfig) -> dict[str, Any]:
    """The options of `config` that are set, as `build` takes them.

    Published weights decide the layout: with `pretrained` "imagenet" it is
    "torchvision".

    Args:
        name: Architecture.
        config: Model settings; those that are None are left to the architecture.
            `arch`, `precision` and `pretrained` are not options in this sense.

    Raises:
        InputError: Unknown architecture, an option that it does not have, a value out
            of range, or published weights that there are not.
    """
    fields = ("hidden", "activation", "batch_norm", "dropout", "layout")
    chosen = {field: getattr(config, field) for field in fields}
    chosen = {option: value for option, value in chosen.items() if value is not None}
    check_options(name, chosen)
    if config.pretrained == "imagenet":
        if spec(name).torchvision is None:
            having = _families([a.name for a in _ARCHS if a.torchvision])
            raise InputError(
                f"--pretrained=imagenet: no weights are published for {name}, only for "
                f"{having}; give a weight file, or another --arch"
            )
        if chosen.setdefault("layout", "torchvision") != "torchvision":
            raise InputError(
                f"--pretrained=imagenet needs --layout=torchvision, not "
                f"{chosen['layout']}: leave --layout out"
            )
    return chosen


def check_input(name: str, layout: str | None, height: int, width: int) -> None:
    """Raise InputError if `name` cannot take images of height x width pixels.

    Args:
        name: Architecture.
        layout: One of its layouts; None for the default.
        height: Rows.
        width: Columns.
    """
    arch = spec(name)
    if layout is not None:
        check_options(name, {"layout": layout})
    side, smallest = min(height, width), arch.min_size(layout)
    if side >= smallest:
        return
    full = name + (f" in layout {layout or arch.layouts[0]!r}" if arch.layouts else "")
    other = [a for a, least in arch.min_sizes if side >= least]
    if other:
        fix = f"layout {other[0]!r} takes them"
    else:
        able = [a.name for a in _ARCHS if side >= a.min_size()]
        fix = f"take {_families(able)}"
    raise InputError(
        f"{full} needs images of at least {smallest}x{smallest} pixels, "
        f"got {height}x{width}: resize them (--image-size={smallest}), or {fix}"
    )


def blocks(name: str, **options: Any) -> Blocks:
    """The layers of an architecture that have parameters, block by block.

    The first block is the head: the dense layer that gives the logits. Then come, on
    the way to the pixels, blocks that every fine-tuning here counts by:

    - resnet: the four stages, layer4 first; the stem (conv1, bn1).
    - vgg: the five stages of convolutions at one resolution, the last one together
      with the hidden dense layers after it.
    - alexnet, lenet: one convolution each, the last one together with the hidden dense
      layers after it (and each with its subsampling, in LeNet-5 of 1998).
    - fnn: one hidden layer each, with its normalisation.

    Args:
        name: Architecture; see `names`.
        **options: As `build` takes them.

    Returns:
        Names of the layers. The first block is empty where the logits have no
        parameters (LeNet-5 of 1998).

    Raises:
        InputError: From `build`.
    """
    network: Any = build(name, num_classes=1, **options)
    found: Blocks = network.blocks
    return found


def build(
    name: str,
    *,
    num_classes: int,
    dtype: DTypeLike = "float32",
    axis_name: str | None = None,
    **options: Any,
) -> nn.Module:
    """The Flax module of an architecture.

    It is called as `module.apply(variables, x, train=bool, rngs={"dropout": key})` with
    `x` float [N, H, W, C], and returns logits, float32 [N, num_classes]. Collections:
    "params", and "batch_stats" if it has batch norm: in training it is asked for by
    `mutable=["batch_stats"]`, and returned beside the logits, as Flax does.

    Args:
        name: Architecture; see `names`.
        num_classes: Number of logits, at least 1.
        dtype: Number format of the activations; parameters and batch statistics are
            float32.
        axis_name: Mapped axis (`pmap`, `shard_map`) over which batch statistics are
            taken; None where there is none, `jit` over a mesh included.
        **options: Those of `spec(name).options`; the family's `build` explains them.

    Raises:
        InputError: Unknown architecture, an option that it does not have, or a value
            out of range.
    """
    if num_classes < 1:
        raise InputError(f"{name} needs at least 1 class, got {num_classes}")
    check_options(name, options)
    family = importlib.import_module(f"jaxdl.models.{spec(name).family}")
    return family.build(
        name, num_classes=num_classes, dtype=dtype, axis_name=axis_name, **options
    )
