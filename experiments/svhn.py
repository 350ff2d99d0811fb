"""Q4: LeNet-5, AlexNet, VGG and ResNet on SVHN, from scratch or pretrained.

Examples:
    python -m experiments.svhn --arch=lenet5
    python -m experiments.svhn --arch=vgg16 --epochs=30 --ema=0.999
    python -m experiments.svhn --arch=resnet18 --raw-dir=DIR
    python -m experiments.svhn --arch=resnet50 --pretrained=imagenet
    python -m experiments.svhn --arch=resnet18 --pretrained=FILE --finetune=head
    python -m experiments.svhn --resume

Prints the loss every 100 steps and, at the end, the accuracy on the test set.

Everything about the run is left in checkpoints/svhn/<run>/.
"""

from experiments import cli
from jaxdl.config import Config, DataConfig, ModelConfig, OptimConfig, RunConfig

DEFAULT = Config(
    data=DataConfig(),
    model=ModelConfig(arch="lenet5"),
    optim=OptimConfig(learning_rate=0.02, warmup_epochs=0.1, weight_decay=5e-4),
    run=RunConfig(epochs=5, batch_size=64),
)


def main() -> None:
    """Parses the command line and runs."""
    config = cli.parse("svhn", DEFAULT, __doc__)
    from experiments import classify

    classify.run("svhn", "svhn", config)


if __name__ == "__main__":
    cli.run_or_exit(main, stopped=cli.RESUMES)
