"""SGD against PyTorch and a NumPy loop; schedules against closed forms."""

import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.config import OptimConfig
from jaxdl.errors import InputError
from jaxdl.training import optim

PLAIN = OptimConfig(
    learning_rate=0.1,
    momentum=0.0,
    nesterov=False,
    weight_decay=0.0,
    schedule="constant",
)


def with_(**changes) -> OptimConfig:
    return dataclasses.replace(PLAIN, **changes)


def params_and_gradients(steps: int = 6):
    """A small Flax-like tree, and one gradient for each step."""
    rng = np.random.default_rng(0)

    def tree():
        shapes = {
            "Dense_0": {"kernel": (4, 3), "bias": (3,)},
            "BatchNorm_0": {"scale": (3,), "bias": (3,)},
        }
        return jax.tree.map(
            lambda shape: rng.normal(size=shape).astype(np.float32),
            shapes,
            is_leaf=lambda x: isinstance(x, tuple),
        )

    return tree(), [tree() for _ in range(steps)]


def descend(config: OptimConfig, params, gradients):
    """Parameters after all updates, through the optimiser under jit."""
    optimizer = optim.make_optimizer(config, len(gradients), 2)
    state = optimizer.init(params)

    step = jax.jit(optimizer.step)
    for gradient in gradients:
        params, state = step(gradient, state, params)
    return params


def numpy_sgd(config: OptimConfig, params, gradients):
    """The same, written out for each leaf in float64."""
    schedule = optim.make_schedule(config, len(gradients), 2)
    norms = [
        math.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(gradient)))
        for gradient in gradients
    ]

    def leaf_descent(path, leaf, *gradients):
        decays = config.decay_all or path[-1].key == "kernel"
        decay = config.weight_decay if decays else 0.0
        x, buffer = leaf.astype(float), np.zeros(leaf.shape)
        for t, (norm, g) in enumerate(zip(norms, gradients, strict=True)):
            rate, g = float(schedule(t)), g.astype(float)
            if config.clip_norm is not None:
                g = g * min(1.0, config.clip_norm / norm)
            if not config.decoupled:
                g = g + decay * x
            buffer = config.momentum * buffer + g
            g = g + config.momentum * buffer if config.nesterov else buffer
            if config.decoupled:
                g = g + decay * x
            x = x - rate * g
        return x

    return jax.tree_util.tree_map_with_path(leaf_descent, params, *gradients)


@pytest.mark.parametrize("decay_all", [False, True])
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("clip_norm", [None, 2.0])
def test_updates_equal_the_loop_in_numpy(decay_all, decoupled, nesterov, clip_norm):
    config = with_(
        momentum=0.9,
        nesterov=nesterov,
        weight_decay=0.05,
        decoupled=decoupled,
        decay_all=decay_all,
        clip_norm=clip_norm,
        schedule="cosine",
        warmup_epochs=1.0,
    )
    params, gradients = params_and_gradients()
    found = descend(config, params, gradients)
    wanted = numpy_sgd(config, params, gradients)
    chex.assert_trees_all_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("clip_norm", [None, 2.0])
def test_the_step_is_optax_update_and_apply(momentum, decoupled, clip_norm):
    config = with_(
        momentum=momentum,
        nesterov=True,
        weight_decay=0.05,
        decoupled=decoupled,
        clip_norm=clip_norm,
        schedule="cosine",
    )
    params, gradients = params_and_gradients(3)
    optimizer = optim.make_optimizer(config, 3, 2)
    state = optimizer.init(params)
    wanted, wanted_state = params, state
    for gradient in gradients:
        params, state = optimizer.step(gradient, state, params)
        updates, wanted_state = optimizer.update(gradient, wanted_state, wanted)
        wanted = optax.apply_updates(wanted, updates)
    chex.assert_trees_all_equal_structs(state, wanted_state)
    chex.assert_trees_all_close((params, state), (wanted, wanted_state), rtol=1e-5)


