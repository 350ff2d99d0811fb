"""The step of SGD in one pass against NumPy in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from jaxdl.ops import update

SHAPES = [(), (3,), (1, 7, 5), (130, 257)]  # the last is cut into pieces, unevenly
DECAYS = (0.2, 0.1, 0.0, 0.3)


def arrays(seed: int, dtype=np.float32, stack=()):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(*stack, *shape)).astype(dtype) for shape in SHAPES]


def by_numpy(parameters, traces, gradients, rate, nesterov, decoupled, momentum=0.9):
    new_parameters, new_traces = [], []
    for p, t, g, decay in zip(parameters, traces, gradients, DECAYS, strict=True):
        p, t, g = (np.asarray(a, np.float64) for a in (p, t, g))
        slope = g if decoupled else g + decay * p
        moved = momentum * t + slope
        along = slope + momentum * moved if nesterov else moved
        new_parameters.append(p - rate * (along + (decay * p if decoupled else 0)))
        new_traces.append(moved)
    return new_parameters, new_traces


def sgd(nesterov: bool, decoupled: bool = False):
    return functools.partial(
        update.sgd,
        momentum=0.9,
        decays=DECAYS,
        nesterov=nesterov,
        decoupled=decoupled,
    )


def close(found, wanted):
    for group, other in zip(found, wanted, strict=True):
        for a, b in zip(group, other, strict=True):
            assert a.dtype == np.float32
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("donated", [(), (0, 1)])
def test_step_is_numpys(engine, nesterov, decoupled, donated):
    args = arrays(0), arrays(1), arrays(2)
    step = jax.jit(sgd(nesterov, decoupled), donate_argnums=donated)
    found = step(*(list(map(jnp.asarray, a)) for a in args), jnp.float32(0.3))
    close(found, by_numpy(*args, 0.3, nesterov, decoupled))


def test_an_infinite_parameter_spoils_no_trace(engine):
    p, t, g = jnp.array([jnp.inf, 1.0]), jnp.zeros(2), jnp.ones(2)
    step = functools.partial(update.sgd, momentum=0.9, decays=(0.1,), nesterov=True)
    for decoupled, first in ((True, 1.0), (False, jnp.inf)):
        compute = jax.jit(functools.partial(step, decoupled=decoupled))
        _, (trace,) = compute([p], [t], [g], jnp.float32(0.5))
        np.testing.assert_allclose(trace, [first, 1.0 if decoupled else 1.1])


def test_numbers_may_be_traced(engine):
    args = arrays(0), arrays(1), arrays(2)

    @jax.jit
    def step(groups, rate, momentum, decays):
        return update.sgd(
            *groups,
            rate,
            momentum=momentum,
            decays=decays,
            nesterov=True,
            decoupled=False,
        )

    found = step(args, jnp.float32(0.3), jnp.float32(0.7), jnp.float32(DECAYS))
    close(found, by_numpy(*args, 0.3, True, False, momentum=0.7))


def test_operands_that_are_still_needed_stay(engine):
    args = [list(map(jnp.asarray, arrays(i))) for i in range(3)]

    @jax.jit
    def twice(parameters, traces, gradients):
        first = sgd(True)(parameters, traces, gradients, 0.3)
        return first, sgd(True)(parameters, traces, gradients, 0.1)

    for found, rate in zip(twice(*args), (0.3, 0.1), strict=True):
        close(found, by_numpy(*args, rate, True, False))


def test_vmap_over_runs_with_rates_of_their_own(engine):
    args = [arrays(i, stack=(2,)) for i in range(3)]
    rates = np.float32([0.3, 0.1])
    found = jax.jit(jax.vmap(sgd(True)))(*args, rates)
    for run, rate in enumerate(rates):
        one = [[a[run] for a in group] for group in args]
        ours = [[a[run] for a in group] for group in found]
        close(ours, by_numpy(*one, rate, True, False))


def on_two_devices(step):
    """Parameters, traces and rate that the devices share; gradients of their own."""
    shared, own = PartitionSpec(), PartitionSpec("data")
    return jax.shard_map(
        step,
        mesh=jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,)),
        in_specs=(shared, shared, own, shared),
        out_specs=shared,
    )


def test_gradients_of_each_device_must_be_added_up(engine):
    """As with JAX's own operations: else its copies of the parameters would differ."""
    args = arrays(0), arrays(1), arrays(2, stack=(2,))

    def added(parameters, traces, gradients, rate):
        gradients = [lax.psum(g[0], "data") for g in gradients]
        return sgd(True)(parameters, traces, gradients, rate)

    found = jax.jit(on_two_devices(added))(*args, 0.3)
    summed = [g.sum(0) for g in args[2]]
    close(found, by_numpy(*args[:2], summed, 0.3, True, False))

    def forgotten(parameters, traces, gradients, rate):
        return sgd(True)(parameters, traces, [g[0] for g in gradients], rate)

    with pytest.raises(ValueError, match="out_specs"):
        on_two_devices(forgotten)(*args, 0.3)


def plain(parameters, traces, gradients, rate, *, decoupled):
    """A step with Nesterov's momentum, of JAX's own operations."""
    new_parameters, new_traces = [], []
    for p, t, g, decay in zip(parameters, traces, gradients, DECAYS[:3], strict=True):
        slope = g if decoupled else g + decay * p
        moved = 0.9 * t + slope
        along = slope + 0.9 * moved + (decay * p if decoupled else 0)
        new_parameters.append(p - rate * along)
        new_traces.append(moved)
    return new_parameters, new_traces


def derivatives(step, *args):
    """Tangents, gradients by all operands, and those of a gradient by the rate."""

    def loss(*args):
        leaves = jax.tree.leaves(step(*args))
        return sum(jnp.sin(leaf + i).sum() for i, leaf in enumerate(leaves))

    by_rate = jax.grad(loss, 3)
    tangents = jax.tree.map(jnp.cos, args)
    return (
        jax.jvp(step, args, tangents),
        jax.jvp(lambda rate: step(*args[:3], rate), args[3:], tangents[3:]),
        jax.grad(loss, (0, 1, 2, 3))(*args),
        jax.grad(by_rate, (0, 1, 2, 3))(*args),
    )


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("how", [jax.jit, lambda f: f], ids=["jit", "eager"])
def test_derivatives_are_jaxs_own(engine, decoupled, how):
    args = *([*map(jnp.asarray, arrays(i)[:3])] for i in range(3)), jnp.float32(0.3)
    step = functools.partial(
        update.sgd, momentum=0.9, decays=DECAYS[:3], nesterov=True, decoupled=decoupled
    )
    by_hand = functools.partial(plain, decoupled=decoupled)
    found = how(functools.partial(derivatives, step))(*args)
    expected = jax.jit(functools.partial(derivatives, by_hand))(*args)
    for ours, theirs in zip(
        jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"shapes \(2,\), \(3,\), \(2,\) differ"):
        update.sgd(
            [jnp.ones(2)],
            [jnp.ones(3)],
            [jnp.ones(2)],
            0.1,
            momentum=0.9,
            decays=[0.0],
            nesterov=True,
            decoupled=False,
        )
