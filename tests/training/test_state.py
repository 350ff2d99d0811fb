"""The state before the first step."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.models import registry
from jaxdl.training import state
from jaxdl.training.state import NEVER


@functools.cache
def created(seed: int = 0, ema: bool = False):
    model = registry.build("fnn", num_classes=3, hidden=(4,), batch_norm=True)
    optimizer = optax.sgd(0.1, momentum=0.9)
    return state.create(model, optimizer, (5, 6, 2), jax.random.key(seed), ema=ema)


def test_nothing_is_done_yet() -> None:
    first = created()
    assert int(first.step) == 0 and first.step.dtype == jnp.int32
    assert int(first.bad_step) == NEVER == 2**31 - 1
    assert [float(total) for total in first.totals] == [0, 0, 0]
    assert first.totals.loss.dtype == jnp.float32
    assert first.totals.correct.dtype == first.totals.examples.dtype == jnp.int32
    assert first.ema is None
    assert all(not leaf.any() for leaf in jax.tree.leaves(first.opt_state))


def test_variables_fit_the_images() -> None:
    variables = created().variables
    assert set(variables) == {"params", "batch_stats"}
    chex.assert_shape(variables["params"]["hidden_0"]["kernel"], (5 * 6 * 2, 4))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {"float32"}
    chex.assert_trees_all_equal(
        variables["batch_stats"],
        {"norm_0": {"mean": np.zeros(4), "var": np.ones(4)}},
    )


def test_the_moving_average_starts_at_the_variables_in_memory_of_its_own() -> None:
    first = created(ema=True)
    chex.assert_trees_all_equal(first.ema, first.variables)
    for average, variable in zip(
        jax.tree.leaves(first.ema), jax.tree.leaves(first.variables), strict=True
    ):  # both are donated: one piece of memory cannot be given up twice
        assert average.unsafe_buffer_pointer() != variable.unsafe_buffer_pointer()


def test_the_key_decides_and_is_not_used_twice() -> None:
    again = state.create(
        registry.build("fnn", num_classes=3, hidden=(4,), batch_norm=True),
        optax.sgd(0.1, momentum=0.9),
        (5, 6, 2),
        jax.random.key(0),
    )
    chex.assert_trees_all_equal(created(), again)
    assert not np.array_equal(
        created(0).variables["params"]["head"]["kernel"],
        created(1).variables["params"]["head"]["kernel"],
    )
    data = [
        tuple(jax.random.key_data(key).tolist())
        for key in (created(0).key, created(1).key, jax.random.key(0))
    ]
    assert len(set(data)) == 3


@pytest.mark.parametrize("ema", [False, True])
def test_evaluated_are_the_averages_where_there_are_some(ema) -> None:
    first = created(ema=ema)
    expected = first.ema if ema else first.variables
    assert state.evaluated_variables(first) is expected
