"""PyTorch, as its users have it: all cores, and default settings but for its SGD.

That is fused, one pass over each parameter, where the default takes several.
"""

import contextlib
import importlib
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import metadata
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import torch_models
from benchmarks.cases import (
    CLASSES,
    LEARNING_RATE,
    MEAN,
    MOMENTUM,
    STD,
    WEIGHT_DECAY,
    Convolution,
    Epoch,
    Network,
    Product,
    Search,
)
from benchmarks.worker import Prepared
from jaxdl import runtime

torch.set_num_threads(runtime.cores())
torch.manual_seed(0)


def versions() -> dict[str, str]:
    """Versions of what computes."""
    found = {"torch": torch.__version__, "threads": str(torch.get_num_threads())}
    for name in ("curvlinops-for-pytorch", "PyHessian"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def step(case: Network, *, channels_last: bool, compile: bool = False) -> Prepared:
    """Training steps on one batch."""
    net, images = _network(case, channels_last)
    labels = torch.randint(0, CLASSES, (case.batch,))
    train_step = _trainer(net, case.precision, compile)

    def run(count: int) -> float:
        for _ in range(count):
            loss = train_step(images, labels)
        return loss.item()

    return Prepared(run, sum(p.numel() for p in net.parameters()))


def hvp(case: Network, *, method: str) -> Prepared:
    """Products of the Hessian of the mean cross-entropy, each with the one before.

    Methods: "double backward" differentiates a gradient whose graph is kept; "func" is
    `torch.func.jvp` of `torch.func.grad`, "func compiled" the same compiled;
    "curvlinops" and "pyhessian" call these libraries.
    """
    net, images = _network(case, channels_last=False)
    labels = torch.randint(0, CLASSES, (case.batch,))
    params = dict(net.named_parameters())
    criterion = torch.nn.CrossEntropyLoss()
    vector = _unit([torch.ones_like(p) for p in params.values()])
    product = PRODUCTS[method](net, criterion, params, images, labels)

    def run(count: int) -> float:
        nonlocal vector
        for _ in range(count):
            vector = _unit(product(vector))
        return vector[0].flatten()[0].item()

    return Prepared(run, sum(p.numel() for p in params.values()))


def _unit(vector: list[torch.Tensor]) -> list[torch.Tensor]:
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(vector)))
    return list(torch._foreach_div(vector, norm))


def _double_backward(
    net: Any, criterion: Any, params: Any, images: torch.Tensor, labels: torch.Tensor
) -> Any:
    leaves = list(params.values())
    gradient = torch.autograd.grad(
        criterion(net(images), labels), leaves, create_graph=True
    )
    return lambda vector: list(
        torch.autograd.grad(gradient, leaves, vector, retain_graph=True)
    )


def _func(
    net: Any,
    criterion: Any,
    params: Any,
    images: torch.Tensor,
    labels: torch.Tensor,
    compile: bool = False,
) -> Any:
    values = {name: p.detach() for name, p in params.items()}

    def loss(values: Any) -> torch.Tensor:
        logits = torch.func.functional_call(net, values, (images,))
        return criterion(logits, labels)

    def once(values: Any, vector: Any) -> Any:
        return torch.func.jvp(torch.func.grad(loss), (values,), (vector,))[1]

    call = torch.compile(once) if compile else once

    def product(vector: list[torch.Tensor]) -> list[torch.Tensor]:
        named = dict(zip(values, vector, strict=True))
        return list(call(values, named).values())

    return product


def _curvlinops(
    net: Any, criterion: Any, params: Any, images: torch.Tensor, labels: torch.Tensor
) -> Any:
    curvlinops = importlib.import_module("curvlinops")
    matrix = curvlinops.HessianLinearOperator(
        net, criterion, list(params.values()), [(images, labels)], progressbar=False
    )
    return lambda vector: list(matrix @ vector)


def _pyhessian(
    net: Any, criterion: Any, params: Any, images: torch.Tensor, labels: torch.Tensor
) -> Any:
    pyhessian = importlib.import_module("pyhessian")
    found = pyhessian.hessian(net, criterion, data=(images, labels), cuda=False)
    multiply = importlib.import_module("pyhessian.utils").hessian_vector_product
    return lambda vector: list(multiply(found.gradsH, found.params, vector))


