"""Weights in torchvision's layout <-> Flax variables, both ways and bit for bit.

Every layer of our networks bears its name of torch, "layer1.0.conv1" as
layer1_0/conv1, and flattens in torch's order; so the mapping needs no table: a name is
regrouped, and a kernel's axes are permuted. Layouts "torchvision" thus take
torchvision's published weights; what other layouts have in common with them too.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdl.errors import InputError

Variables = dict[str, Any]

_TO_FLAX = {
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}
_TO_TORCH = {flax: torch for torch, flax in _TO_FLAX.items()}
_AXES = {4: (2, 3, 1, 0), 2: (1, 0)}  # torch [O, I, H, W] -> Flax [H, W, I, O]


def from_torch(state: Mapping[str, np.ndarray]) -> Variables:
    """Flax variables with the values of a torch state dict.

    Args:
        state: Arrays by dotted name, as `module.state_dict()` has them: "weight" of a
            convolution [out, in, height, width], of a dense layer [out, in] or of a
            batch norm [channels]; "bias", "running_mean", "running_var" [channels].
            "num_batches_tracked", which neither side computes with, is left out.

    Returns:
        {"params": ..., "batch_stats": ...}, nested by layer, the latter only if there
        are any. Arrays keep their dtype and own their memory.

    Raises:
        InputError: A name or shape that no layer of these networks has.
    """
    variables: Variables = {"params": {}}
    for key, value in state.items():
        *layer, kind = key.split(".")
        if kind == "num_batches_tracked":
            continue
        if kind == "weight" and value.ndim in _AXES:
            place, value = ("params", "kernel"), value.transpose(_AXES[value.ndim])
        elif kind == "weight" and value.ndim == 1:
            place = ("params", "scale")
        elif kind in _TO_FLAX and value.ndim == 1:
            place = _TO_FLAX[kind]
        else:
            raise InputError(
                f"weight {key!r} of shape {value.shape} is of no layer known here; "
                "give the state dict of a network of torchvision.models"
            )
        node = variables.setdefault(place[0], {})
        for name in _join(layer):
            node = node.setdefault(name, {})
        node[place[1]] = np.array(value, order="C")
    return variables


def to_torch(variables: Mapping[str, Any], batches: int = 0) -> dict[str, np.ndarray]:
    """The torch state dict with the values of Flax variables: inverse of `from_torch`.

    Args:
        variables: {"params": ..., "batch_stats": ...} of one of our networks.
        batches: Value of each "num_batches_tracked": training steps taken.

    Returns:
        Arrays by dotted name, contiguous, in torch's layout; for layout "torchvision"
        exactly those that torchvision's network of that name loads strictly.

    Raises:
        InputError: A parameter that torch's layers have not got.
    """
    state: dict[str, np.ndarray] = {}
    for (collection, *layer, kind), value in _leaves(variables):
        key = ".".join(_split(layer))
        array = np.asarray(value)
        if kind == "kernel" and array.ndim in _AXES:
            name, array = "weight", array.transpose(np.argsort(_AXES[array.ndim]))
        elif kind == "scale" and array.ndim == 1:
            name = "weight"
        elif (collection, kind) in _TO_TORCH and array.ndim == 1:
            name = _TO_TORCH[collection, kind]
        else:
            raise InputError(
                f"variable {'/'.join((collection, *layer, kind))!r} of shape "
                f"{array.shape} has no counterpart in torch's layers"
            )
        state[f"{key}.{name}"] = np.array(array, order="C")
        if name == "running_var":
            state[f"{key}.num_batches_tracked"] = np.array(batches, np.int64)
    return state


def _join(layer: list[str]) -> list[str]:
    """["layer1", "0", "conv1"] -> ["layer1_0", "conv1"]."""
    joined: list[str] = []
    for part in layer:
        if part.isdigit() and joined:
            joined[-1] += f"_{part}"
        else:
            joined.append(part)
    return joined


def _split(layer: list[str]) -> list[str]:
    """["layer1_0", "conv1"] -> ["layer1", "0", "conv1"]."""
    parts: list[str] = []
    for name in layer:
        head, _, last = name.rpartition("_")
        parts += [head, last] if last.isdigit() and head else [name]
    return parts


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Any:
    """(path, leaf) of nested mappings, in order."""
    for name, node in tree.items():
        if isinstance(node, Mapping):
            yield from _leaves(node, (*path, name))
        else:
            yield (*path, name), node
