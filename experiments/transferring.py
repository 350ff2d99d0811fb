"""Runs the study of `experiments.transfer`.

Import it late: it brings JAX.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from experiments import cli, job, transfer_source, transfer_trials
from experiments.transfer import Config
from experiments.transfer_findings import Findings
from experiments.transfer_source import Origin
from experiments.transfer_trials import POINTS, Point, Program, Result, Source, Trial
from jaxdl import runs, runtime
from jaxdl.data import sources
from jaxdl.data.sources import Dataset, Split
from jaxdl.errors import InputError
from jaxdl.search import journal
from jaxdl.training import assemble, checkpoints
from jaxdl.training.epoch import Evaluate
from jaxdl.training.state import Variables

TUNING_SEED = 1000
"""Seed of the trainings by which learning rates are chosen, with the first number of
labels; the next one has the next seed."""
FIRST_RATES = (-4, -3, -2)
"""Learning rates to begin with, as powers of the square root of 10."""
LEAST, MOST = -8, 2
"""How far the search may go."""
VALIDATION = 500
"""Validation images, as many of each class."""


class Bench(NamedTuple):
    """What all trainings share."""

    config: Config
    source: Source
    origin: Origin
    dataset: Dataset
    validation: Split
    path: Path
    """The journal."""
    evaluate: Evaluate
    programs: dict[str, Program]
    known: dict[Trial, Result]
    untouched: float | None
    """From the journal: see `_untouched`."""


def run(config: Config, dataset_name: str) -> None:
    """Trains the source if need be, then all arms, and reports.

    Args:
      config: from the command line; its name is set where it resumes.
      dataset_name: the target to load.

    Raises:
      InputError: something in the configuration or on the disk is at fault.
    """
    validate(config)
    runtime.start(config.cache_dir)
    dataset = sources.load(
        dataset_name,
        raw_dir=config.raw_dir,
        cache_dir=config.cache_dir,
        validation=None,
        seed=0,
        default_for="mnist_colour",
    )
    # All that can be checked is, before the source is trained.
    for count in config.labels:
        try:
            sources.balanced(dataset.train.labels, count, 0)
        except InputError as error:
            raise InputError(f"--labels: {error}") from None
    transfer_source.validate(config)
    if config.name and not config.resume:
        runs.check_free(config.out / "transfer" / config.name)
    source, origin = transfer_source.obtain(config, dataset)
    for arm in config.arms:
        assemble.validate(transfer_trials.config_of(source.config, arm))
    began = time.monotonic()
    digest = checkpoints.digest(source.variables)
    folder = cli.study_folder(
        "transfer",
        config,
        {
            "dataset": job.described(dataset),
            "source": {**origin._asdict(), "digest": digest},
        },
    )
    _check_source(folder, digest)
    with runs.claimed(folder):
        tqdm.write(_header(config, dataset, origin, folder))
        bench = _bench(config, source, origin, dataset, folder)
        untouched = _untouched(bench)
        chosen, longer, results = _all(bench)
        # Matplotlib is imported only now.
        from experiments import transfer_report

        page = transfer_report.write(
            folder,
            Findings(
                config=config,
                recipe=source.config,
                origin=origin,
                dataset=dataset,
                validation=len(bench.validation.labels),
                untouched=untouched,
                tuning=chosen,
                longer=longer,
                results=results,
                trainings=len(bench.known),
                seconds=time.monotonic() - began,
            ),
        )
        tqdm.write(f"Report: {page}")


def validate(config: Config) -> None:
    """Checks all that can be checked before data is loaded.

    Raises:
      InputError: an option at fault.
    """
    runs.check_name(config.name)
    if config.source is not None and config.pretrained is not None:
        raise InputError("--source and --pretrained exclude each other; give one")
    for name, given in (
        ("arms", config.arms),
        ("labels", config.labels),
        ("seeds", config.seeds),
    ):
        if not given or len(set(given)) < len(given):
            said = " ".join(map(str, given)) or "none"
            raise InputError(
                f"--{name} must be one or more, each of them once, not {said}"
            )
    if "scratch" not in config.arms or len(config.arms) < 2:
        raise InputError('--arms must be "scratch" and one or more to compare with it')
    if len(config.seeds) < 2:
        raise InputError("--seeds must be two or more: an interval takes that many")
    for seed in config.seeds:
        if not 0 <= seed < TUNING_SEED:
            raise InputError(
                f"--seeds must be at least 0 and below {TUNING_SEED}, not {seed}: from "
                f"there on they serve to choose learning rates"
            )
    for option, number, least in (
        ("steps", config.steps, POINTS),
        ("batch-size", config.batch_size, 1),
        ("source-epochs", config.source_epochs, 1),
    ):
        if number < least:
            raise InputError(f"--{option} must be at least {least}, not {number}")


def _check_source(folder: Path, digest: str) -> None:
    """Checks that the study began with these weights.

    Raises:
      InputError: with others; its trainings so far tell nothing of these.
    """
    stored = runs.read_description(folder)["source"]
    if stored.get("digest", digest) != digest:  # older studies have none
        raise InputError(
            f"the study {folder} began with other weights of {stored['title']}, which "
            f"have changed since; start a new study under another --name"
        )


def _header(config: Config, dataset: Dataset, origin: Origin, folder: Path) -> str:
    arms = "; ".join(transfer_trials.ARMS[arm].title for arm in config.arms)
    lines = [
        *job.data_lines(dataset),
        f"Source:  {origin.title}",
        f"Arms:    {arms}",
        f"Labels:  {', '.join(f'{n:,}' for n in config.labels)}; "
        f"{len(config.seeds)} seeds, {config.steps} steps of {config.batch_size}",
        f"Device:  {runs.device_name()}",
        f"Study:   {folder}",
    ]
    return "\n".join(lines)


def _bench(
    config: Config, source: Source, origin: Origin, dataset: Dataset, folder: Path
) -> Bench:
    path = folder / "journal.jsonl"
    known, untouched = {}, None
    for line in journal.mend(path):
        if line["kind"] == "untouched":
            untouched = float(line["test"])
        if line["kind"] == "training":
            curve = tuple(Point(**point) for point in line["curve"])
            trial = Trial(**line["trial"])
            result = Result(trial, curve, line["test"], line["seconds"])
            known[result.trial] = result
    count = min(VALIDATION, len(dataset.validation.labels) // 10 * 10)
    return Bench(
        config=config,
        source=source,
        origin=origin,
        dataset=dataset,
        validation=transfer_trials.labelled(dataset.validation, count, 0),
        path=path,
        evaluate=transfer_trials.compile_evaluate(source),
        programs={},
        known=known,
        untouched=untouched,
    )


def _untouched(bench: Bench) -> float | None:
    """Test accuracy of the source with its own head, where the classes are the same."""
    if "svhn" not in bench.origin.dataset:
        return None
    if bench.untouched is not None:
        return bench.untouched
    scores = transfer_trials.untouched(bench.source, bench.evaluate, bench.dataset.test)
    journal.append(bench.path, [{"kind": "untouched", "test": scores.accuracy}])
    return scores.accuracy


def _all(bench: Bench) -> tuple[list[Result], list[Result], list[Result]]:
    """Runs what is missing, under a progress bar.

    Returns:
      The trainings by which rates were chosen; those from scratch at the chosen rate
      with twice the steps, by which one sees whether more would help; and those that
      are reported.
    """
    config = bench.config
    sizes = config.labels
    tuning: list[Result] = []
    longer: list[Result] = []
    results: list[Result] = []
    each = len(sizes) * (len(FIRST_RATES) + len(config.seeds))
    with tqdm(
        total=len(config.arms) * each + len(sizes),
        unit=" trainings",
        dynamic_ncols=True,
        disable=None,
    ) as bar:
        for arm in config.arms:
            title = transfer_trials.ARMS[arm].title
            rate, tried = _tuned(bench, arm, bar)
            tuning += tried
            tqdm.write(f"{title}: learning rate {rate:g}")
            if arm == "scratch":
                twice = _for_choice(bench, arm, rate, 2 * config.steps)
                longer = [_result(bench, trial, bar) for trial in twice]
            for labels in sizes:
                some = [
                    _result(bench, Trial(arm, labels, seed, rate, config.steps), bar)
                    for seed in config.seeds
                ]
                results += some
                mean = sum(result.test or 0.0 for result in some) / len(some)
                tqdm.write(
                    f"{title}, {labels:,} labels: {100 * mean:.2f} on the test set"
                )
    return tuning, longer, results


def _tuned(bench: Bench, arm: str, bar: Any) -> tuple[float, list[Result]]:
    """The best of several rates, of which it is none at the edge; and what was tried.

    One rate for all numbers of labels, by the mean accuracy over them: with few labels
    a single training says little of a rate.
    """
    sizes = bench.config.labels
    tried: dict[int, list[Result]] = {}

    def attempt(power: int) -> None:
        rate = float(f"{10 ** (power / 2):.2g}")
        tried[power] = [
            _result(bench, trial, bar)
            for trial in _for_choice(bench, arm, rate, bench.config.steps)
        ]

    def best() -> int:
        return max(tried, key=lambda power: transfer_trials.standing(tried[power]))

    for power in FIRST_RATES:
        attempt(power)
    while (power := best()) in (min(tried), max(tried)) and LEAST < power < MOST:
        bar.total += len(sizes)
        attempt(power - 1 if power == min(tried) else power + 1)
    rate = tried[power][0].trial.rate
    return rate, [result for power in sorted(tried) for result in tried[power]]


def _for_choice(bench: Bench, arm: str, rate: float, steps: int) -> list[Trial]:
    """The trainings by which a rate is judged, one for each number of labels."""
    return [
        Trial(arm, labels, TUNING_SEED + i, rate, steps)
        for i, labels in enumerate(bench.config.labels)
    ]


def _result(bench: Bench, trial: Trial, bar: Any) -> Result:
    """Of one training, from the journal or by doing it."""
    if trial not in bench.known:
        bar.set_postfix_str(f"{trial.arm}, {trial.labels} labels")
        result = _train(bench, trial)
        journal.append(
            bench.path,
            [
                {
                    "kind": "training",
                    **result._asdict(),
                    "trial": trial._asdict(),
                    "curve": [point._asdict() for point in result.curve],
                }
            ],
        )
        bench.known[trial] = result
    bar.update()
    return bench.known[trial]


def _train(bench: Bench, trial: Trial) -> Result:
    began = time.monotonic()
    if trial.arm not in bench.programs:
        bench.programs[trial.arm] = transfer_trials.compile(bench.source, trial.arm)
    tuning = trial.seed >= TUNING_SEED
    curve: list[Point] = []
    variables: Variables = {}
    for point, variables in transfer_trials.run(  # noqa: B007
        bench.source,
        trial,
        bench.programs[trial.arm],
        bench.evaluate,
        transfer_trials.labelled(
            bench.dataset.train, max(bench.config.labels), trial.seed
        ),
        bench.validation,
        1 if tuning else POINTS,
    ):
        curve.append(point)
    test = None
    if not tuning:
        diverged = curve[-1].loss is None
        scores = bench.evaluate(variables, bench.dataset.test)
        test = 0.0 if diverged else scores.accuracy
    return Result(trial, tuple(curve), test, round(time.monotonic() - began, 3))
