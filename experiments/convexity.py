"""Q2: which losses are convex in their parameters? Proofs, witnesses and curvature.

Examples:
    python -m experiments.convexity
    python -m experiments.convexity --epochs=10 --images=5000
    python -m experiments.convexity --run=checkpoints/mnist/RUN
    python -m experiments.convexity --check=checkpoints/convexity/NAME

Decides for twelve losses, from logistic regression to a ReLU network, on real data
that comes with the package. "Convex" has a proof, "not convex" two points between which
the loss rises above its chord, verified in interval arithmetic. Shows besides that deep
linear networks, though not convex, have no bad local minima, and the spectrum of the
Hessian of LeNet-5 before and after training.

Leaves report.html, report.md, result.json and certificates.json, which --check verifies
anew, in checkpoints/convexity/<name>/.
"""

import dataclasses
import sys
import time
from pathlib import Path

from experiments import cli
from jaxdl import runs
from jaxdl.config import default_cache_dir, default_raw_dir
from jaxdl.errors import InputError


@dataclasses.dataclass(frozen=True)
class Config:
    """How thorough the study is, and where it goes."""

    starts: int = 6
    """Random starts of each deep linear network."""
    epochs: int = 3
    """Epochs that LeNet-5 is trained for."""
    images: int = 1000
    """Training images that the Hessian of LeNet-5's loss is taken over."""
    steps: int = 60
    """Steps of Lanczos' method: products with that Hessian for each vector."""
    probes: int = 3
    """Random vectors for each spectral density."""
    run: Path | None = None
    """A finished run of experiments.mnist or experiments.svhn.
    The spectrum of its network is shown as well."""
    seed: int = 0
    """Decides everything random."""
    out: Path = Path("checkpoints")
    """Folder that gets convexity/<name>/."""
    name: str | None = None
    """Name of the study; one of that name is replaced.
    Without this option: the time."""
    raw_dir: Path | None = dataclasses.field(default_factory=default_raw_dir)
    """With --run: folder with the official raw files.
    Without this option: what JAXDL_RAW_DIR says."""
    cache_dir: Path = dataclasses.field(default_factory=default_cache_dir)
    """Folder where prepared data and compiled programs are kept."""
    check: Path | None = None
    """Folder of an earlier study: verify its certificates anew, and do nothing else."""


def validate(config: Config) -> None:
    """Checks all that can be checked before JAX starts.

    Raises:
      InputError: an option is out of range.
    """
    for name in ("starts", "epochs", "images", "steps", "probes"):
        if (value := getattr(config, name)) < 1:
            raise InputError(f"--{name} must be at least 1, not {value}")
    if config.steps < 2:
        raise InputError("--steps must be at least 2: the spectrum has two ends")
    runs.check_seed("--seed", config.seed)
    runs.check_name(config.name)


def main() -> None:
    """Parses the command line, then studies or checks."""
    config = cli.parse_plain("experiments.convexity", Config, __doc__)
    validate(config)
    from jaxdl import runtime

    runtime.start(config.cache_dir)
    if config.check is not None:
        check(config.check)
    else:
        study(config)


def study(config: Config) -> None:
    """Computes everything, and writes the report."""
    import jax
    from tqdm import tqdm

    from experiments import convexity_linear as linear
    from experiments import convexity_networks as networks
    from experiments import convexity_report as report
    from experiments import convexity_table as table
    from experiments.convexity_findings import Findings

    began = time.monotonic()
    sources = networks.sources_of(config)  # at fault, they are so at once
    studies = config.out / "convexity"
    folder = studies / (config.name or runs.stamped(studies))
    runs.make_folder(folder)
    key = jax.random.key(config.seed)
    stages = len(table.PROBLEMS) + 2 * len(linear.DEPTHS) + len(sources.titles) + 1
    with tqdm(total=stages, disable=None, unit="stage") as bar:

        def note(what: str) -> None:
            bar.set_description(what)
            bar.update(0)

        rows = []
        for i, name in enumerate(table.PROBLEMS):
            note(name)
            rows.append(table.row(name, jax.random.fold_in(key, i)))
            bar.update()
        descents = []
        for train in (linear.squared_error, linear.cross_entropy):
            for depth in linear.DEPTHS:
                note(f"deep linear network, {depth} layers")
                descents.append(train(depth, config.starts, config.seed))
                bar.update()
        spectra = []
        note(sources.titles[0])
        for one in networks.spectra_of(sources, config):
            spectra.append(one)
            bar.update()
            note(one.title)
        note("figures")
        findings = Findings(rows, descents, spectra)
        figures = report.figures(findings)
        bar.update()
    page = report.write(folder, findings, figures, time.monotonic() - began)
    print(report.summary(findings))
    print(f"Report: {page}")


def check(folder: Path) -> None:
    """Verifies the certificates of an earlier study; exit code 1 if one fails."""
    from experiments import convexity_certificates as certificates

    failed = 0
    for name, line in certificates.check(folder):
        print(f"{name}: {line}")
        failed += line.startswith("FAILED")
    if failed:
        print(f"error: {failed} certificates do not hold", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    cli.run_or_exit(main)
