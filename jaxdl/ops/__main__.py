"""What computes on this CPU, why, and which engine each convolution of a network gets.

Examples:
    python -m jaxdl.ops
    python -m jaxdl.ops --arch=vgg16_bn
    python -m jaxdl.ops --arch=resnet50 --layout=torchvision --batch-size=1
    JAXDL_ENGINE=pure python -m jaxdl.ops --arch=lenet5
"""

import dataclasses
import sys
from typing import Literal

from jaxdl import command_line
from jaxdl.errors import InputError


@dataclasses.dataclass(frozen=True)
class Config:
    """The network to look at, and how it is trained."""

    arch: str | None = None
    """Architecture; `python -m experiments.models` lists them all.
    Without this option: only what is active."""
    layout: Literal["small", "torchvision"] | None = None
    """Layout of those architectures that have several."""
    image_size: int = 32
    """Side of the images, in pixels."""
    channels: int = 3
    """Channels of the images."""
    batch_size: int = 128
    """Images per step."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the activations."""


def active() -> str:
    """The engine in force, and why."""
    from jaxdl.ops import engine

    missing = engine.missing()
    native = "oneDNN is there" if missing is None else f"not there ({missing})"
    return (
        f"engine: {engine.current()}\nnative: {native}\n"
        f"choose: {engine.VARIABLE}={'|'.join(engine.ENGINES)}"
    )


def convolutions(config: Config) -> str:
    """A table of the convolutions of a training step, or that there are none.

    Raises:
        InputError: no such architecture, layout or image size.
    """
    import jax
    import jax.numpy as jnp

    from jaxdl.models import registry
    from jaxdl.ops import report

    assert config.arch is not None
    for name in ("image_size", "channels", "batch_size"):
        if (value := getattr(config, name)) < 1:
            option = name.replace("_", "-")
            raise InputError(f"--{option} must be at least 1, not {value}")
    options = {"layout": config.layout} if config.layout else {}
    registry.check_input(
        config.arch, config.layout, config.image_size, config.image_size
    )
    model = registry.build(
        config.arch, num_classes=10, dtype=config.precision, **options
    )
    shape = (config.batch_size, config.image_size, config.image_size, config.channels)
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    key = jax.random.key(0)
    variables = jax.eval_shape(model.init, key, images)

    def loss(params, images):  # type: ignore[no-untyped-def]
        logits, _ = model.apply(
            {**variables_of_zeros, "params": params},
            images,
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        return logits.sum()

    variables_of_zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        {name: tree for name, tree in variables.items() if name != "params"},
    )
    cells = [("layer", "direction", "images, kernel", "GFLOP", "engine")]
    for row in report.convolutions(jax.grad(loss), variables["params"], images):
        conv = row.convolution
        if conv is None:
            cells.append((row.layer, "-", "-", "-", row.engine))
            continue
        sizes = (*conv.size, conv.channels), (*conv.kernel, conv.outputs)
        cells.append(
            (
                row.layer.rpartition("(")[2].replace(")", "").partition("/")[2],
                conv.direction,
                ", ".join("x".join(map(str, size)) for size in sizes),
                f"{conv.flops / 1e9:.2f}",
                row.engine,
            )
        )
    if len(cells) == 1:
        return f"{config.arch} has no convolutions"
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def main() -> None:
    """Parses the command line and prints."""
    try:
        config = command_line.read(Config, __doc__, prog="python -m jaxdl.ops")
        parts = [active()]
        if config.arch is not None:
            parts.append(convolutions(config))
        print("\n\n".join(parts))  # at once: `head` may close the pipe after a line
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
