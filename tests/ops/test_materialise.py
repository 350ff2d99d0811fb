"""What is materialised is the same array, and saves what it was computed from."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from jaxdl.models import layers, norm
from jaxdl.ops.materialise import materialise


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool"])
@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (4, 1, 5)])
def test_it_is_the_same_array(engine, dtype, shape):
    x = jnp.asarray(np.random.default_rng(0).standard_normal(shape) * 9, dtype)
    np.testing.assert_array_equal(materialise(x), x)
    found = jax.jit(materialise)(x)
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, x)


def test_an_operand_that_lives_on_is_left_alone(native_engine):
    @jax.jit
    def update(x):
        changed = materialise(x).at[0].set(7.0)  # XLA would write it in place
        return changed, x + changed

    x = jnp.arange(1000.0)
    changed, total = update(x)
    np.testing.assert_array_equal(x, np.arange(1000.0))
    np.testing.assert_array_equal(changed[:2], [7, 1])
    np.testing.assert_array_equal(total[:3], [7, 2, 4])


def test_derivatives_of_any_order_and_stacks(engine):
    def cube(x):
        return materialise(x) ** 3

    x = jnp.float32(2)
    assert jax.grad(cube)(x) == 12
    assert jax.grad(jax.grad(cube))(x) == 12
    assert jax.jvp(jax.grad(cube), (x,), (x,))[1] == 24
    stack = jnp.arange(6.0).reshape(2, 3)
    found = jax.vmap(materialise, in_axes=1, out_axes=1)(stack)
    np.testing.assert_array_equal(found, stack)


def test_each_device_of_a_mesh_has_its_part(engine):
    @jax.jit
    def total(x):
        return jax.shard_map(
            lambda part: lax.psum(materialise(part), "data"),
            mesh=jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,)),
            in_specs=PartitionSpec("data"),
            out_specs=PartitionSpec(),
        )(x)

    np.testing.assert_array_equal(total(jnp.array([1.0, 2.0])), [3])


class Stack(nn.Module):
    """Convolutions with biases."""

    depth: int
    batch_norm: bool

    @nn.compact
    def __call__(self, x):
        for i in range(self.depth):
            x = layers.conv(x, 64, 3, 1, 1, dtype="float32", name=f"conv{i}")
            if self.batch_norm:
                x = norm.BatchNorm(name=f"norm{i}")(x, train=True)
            x = layers.relu(x, train=True)
        return x


@pytest.mark.parametrize(("batch_norm", "kept"), [(True, 2), (False, 1)])
def test_a_layer_keeps_no_map_twice_for_its_gradient(native_engine, batch_norm, kept):
    """Of convolution, bias, batch norm and ReLU two, as torch does where it can."""
    images = jax.ShapeDtypeStruct((32, 16, 16, 64), "float32")
    key = jax.eval_shape(jax.random.key, 0)

    def maps(depth):
        net = Stack(depth, batch_norm)

        def loss(variables, images):
            return net.apply(variables, images, mutable=["batch_stats"])[0].sum()

        variables = jax.eval_shape(net.init, key, images)
        step = jax.jit(jax.grad(loss)).lower(variables, images).compile()
        return step.memory_analysis().temp_size_in_bytes / (4 * images.size)

    assert (maps(10) - maps(4)) / 6 == pytest.approx(kept, abs=0.1)
