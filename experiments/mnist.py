"""Q3: a feed-forward network on MNIST, trained by SGD on the cross-entropy.

Examples:
    python -m experiments.mnist
    python -m experiments.mnist --raw-dir=DIR --epochs=10 --hidden 1024 512
    python -m experiments.mnist --arch=lenet5 --augment=digits --epochs=20
    python -m experiments.mnist --resume

Prints the loss every 100 steps and, at the end, the accuracy on the test set.

Everything about the run is left in checkpoints/mnist/<run>/.
"""

from experiments import cli
from jaxdl.config import Config, DataConfig, ModelConfig, OptimConfig, RunConfig

DEFAULT = Config(
    data=DataConfig(),
    model=ModelConfig(arch="fnn"),
    optim=OptimConfig(learning_rate=0.1, momentum=0.9, weight_decay=1e-4),
    run=RunConfig(epochs=5, batch_size=128),
)


def main() -> None:
    """Parses the command line and runs."""
    config = cli.parse("mnist", DEFAULT, __doc__)
    from experiments import classify

    classify.run("mnist", "mnist", config)


if __name__ == "__main__":
    cli.run_or_exit(main, stopped=cli.RESUMES)