RATES = {"Dense_0": 0.3, "BatchNorm_0": 0.5}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decoupled", [False, True])
def test_a_layer_with_a_rate_of_its_own_moves_as_with_that_rate(momentum, decoupled):
    """Each layer as in a run of another --learning-rate: so torch's groups do it."""
    config = with_(
        momentum=momentum,
        nesterov=momentum > 0,
        weight_decay=0.05,
        decoupled=decoupled,
        schedule="cosine",
    )
    params, gradients = params_and_gradients(4)
    optimizer = optim.make_optimizer(config, 4, 2, rates=RATES)
    for step in (optimizer.step, through_updates(optimizer)):
        state, found = optimizer.init(params), params
        for gradient in gradients:
            found, state = jax.jit(step)(gradient, state, found)
        for layer, rate in RATES.items():
            alone = dataclasses.replace(
                config, learning_rate=rate * config.learning_rate
            )
            wanted = numpy_sgd(alone, params, gradients)[layer]
            chex.assert_trees_all_close(found[layer], wanted, rtol=1e-5, atol=1e-6)


def through_updates(optimizer):
    def step(gradient, state, params):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return step


def test_rates_of_one_change_no_bit():
    config = with_(momentum=0.9, nesterov=True, weight_decay=0.05)
    params, gradients = params_and_gradients(4)
    found = []
    for rates in (None, dict.fromkeys(RATES, 1.0)):
        optimizer = optim.make_optimizer(config, 4, 2, rates=rates)
        state, now = optimizer.init(params), params
        for gradient in gradients:
            now, state = jax.jit(optimizer.step)(gradient, state, now)
        found.append(now)
    chex.assert_trees_all_equal(*found)


@pytest.mark.parametrize(
    ("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)]
)
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_updates_equal_torch(momentum, nesterov, weight_decay, clip_norm):
    torch = pytest.importorskip("torch")
    config = with_(
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        decay_all=True,
        clip_norm=clip_norm,
    )
    params, gradients = params_and_gradients()
    found = descend(config, params, gradients)

    leaves = [
        torch.tensor(leaf, requires_grad=True) for leaf in jax.tree.leaves(params)
    ]
    reference = torch.optim.SGD(
        leaves, config.learning_rate, momentum, 0.0, weight_decay, nesterov
    )
    for gradient in gradients:
        for leaf, g in zip(leaves, jax.tree.leaves(gradient), strict=True):
            leaf.grad = torch.tensor(g)
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(leaves, clip_norm)
        reference.step()
    for leaf, wanted in zip(jax.tree.leaves(found), leaves, strict=True):
        np.testing.assert_allclose(leaf, wanted.detach().numpy(), atol=2e-6)


def test_only_kernels_decay_unless_all_should():
    params, gradients = params_and_gradients(1)
    zero = [jax.tree.map(np.zeros_like, gradients[0])]
    found = descend(with_(weight_decay=0.5), params, zero)
    wanted = jax.tree.map(np.copy, params)
    wanted["Dense_0"]["kernel"] = wanted["Dense_0"]["kernel"] * np.float32(0.95)
    chex.assert_trees_all_close(found, wanted, rtol=1e-6)
    found = descend(with_(weight_decay=0.5, decay_all=True), params, zero)
    chex.assert_trees_all_close(
        found, jax.tree.map(lambda x: x * np.float32(0.95), params), rtol=1e-6
    )


def test_decoupled_decay_follows_the_schedule_and_stays_out_of_the_momentum():
    params, gradients = params_and_gradients(4)
    zero = [jax.tree.map(np.zeros_like, g) for g in gradients]
    config = with_(momentum=0.9, weight_decay=0.5, decoupled=True, schedule="cosine")
    found = descend(config, params, zero)
    schedule = optim.make_schedule(config, 4, 2)
    factor = np.prod([1 - 0.5 * float(schedule(t)) for t in range(4)])
    np.testing.assert_allclose(
        found["Dense_0"]["kernel"], params["Dense_0"]["kernel"] * factor, rtol=1e-5
    )


def test_a_gradient_that_is_not_finite_is_not_clipped_into_a_finite_one():
    params, gradients = params_and_gradients(1)
    gradients[0]["Dense_0"]["bias"][0] = np.nan
    found = descend(with_(clip_norm=1.0), params, gradients)
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(found))


