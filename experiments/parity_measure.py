"""How far jaxdl's networks are from torchvision's; the command and the tests use it.

Both sides have the same weights, images and labels, all of them exact in float32; so
torch's float64 is the truth for the float32 of both. Every difference is relative: of
an array, the largest one over the largest entry of torch's, and of a tree the largest
of its arrays. Where an array is all but zero beside the others (the gradient of a bias
before a batch norm is zero but for rounding) a thousandth of the largest of them is the
measure.

Gradients in float32 are a case of their own. A ReLU or max-pool whose inputs lie within
rounding of each other goes either way, and the gradient with it, in a jump: one of
200,000 units of ResNet-18 can move an array by 2 % of its norm, in torch as here. So
gradients are compared with the truth, array by array in the Euclidean norm, and may be
off by 1e-4 or by `TIMES_TORCH` times what torch's float32 is. Where such units are few
one of `BATCHES` batches has none; where they are many torch has as many.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import parity_torch
from experiments.parity_torch import Descent, Outcome
from jaxdl import losses
from jaxdl.config import OptimConfig
from jaxdl.data.batches import Batch
from jaxdl.models import pretrained, registry
from jaxdl.training import optim, steps
from jaxdl.training.state import NEVER, Totals, TrainState

FLOAT64, FLOAT32, DESCENT = 1e-9, 1e-4, 1e-7
"""Largest differences allowed: of one batch, and after ten steps in float64."""

TIMES_TORCH, BATCHES = 3, 5

SGD = OptimConfig(learning_rate=0.01, schedule="constant")
"""Ten steps with Nesterov's momentum of 0.9 and a weight decay of 5e-4 on kernels."""


class Subject(NamedTuple):
    """A network on both sides, with the same weights."""

    name: str
    net: Any
    """torch's, float32; never changed."""
    variables: Any
    """Flax's, float32."""
    num_classes: int


class Single(NamedTuple):
    """Differences on one batch, in float64; or in float32 but for the gradients."""

    logits: float
    loss: float
    gradients: float
    batch_stats: float
    """0 without batch norm."""


class Float32(NamedTuple):
    """Differences in float32."""

    logits: float
    loss: float
    batch_stats: float
    gradients: float
    """From the truth, on the last batch that was tried."""
    gradients_of_torch: float
    """Torch's own there."""
    batches: int
    """How many were tried."""


def subject(name: str, weights: Path | None = None) -> Subject:
    """A network with random weights and statistics, or with those of a file.

    Args:
        name: an architecture that torchvision has.
        weights: a file; read by torch for its side and by `jaxdl.weights` for ours.

    Raises:
        InputError: torch is not installed, or one side cannot load the file.
    """
    if weights is None:
        net, classes = parity_torch.network(name, 10), 10
        return Subject(name, net, parity_torch.variables(net), classes)
    net = parity_torch.loaded(name, weights)
    classes = len(list(net.parameters())[-1])
    variables = pretrained.load(
        weights,
        name,
        image_shape=(224, 224, 3),
        num_classes=classes,
        key=jax.random.key(0),
        layout="torchvision",
    )
    return Subject(name, net, variables, classes)


def batch_size(size: int) -> int:
    """Few images, but enough for a variance in maps of one pixel."""
    return 16 if size < 64 else 4 if size < 128 else 2


def in_float64(one: Subject, size: int) -> Single:
    """Differences on a batch of random images of size x size."""
    x, labels = _batch(one, size, seed=0)
    x = x.astype(np.float64)
    theirs = parity_torch.measure(copy.deepcopy(one.net).double(), x, labels)
    with jax.enable_x64(True):
        ours = measure(_module(one, "float64"))(_double(one.variables), x, labels)
        return Single(*_differences(ours, theirs))


def in_float32(one: Subject, size: int) -> Float32:
    """Differences on random images, with the engine that is in force."""
    compute = measure(_module(one, "float32"))
    single: list[Single] = []
    for seed in range(BATCHES):
        x, labels = _batch(one, size, seed)
        theirs = parity_torch.measure(copy.deepcopy(one.net), x, labels)
        truth = parity_torch.measure(
            copy.deepcopy(one.net).double(), x.astype(np.float64), labels
        ).gradients
        ours = compute(one.variables, x, labels)
        single.append(Single(*_differences(ours, theirs)))
        off, off_of_torch = (
            difference(outcome.gradients, truth, _euclidean)
            for outcome in (ours, theirs)
        )
        if off <= max(FLOAT32, TIMES_TORCH * off_of_torch):
            break
    worst = [_worst(each) for each in zip(*single, strict=True)]
    logits, loss, _, batch_stats = worst
    return Float32(logits, loss, batch_stats, off, off_of_torch, len(single))


