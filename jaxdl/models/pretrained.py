"""Weights in torch's layout <-> Flax variables, both ways and bit for bit.

Every layer of our networks bears its name of torch, "layer1.0.conv1" as
layer1_0/conv1, and flattens in torch's order; so the mapping needs no table: a name is
regrouped, and a kernel's axes are permuted. Layouts "torchvision" thus take
torchvision's published weights; what other layouts have in common with them too.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from jaxdl import weights
from jaxdl.errors import InputError
from jaxdl.models import registry

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
    for key, array in _torch_views(variables):
        state[key] = np.array(array, order="C")
        if key.endswith(".running_var"):
            tracked = key.replace("running_var", "num_batches_tracked")
            state[tracked] = np.array(batches, np.int64)
    return state


def _torch_views(variables: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Name and value of each weight as torch has them, not copied."""
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
        yield f"{key}.{name}", array


def save(path: Path, variables: Mapping[str, Any], batches: int = 0) -> None:
    """Writes Flax variables for torch: `to_torch`, to a file.

    Args:
        path: "....safetensors", or "....pth" as `torch.save` would write it.
        variables: See `to_torch`.
        batches: See `to_torch`.

    Raises:
        InputError: See `to_torch` and `weights.write`.
    """
    weights.write(path, to_torch(variables, batches))


def load(
    path: Path,
    name: str,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    key: jax.Array,
    **options: Any,
) -> Variables:
    """The variables of an architecture out of a weight file.

    The head is kept where it has `num_classes` logits, and else begins afresh, as that
    of a new network with that key. Where grey images meet weights of colour, the first
    kernel is summed over its input channels: what a normalised grey image gives is then
    what it gave as three equal channels, all normalised alike (published weights saw
    each channel normalised by a mean and a deviation of its own; for grey images
    `assemble.normalisation` takes the average of them).

    Args:
        path: A file that `weights.read` reads, of torchvision, of timm (ResNet, VGG) or
            of `save`; numbers of any floating format, which become float32.
        name: Architecture.
        image_shape: Height, width and channels of the images that it is for.
        num_classes: Number of logits.
        key: Key of a head that begins afresh.
        **options: As `registry.build` takes them. Published weights of AlexNet, VGG and
            ResNet want layout="torchvision".

    Returns:
        Variables as `module.init` gives them, float32, in the memory of the host.

    Raises:
        InputError: The file is no weight file, weights are missing, or unexpected, or
            have another shape or no floating format; the message names them all.
    """
    height, width, _ = image_shape
    layout = options.get("layout")
    registry.check_input(name, layout, height, width)
    stored = {
        weight: array
        for weight, array in _from_timm(weights.read(path)).items()
        if not weight.endswith("num_batches_tracked")
    }
    fitted = _fit(stored, name, image_shape, num_classes, options)
    if fitted.faults:
        layouts = registry.spec(name).layouts
        shown = name + (f" in layout {layout or layouts[0]!r}" if layouts else "")
        for other in layouts:
            # Large enough for that layout; no weight depends on the size of the image.
            side = max(registry.spec(name).min_size(other), height, width)
            shape = (side, side, image_shape[2])
            changed = {**options, "layout": other}
            if not _fit(stored, name, shape, num_classes, changed).faults:
                raise InputError(
                    f"{path} does not fit {shown}, but layout {other!r}: give "
                    f"--layout={other}"
                )
        raise InputError(f"{path} does not fit {shown}: {'; '.join(fitted.faults)}")
    state = fitted.state
    variables = from_torch({k: np.asarray(state[k], np.float32) for k in state})
    if fitted.new_head is not None:
        # Nothing but the head is computed: jit drops the rest.
        head, module = fitted.new_head, fitted.module
        init = jax.jit(lambda key, x: module.init(key, x)["params"][head])
        begun = init(key, np.zeros((1, *image_shape), np.float32))
        variables["params"][head] = jax.tree.map(np.asarray, begun)
    return variables


class _Fitted(NamedTuple):
    """A state dict made to fit a network, and what still does not."""

    module: nn.Module
    state: dict[str, np.ndarray]
    new_head: str | None
    """Name of a head that is not in `state`, as it begins afresh."""
    faults: list[str]


def _fit(
    stored: Mapping[str, np.ndarray],
    name: str,
    image_shape: tuple[int, int, int],
    num_classes: int,
    options: Mapping[str, Any],
) -> _Fitted:
    """Fits the head and the first kernel of a state dict, which stays as it is."""
    module = registry.build(name, num_classes=num_classes, **options)
    images = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
    expected = jax.eval_shape(module.init, jax.random.key(0), images)
    shapes = {
        weight: array.shape
        for weight, array in _torch_views(
            jax.tree.map(
                lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), expected
            )
        )
    }
    state = dict(stored)
    head = registry.spec(name).head(options.get("layout"))
    fresh = head is not None and _drop_other_head(state, shapes, head)
    if image_shape[2] == 1:
        _sum_colours(state, shapes)
    return _Fitted(module, state, head if fresh else None, list(_faults(state, shapes)))


def _from_timm(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names of timm -> torchvision's: VGG's differ, ResNet's do not."""
    if "pre_logits.fc1.weight" not in state:
        return state
    places = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3"}
    renamed = {}
    for name, array in state.items():
        layer, _, kind = name.rpartition(".")
        if layer in places and array.ndim == 4:  # convolutions that cover all of a map
            array = array.reshape(len(array), math.prod(array.shape[1:]))
        layer = {**places, "head.fc": "classifier.6"}.get(layer, layer)
        renamed[f"{layer}.{kind}"] = array
    return renamed


def _drop_other_head(
    state: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]], head: str
) -> bool:
    """Removes the head from both if it differs in the number of classes alone."""
    layer = ".".join(_split([head]))
    weight, bias = f"{layer}.weight", f"{layer}.bias"
    given, wanted = state.get(weight), shapes[weight]
    if (
        given is None
        or bias not in state
        or given.shape[1:] != wanted[1:]
        or given.shape[:1] == wanted[:1]
    ):
        return False
    for key in (weight, bias):
        del state[key], shapes[key]
    return True


def _sum_colours(
    state: dict[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Makes kernels [out, 3, h, w] be [out, 1, h, w] where the network wants that."""
    for key, wanted in shapes.items():
        if key in state and len(wanted) == 4 and wanted[1] == 1:
            colour = (wanted[0], 3, *wanted[2:])
            if state[key].shape == colour:
                state[key] = state[key].astype(np.float32).sum(1, keepdims=True)


def _faults(
    state: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[str]:
    """What is wrong with a state dict that should have these shapes."""
    if missing := [key for key in shapes if key not in state]:
        yield f"missing {_listed(missing)}"
    if unexpected := [key for key in state if key not in shapes]:
        yield f"unexpected {_listed(unexpected)}"
    for key, wanted in shapes.items():
        if key in state and state[key].shape != wanted:
            yield f"{key} has shape {state[key].shape}, not {wanted}"
        elif key in state and not jax.numpy.issubdtype(state[key].dtype, np.floating):
            yield f"{key} is {state[key].dtype}, not float"


def _listed(names: list[str]) -> str:
    """Names in one line of bounded length; those of a file can be anything."""
    some = [name if name.isprintable() else repr(name) for name in names[:20]]
    more = [f"{len(names) - 20} more"] if len(names) > 20 else []
    return ", ".join([*(name[:99] for name in some), *more])


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
