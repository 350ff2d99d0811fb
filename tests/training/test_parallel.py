"""One device, many, `jit`, `pmap`: the same numbers."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from jax.sharding import PartitionSpec

from jaxdl.errors import InputError
from jaxdl.training import parallel

KINDS = ("jit", "pmap")
EVERYTHING = {  # that could depend on how a batch is spread
    "batch_norm": True,
    "ema": 0.9,
    "augment": "digits",
    "dropout": 0.5,
    "accumulate": 2,
    "clip_norm": 0.1,
}


@functools.cache
def trained(kind: str, devices: int):
    """The state after an epoch, on the host."""
    config = tiny_run.with_(parallel=kind, devices=devices, **EVERYTHING)
    return jax.device_get(tiny_run.make(config).train()._replace(key=None))


@pytest.mark.parametrize(
    ("kind", "devices"),
    [
        *(("jit", devices) for devices in (2, 4, 8)),
        *(("pmap", devices) for devices in (1, 2, 4, 8)),
    ],
)
def test_any_number_of_devices_computes_the_same(kind, devices) -> None:
    one, many = trained("jit", 1), trained(kind, devices)
    chex.assert_trees_all_close(many.variables, one.variables, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(many.opt_state, one.opt_state, rtol=1e-3, atol=1e-4)
    chex.assert_trees_all_close(many.ema, one.ema, rtol=1e-4, atol=1e-5)
    assert int(many.step) == tiny_run.STEPS
    assert int(many.totals.examples) == int(one.totals.examples)
    assert int(many.totals.correct) == int(one.totals.correct)
    np.testing.assert_allclose(many.totals.loss, one.totals.loss, rtol=1e-5)


def test_what_is_compared_has_moved() -> None:
    """A step that did nothing would be equal on any number of devices."""
    tiny = tiny_run.make(tiny_run.with_(**EVERYTHING))
    before, after = tiny.state.variables, trained("jit", 1).variables
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert np.abs(new - old).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_every_device_holds_the_same_bits(kind) -> None:
    config = tiny_run.with_(parallel=kind, devices=4)
    for leaf in jax.tree.leaves(tiny_run.make(config).train().variables):
        copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(copies) == 4
        for copy in copies[1:]:
            np.testing.assert_array_equal(copy, copies[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 3, 8])
def test_arguments_are_sharded_or_replicated_as_said(kind, count) -> None:
    devices = parallel.choose(kind, count, count, 1)

    def function(offset: jax.Array, x: dict[str, jax.Array], scale: float):
        assert x["a"].shape == (2,)  # without the device axis
        total = x["a"].sum() * scale + offset
        if devices.axis_name is not None:
            total = jax.lax.psum(total, devices.axis_name)
        return {"total": total, "offset": offset}

    program = parallel.compile(function, devices, sharded=(1,))
    x = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    found = program(jnp.float32(10), parallel.shard({"a": x}, devices), 3.0)
    assert float(found["total"]) == 3 * x.sum() + 10 * count
    assert float(found["offset"]) == 10


@pytest.mark.parametrize("kind", KINDS)
def test_donated_memory_is_given_up_and_the_rest_is_kept(kind) -> None:
    devices = parallel.choose(kind, 2, 2, 1)
    program = parallel.compile(lambda a, b: (a + b, a - b), devices, donate=(0,))
    given, kept = (
        parallel.replicate(np.full(5, value, np.float32), devices) for value in (1, 2)
    )
    program(given, kept)
    assert given.is_deleted()
    assert not kept.is_deleted()


def test_rows_are_put_on_their_devices() -> None:
    devices = parallel.choose("jit", 4, 4, 1)
    tree = {"x": np.arange(12).reshape(4, 3), "y": np.arange(4.0, dtype=np.float32)}
    sharded = parallel.shard(tree, devices)
    for name, array in tree.items():
        assert sharded[name].sharding.spec == PartitionSpec(parallel.AXIS)
        for shard in sharded[name].addressable_shards:
            row = list(devices.mesh.devices).index(shard.device)
            np.testing.assert_array_equal(np.asarray(shard.data)[0], array[row])


def test_all_devices_by_default() -> None:
    assert parallel.choose("jit", None, 8, 1).size == jax.device_count() == 8


@pytest.mark.parametrize(
    ("count", "batch_size", "accumulate", "parts"),
    [
        (0, 8, 1, ["--devices", "between 1 and 8", "not 0"]),
        (9, 72, 1, ["--devices", "between 1 and 8", "not 9"]),
        (-1, 8, 1, ["--devices", "not -1"]),
        (8, 12, 1, ["--batch-size", "multiple of 8", "not 12", "nearest is"]),
        (4, 20, 2, ["multiple of 8", "4 devices x 2", "nearest is 16"]),
        (2, 1, 1, ["multiple of 2", "not 1", "nearest is 2"]),
        (None, 4, 1, ["multiple of 8", "not 4", "nearest is 8"]),
    ],
)
def test_what_cannot_be_shared_is_refused(count, batch_size, accumulate, parts) -> None:
    with pytest.raises(InputError) as caught:
        parallel.choose("jit", count, batch_size, accumulate)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("count", "batch_size", "accumulate"), [(1, 1, 1), (8, 64, 8), (3, 12, 2)]
)
def test_what_can_be_shared_is_accepted(kind, count, batch_size, accumulate) -> None:
    devices = parallel.choose(kind, count, batch_size, accumulate)
    assert devices.size == count
    assert devices.axis_name == (None if (kind, count) == ("jit", 1) else "data")
