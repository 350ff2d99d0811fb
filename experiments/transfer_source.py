"""The network that `experiments.transfer` transfers: read, or trained here.

Import it late: it brings JAX.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
from tqdm import tqdm

from experiments import classify, stored, weights
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
    recipe = settings.Config(
        data=DataConfig(augment="digits", cache_dir=config.cache_dir),
        model=_model(config),
        optim=OptimConfig(schedule="onecycle"),
        run=RunConfig(batch_size=config.batch_size),
    )
    if config.pretrained is not None:
        return _from_weights(config.pretrained, recipe, facts)
    path = Path(config.source) if config.source else _trained_here(config)
    return _from_run(path, recipe, facts, dataset.name)


def _from_weights(
    given: str, recipe: settings.Config, facts: DataFacts
) -> tuple[Source, Origin]:
    """Of a file, or of ImageNet, as --pretrained says."""
    model = dataclasses.replace(recipe.model, pretrained=given)
    recipe = dataclasses.replace(recipe, model=model)
    weights.check(recipe)
    path, found = weights.obtain(recipe)
    variables = pretrained.load(
        path,
        model.arch,
        image_shape=facts.image_shape,
        num_classes=len(facts.classes),
        key=jax.random.key(0),
        **registry.options_for(model.arch, model),
    )
    known = "ImageNet" if given == "imagenet" else "unknown to this program"
    return Source(recipe, facts, variables), Origin(weights.described(found), known)


def _from_run(
    path: Path, recipe: settings.Config, facts: DataFacts, target: str
) -> tuple[Source, Origin]:
    """Of the best checkpoint of a finished run."""
    run = stored.load(path, "best", recipe.data.cache_dir)
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
            image_size=run.config.data.image_size,
            normalise=run.config.data.normalise,
        ),
        # Its value only says that there are weights.
        model=dataclasses.replace(run.config.model, pretrained=str(path)),
    )
    # The source's normalisation goes with its weights; all arms use it.
    facts = facts._replace(mean=run.facts.mean, std=run.facts.std)
    name = run.dataset["name"]
    origin = Origin(
        f"{recipe.model.arch}, trained on {run.dataset['train']:,} images of {name} "
        f"in {run.config.run.epochs} epochs",
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
        )
    return path