def after_steps(
    one: Subject, size: int, config: OptimConfig = SGD, count: int = 10
) -> float:
    """The largest difference after steps of SGD in float64.

    Args:
        one: the network.
        size: of the images.
        config: as `optim.make_optimizer` and `parity_torch.descend` take it.
        count: number of steps, each with a batch of its own.

    Returns:
        That of parameters, batch statistics and momentum buffers.
    """
    drawn = [_batch(one, size, seed) for seed in range(count)]
    x = np.stack([images for images, _ in drawn]).astype(np.float64)
    labels = np.stack([targets for _, targets in drawn])
    theirs = parity_torch.descend(copy.deepcopy(one.net).double(), x, labels, config)
    with jax.enable_x64(True):
        module, start = _module(one, "float64"), _double(one.variables)
        ours = descend(module, start, x, labels, config)
        return _worst(_differences(ours, theirs))


def faults(result: Single | Float32 | float) -> list[str]:
    """What exceeds its tolerance, in words."""
    if isinstance(result, float):
        limits = {"after ten steps": (result, DESCENT)}
    elif isinstance(result, Single):
        limits = {k: (v, FLOAT64) for k, v in result._asdict().items()}
    else:
        allowed = max(FLOAT32, TIMES_TORCH * result.gradients_of_torch)
        limits = {k: (getattr(result, k), FLOAT32) for k in Float32._fields[:3]}
        limits["gradients"] = (result.gradients, allowed)
    return [
        f"{name}: {value:.1e}, {limit:.1e} allowed"
        for name, (value, limit) in limits.items()
        if not value <= limit
    ]


def measure(module: Any) -> Callable[[Any, Any, Any], Outcome]:
    """A function (variables, x, labels) of what a Flax module makes of a batch."""

    @jax.jit
    def both(variables: Any, x: jax.Array, labels: jax.Array) -> Outcome:
        stats = {name: tree for name, tree in variables.items() if name != "params"}

        def loss_of(params: Any) -> Any:
            logits, updated = module.apply(
                {"params": params, **stats}, x, train=True, mutable=list(stats)
            )
            return losses.cross_entropy(logits, labels).mean(), updated

        (loss, updated), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            variables["params"]
        )
        logits = module.apply(variables, x, train=False)
        return Outcome(logits, loss, gradients, updated.get("batch_stats", {}))

    return both


def descend(
    module: Any, variables: Any, x: np.ndarray, labels: np.ndarray, config: OptimConfig
) -> Descent:
    """Where the training step of jaxdl leads; the arguments of `parity_torch.descend`.

    Args:
        module: without dropout.
        variables: to begin with; their memory is used up.
        x: images, [steps, N, H, W, C], of the number format of the variables.
        labels: int [steps, N].
        config: the optimiser's settings.
    """
    count, size = labels.shape
    optimizer = optim.make_optimizer(config, count, count)
    step = jax.jit(
        steps.make_train_step(module, optimizer, losses.cross_entropy, lambda x: x),
        donate_argnums=0,
    )
    state = TrainState(
        step=jnp.int32(0),
        key=jax.random.key(0),
        variables=variables,
        opt_state=optimizer.init(variables["params"]),
        ema=None,
        totals=Totals(jnp.zeros((), x.dtype), jnp.int32(0), jnp.int32(0)),
        bad_step=jnp.int32(NEVER),
    )
    places = jnp.arange(size, dtype=jnp.int32)[None]
    for images, targets in zip(x, labels, strict=True):
        state = step(
            state, Batch(jnp.asarray(images[None]), jnp.asarray(targets[None]), places)
        )
    traces = [part for part in state.opt_state if isinstance(part, optax.TraceState)]
    return Descent(
        state.variables["params"],
        state.variables.get("batch_stats", {}),
        traces[0].trace,
    )


def difference(
    ours: Any, theirs: Any, size: Callable[[np.ndarray], float] | None = None
) -> float:
    """The largest relative difference of two equal trees; 0 if they are empty.

    Args:
        ours: a tree of arrays.
        theirs: a tree of the same structure, which differences are relative to.
        size: of an array; by default its largest entry.
    """
    size = size or _largest
    chex.assert_trees_all_equal_structs(ours, theirs)
    pairs = list(zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True))
    sizes = [size(b) for _, b in pairs]
    floor = 1e-3 * max(sizes, default=0.0)
    return _worst(
        size(np.subtract(a, b, dtype=np.float64)) / max(known, floor)
        for (a, b), known in zip(pairs, sizes, strict=True)
    )


def _worst(differences: Iterable[float]) -> float:
    """The largest; NaN if there is one, which Python's `max` would pass over."""
    return float(np.max([*differences], initial=0.0))


def _differences(ours: Any, theirs: Any) -> Iterator[float]:
    for a, b in zip(ours, theirs, strict=True):
        yield difference(a, b)


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array).max())


def _euclidean(array: np.ndarray) -> float:
    return float(np.linalg.norm(np.ravel(array)))


def _module(one: Subject, dtype: str) -> Any:
    options: dict[str, Any] = (
        {"dropout": 0.0} if registry.spec(one.name).has_dropout else {}
    )
    return registry.build(
        one.name,
        num_classes=one.num_classes,
        dtype=dtype,
        layout="torchvision",
        **options,
    )


def _batch(one: Subject, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random, count = np.random.default_rng(seed), batch_size(size)
    x = random.standard_normal((count, size, size, 3), np.float32)
    return x, random.integers(0, one.num_classes, count)


def _double(variables: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables)
