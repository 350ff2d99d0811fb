"""A run small enough for tests: a few 8x8 images, a small network, real programs."""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl.config import Config, DataConfig, ModelConfig, OptimConfig, RunConfig
from jaxdl.data.sources import Split
from jaxdl.training import assemble, parallel
from jaxdl.training.assemble import DataFacts, Parts
from jaxdl.training.epoch import Examples
from jaxdl.training.loop import Programs
from jaxdl.training.parallel import Devices
from jaxdl.training.state import TrainState

CLASSES = ("0", "1", "2")
BATCH = 16
STEPS = 6
"""Steps in an epoch; five examples are left over."""

CONFIG = Config(
    data=DataConfig(validation=40),
    model=ModelConfig(arch="fnn", hidden=(8,), batch_norm=True),
    optim=OptimConfig(learning_rate=0.05),
    run=RunConfig(epochs=3, batch_size=BATCH, log_every=4, devices=1),
)

EVERYTHING = {
    "augment": "digits",
    "dropout": 0.2,
    "accumulate": 2,
    "ema": 0.9,
    "devices": 4,
}
"""Changes that bring in all that could depend on how a batch is spread."""


def with_(config: Config = CONFIG, **changes: Any) -> Config:
    """The configuration with these settings changed, whichever section has them."""
    for section in dataclasses.fields(Config):
        part = getattr(config, section.name)
        names = {field.name for field in dataclasses.fields(part)} & changes.keys()
        part = dataclasses.replace(part, **{name: changes.pop(name) for name in names})
        config = dataclasses.replace(config, **{section.name: part})
    assert not changes, f"no such setting: {changes}"
    return config


def split(size: int, seed: int = 0, side: int = 8) -> Split:
    """Noise with a brighter band whose place is the class: soon learnt, never quite."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASSES), size).astype(np.int32)
    images = rng.integers(0, 180, (size, side, side, 1))
    for label in range(len(CLASSES)):
        images[labels == label, 2 * label : 2 * label + 2] += 60
    return Split(images.astype(np.uint8), labels)


TRAIN, VALIDATION = split(BATCH * STEPS + 5), split(40, seed=1)


class Tiny(NamedTuple):
    """A run ready to start."""

    config: Config
    facts: DataFacts
    devices: Devices
    parts: Parts
    programs: Programs
    state: TrainState
    """On the host; `start` puts a copy on the devices."""
    data: Examples | Split

    def start(self, state: TrainState | None = None) -> TrainState:
        """The initial state, or that one, on the devices, in memory of its own."""
        return replicated(self.state if state is None else state, self.devices)

    def order(self, epoch: int = 0) -> jax.Array:
        """The epoch's permutation, on the devices."""
        from jaxdl.data import batches

        order = batches.epoch_order(self.state.key, epoch, len(TRAIN.labels))
        return parallel.replicate(order, self.devices)

    def train(self, steps: int = STEPS, epoch: int = 0) -> TrainState:
        """The state after the first steps of an epoch, in one call."""
        return self.programs.train(self.start(), self.data, self.order(epoch), 0, steps)


def replicated(tree: Any, devices: Devices) -> Any:
    """Copies on the devices that no one else holds (programs consume their state)."""
    return parallel.replicate(jax.tree.map(lambda x: x.copy(), tree), devices)


def make(config: Config = CONFIG, *, resident: bool = True) -> Tiny:
    """Assembles a run on `TRAIN`."""
    assemble.validate(config)
    run = config.run
    devices = parallel.choose(
        run.parallel, run.devices, run.batch_size, config.optim.accumulate
    )
    facts = assemble.facts(TRAIN, CLASSES)
    parts = assemble.assemble(config, facts, STEPS * run.epochs, STEPS, devices)
    programs = assemble.compile_programs(config, parts, devices, resident=resident)
    data = Examples(TRAIN.images, TRAIN.labels)
    return Tiny(
        config,
        facts,
        devices,
        parts,
        programs,
        assemble.initial_state(config, parts, facts),
        parallel.replicate(data, devices) if resident else TRAIN,
    )


def bits(tree: Any) -> list[tuple[str, bytes]]:
    """Every leaf by name, to the bit; typed keys by their data."""

    def raw(leaf: Any) -> np.ndarray:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return np.asarray(leaf)

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [
        (f"{jax.tree_util.keystr(path)} {raw(leaf).dtype}", raw(leaf).tobytes())
        for path, leaf in leaves
    ]
