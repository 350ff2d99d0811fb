"""The same function compiled for one device or many, with `jit` or with `pmap`.

A function written per device (it may use the axis `AXIS`) becomes one program over all
devices: `jit` of `shard_map` over a one-dimensional mesh, or `pmap`. Arguments and
results are replicated, but for those named as sharded, which carry a leading device
axis. With several processes (`jax.distributed.initialize`) the mesh spans them all.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdl.errors import InputError

AXIS = "data"
"""Name of the mapped axis over which batches are spread."""

Tree = TypeVar("Tree")


class Devices(NamedTuple):
    """The devices of a run, and the way in which the step is compiled for them."""

    kind: Literal["jit", "pmap"]
    mesh: Mesh

    @property
    def size(self) -> int:
        """Devices over all processes."""
        return int(self.mesh.size)

    @property
    def axis_name(self) -> str | None:
        """Axis that exists inside compiled functions; None on one device with jit."""
        return None if self.kind == "jit" and self.size == 1 else AXIS


def choose(
    kind: Literal["jit", "pmap"], count: int | None, batch_size: int, accumulate: int
) -> Devices:
    """Picks the devices of a run: the first `count`, or all.

    Raises:
      InputError: more devices than there are, or a batch that they cannot share evenly.
    """
    available = jax.devices()
    count = len(available) if count is None else count
    if not 1 <= count <= len(available):
        raise InputError(
            f"--devices must be between 1 and {len(available)}, the number of "
            f"{available[0].platform} devices here, not {count}"
        )
    if jax.process_count() > 1 and count != len(available):
        raise InputError(
            f"--devices must be left out with several processes, not {count}: "
            f"all {len(available)} devices take part"
        )
    parts = count * accumulate
    if batch_size < parts or batch_size % parts:
        nearest = max(parts, round(batch_size / parts) * parts)
        raise InputError(
            f"--batch-size must be a multiple of {parts} ({count} devices x "
            f"{accumulate} micro-batches), not {batch_size}; the nearest is {nearest}"
        )
    return Devices(kind, Mesh(np.array(available[:count]), (AXIS,)))


def compile(
    function: Callable[..., Any],
    devices: Devices,
    *,
    sharded: tuple[int, ...] = (),
    donate: tuple[int, ...] = (),
) -> Callable[..., Any]:
    """Compiles a per-device function for all devices at once.

    Args:
      function: takes positional pytrees; inside, `devices.axis_name` is mapped. Its
        results must be equal on all devices (after `psum`, `all_gather` ...).
      devices: from `choose`.
      sharded: positions of the arguments made by `shard`; the function sees each
        without its leading device axis. All others are replicated.
      donate: positions of the arguments whose memory the results may reuse.

    Returns:
      A function of the same arguments.
    """

    def drop_device_axis(*args: Any) -> Any:
        return function(
            *(
                jax.tree.map(lambda x: x[0], arg) if i in sharded else arg
                for i, arg in enumerate(args)
            )
        )

    if devices.kind == "pmap":
        return _compile_pmap(function, devices, sharded, donate)
    if devices.size == 1:
        return jax.jit(drop_device_axis, donate_argnums=donate)

    def over_mesh(*args: Any) -> Any:
        specs = tuple(
            PartitionSpec(AXIS) if i in sharded else PartitionSpec()
            for i in range(len(args))
        )
        # Replication of the results is ours to ensure: the checker would insert its
        # own psum into gradients, and the same function must serve pmap.
        return jax.shard_map(
            drop_device_axis,
            mesh=devices.mesh,
            in_specs=specs,
            out_specs=PartitionSpec(),
            check_vma=False,
        )(*args)

    return jax.jit(over_mesh, donate_argnums=donate)


def replicate(tree: Any, devices: Devices) -> Any:
    """Puts equal copies of a pytree on every device.

    Args:
      tree: host or device arrays, typed keys among them; equal in every process.
      devices: from `choose`.
    """
    sharding = NamedSharding(devices.mesh, PartitionSpec())
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    # With several processes `device_put` takes neither keys nor results of pmap, and
    # sends every array around to compare it.
    def put(x: Any) -> jax.Array:
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(x)))
        host = np.asarray(x)
        return jax.make_array_from_callback(
            host.shape, sharding, lambda index: host[index]
        )

    return jax.tree.map(put, tree)


def shard(tree: Tree, devices: Devices) -> Tree:
    """Puts row d of every leaf's leading axis on device d.

    Args:
      tree: pytree of host arrays [devices.size, ...], equal in every process.
      devices: from `choose`.
    """
    sharding = NamedSharding(devices.mesh, PartitionSpec(AXIS))

    def put(x: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(put, tree)


def _compile_pmap(
    function: Callable[..., Any],
    devices: Devices,
    sharded: tuple[int, ...],
    donate: tuple[int, ...],
) -> Callable[..., Any]:
    """`compile` through `jax.pmap`, which wants at least one mapped argument."""
    local = [
        d for d in devices.mesh.devices.flat if d.process_index == jax.process_index()
    ]
    ranks = np.arange(len(local))
    programs: dict[int, Callable[..., Any]] = {}

    def call(*args: Any) -> Any:
        if len(args) not in programs:
            programs[len(args)] = jax.pmap(
                lambda rank, *args: function(*args),
                axis_name=AXIS,
                in_axes=(0, *(0 if i in sharded else None for i in range(len(args)))),
                out_axes=None,
                devices=list(devices.mesh.devices.flat),
                donate_argnums=tuple(i + 1 for i in donate),
            )
        return programs[len(args)](ranks, *args)

    return call
