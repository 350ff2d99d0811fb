"""What is measured: networks, layers and products, as plain data.

Imported by every worker, so neither jaxdl nor JAX nor torch may be imported here.
"""

import dataclasses
from typing import Any, Literal

Precision = Literal["float32", "bfloat16"]
Direction = Literal["forward", "input gradient", "weight gradient"]

LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-3, 0.9, 5e-4
CLASSES = 10
MEAN, STD = 0.5, 0.25  # of the pixels' whole range, for normalisation


@dataclasses.dataclass(frozen=True)
class Network:
    """A network and the images that it sees."""

    arch: str
    """jaxdl's name of the architecture."""
    layout: Literal["small", "torchvision"] | None = "small"
    """Its layout; None where it has but one."""
    batch: int = 128
    """Images per step."""
    precision: Precision = "float32"
    """Number format of the activations."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels): MNIST's for the FNN, else those of SVHN."""
        return (28, 28, 1) if self.arch == "fnn" else (32, 32, 3)

    @property
    def name(self) -> str:
        """What `--networks` calls it."""
        return self.arch + (f"/{self.layout}" if self.layout else "")

    @property
    def title(self) -> str:
        """Its name in tables."""
        precision = "" if self.precision == "float32" else f", {self.precision}"
        return f"{self.name}, batch {self.batch}{precision}"


@dataclasses.dataclass(frozen=True)
class Digits(Network):
    """The same on images of MNIST's size."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return (28, 28, 1)


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A square convolution in one direction, padded so as to keep the size."""

    size: int
    """Side of the images, in pixels."""
    inputs: int
    """Channels of the images."""
    outputs: int
    """Channels of the result."""
    kernel: int
    """Side of the kernel."""
    direction: Direction
    """What is computed."""
    batch: int = 64
    """Images."""
    precision: Precision = "float32"
    """Number format."""

    @property
    def title(self) -> str:
        """Its name in tables."""
        shape = f"{self.size},{self.inputs},{self.outputs},{self.kernel}"
        precision = "" if self.precision == "float32" else f", {self.precision}"
        return f"{shape} {self.direction}{precision}"

    @property
    def flops(self) -> int:
        """Operations, a multiply-add being two; padding counts."""
        pixels = self.batch * self.size**2
        return 2 * pixels * self.inputs * self.outputs * self.kernel**2


@dataclasses.dataclass(frozen=True)
class Product:
    """The product of two square matrices: the machine's rate."""

    size: int = 2048
    """Rows and columns."""
    precision: Precision = "float32"
    """Number format."""

    @property
    def title(self) -> str:
        """Its name in tables."""
        return f"matrix product {self.size}"

    @property
    def flops(self) -> int:
        """Operations, a multiply-add being two."""
        return 2 * self.size**3


_PASSING = {"passing": True}
"""Metadata of a field that says nothing once the measurement is over."""


@dataclasses.dataclass(frozen=True)
class Epoch:
    """A pass over a training set that lies in a file, input included."""

    network: Network
    """What is trained."""
    images: str = dataclasses.field(metadata=_PASSING)
    """.npy file, uint8 [N, H, W, C]."""
    labels: str = dataclasses.field(metadata=_PASSING)
    """.npy file, int32 [N]."""
    count: int
    """N."""

    @property
    def title(self) -> str:
        """Its name in tables."""
        return f"{self.network.title}, {self.count:,} images"


@dataclasses.dataclass(frozen=True)
class Search:
    """Trials of one shape in a hyper-parameter search, each of a single epoch.

    All have dropout and label smoothing, at rates of their own; the pixels are random.
    """

    network: Network
    """What is trained; its batch counts."""
    hidden: str = ""
    """Of the FNN: sizes of the hidden layers, as 512,256."""
    batch_norm: bool = False
    """Of the FNN."""
    trials: int = 16
    """Trials in a repetition."""
    images: int = 6400
    """Training images; a tenth as many more validate."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """The hidden layers."""
        return tuple(int(size) for size in self.hidden.split(",") if size)

    @property
    def title(self) -> str:
        """Its name in tables."""
        words = [self.network.arch, self.hidden, "batch norm" * self.batch_norm]
        return " ".join(filter(None, words))

    def rates(self) -> list[float]:
        """Learning rate of each trial."""
        return [0.01 * 10 ** (i / self.trials) for i in range(self.trials)]

    def smoothings(self) -> list[float]:
        """Label smoothing of each trial."""
        return [0.01 + 0.1 * i / self.trials for i in range(self.trials)]

    def dropouts(self) -> list[float]:
        """Dropout of each trial; LeNet-5 has none."""
        if not self.hidden:
            return [0.0] * self.trials
        return [0.1 + 0.4 * i / self.trials for i in range(self.trials)]


Case = Network | Convolution | Product | Epoch | Search
KINDS = {
    kind.__name__: kind
    for kind in (Network, Digits, Convolution, Product, Epoch, Search)
}


def to_json(case: Case) -> dict[str, Any]:
    """The case as plain JSON values."""
    return {"kind": type(case).__name__, **dataclasses.asdict(case)}


def to_record(case: Case) -> dict[str, Any]:
    """`to_json` for the results: without what the measurement alone needed."""
    passing = {f.name for f in dataclasses.fields(case) if f.metadata == _PASSING}
    return {k: v for k, v in to_json(case).items() if k not in passing}


def from_json(values: dict[str, Any]) -> Case:
    """Inverse of `to_json`."""
    fields = dict(values)
    kind: Any = KINDS[fields.pop("kind")]
    if "network" in fields:
        fields["network"] = Network(**fields["network"])
    return kind(**fields)


NETWORKS = (
    Network("fnn", None),
    Network("lenet5", None),
    Network("alexnet"),
    Network("vgg16_bn"),
    Network("vgg16"),
    Network("resnet18", "torchvision"),
    Network("resnet18", "small"),
    Network("resnet50", "torchvision"),
    Network("resnet50", "small"),
    Network("resnet101", "torchvision"),
    Network("resnet101", "small"),
)
"""All that `step` measures."""

LAYERS = (
    (32, 3, 64, 3),
    (32, 64, 64, 3),
    (16, 128, 128, 3),
    (8, 256, 256, 3),
    (4, 512, 512, 3),
    (2, 512, 512, 3),
    (1, 512, 512, 3),
    (8, 256, 1024, 1),
)
"""(size, inputs, outputs, kernel) of the layers that `conv` measures: those of VGG and
the ResNets on 32x32 images."""