PRODUCTS: dict[str, Any] = {
    "double backward": _double_backward,
    "func": _func,
    "func compiled": partial(_func, compile=True),
    "curvlinops": _curvlinops,
    "pyhessian": _pyhessian,
}
"""Ways to a product of the Hessian with a list of tensors."""


def epoch(
    case: Epoch,
    *,
    channels_last: bool,
    workers: int | None = None,
    pil: bool = False,
) -> Prepared:
    """Epochs over images in memory, or from a DataLoader with that many processes.

    With `pil` they become tensors as in torchvision's data sets.
    """
    size, order = case.network.batch, _order(channels_last)
    net, _ = _network(case.network, channels_last)
    train_step = _trainer(net, case.network.precision)
    pixels = torch.from_numpy(np.load(case.images))
    labels = torch.from_numpy(np.load(case.labels)).long()

    def normalised(images: torch.Tensor) -> torch.Tensor:
        return (images.float() / 255 - MEAN) / STD

    class Examples(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(labels)

        def __getitem__(self, i: int) -> Any:
            if not pil:
                return normalised(pixels[i].permute(2, 0, 1)), labels[i]
            image = Image.fromarray(pixels[i].squeeze(-1).numpy())
            return to_tensor(image), labels[i]

    transforms = torch_models.from_torchvision("transforms")
    to_tensor = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )
    if workers is None:
        images = normalised(pixels.permute(0, 3, 1, 2)).contiguous(memory_format=order)
    else:
        loader = torch.utils.data.DataLoader(
            Examples(),
            size,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            drop_last=True,
        )

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        if workers is None:
            for chosen in torch.randperm(len(labels)).split(size):
                if len(chosen) == size:
                    yield images[chosen], labels[chosen]
        else:
            for some, theirs in loader:
                yield some.contiguous(memory_format=order), theirs

    def run(count: int) -> float:
        for _ in range(count):
            for some, theirs in batches():
                loss = train_step(some, theirs)
        return loss.item()

    return Prepared(run, sum(p.numel() for p in net.parameters()))


def search(
    case: Search,
    *,
    fused: bool = True,
    threads: int | None = None,
    products: bool = False,
) -> Prepared:
    """Trials one after the other, images in memory; or their matrix products alone."""
    if products:
        return _products(case)
    if threads is not None:
        torch.set_num_threads(threads)
    random = np.random.default_rng(0)
    total, size = case.images + case.images // 10, case.network.batch
    height, width, channels = case.network.image_shape
    images = torch.from_numpy(random.random((total, channels, height, width), "f4"))
    labels = torch.from_numpy(random.integers(0, CLASSES, total))

    def trial(rate: float, smoothing: float, dropout: float) -> float:
        net = _searched(case, dropout)
        train_step = _trainer(
            net, rate=rate, label_smoothing=smoothing, fused=fused or None
        )
        net.train()
        for chosen in torch.randperm(case.images).split(size):
            if len(chosen) < size:
                break
            train_step(images[chosen], labels[chosen])
        net.eval()
        with torch.inference_mode():
            correct = net(images[case.images :]).argmax(-1) == labels[case.images :]
        return correct.float().mean().item()

    def run(count: int) -> float:
        settings = list(
            zip(case.rates(), case.smoothings(), case.dropouts(), strict=True)
        )
        return sum(trial(*each) for _ in range(count) for each in settings)

    return Prepared(run, sum(p.numel() for p in _searched(case, 0.5).parameters()))