def rates(config: OptimConfig, total: int, per_epoch: int = 10) -> np.ndarray:
    schedule = optim.make_schedule(config, total, per_epoch)
    # Always 64 of them, so that one compilation of each operation serves every test.
    steps = jnp.arange(64)
    return np.asarray(jax.vmap(lambda t: jnp.asarray(schedule(t)))(steps))[:total]


def test_constant():
    np.testing.assert_allclose(rates(PLAIN, 30), 0.1)


def test_step_multiplies_at_each_part_of_the_run():
    config = with_(schedule="step", step_epochs=(0.5, 0.75), step_factor=0.2)
    wanted = [0.1] * 20 + [0.02] * 10 + [0.004] * 10
    np.testing.assert_allclose(rates(config, 40), wanted, rtol=1e-6)


def test_step_counts_its_parts_from_the_start_of_the_warm_up():
    config = with_(schedule="step", step_epochs=(0.5,), warmup_epochs=1.0)
    found = rates(config, 40)
    np.testing.assert_allclose(found[:10], 0.1 * np.arange(10) / 10, rtol=1e-6)
    np.testing.assert_allclose(found[10:20], 0.1, rtol=1e-6)
    np.testing.assert_allclose(found[20:], 0.01, rtol=1e-6)


def test_step_marks_that_fall_together_in_a_short_run_both_count():
    config = with_(schedule="step", step_epochs=(0.5, 0.6), step_factor=0.1)
    np.testing.assert_allclose(rates(config, 2), [0.1, 0.001], rtol=1e-6)


def test_cosine_is_half_a_cosine_after_the_warm_up():
    config = with_(schedule="cosine", warmup_epochs=0.5)
    t = np.arange(40)
    wanted = np.where(
        t < 5, 0.1 * t / 5, 0.05 * (1 + np.cos(np.pi * np.clip(t - 5, 0, 35) / 35))
    )
    np.testing.assert_allclose(rates(config, 40), wanted, rtol=1e-5, atol=1e-8)


def test_onecycle_rises_for_three_tenths_and_falls_to_nearly_nothing():
    config = with_(schedule="onecycle")
    schedule = optim.make_schedule(config, 100, 10)
    known = {0: 0.1 / 25, 15: (0.1 + 0.1 / 25) / 2, 30: 0.1, 100: 0.1 / 250_000}
    for step, rate in known.items():
        np.testing.assert_allclose(schedule(step), rate, rtol=1e-5)
    np.testing.assert_allclose(schedule(65), (0.1 + 0.1 / 250_000) / 2, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["constant", "step", "cosine", "onecycle"]),
    peak=st.floats(1e-4, 10),
    total=st.integers(1, 60),
    warmup=st.floats(0, 1),
)
def test_rates_stay_between_zero_and_the_peak_and_fall_after_it(
    kind, peak, total, warmup
):
    warmup_epochs = 0.0 if kind == "onecycle" else warmup * (total - 1) / 10
    config = with_(schedule=kind, learning_rate=peak, warmup_epochs=warmup_epochs)
    found = rates(config, total)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (found <= peak * (1 + 1e-5)).all()
    top = int(np.argmax(found))
    assert (np.diff(found[: top + 1]) > 0).all()
    assert (np.diff(found[top:]) <= peak * 1e-6).all()
    if total > 1 or warmup_epochs == 0:
        assert found[top] > 0


