"""The network that `experiments.transfer` transfers: read, or trained here.

Import it late: it brings JAX.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
from tqdm import tqdm

from experiments import classify, stored, transfer_trials, weights
from experiments.transfer import Config
from experiments.transfer_trials import Source
from jaxdl import config as settings
from jaxdl.config import DataConfig, ModelConfig, OptimConfig, RunConfig
from jaxdl.data.sources import Dataset
from jaxdl.errors import InputError
from jaxdl.models import pretrained, registry
from jaxdl.training import assemble
from jaxdl.training.assemble import DataFacts


class Origin(NamedTuple):
    """Where the source's weights come from, for logs and files."""

    title: str
    """What it is, in words."""
    dataset: str
    """What it was trained on, as far as that is known."""


def obtain(config: Config, dataset: Dataset) -> tuple[Source, Origin]:
    """The network to transfer: given as a run or a file, or trained here.

    Args:
      config: which it is.
      dataset: the target, whose images it must take.

    Raises:
      InputError: it cannot be read, or does not take such images.
    """
    facts = assemble.facts(dataset.train, dataset.classes)
    if config.pretrained is not None:
        return _from_weights(_recipe(config), facts)
    if config.source is None and facts.image_shape != (32, 32, 3):
        raise InputError(
            f"--dataset={dataset.name} has images of "
            f"{'x'.join(map(str, facts.image_shape))}, and a source that is trained "
            f"here takes 32x32x3: give --source=RUN, or a set of such images "
            f"(mnist_colour, mnist_embedded_colour, svhn_cropped)"
        )
    path = Path(config.source) if config.source else _trained_here(config)
    return _from_run(path, _recipe(config), facts, dataset.name)


def validate(config: Config) -> None:
    """Checks, before a source is trained here or read, that all arms can be.

    That of a run is known only when it is read.

    Raises:
      InputError: an option at fault, or no such file of weights.
    """
    if config.source is None:
        recipe = _recipe(config)
        for arm in config.arms:
            assemble.validate(transfer_trials.config_of(recipe, arm))
        if config.pretrained is not None:
            weights.check(recipe)


def _recipe(config: Config) -> settings.Config:
    """What all arms share, where no run says otherwise.

    Raises:
      InputError: no such architecture, or no such weights for it.
    """
    model = dataclasses.replace(
        _model(config), pretrained=config.pretrained or "trained here"
    )
    # Before the layout is filled in, of which the error would be where there is none.
    registry.options_for(model.arch, model)
    return settings.spelled_out(
        settings.Config(
            data=DataConfig(augment="digits", cache_dir=config.cache_dir),
            model=model,
            optim=OptimConfig(schedule="onecycle"),
            run=RunConfig(batch_size=config.batch_size),
        )
    )


def _from_weights(recipe: settings.Config, facts: DataFacts) -> tuple[Source, Origin]:
    """Of a file, or of ImageNet, as --pretrained says."""
    model = recipe.model
    path, found = weights.obtain(recipe)
    variables = pretrained.load(
        path,
        model.arch,
        image_shape=facts.image_shape,
        num_classes=len(facts.classes),
        key=jax.random.key(0),
        **registry.options_for(model.arch, model),
    )
    known = "ImageNet" if model.pretrained == "imagenet" else "unknown to this program"
    return Source(recipe, facts, variables), Origin(weights.described(found), known)


def _from_run(
    path: Path, recipe: settings.Config, facts: DataFacts, target: str
) -> tuple[Source, Origin]:
    """Of the best checkpoint of a finished run."""
    run = stored.load(path, "best", recipe.data.cache_dir)
    if not (path / "result.json").exists():  # its best checkpoint may change
        raise InputError(
            f"--source={path} is not finished; go on with it by --resume, or give "
            f"another run"
        )
    own = settings.spelled_out(run.config)
    if run.facts.image_shape != facts.image_shape:
        raise InputError(
            f"--source={path} was trained on images of "
            f"{'x'.join(map(str, run.facts.image_shape))}, and {target} has "
            f"{'x'.join(map(str, facts.image_shape))}; give another run"
        )
    recipe = dataclasses.replace(
        recipe,
        data=dataclasses.replace(
            recipe.data,
            image_size=own.data.image_size,
            normalise=own.data.normalise,
        ),
        # Its value only says that there are weights.
        model=dataclasses.replace(own.model, pretrained=str(path)),
    )
    # The source's normalisation goes with its weights; all arms use it.
    facts = facts._replace(mean=run.facts.mean, std=run.facts.std)
    name = run.dataset["name"]
    origin = Origin(
        f"{recipe.model.arch}, trained on {run.dataset['train']:,} images of {name} "
        f"in {own.run.epochs} epochs",
        name,
    )
    return Source(recipe, facts, jax.device_get(run.variables)), origin


def _model(config: Config) -> ModelConfig:
    layout = config.layout
    given = config.pretrained is not None  # in the layout that fits it
    if layout is None and not given and registry.spec(config.arch).family == "resnet":
        layout = "torchvision"
    return ModelConfig(arch=config.arch, layout=layout)


def _trained_here(config: Config) -> Path:
    """The run of a source on synthetic_svhn; trained, or trained on, if need be."""
    name = f"transfer-source-{config.arch}-{config.source_epochs}"
    if config.layout is not None:
        name += f"-{config.layout}"
    path = config.out / "svhn" / name
    if not (path / "result.json").exists():
        tqdm.write("The source first:")
        # Without batch normalisation the usual rate is too high.
        rate = 0.1 if registry.spec(config.arch).has_batch_norm else 0.02
        run = RunConfig(
            epochs=config.source_epochs,
            batch_size=128,
            out=config.out,
            name=name,
            resume=path.exists(),
        )
        classify.run(
            "svhn",
            "svhn",
            settings.Config(
                data=DataConfig(
                    dataset="synthetic_svhn",
                    augment="digits",
                    cache_dir=config.cache_dir,
                ),
                model=_model(config),
                optim=OptimConfig(schedule="onecycle", learning_rate=rate),
                run=run,
            ),
            "the same command",
        )
    return path
