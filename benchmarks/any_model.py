"""Any model, one line: Flax linen, Flax nnx and Equinox, with the engine and without.

The same small VGG in three libraries, none of which knows of jaxdl, trains on random
images of 32x32 pixels. The one line is `jaxdl.ops.enable()`; the figures beside it are
JAX's own, in the same process with the same flags, in turns.

Examples:
    python -m benchmarks.any_model
    python -m benchmarks.any_model --batch-size 32 --rounds 3
"""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jaxdl
import jaxdl.ops

# isort: split
import equinox as eqx
import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.report import machine
from experiments import cli
from jaxdl.errors import InputError
from jaxdl.ops import engine

WIDTHS = (64, 128, 256)
Loss = Callable[[Any, jax.Array, jax.Array], jax.Array]
"""(parameters, images [N, 32, 32, 3], labels [N]) -> mean cross-entropy."""


@dataclasses.dataclass(frozen=True)
class Config:
    """How much is measured."""

    batch_size: int = 64
    """Images per step."""
    rounds: int = 5
    """Rounds; in each, every model takes its steps with and without the engine."""
    steps: int = 5
    """Steps of a round."""


class Linen(nn.Module):
    """The network in Flax linen."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, 32, 32, 3] -> logits [N, 10]."""
        for width in WIDTHS:
            for _ in range(2):
                x = nn.relu(nn.Conv(width, (3, 3))(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(10)(x.mean((1, 2)))


class Nnx(nnx.Module):
    """The network in Flax nnx."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        inputs = (3, *(width for width in WIDTHS for _ in range(2)))
        self.convs = nnx.List(
            nnx.Conv(a, b, (3, 3), rngs=rngs) for a, b in itertools.pairwise(inputs)
        )
        self.head = nnx.Linear(WIDTHS[-1], 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, 32, 32, 3] -> logits [N, 10]."""
        for i, conv in enumerate(self.convs):
            x = nnx.relu(conv(x))
            x = nnx.max_pool(x, (2, 2), (2, 2)) if i % 2 else x
        return self.head(x.mean((1, 2)))


class Equinox(eqx.Module):
    """The network in Equinox: images [C, H, W], one at a time."""

    convs: list[eqx.nn.Conv2d]
    head: eqx.nn.Linear

    def __init__(self, key: jax.Array) -> None:
        inputs = (3, *(width for width in WIDTHS for _ in range(2)))
        keys = jax.random.split(key, len(inputs))
        self.convs = [
            eqx.nn.Conv2d(a, b, 3, padding=1, key=k)
            for (a, b), k in zip(itertools.pairwise(inputs), keys, strict=False)
        ]
        self.head = eqx.nn.Linear(WIDTHS[-1], 10, key=keys[-1])

    def __call__(self, x: jax.Array) -> jax.Array:
        """[3, 32, 32] -> logits [10]."""
        for i, conv in enumerate(self.convs):
            x = jax.nn.relu(conv(x))
            x = eqx.nn.MaxPool2d(2, 2)(x) if i % 2 else x
        return self.head(x.mean((1, 2)))


def models() -> dict[str, tuple[Any, Callable[[Any, jax.Array], Any]]]:
    """Parameters and forward pass of the network in each library."""
    linen = Linen()
    params = linen.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    graph, state = nnx.split(Nnx(nnx.Rngs(0)))
    arrays, static = eqx.partition(Equinox(jax.random.key(0)), eqx.is_array)

    def equinox(arrays: Any, images: jax.Array) -> jax.Array:
        return jax.vmap(eqx.combine(arrays, static))(images.transpose(0, 3, 1, 2))

    return {
        "flax.linen": (params, lambda params, images: linen.apply(params, images)),
        "flax.nnx": (state, lambda state, images: nnx.merge(graph, state)(images)),
        "equinox": (arrays, equinox),
    }


def make_step(forward: Callable[[Any, jax.Array], Any]) -> Callable[..., Any]:
    """A compiled step of SGD: (parameters, images, labels) -> parameters."""

    def loss(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits = forward(params, images)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean()

    @jax.jit
    def step(params: Any, images: jax.Array, labels: jax.Array) -> Any:
        gradient = jax.grad(loss)(params, images, labels)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient)

    return step


def main() -> None:
    """Parses the command line, measures and prints."""
    config = cli.parse_plain("benchmarks.any_model", Config, __doc__)
    for name in ("batch_size", "rounds", "steps"):
        if (value := getattr(config, name)) < 1:
            option = name.replace("_", "-")
            raise InputError(f"--{option} must be at least 1, not {value}")
    jaxdl.ops.enable()  # the one line
    random = np.random.default_rng(0)
    images = jnp.asarray(random.random((config.batch_size, 32, 32, 3)), jnp.float32)
    labels = jnp.asarray(random.integers(0, 10, config.batch_size))
    rivals = (engine.current(), "xla")
    versions = (jax, flax, eqx, jaxdl)
    for name, value in machine().items():
        print(f"{name}: {value}")
    print(f"versions: {', '.join(f'{m.__name__} {m.__version__}' for m in versions)}")
    print("data: synthetic: random images and labels")
    print(f"{'':12}{rivals[0]:>12}{'JAX':>12}  images/s, and times faster by round")
    for name, (params, forward) in models().items():
        step = make_step(forward)

        def run(rival: Any, step: Any = step, params: Any = params) -> float:
            with jaxdl.ops.using(rival):
                began = time.perf_counter()
                for _ in range(config.steps):
                    jax.block_until_ready(step(params, images, labels))
                return (time.perf_counter() - began) / config.steps

        for rival in rivals:
            run(rival)
        rounds = [tuple(map(partial(run), rivals)) for _ in range(config.rounds)]
        speeds = [
            config.batch_size / statistics.median(seconds)
            for seconds in zip(*rounds, strict=True)
        ]
        faster = sorted(plain / ours for ours, plain in rounds)
        print(
            f"{name:12}{speeds[0]:12,.0f}{speeds[1]:12,.0f}"
            f"  {statistics.median(faster):.1f} [{faster[0]:.1f}, {faster[-1]:.1f}]"
        )


if __name__ == "__main__":
    cli.run_or_exit(main)
