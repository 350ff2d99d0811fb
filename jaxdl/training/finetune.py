"""Fine-tuning: which layers are trained, and at which rates.

A network is a row of blocks, from the head to the pixels (`registry.blocks`). What is
not trained is *frozen*: it has no gradient, no weight decay and no momentum, nothing is
propagated back into it, and its parameters keep their bits. Its batch norms are in
evaluation mode, as is the practice: they normalise by their running statistics, which
do not change either. Dropout stays on, since it regularises the layers after it.
"""

import contextlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import flax.linen as nn

from jaxdl.config import Finetune
from jaxdl.errors import InputError
from jaxdl.models.registry import Blocks

Layers = frozenset[str]
"""Names of top-level modules."""

T = TypeVar("T")


def trained_layers(which: Finetune, blocks: Blocks) -> Layers | None:
    """The layers that are trained; None where all are.

    Args:
      which: "all", "last-block" (the head and the block before it) or "head".
      blocks: from `registry.blocks`.

    Raises:
      InputError: the network has no head to train.
    """
    if which == "all":
        return None
    if which == "head" and not blocks[0]:
        raise InputError(
            "--finetune=head: the logits of this network have no parameters; take "
            "--finetune=last-block"
        )
    return frozenset().union(*blocks[: 1 if which == "head" else 2])


def rates(decay: float, blocks: Blocks) -> dict[str, float] | None:
    """Each layer's rate as a part of the head's; None where all have the same.

    The rate of a block is `decay` times that of the block after it: discriminative
    fine-tuning (Howard and Ruder 2018, "ULMFiT"), as the layer-wise learning-rate
    decay of Clark et al. 2020, "ELECTRA".

    Args:
      decay: in (0, 1].
      blocks: from `registry.blocks`.
    """
    if decay == 1:
        return None
    return {
        layer: decay**depth for depth, block in enumerate(blocks) for layer in block
    }


def part(layers: Mapping[str, T], trained: Layers | None) -> dict[str, T]:
    """The trained ones of some layers' values, for instance of "params"."""
    return {
        name: value
        for name, value in layers.items()
        if trained is None or name in trained
    }


def evaluating(frozen: Collection[str]) -> contextlib.AbstractContextManager[Any]:
    """While entered, a network applied with train=True has these layers in evaluation.

    That is, they are called with train=False, if they take such an argument.
    """
    if not frozen:
        return contextlib.nullcontext()

    def call(
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        path = context.module.path
        if len(path) == 1 and path[0] in frozen and "train" in kwargs:
            kwargs = {**kwargs, "train": False}
        return function(*args, **kwargs)

    return nn.intercept_methods(call)
