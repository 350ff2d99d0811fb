r"""Q3, settings found rather than guessed: a hyper-parameter search on MNIST.

Examples:
    python -m experiments.search
    python -m experiments.search --raw-dir=DIR
    python -m experiments.search --trials=40 --rungs 1 5 --space \
        learning_rate=log:0.001:1 dropout=0:0.5 'hidden=512,256|1024,512'
    python -m experiments.search --sampler=grid --seeds 0 1 2 --rungs 5 --space \
        learning_rate=log:0.01:1:5 momentum=0,0.9
    python -m experiments.search --resume --name=NAME

A space is a list of field=domain. Fields are those of experiments.mnist, with
underscores; domains are

    learning_rate=log:0.001:1      any number between, evenly in the logarithm
    dropout=0:0.5                  any number between
    batch_size=32:256              any whole number between
    weight_decay=log:1e-5:1e-3:3   three numbers: 1e-5, 1e-4, 1e-3
    batch_norm=true,false          one of these
    'hidden=512,256|1024,512'      one of these; "|" separates what has commas, and
                                   is for the shell to leave alone, hence the quotes
    augment=digits                 always this

What the space leaves alone is as experiments.mnist has it, but for the one-cycle
schedule.

Successive halving: all trials train for the epochs of the first rung, the best third of
them for those of the next, and so on. Each choice is made on the validation split; the
test set is read once, at the end, by the best trial. Trials of one shape run together
in one compiled program, over all cores.

A second part, the ablation, trains the network with and without dropout and batch
normalisation, five seeds each, and says what either changes.

Everything is left in checkpoints/search/<name>/: the report (report.html, report.md),
the journals of all trials, and the figures. A study that was stopped, or killed, goes
on with --resume, to the same bits.
"""

import dataclasses
from pathlib import Path

from experiments import cli
from jaxdl import config as settings
from jaxdl.config import ModelConfig, OptimConfig, RunConfig
from jaxdl.search import Sampler

BASE = settings.Config(
    model=ModelConfig(arch="fnn"),
    optim=OptimConfig(weight_decay=1e-4, schedule="onecycle"),
    run=RunConfig(batch_size=128),
)
"""What the space leaves alone."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What is searched, how long, and where the results go."""

    space: tuple[str, ...] = (
        "learning_rate=log:0.02:0.5",
        "hidden=512,256|1024,512",
        "batch_norm=true,false",
        "dropout=0:0.5",
        "label_smoothing=0:0.1",
        "weight_decay=log:1e-5:1e-3",
    )
    """Fields and their domains; see above."""
    sampler: Sampler = "random"
    """"grid": all combinations. "optuna": Optuna's TPE, which needs pip install optuna.
    """
    trials: int = 27
    """Configurations in the first rung (of a grid: all)."""
    rungs: tuple[int, ...] = (2, 6, 18)
    """Epochs of each rung. One number: no halving.
    None at all: one rung, of each trial's own epochs."""
    eta: int = 3
    """The best of so many go on to the next rung."""
    seeds: tuple[int, ...] = (0,)
    """Each configuration runs with each of these seeds; their mean ranks it."""
    seed: int = 0
    """Decides which configurations are drawn, and the validation split."""
    ablation_epochs: int = 10
    """Epochs of each network of the ablation; 0 leaves it out."""
    dataset: str = "auto"
    """Data set. "auto" is MNIST or, with a banner, the part that comes with jaxdl."""
    raw_dir: Path | None = dataclasses.field(default_factory=settings.default_raw_dir)
    """Folder with the four idx .gz files of MNIST, used instead of a download.
    Without this option: what JAXDL_RAW_DIR says."""
    cache_dir: Path = dataclasses.field(default_factory=settings.default_cache_dir)
    """Folder where prepared data and compiled programs are kept."""
    validation: int | None = None
    """Training examples set apart, on which trials are ranked.
    Without this option: 5,000, or a tenth of a smaller set."""
    devices: int | None = None
    """Devices to spread trials over; on a CPU, cores. All by default."""
    out: Path = Path("checkpoints")
    """Folder that gets search/<name>/."""
    name: str | None = None
    """Name of the study. Without this option: the time."""
    resume: bool = False
    """Go on with the study of that --name, or with the latest one."""


def main() -> None:
    """Parses the command line and runs."""
    config, dataset_name = cli.parse_study("search", Config, __doc__)
    from experiments import searching

    searching.run(config, dataset_name)


if __name__ == "__main__":
    cli.run_or_exit(main, stopped=cli.RESUMES)
