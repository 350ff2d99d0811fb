"""Runs the study of `experiments.search`, its ablation and its last test.

Import it late: it brings JAX.
"""

import dataclasses
import itertools
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import jax
from tqdm import tqdm

from experiments import cli, job, search_report
from experiments.search import BASE, Config
from jaxdl import config as settings
from jaxdl import runs, runtime
from jaxdl.data import sources
from jaxdl.data.sources import Dataset
from jaxdl.errors import InputError
from jaxdl.models import registry
from jaxdl.search import journal, programs, space, studies
from jaxdl.search.programs import Chunks, Material
from jaxdl.search.results import Result, Score, rank
from jaxdl.search.study import Study, validate
from jaxdl.training import assemble

DROPOUT = 0.3
"""Rate of the ablation's dropout."""
ABLATION_SEEDS = (0, 1, 2, 3, 4)


class Paths(NamedTuple):
    """The files of a study."""

    folder: Path

    @property
    def journal(self) -> Path:
        """Of the search."""
        return self.folder / "journal.jsonl"

    @property
    def ablation(self) -> Path:
        """The journal of the ablation."""
        return self.folder / "ablation.jsonl"


def run(config: Config, dataset_name: str) -> None:
    """Searches, ablates, tests and reports; goes on where a journal is.

    Args:
      config: from the command line; its name is set where it resumes.
      dataset_name: what to load.

    Raises:
      InputError: something in the configuration or on the disk is at fault.
    """
    began = time.monotonic()
    study, ablation = study_of(config), ablation_of(config)
    base = base_of(config)
    run = dataclasses.replace(
        base.run, name=config.name, seed=config.seed, devices=config.devices
    )
    assemble.validate(dataclasses.replace(base, run=run))
    for one in (study, ablation):
        if one is not None:
            validate(one)
    devices = _devices(config)
    dataset = sources.load(
        dataset_name,
        raw_dir=config.raw_dir,
        cache_dir=config.cache_dir,
        validation=config.validation,
        seed=config.seed,
        default_for="mnist",
    )
    check_sizes(study, dataset)
    folder = cli.study_folder("search", config, {"dataset": job.described(dataset)})
    paths = Paths(folder)
    with runs.claimed(paths.folder):
        tqdm.write(_header(study, dataset, len(devices), paths.folder))
        data = programs.material(
            dataset.train, dataset.validation, dataset.classes, devices
        )
        results = _watch(study, data, paths.journal, "search")
        best = rank(results[-1])[0]
        tqdm.write(
            f"Best on the validation set, {100 * best.accuracy:.2f}: "
            f"{search_report.shown(best.settings)}"
        )
        test = _test(study, data, dataset, best.results[0], paths.journal)
        tqdm.write(f"Accuracy on the test set: {100 * test.accuracy:.2f}")
        cells: list[Result] = []
        if ablation is not None:
            splits = {
                name: programs.chunked(split, data.mesh)
                for name, split in (("train", dataset.train), ("test", dataset.test))
            }
            (cells,) = _watch(ablation, data, paths.ablation, "ablation", splits)
        page = search_report.write(
            paths.folder,
            search_report.Findings(
                config=config,
                study=study,
                results=results,
                best=best,
                test=test,
                ablation=ablation,
                cells=cells,
                dataset=dataset,
                seconds=time.monotonic() - began,
            ),
        )
        tqdm.write(f"Report: {page}")


def base_of(config: Config) -> settings.Config:
    """What the space leaves alone, with the split that is asked for."""
    data = dataclasses.replace(BASE.data, validation=config.validation)
    return dataclasses.replace(BASE, data=data)


def study_of(config: Config) -> Study:
    """The search that a command line describes.

    Raises:
      InputError: from `space.parse`.
    """
    return Study(
        base=base_of(config),
        space=space.parse(config.space),
        sampler=config.sampler,
        configurations=config.trials,
        seeds=config.seeds,
        rungs=config.rungs,
        eta=config.eta,
        seed=config.seed,
    )


def ablation_of(config: Config) -> Study | None:
    """The 2x2 design of dropout and batch normalisation, as a study of one rung."""
    if config.ablation_epochs < 0:
        raise InputError(
            f"--ablation-epochs must be 0 or more, not {config.ablation_epochs}"
        )
    if config.ablation_epochs == 0:
        return None
    return Study(
        base=base_of(config),
        space=space.parse([f"dropout=0,{DROPOUT}", "batch_norm=false,true"]),
        sampler="grid",
        configurations=4,
        seeds=ABLATION_SEEDS,
        rungs=(config.ablation_epochs,),
        eta=2,
        seed=config.seed,
    )


