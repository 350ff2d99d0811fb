"""The losses that the question is about, each on given data: name -> builder.

The table of the experiment and the tests have one row for each. A builder takes
features and labels and returns the loss, a function of the parameters alone, and
parameters to start from. All losses are means over the examples.
"""

import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from jaxdl import losses
from jaxdl.errors import InputError
from jaxdl.models import registry

Loss: TypeAlias = Callable[[Any], jax.Array]
Builder: TypeAlias = Callable[[ArrayLike, ArrayLike], tuple[Loss, Any]]

WIDTH = 3
"""Units in each hidden layer: the fewest that still show what depth does."""


def _classes(
    features: ArrayLike, labels: ArrayLike
) -> tuple[jax.Array, jax.Array, int]:
    """Features float32 [N, D], labels int32 [N], and the number of classes."""
    x, y = np.asarray(features), np.asarray(labels)
    if x.ndim != 2 or y.shape != x.shape[:1] or not len(y):
        raise InputError(
            f"features must be [N, D] and labels [N] with N >= 1, got {x.shape} and "
            f"{y.shape}"
        )
    if not np.isfinite(x).all():
        raise InputError(
            f"features must be finite: {np.sum(~np.isfinite(x))} are not; drop such "
            f"rows or fill them in"
        )
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
        raise InputError(
            f"labels must be whole numbers from 0 upwards, got {y.dtype} with least "
            f"value {y.min()}; number the classes from 0"
        )
    return jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.int32), max(2, y.max() + 1)


def _two_classes(features: ArrayLike, labels: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Features float32 [N, D], and labels float32 [N], 0 or 1."""
    x, y, classes = _classes(features, labels)
    if classes > 2:
        raise InputError(
            f"this loss tells two classes apart, got labels up to {classes - 1}; pass "
            "labels 0 and 1, such as `labels == c` as int"
        )
    return x, y.astype(jnp.float32)


def _on_one_output(per_example: Callable[[jax.Array, jax.Array], jax.Array]) -> Builder:
    """Mean of per_example(X w + b, y), for labels y of 0 and 1."""

    def build(features: ArrayLike, labels: ArrayLike) -> tuple[Loss, Any]:
        x, y = _two_classes(features, labels)

        def loss(params: Any) -> jax.Array:
            return per_example(x @ params["w"] + params["b"], y).mean()

        return loss, {"w": jnp.zeros(x.shape[1]), "b": jnp.zeros(())}

    return build


def _squared_error(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Squared distance of outputs [N, K] from the one-hot labels -> [N]."""
    target = jax.nn.one_hot(labels, outputs.shape[-1])
    return optax.squared_error(outputs, target).sum(axis=-1)


def _log_softmax(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log softmax(logits)[label], from one-hot labels, [N, K] -> [N]."""
    target = jax.nn.one_hot(labels, logits.shape[-1])
    return optax.softmax_cross_entropy(logits, target)


def _on_layers(
    per_example: Callable[[jax.Array, jax.Array], jax.Array],
    *,
    depth: int,
    activation: Callable[[jax.Array], jax.Array] = lambda z: z,
) -> Builder:
    """Mean of per_example(logits, labels), behind `depth` dense layers with biases."""

    def build(features: ArrayLike, labels: ArrayLike) -> tuple[Loss, Any]:
        x, y, classes = _classes(features, labels)
        sizes = (x.shape[1], *[WIDTH] * (depth - 1), classes)

        def loss(params: Any) -> jax.Array:
            z = x
            for layer in params[:-1]:
                z = activation(z @ layer["w"] + layer["b"])
            logits = z @ params[-1]["w"] + params[-1]["b"]
            return per_example(logits, y).mean()

        params = [
            {"w": jnp.zeros(shape), "b": jnp.zeros(shape[1])}
            for shape in itertools.pairwise(sizes)
        ]
        return loss, params

    return build


def _linear_network_of_the_registry(
    features: ArrayLike, labels: ArrayLike
) -> tuple[Loss, Any]:
    """What `experiments.mnist --hidden` trains: the registry's fnn, in Flax."""
    x, y, classes = _classes(features, labels)
    images = x[:, None, :, None]  # [N, 1, D, 1]: the network flattens images
    model = registry.build("fnn", num_classes=classes, hidden=())

    def loss(variables: Any) -> jax.Array:
        logits = model.apply(variables, images)
        assert isinstance(logits, jax.Array)
        return losses.cross_entropy(logits, y).mean()

    shapes = jax.eval_shape(model.init, jax.random.key(0), images[:1])
    return loss, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)


PROBLEMS: Mapping[str, Builder] = MappingProxyType(
    {
        "logistic on logits": _on_one_output(optax.sigmoid_binary_cross_entropy),
        "softmax": _on_layers(_log_softmax, depth=1),
        "sigmoid + MSE": _on_one_output(
            lambda z, y: optax.squared_error(jax.nn.sigmoid(z), y)
        ),
        "linear + MSE": _on_layers(_squared_error, depth=1),
        "linear + CE": _linear_network_of_the_registry,
        "hinge": _on_one_output(lambda z, y: optax.hinge_loss(z, 2 * y - 1)),
        "Huber": _on_one_output(optax.huber_loss),
        "deep linear 2 + MSE": _on_layers(_squared_error, depth=2),
        "deep linear 2 + CE": _on_layers(losses.cross_entropy, depth=2),
        "deep linear 3 + MSE": _on_layers(_squared_error, depth=3),
        "deep linear 3 + CE": _on_layers(losses.cross_entropy, depth=3),
        "ReLU network": _on_layers(
            losses.cross_entropy, depth=2, activation=jax.nn.relu
        ),
    }
)
"""The rows of the table, in its order. Those on one output take labels 0 and 1, the
others any number of classes."""