def _products(case: Search) -> Prepared:
    """The products of as many trials, a trial on each core: what no search can save.

    Of each layer the forward one and both gradients, but for that of the images; the
    forward ones of the validation.
    """
    if not case.hidden:
        raise ValueError("for feed-forward networks only")
    size, steps = case.network.batch, case.images // case.network.batch
    height, width, channels = case.network.image_shape
    sizes = (height * width * channels, *case.sizes, CLASSES)
    layers = list(itertools.pairwise(sizes))

    def operands(rows: int) -> Any:
        return [torch.randn(rows, inputs) for inputs, _ in layers]

    def trial(seed: int) -> float:
        torch.manual_seed(seed)
        weights = [torch.randn(outputs, inputs) for inputs, outputs in layers]
        gradients = [torch.randn(size, outputs) for _, outputs in layers]
        batch, validation = operands(size), operands(case.images // 10)
        result = torch.zeros(1)
        for _ in range(steps):
            for i, (x, w, g) in enumerate(zip(batch, weights, gradients, strict=True)):
                result = x @ w.T
                result = g.T @ x
                if i > 0:
                    result = g @ w
        for x, w in zip(validation, weights, strict=True):
            result = x @ w.T
        return result[0, 0].item()

    pool = ThreadPoolExecutor(
        runtime.cores(), initializer=torch.set_num_threads, initargs=(1,)
    )

    def run(count: int) -> float:
        return sum(pool.map(trial, range(case.trials * count)))

    return Prepared(run)


def _searched(case: Search, dropout: float) -> Any:
    if not case.hidden:
        return torch_models.build(case.network)
    return torch_models.feed_forward(case.sizes, case.batch_norm, dropout)


def inference(case: Network, *, channels_last: bool, compile: bool = False) -> Prepared:
    """Logits of one batch."""
    net, images = _network(case, channels_last)
    net.eval()
    forward = torch.compile(net) if compile else net

    def run(count: int) -> float:
        with torch.inference_mode(), _autocast(case.precision):
            for _ in range(count):
                logits = forward(images)
        return logits.float().sum().item()

    return Prepared(run, sum(p.numel() for p in net.parameters()))


def convolution(case: Convolution, *, channels_last: bool) -> Prepared:
    """One convolution or one of its two gradients."""
    dtype = getattr(torch, case.precision)
    order = _order(channels_last)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=dtype).to(memory_format=order)

    images = draw(case.batch, case.inputs, case.size, case.size)
    kernel = draw(case.outputs, case.inputs, case.kernel, case.kernel)
    gradient = draw(case.batch, case.outputs, case.size, case.size)
    padding = [case.kernel // 2] * 2
    wanted = [d == case.direction for d in ("input gradient", "weight gradient")]

    def once() -> torch.Tensor:
        if case.direction == "forward":
            return torch.conv2d(images, kernel, padding=padding)
        results = torch.ops.aten.convolution_backward(
            *(gradient, images, kernel, None, [1, 1], padding, [1, 1], False, [0, 0]),
            *(1, [*wanted, False]),
        )
        return results[wanted.index(True)]

    return _repeated(once)


def product(case: Product, *, channels_last: bool) -> Prepared:
    """One product of two matrices."""
    dtype = getattr(torch, case.precision)
    a, b = (torch.randn((case.size, case.size), dtype=dtype) for _ in range(2))
    return _repeated(lambda: a @ b)


def _repeated(once: Any) -> Prepared:
    def run(count: int) -> float:
        with torch.inference_mode():
            for _ in range(count):
                result = once()
        return result.flatten()[0].item()

    return Prepared(run)


def _order(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


def _network(case: Network, channels_last: bool) -> tuple[Any, torch.Tensor]:
    order = _order(channels_last)
    net: Any = torch_models.build(case)
    net.to(memory_format=order)
    height, width, channels = case.image_shape
    images = torch.randn(case.batch, channels, height, width).to(memory_format=order)
    return net, images


def _trainer(
    net: Any,
    precision: str = "float32",
    compile: bool = False,
    *,
    rate: float = LEARNING_RATE,
    label_smoothing: float = 0.0,
    fused: bool | None = True,
) -> Any:
    """A function (images, labels) -> loss that makes a step."""
    optimizer = torch.optim.SGD(
        net.parameters(),
        rate,
        momentum=MOMENTUM,
        nesterov=True,
        weight_decay=WEIGHT_DECAY,
        fused=fused,
    )

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with _autocast(precision):
            logits = net(images)
        return torch.nn.functional.cross_entropy(
            logits.float(), labels, label_smoothing=label_smoothing
        )

    forward = torch.compile(loss_of) if compile else loss_of

    def train_step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = forward(images, labels)
        loss.backward()
        optimizer.step()
        return loss

    return train_step


def _autocast(precision: str) -> Any:
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast("cpu", getattr(torch, precision))