def check_sizes(study: Study, dataset: Dataset) -> None:
    """Raises InputError for a batch larger than the training set, or images too small.

    So before the first trial, and not in the middle of a study.
    """
    largest = study.base.run.batch_size
    if "batch_size" in study.space:
        largest = max(cast(tuple[int, ...], space.ends(study.space["batch_size"])))
    size = len(dataset.train.labels)
    if largest > size:
        raise InputError(
            f"--space: batch_size must be at most {size}, the training images of "
            f"{dataset.name}, not {largest}"
        )
    names = [n for n in ("arch", "layout", "image_size") if n in study.space]
    for values in itertools.product(*(space.ends(study.space[n]) for n in names)):
        whole = space.applied(study.base, dict(zip(names, values, strict=True)))
        side = whole.data.image_size or min(dataset.train.images.shape[1:3])
        registry.check_input(whole.model.arch, whole.model.layout, side, side)


def _devices(config: Config) -> list[Any]:
    """Starts JAX, on a CPU with a device for each core, and picks devices."""
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", runtime.cores())
    runtime.start(config.cache_dir)
    available = jax.devices()
    count = len(available) if config.devices is None else config.devices
    if not 1 <= count <= len(available):
        raise InputError(
            f"--devices must be between 1 and {len(available)}, the number of "
            f"{available[0].platform} devices here, not {count}"
        )
    return available[:count]


def _watch(
    study: Study,
    data: Material,
    path: Path,
    title: str,
    also: Mapping[str, Chunks] = MappingProxyType({}),
) -> list[list[Result]]:
    """Runs a study under a progress bar, with a line for each rung that ends.

    Returns:
      The results, by rung.
    """
    epochs = study.rungs or (study.base.run.epochs,)
    total = sum(
        n * e * len(study.seeds) for n, e in zip(study.sizes, epochs, strict=True)
    )
    best: Result | None = None
    ended: list[list[Result]] = []
    done = 0
    with tqdm(
        total=total, desc=title, unit=" epochs", dynamic_ncols=True, disable=None
    ) as bar:
        for event in studies.run(study, data, path, also):
            match event:
                case studies.Progressed(count):
                    bar.update(count)
                    done += count
                case studies.Scored(results):
                    # What the journal had already comes without its epochs.
                    known = sum(len(r.curve) for r in results)
                    done += known if event.known else 0
                    bar.update(max(0, done - bar.n))
                    best = max([*([best] if best else []), *results], key=_standing)
                    bar.set_postfix_str(
                        f"best {100 * best.key[0]:.2f} in rung {best.rung + 1}"
                    )
                case studies.Ended(rung, results):
                    ended.append(results)
                    one = rank(results)[0]
                    tqdm.write(
                        f"{title}, rung {rung + 1}: {len(results)} trials of "
                        f"{max(len(r.curve) for r in results)} epochs, best validation "
                        f"accuracy {100 * one.accuracy:.2f}"
                    )
    return ended


def _standing(result: Result) -> tuple[int, float, float]:
    """The best so far is of the highest rung that there is."""
    return (result.rung, *result.key)


def _test(
    study: Study, data: Material, dataset: Dataset, best: Result, path: Path
) -> Score:
    """Reads the test set, once in the life of a study, by the best trial."""
    for line in journal.mend(path):
        if line["kind"] == "test":
            return Score(line["loss"], line["accuracy"])
    chunks = programs.chunked(dataset.test, data.mesh)
    with tqdm(total=len(best.curve), desc="best", unit=" epochs", disable=None) as bar:
        score = studies.score(
            study, data, best.trial, best.rung, chunks, lambda epoch: bar.update()
        )
    journal.append(
        path,
        [
            {
                "kind": "test",
                "configuration": best.trial.configuration,
                "seed": best.trial.seed,
                "rung": best.rung,
                **score._asdict(),
            }
        ],
    )
    return score


def _header(study: Study, dataset: Dataset, devices: int, folder: Path) -> str:
    epochs = study.rungs or ("their own",)
    plan = "; ".join(
        f"{n * len(study.seeds)} trials of {e} epochs"
        for n, e in zip(study.sizes, epochs, strict=True)
    )
    domains = " ".join(f"{k}={space.written(d)}" for k, d in study.space.items())
    lines = [
        *job.data_lines(dataset),
        f"Space:   {domains}",
        f"Search:  {study.sampler}; {plan}",
        f"Device:  {runs.device_name()}, trials over {devices}",
        f"Study:   {folder}",
    ]
    return "\n".join(lines)
