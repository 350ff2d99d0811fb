"""Which examples make up which step, and how they reach the device.

The order of an epoch is a permutation, a function of the run's key and the epoch alone:
not of the number of devices, and not of whether the data lies on them.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from jaxdl.data.sources import Split


class Batch(NamedTuple):
    """One device's share of a step, in k micro-batches of m examples."""

    images: jax.Array
    """uint8 [k, m, H, W, C]."""
    labels: jax.Array
    """int32 [k, m]."""
    positions: jax.Array
    """int32 [k, m]: places of the examples in the whole batch. What is random about an
    example derives from its place, so that the number of devices changes nothing."""


class Layout(NamedTuple):
    """How the examples of a step are dealt out; all static."""

    batch_size: int
    """Examples per step, over all devices."""
    micro_batches: int
    """Micro-batches per step."""
    devices: int
    """Devices that share a step."""

    @property
    def positions(self) -> np.ndarray:
        """Places in the batch by device, int32 [devices, k, m].

        Micro-batch j is the j-th run of the batch, on any number of devices; each
        device takes an equal part of every micro-batch.
        """
        places = np.arange(self.batch_size, dtype=np.int32)
        by_micro_batch = places.reshape(self.micro_batches, self.devices, -1)
        return np.ascontiguousarray(by_micro_batch.transpose(1, 0, 2))


@partial(jax.jit, static_argnames="size")
def epoch_order(key: jax.Array, epoch: int, size: int) -> jax.Array:
    """Order in which one epoch visits the examples: a permutation, int32 [size]."""
    # No step has that number: the key of a shuffle is never that of a step.
    shuffles = jax.random.fold_in(key, 2**32 - 1)
    return jax.random.permutation(jax.random.fold_in(shuffles, epoch), size)


def fits(nbytes: int, device: jax.Device, copies: int) -> bool:
    """Whether that much data may live on the device: at most a quarter of its memory.

    Args:
      nbytes: size of the data.
      device: where it would lie.
      copies: how many devices share one memory (those of a CPU do).
    """
    if device.platform == "cpu":
        if not hasattr(os, "sysconf"):  # on Windows
            return True
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return nbytes * copies <= memory / 4
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return limit is None or nbytes <= limit / 4


def chunks(
    split: Split,
    order: np.ndarray,
    pieces: Sequence[tuple[int, int]],
    layout: Layout,
    steps: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Gathers the examples of several steps at a time, one piece ahead of their use.

    Args:
      split: the examples, on the host (or memory-mapped from disk).
      order: int [N], the epoch's permutation.
      pieces: (first step, number of steps) of each piece, 1 to `steps` long; at least
        one piece.
      layout: how a step's examples are dealt out.
      steps: steps in a chunk; short pieces are padded, so that all have one shape.

    Yields:
      images uint8 [devices, steps, k, m, H, W, C] and labels int32
      [devices, steps, k, m].
    """
    positions = layout.positions[:, None]

    def gather(piece: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        first, count = piece
        index = first + np.minimum(np.arange(steps), count - 1)
        places = index[None, :, None, None] * layout.batch_size + positions
        examples = order[places]
        return split.images[examples], split.labels[examples]

    with ThreadPoolExecutor(1) as worker:
        ahead = worker.submit(gather, pieces[0])
        for following in pieces[1:]:
            chunk, ahead = ahead.result(), worker.submit(gather, following)
            yield chunk
        yield ahead.result()