@pytest.mark.parametrize("epochs", [3.0, 3.5])
def test_a_warm_up_as_long_as_the_run_is_refused(epochs):
    with pytest.raises(
        InputError, match=r"--warmup-epochs must be shorter .* 30 steps"
    ):
        optim.make_schedule(with_(warmup_epochs=epochs), 30, 10)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"learning_rate": -0.1},
            "^--learning-rate must be a positive number, not -0.1$",
        ),
        ({"learning_rate": 0.0}, "--learning-rate must be .*, not 0.0"),
        ({"learning_rate": math.nan}, "not nan"),
        ({"learning_rate": math.inf}, "not inf"),
        ({"momentum": 1.0}, "--momentum must be at least 0 and below 1, not 1.0"),
        ({"momentum": -0.1}, "--momentum"),
        ({"weight_decay": -1e-4}, "--weight-decay must be 0 or .* not -0.0001"),
        ({"weight_decay": math.inf}, "--weight-decay"),
        ({"clip_norm": 0.0}, "--clip-norm must be a positive number, not 0.0"),
        ({"clip_norm": -1.0}, "--clip-norm"),
        ({"warmup_epochs": -1.0}, "--warmup-epochs must be 0 or .* not -1.0"),
        (
            {"warmup_epochs": 5.0},
            "--warmup-epochs must be .* 5 epochs, not 5.0",
        ),
        ({"warmup_epochs": 1.0, "schedule": "onecycle"}, "--warmup-epochs must be 0 "),
        ({"step_epochs": (0.75, 0.5)}, "--step-epochs .* not 0.75 0.5"),
        ({"step_epochs": (0.5, 0.5)}, "--step-epochs"),
        ({"step_epochs": (0.0, 0.5)}, "--step-epochs"),
        ({"step_epochs": (0.5, 1.0)}, "--step-epochs"),
        ({"step_epochs": (30.0, 60.0)}, "--step-epochs .* parts of the run"),
        ({"step_epochs": (math.nan,)}, "--step-epochs"),
        ({"step_factor": 0.0}, "--step-factor must be above 0 and at most 1, not 0.0"),
        ({"step_factor": 1.5}, "--step-factor"),
        ({"step_factor": 0.5}, "--step-factor .* without --schedule=step, not 0.5"),
        ({"step_epochs": (0.3,), "schedule": "cosine"}, "--step-epochs must be left"),
        ({"label_smoothing": 1.0}, "--label-smoothing must be at least 0 and below 1"),
        ({"label_smoothing": -0.1}, "--label-smoothing"),
        ({"ema": 1.0}, "--ema must lie between 0 and 1, for instance 0.999, not 1.0"),
        ({"ema": 0.0}, "--ema"),
        ({"accumulate": 0}, "--accumulate must be 1 or more, not 0"),
        ({"schedule": "linear"}, "--schedule must be one of constant, step, .* linear"),
        ({"finetune": "tail"}, "--finetune must be one of all, last-block, head, not"),
        ({"layer_decay": 0.0}, "--layer-decay must be above 0 and at most 1, not 0.0"),
        ({"layer_decay": 1.1}, "--layer-decay .* not 1.1"),
        ({"layer_decay": math.nan}, "--layer-decay .* not nan"),
        ({"loss": "hinge"}, "--loss must be one of cross_entropy, mse, not hinge"),
    ],
)
def test_a_bad_value_is_one_line_that_names_it(changes, line):
    with pytest.raises(InputError, match=line) as error:
        optim.validate(with_(**changes), epochs=5)
    assert "\n" not in str(error.value)


@settings(max_examples=50, deadline=None)
@given(
    config=st.builds(
        OptimConfig,
        loss=st.sampled_from(["cross_entropy", "mse"]),
        learning_rate=st.floats(1e-6, 1e3),
        momentum=st.floats(0, 0.999),
        nesterov=st.booleans(),
        weight_decay=st.floats(0, 1),
        decoupled=st.booleans(),
        decay_all=st.booleans(),
        clip_norm=st.none() | st.floats(1e-3, 1e3),
        schedule=st.sampled_from(["constant", "step", "cosine"]),
        warmup_epochs=st.floats(0, 4.5),
        label_smoothing=st.floats(0, 0.99),
        ema=st.none() | st.floats(0.01, 0.9999),
        accumulate=st.integers(1, 64),
    )
)
def test_whatever_validates_makes_an_optimiser_that_runs(config):
    optim.validate(config, epochs=5)
    optimizer = optim.make_optimizer(config, 50, 10)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    chex.assert_tree_all_finite(updates)


def test_the_defaults_are_valid():
    optim.validate(OptimConfig(), epochs=1)
