"""jaxdl: its models, its step, its engine."""

import dataclasses
from functools import partial
from typing import Any

import jaxdl

# isort: split
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import flax_rival
from benchmarks.cases import (
    CLASSES,
    LEARNING_RATE,
    MEAN,
    MOMENTUM,
    STD,
    WEIGHT_DECAY,
    Convolution,
    Epoch,
    Network,
    Product,
    Search,
)
from benchmarks.worker import Prepared
from jaxdl import losses, ops
from jaxdl.config import Config, ModelConfig, OptimConfig, RunConfig
from jaxdl.convexity import hessian
from jaxdl.data import augment
from jaxdl.data.batches import Batch, Layout, epoch_order
from jaxdl.data.sources import Split
from jaxdl.models import cost, registry
from jaxdl.ops import engine
from jaxdl.search import programs
from jaxdl.training import optim, parallel, state, steps
from jaxdl.training.epoch import Examples, compile_resident

ops.enable()  # reads JAXDL_ENGINE, by which "jaxdl pure" differs


def versions() -> dict[str, str]:
    """Versions of what computes, and by which engine."""
    ours = {f"{engine.current()} engine of jaxdl": jaxdl.__version__}
    return flax_rival.versions() | ours


def convolution(case: Convolution) -> Prepared:
    """As for any user of JAX, with the engine on."""
    return flax_rival.convolution(case)


def product(case: Product) -> Prepared:
    """As for any user of JAX."""
    return flax_rival.product(case)


def inference(case: Network) -> Prepared:
    """Logits of one batch."""
    return flax_rival.logits_of(_model(case), case)


def step(case: Network) -> Prepared:
    """Training steps on one batch, many in one call, as in an epoch."""
    images, labels = flax_rival.batch(case)
    train_step, carry = _trainer(case, lambda images: images)
    positions = jnp.arange(case.batch)[None]
    data = Batch(images[None], labels[None], positions)

    @partial(jax.jit, donate_argnums=0)
    def many(carry: Any, data: Batch, count: int) -> Any:
        return jax.lax.fori_loop(0, count, lambda i, s: train_step(s, data), carry)

    def run(count: int) -> float:
        nonlocal carry
        carry = many(carry, data, count)
        return float(carry.totals.loss)

    return Prepared(run, flax_rival.size(carry.variables["params"]))


def hvp(case: Network) -> Prepared:
    """Products of the Hessian of the mean cross-entropy, each with the one before."""
    images, labels = flax_rival.batch(case)
    model, unit = _model(case), flax_rival.unit
    params = jax.jit(model.init)(jax.random.key(0), images)["params"]

    @jax.jit
    def many(params: Any, vector: Any, count: int) -> Any:
        def loss(params: Any) -> jax.Array:
            logits = model.apply({"params": params}, images)
            return losses.cross_entropy(logits, labels).mean()

        product = hessian.product(loss, params)
        return jax.lax.fori_loop(0, count, lambda i, v: unit(product(v)), vector)

    vector = unit(jax.tree.map(jnp.ones_like, params))

    def run(count: int) -> float:
        nonlocal vector
        vector = many(params, vector, count)
        return flax_rival.first(vector)

    return Prepared(run, flax_rival.size(params))


def epoch(case: Epoch, *, resident: bool = True) -> Prepared:
    """Epochs over a set that lies on the device; or as many steps on one batch."""
    size = case.network.batch
    labels = jnp.load(case.labels)
    steps_per_epoch = len(labels) // size
    if not resident:
        fixed = step(case.network)
        return fixed._replace(run=lambda count: fixed.run(count * steps_per_epoch))

    channels = case.network.image_shape[-1]
    preprocess = partial(
        augment.normalise,
        mean=[MEAN] * channels,
        std=[STD] * channels,
        dtype=case.network.precision,
    )
    train_step, carry = _trainer(case.network, preprocess)
    devices, layout = parallel.choose("jit", 1, size, 1), Layout(size, 1, 1)
    program = compile_resident(train_step, layout, devices, log_every=100)
    data = Examples(jnp.load(case.images), labels)
    done = 0

    def run(count: int) -> float:
        nonlocal carry, done
        for _ in range(count):
            order = epoch_order(jax.random.key(0), done, len(labels))
            carry = program(carry, data, order, 0, steps_per_epoch)
            done += 1
        return float(carry.totals.loss)

    return Prepared(run, flax_rival.size(carry.variables["params"]))


def search(case: Search, *, lanes: int) -> Prepared:
    """Trials of a search, by the program that `experiments.search` runs."""
    random = np.random.default_rng(0)
    total = case.images + case.images // 10
    images = random.integers(0, 256, (total, *case.network.image_shape), np.uint8)
    labels = random.integers(0, CLASSES, total, np.int32)
    parts = slice(0, case.images), slice(case.images, None)
    train, validation = (Split(images[part], labels[part]) for part in parts)
    data = programs.material(train, validation, tuple("0123456789"), jax.devices())
    several = [
        Config(
            model=ModelConfig(
                arch=case.network.arch,
                hidden=case.sizes or None,
                batch_norm=case.batch_norm or None,
                dropout=dropout or None,
            ),
            optim=dataclasses.replace(
                OPTIMIZER, learning_rate=rate, label_smoothing=smoothing
            ),
            run=RunConfig(epochs=1, batch_size=case.network.batch),
        )
        for rate, smoothing, dropout in zip(
            case.rates(), case.smoothings(), case.dropouts(), strict=True
        )
    ]
    program = programs.compile(programs.shape_of(several[0]), data, lanes)
    width = program.width

    def run(count: int) -> float:
        accuracy = 0.0
        for first in [*range(0, case.trials, width)] * count:
            lot = several[first : first + width]
            for states in programs.epochs(lot, program, data):
                scores = program.score(states, data.validation)
            accuracy += float(scores.accuracy[: len(lot)].sum())
        return accuracy

    return Prepared(run, _trained(several[0]))


def _trained(config: Config) -> int:
    options = registry.options_for(config.model.arch, config.model)
    model = registry.build(config.model.arch, num_classes=CLASSES, **options)
    shape = (1, 28, 28, 1) if config.model.arch == "fnn" else (1, 32, 32, 3)
    return cost.parameters(model, shape)


def _trainer(case: Network, preprocess: Any) -> tuple[Any, Any]:
    """The step, and the state before the first."""
    model, optimizer = _model(case), optim.make_optimizer(OPTIMIZER, 1, 1)
    train_step = steps.make_train_step(
        model, optimizer, losses.cross_entropy, preprocess
    )
    key = jax.random.key(0)
    return train_step, state.create(model, optimizer, case.image_shape, key)


OPTIMIZER = OptimConfig(
    learning_rate=LEARNING_RATE,
    momentum=MOMENTUM,
    weight_decay=WEIGHT_DECAY,
    schedule="constant",
)


def _model(case: Network) -> Any:
    options = {"layout": case.layout} if case.layout else {}
    return registry.build(
        case.arch, num_classes=CLASSES, dtype=case.precision, **options
    )
