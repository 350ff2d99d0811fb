"""Training steps: jaxdl beside PyTorch, plain Flax and Keras.

A step is forward, cross-entropy, backward and SGD with Nesterov momentum and weight
decay, on one random batch that lies on the device; the same network for all.

Examples:
    python -m benchmarks.step
    python -m benchmarks.step --networks resnet18 vgg16_bn --rivals jaxdl "torch nhwc"
    python -m benchmarks.step --networks lenet5 --batch-size 1 16 128 512
    python -m benchmarks.step --precision float32 bfloat16 --rounds 3
    python -m benchmarks.step --out=benchmarks/results --name=step-avx2
"""

from benchmarks import cli, measure
from benchmarks.cases import Network
from benchmarks.measure import Measured
from benchmarks.report import Report, number, of_products


def main() -> None:
    """Parses the command line, measures and prints."""
    config = cli.parse("step", cli.Networks, __doc__)
    names, notes = cli.rivals(config, tuple(measure.RIVALS))
    listed = config.cases()
    rates = {p: measure.product_rate(p, config.effort) for p in config.precision}
    measured = measure.compare("step", listed, names, config.effort)
    for precision, rate in rates.items():
        notes.append(of_products(precision, rate))

    def useful(one: Measured) -> str:
        return number(useful_flops(one) / rates[one.case.precision])

    cli.publish(
        Report(
            command="step",
            data="synthetic: random images and labels",
            unit="images/s",
            figures=lambda one: [one.case.batch / s for s in one.seconds],
            measured=measured,
            notes=notes,
            columns={f"{names[0]}: useful FLOP/s : matrix product's": useful},
        ),
        config,
    )


def useful_flops(one: Measured[Network]) -> float:
    """FLOP/s of a training step, counted as three forward passes."""
    from jaxdl.models import cost, registry  # imports JAX; `--help` can do without

    options = {"layout": one.case.layout} if one.case.layout else {}
    model = registry.build(one.case.arch, num_classes=10, **options)
    flops = cost.flops(model, (1, *one.case.image_shape))
    return 3 * one.case.batch * flops / one.median


if __name__ == "__main__":
    cli.run(main)
