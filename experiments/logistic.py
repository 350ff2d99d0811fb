"""Q1: why cross-entropy, and not squared error, in logistic regression.

Examples:
    python -m experiments.logistic
    python -m experiments.logistic --seeds=50 --name=fifty

Each of the four reasons that are usually given gets a measured verdict.

Uses real tables that come with the packages, and generated data; no network.

Takes some two minutes on two cores.

Leaves report.html, report.md, figures/ and result.json in the study's folder.
"""

import dataclasses
import time
from pathlib import Path

from experiments import cli
from jaxdl import runs
from jaxdl.config import default_cache_dir
from jaxdl.errors import InputError


@dataclasses.dataclass(frozen=True)
class Config:
    """How many seeds, and where the results go."""

    seeds: int = 20
    """Repetitions, each with data, splits and starts of its own; from 2 to 200.
    Below 20 the intervals are too wide to decide much."""
    out: Path = Path("checkpoints")
    """Folder that gets logistic/<name>/."""
    name: str | None = None
    """Name of the study. Without this option: the time."""


def folder(config: Config) -> Path:
    """Makes the folder of the study.

    Raises:
      InputError: a setting is out of range, the study is there already, or its folder
        cannot be made.
    """
    if not 2 <= config.seeds <= 200:
        raise InputError(f"--seeds must be from 2 to 200, not {config.seeds}")
    runs.check_name(config.name)
    studies = config.out / "logistic"
    path = studies / (config.name or runs.stamped(studies))
    if (path / "result.json").exists():
        raise InputError(f"the study {path} is there already: choose another --name")
    runs.make_folder(path)
    return path


def main() -> None:
    """Parses the command line, measures the four claims and writes the report."""
    config = cli.parse_plain("experiments.logistic", Config, __doc__)
    path = folder(config)
    from jaxdl import runtime

    runtime.start(default_cache_dir())
    import jax

    from experiments import logistic_fits, logistic_paths, logistic_report

    began = time.perf_counter()
    with jax.enable_x64():
        evidence = [
            logistic_fits.probability(config.seeds),
            logistic_paths.optimisation(config.seeds),
            logistic_paths.uniqueness(config.seeds),
            logistic_fits.imbalance(config.seeds),
        ]
        claims = logistic_report.claims(evidence)
        page = logistic_report.write(
            path, claims, config.seeds, time.perf_counter() - began
        )
    for number, claim in enumerate(claims, 1):
        print(f"{number}. {claim.statement} {claim.verdict.capitalize()}.")
    print(f"Report: {page}")


if __name__ == "__main__":
    cli.run_or_exit(main)
