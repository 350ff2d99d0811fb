"""Plain Flax, as its users have it; and what is the same for every user of JAX.

Does not import jaxdl, which would arm the cure and bring the engine.
"""

from collections.abc import Callable
from importlib import metadata
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

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
)
from benchmarks.flax_models import Plain
from benchmarks.worker import Prepared


def versions() -> dict[str, str]:
    """Versions of what computes."""
    return {name: metadata.version(name) for name in ("jax", "jaxlib", "flax")}


def step(case: Network) -> Prepared:
    """Training steps on one batch: one compiled step, called in a Python loop."""
    images, labels = batch(case)
    train_step, carry = trainer(case, images)

    def run(count: int) -> float:
        nonlocal carry
        for _ in range(count):
            carry, loss = train_step(carry, images, labels)
        return float(loss)

    return Prepared(run, size(carry[0]["params"]))


def epoch(case: Epoch) -> Prepared:
    """Epochs over images in host memory, gathered by NumPy for each step."""
    size_of_batch = case.network.batch
    pixels, labels = np.load(case.images), np.load(case.labels)
    images = (pixels.astype(np.float32) / 255 - MEAN) / STD
    train_step, carry = trainer(case.network, jnp.asarray(images[:size_of_batch]))
    random = np.random.default_rng(0)

    def run(count: int) -> float:
        nonlocal carry
        for _ in range(count):
            order = random.permutation(len(labels))
            for start in range(0, len(order) - size_of_batch + 1, size_of_batch):
                chosen = order[start : start + size_of_batch]
                carry, loss = train_step(carry, images[chosen], labels[chosen])
        return float(loss)

    return Prepared(run, size(carry[0]["params"]))


def hvp(case: Network) -> Prepared:
    """Hessian-vector products as in JAX's manual: one compiled, called in turn."""
    images, labels = batch(case)
    model = Plain(case)
    params = jax.jit(model.init)(jax.random.key(0), images)["params"]

    def loss(params: Any) -> jax.Array:
        logits = model.apply({"params": params}, images)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean()

    @jax.jit
    def product(params: Any, vector: Any) -> Any:
        return unit(jax.jvp(jax.grad(loss), (params,), (vector,))[1])

    vector = unit(jax.tree.map(jnp.ones_like, params))

    def run(count: int) -> float:
        nonlocal vector
        for _ in range(count):
            vector = product(params, vector)
        return first(vector)

    return Prepared(run, size(params))


def unit(vector: Any) -> Any:
    """A pytree scaled to norm one: power iteration stays finite."""
    norm = optax.tree.norm(vector)
    return jax.tree.map(lambda x: x / norm, vector)


def first(vector: Any) -> float:
    """A number of a pytree, which waits for it."""
    return float(jax.tree.leaves(vector)[0].ravel()[0])


def trainer(case: Network, images: jax.Array) -> tuple[Any, Any]:
    """A compiled step (carry, images, labels) -> (carry, loss), and the first carry."""
    model = Plain(case)
    optimizer = optax.chain(
        optax.add_decayed_weights(WEIGHT_DECAY),
        optax.sgd(LEARNING_RATE, MOMENTUM, nesterov=True),
    )
    variables = jax.jit(model.init)(jax.random.key(0), images)

    def train_step(carry: Any, images: jax.Array, labels: jax.Array) -> Any:
        variables, opt_state, key = carry
        key, dropout = jax.random.split(key)

        def objective(params: Any) -> Any:
            logits, updated = model.apply(
                {**variables, "params": params},
                images,
                train=True,
                rngs={"dropout": dropout},
                mutable=["batch_stats"],
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), updated

        params = variables["params"]
        (loss, updated), gradient = jax.value_and_grad(objective, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        return ({"params": params, **updated}, opt_state, key), loss

    carry = (variables, optimizer.init(variables["params"]), jax.random.key(1))
    return jax.jit(train_step, donate_argnums=0), carry


def inference(case: Network) -> Prepared:
    """Logits of one batch."""
    return logits_of(Plain(case), case)


def logits_of(model: nn.Module, case: Network) -> Prepared:
    """Logits that a model makes of one batch."""
    images, _ = batch(case)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    apply = jax.jit(lambda variables, images: model.apply(variables, images))
    return Prepared(
        repeated(lambda: apply(variables, images)), size(variables["params"])
    )


def convolution(case: Convolution) -> Prepared:
    """One convolution or one of its two gradients, in the layout of `flax.linen`."""
    dtype, random = jnp.dtype(case.precision), np.random.default_rng(0)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(random.standard_normal(shape, np.float32), dtype)

    images = draw(case.batch, case.size, case.size, case.inputs)
    kernel = draw(case.kernel, case.kernel, case.inputs, case.outputs)
    gradient = draw(case.batch, case.size, case.size, case.outputs)

    def forward(images: jax.Array, kernel: jax.Array) -> jax.Array:
        names = ("NHWC", "HWIO", "NHWC")
        pads = [(case.kernel // 2, case.kernel // 2)] * 2
        return jax.lax.conv_general_dilated(
            images, kernel, (1, 1), pads, dimension_numbers=names
        )

    @jax.jit
    def once(images: jax.Array, kernel: jax.Array, gradient: jax.Array) -> jax.Array:
        if case.direction == "forward":
            return forward(images, kernel)
        by_images, by_kernel = jax.vjp(forward, images, kernel)[1](gradient)
        return by_images if case.direction == "input gradient" else by_kernel

    return Prepared(repeated(lambda: once(images, kernel, gradient)))


def product(case: Product) -> Prepared:
    """One product of two matrices."""
    random = np.random.default_rng(0)
    shape, dtype = (2, case.size, case.size), jnp.dtype(case.precision)
    a, b = jnp.asarray(random.standard_normal(shape, np.float32), dtype)
    multiply = jax.jit(jnp.matmul)
    return Prepared(repeated(lambda: multiply(a, b)))


def repeated(once: Callable[[], jax.Array]) -> Callable[[int], float]:
    """Runs it that often, one at a time."""

    def run(count: int) -> float:
        for _ in range(count):
            result = once().block_until_ready()
        return float(result.ravel()[0])

    return run


def batch(case: Network) -> tuple[jax.Array, jax.Array]:
    """Random images float32 [N, H, W, C] and labels int32 [N]."""
    random = np.random.default_rng(0)
    images = random.standard_normal((case.batch, *case.image_shape), np.float32)
    labels = random.integers(0, CLASSES, case.batch, np.int32)
    return jnp.asarray(images), jnp.asarray(labels)


def size(tree: Any) -> int:
    """Numbers in a pytree."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
