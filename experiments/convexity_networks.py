"""The networks whose curvature `experiments.convexity` shows: LeNet-5, or a run's.

Import it late: it brings JAX.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import stored
from experiments.stored import Stored
from jaxdl import losses
from jaxdl.config import Config, DataConfig, ModelConfig, OptimConfig, RunConfig
from jaxdl.convexity import hessian, spectrum
from jaxdl.data import sources
from jaxdl.data.batches import epoch_order
from jaxdl.data.sources import Dataset
from jaxdl.errors import InputError
from jaxdl.training import assemble, parallel
from jaxdl.training.assemble import Parts
from jaxdl.training.epoch import Examples
from jaxdl.training.state import Variables

if TYPE_CHECKING:
    from experiments.convexity import Config as Study


class Spectra(NamedTuple):
    """The curvature of a network's loss at one point."""

    title: str
    data: str
    parameters: int
    loss: float
    """Mean cross-entropy over the images that the Hessian is of."""
    values: np.ndarray
    """The smallest and the largest eigenvalue, float [2]."""
    residuals: np.ndarray
    """An eigenvalue lies within this distance of each, float [2]."""
    hessian: spectrum.Quadrature
    gauss_newton: spectrum.Quadrature


class Sources(NamedTuple):
    """The networks whose spectra are asked for, and their data."""

    config: Config
    """Of the short training."""
    dataset: Dataset
    """For LeNet-5."""
    stored: tuple[Stored, Dataset] | None
    """A finished run and its data."""
    titles: tuple[str, ...]
    """What each network is."""


def sources_of(config: "Study") -> Sources:
    """Loads the data, and the run if there is one; nothing is computed yet.

    Raises:
      InputError: the run is none, or the data have too few images.
    """
    short = training(config.epochs, config.seed)
    dataset = sources.load(
        short.data.dataset,
        raw_dir=None,
        cache_dir=config.cache_dir,
        validation=None,
        seed=config.seed,
    )
    titles: tuple[str, ...] = (
        "LeNet-5 at initialisation",
        f"LeNet-5, {config.epochs} epochs",
    )
    finished = None
    if config.run is not None:
        run = stored.load(config.run, "best", config.cache_dir)
        finished = run, stored.data(run, config.raw_dir, config.cache_dir)
        titles += (f"{run.config.model.arch}, {config.run.name}",)
    for used in [dataset] + ([finished[1]] if finished else []):
        if config.images > (size := len(used.train.labels)):
            raise InputError(
                f"--images must be at most {size}, the training images of "
                f"{used.name}, not {config.images}"
            )
    return Sources(short, dataset, finished, titles)


def spectra_of(found: Sources, config: "Study") -> Iterator[Spectra]:
    """The spectra of all networks, one after the other.

    Raises:
      InputError: from `spectra`.
    """
    key = jax.random.key(config.seed)

    def look(
        title: str, parts: Parts, variables: Variables, dataset: Dataset
    ) -> Spectra:
        images = Examples(*(x[: config.images] for x in _arrays(dataset)))
        data = f"{config.images:,} training images of {dataset.name}"
        return spectra(
            title,
            parts,
            variables,
            images,
            data,
            steps=config.steps,
            probes=config.probes,
            key=key,
        )

    for title, parts, variables in lenet(found.config, found.dataset):
        yield look(title, parts, variables, found.dataset)
    if found.stored is not None:
        run, dataset = found.stored
        devices = parallel.choose("jit", 1, 1, 1)
        parts = assemble.assemble(run.config, run.facts, 1, 1, devices)
        title = f"{run.config.model.arch} of {config.run}, step {run.step:,}"
        yield look(title, parts, run.variables, dataset)


def training(epochs: int, seed: int) -> Config:
    """The settings of the short training."""
    return Config(
        data=DataConfig(dataset="mnist_embedded"),
        model=ModelConfig(arch="lenet5"),
        optim=OptimConfig(learning_rate=0.05, weight_decay=1e-4),
        run=RunConfig(epochs=epochs, batch_size=64, seed=seed),
    )


