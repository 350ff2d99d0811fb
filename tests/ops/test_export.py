"""Programs that `jax.export` writes to a file run anywhere: nothing in them is ours."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxdl.models import registry
from jaxdl.models.norm import BatchNorm
from jaxdl.ops import update

KERNEL, WEIGHTS = (3, 3, 16, 64), (64, 32)


def loss(params, images):
    """Through all that an engine replaces but the shuffle: see `shuffled`."""
    kernel, weights = params
    x = nn.avg_pool(nn.max_pool(images, (2, 2), (2, 2)), (2, 2), (1, 1), "SAME")
    x = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    norm = BatchNorm()
    variables = norm.init(jax.random.key(0), jnp.zeros((1, 1, 1, 64)), train=False)
    x, _ = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    x = jnp.tanh(nn.max_pool(x, (3, 3), (2, 2), "SAME")).reshape(-1, 64) @ weights
    return jnp.sum(jnp.sin(x.sum(0) / 100))


def step(params, images):
    value, slopes = jax.value_and_grad(loss)(params, images)
    zeros = jax.tree.map(jnp.zeros_like, params)
    return value, update.sgd(
        params,
        zeros,
        slopes,
        0.1,
        momentum=0.9,
        decays=[0.0] * len(params),
        nesterov=False,
        decoupled=False,
    )


def shuffled(keys):
    places = jnp.arange(keys.shape[0], dtype=jnp.int32)
    return jax.lax.sort((keys, places), num_keys=1)


def through_a_file(function, *args, gradients=0):
    """The exported function, written and read again."""
    exported = export.export(jax.jit(function))(*args)
    return export.deserialize(exported.serialize(vjp_order=gradients)).call


@pytest.mark.parametrize("sizes", ["static", "symbolic"])
def test_a_networks_step(engine, normal, sizes):
    params = [normal(KERNEL) / 12, normal(WEIGHTS) / 8]
    images = normal((64, 16, 16, 16))
    expected = jax.jit(step)(params, images)
    given = images
    if sizes == "symbolic":
        shape = export.symbolic_shape("batch, 16, 16, 16")
        given = jax.ShapeDtypeStruct(shape, images.dtype)
    found = through_a_file(step, params, given)(params, images)
    for ours, theirs in zip(
        jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * scale)


def test_a_gradient_written_beside_the_network(engine, normal):
    params = [normal(KERNEL) / 12, normal(WEIGHTS) / 8]
    images = normal((64, 16, 16, 16))
    call = through_a_file(loss, params, images, gradients=1)
    for ours, theirs in zip(
        jax.grad(call)(params, images), jax.grad(loss)(params, images), strict=True
    ):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize("size", [None, "count"])
def test_a_shuffle(engine, size):
    keys = jax.random.bits(jax.random.key(0), (1000,))
    shape = keys.shape if size is None else export.symbolic_shape(size)
    call = through_a_file(shuffled, jax.ShapeDtypeStruct(shape, keys.dtype))
    for ours, theirs in zip(call(keys), shuffled(keys), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("arch", ["fnn", "lenet5"])
def test_a_network_for_any_batch(enabled, normal, arch):
    model = registry.build(arch, num_classes=10)
    images = normal((5, 32, 32, 3))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    shape = export.symbolic_shape("batch, 32, 32, 3")
    any_batch = jax.ShapeDtypeStruct(shape, images.dtype)
    call = through_a_file(model.apply, variables, any_batch)
    expected = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(call(variables, images), expected, atol=1e-4)


def test_what_is_compiled_here_after_an_export_is_still_ours(engine, normal):
    params, images = [normal(KERNEL), normal(WEIGHTS)], normal((64, 16, 16, 16))
    jitted = jax.jit(step)
    assert (
        "custom_call @jaxdl" not in export.export(jitted)(params, images).mlir_module()
    )
    if engine == "native":
        text = jitted.lower(params, images).as_text()
        for name in ("conv", "max_pool_gradient", "moments", "sum", "sgd"):
            assert f"custom_call @jaxdl_{name}" in text