def lenet(config: Config, dataset: Dataset) -> Iterator[tuple[str, Parts, Variables]]:
    """LeNet-5 before and after training by the step that the experiments use.

    Yields:
      What it is, its parts and its variables.
    """
    size, run = config.run.batch_size, config.run
    steps = len(dataset.train.labels) // size
    devices = parallel.choose("jit", 1, size, 1)
    facts = assemble.facts(dataset.train, dataset.classes)
    parts = assemble.assemble(config, facts, steps * run.epochs, steps, devices)
    state = assemble.initial_state(config, parts, facts)
    yield "LeNet-5 at initialisation", parts, state.variables
    programs = assemble.compile_programs(config, parts, devices, resident=True)
    train: Any = programs.train
    data = _arrays(dataset)
    state = jax.tree.map(jnp.copy, state)  # the steps give their argument away
    for epoch in range(run.epochs):
        order = epoch_order(state.key, epoch, len(dataset.train.labels))
        state = train(state, data, order, 0, steps)
    scores = programs.evaluate(state.variables, dataset.test)
    plural = "s" if run.epochs > 1 else ""
    yield (
        f"LeNet-5 after {run.epochs} epoch{plural} "
        f"({100 * scores.accuracy:.1f} % right on the test images)",
        parts,
        state.variables,
    )


def spectra(
    title: str,
    parts: Parts,
    variables: Variables,
    images: Examples,
    data: str,
    *,
    steps: int,
    probes: int,
    key: jax.Array,
) -> Spectra:
    """Both ends and the density of the spectrum of the Hessian of the cross-entropy.

    Args:
      title: what it is.
      parts: of the network.
      variables: where the Hessian is taken.
      images: those that the loss is a mean over, with their labels.
      data: their name.
      steps: of each of Lanczos' runs.
      probes: random vectors for the densities.
      key: draws the vectors.

    Raises:
      InputError: the Hessian is not finite.
    """
    params = variables["params"]
    rest = {name: tree for name, tree in variables.items() if name != "params"}

    def model(data: Examples, params: Variables) -> jax.Array:
        return parts.predict({"params": params, **rest}, data.images)

    def loss(data: Examples, logits: jax.Array) -> jax.Array:
        return losses.cross_entropy(logits, data.labels).mean()

    @jax.jit
    def study(params: Variables, data: Examples, key: jax.Array) -> Any:
        ends_key, density_key = jax.random.split(key)
        outputs, inner = partial(model, data), partial(loss, data)

        def whole(params: Variables) -> jax.Array:
            return inner(outputs(params))

        full = hessian.product(whole, params)
        part = hessian.gauss_newton_product(outputs, inner, params)
        quadrature: Callable[..., Any] = partial(
            spectrum.quadrature, like=params, steps=steps, probes=probes
        )
        pairs = spectrum.eigenpairs(full, params, key=ends_key, steps=steps)
        return (
            (whole(params), pairs.values, pairs.residuals),
            quadrature(full, key=density_key),
            quadrature(part, key=density_key),  # the same vectors, to compare
        )

    (value, values, residuals), full, part = jax.device_get(study(params, images, key))
    if not np.isfinite(values).all():
        raise InputError(
            f"the Hessian of {title} is not finite: its parameters hold NaN or "
            f"infinity, or its loss overflows; choose another --run"
        )
    return Spectra(
        title=title,
        data=data,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        loss=float(value),
        values=values,
        residuals=residuals,
        hessian=full,
        gauss_newton=part,
    )


def _arrays(dataset: Dataset) -> Examples:
    """The training images and labels, on the device."""
    return Examples(
        jnp.asarray(dataset.train.images), jnp.asarray(dataset.train.labels)
    )
