import flax.linen as nn
import jax
import pytest

from jaxdl.models import cost


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 4])
def test_convolution_by_its_formula(stride, groups):
    module = nn.Conv(
        12, (3, 5), (stride, stride), "SAME", feature_group_count=groups, use_bias=False
    )
    pixels = 3 * (16 // stride) * (20 // stride)  # of the result, batch included
    expected = 2 * pixels * 12 * 3 * 5 * (8 // groups)
    assert cost.flops(module, (3, 16, 20, 8)) == expected
    assert cost.parameters(module, (3, 16, 20, 8)) == 3 * 5 * (8 // groups) * 12


def test_dense_by_its_formula():
    module = nn.Dense(7)
    assert cost.flops(module, (5, 11)) == 2 * 5 * 11 * 7
    assert cost.parameters(module, (5, 11)) == 11 * 7 + 7


class Loop(nn.Module):
    """Three products inside a scan, inside a jit."""

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.ones, (4, 4))
        body = jax.jit(lambda x, _: (x @ kernel, None))
        return jax.lax.scan(body, x, length=3)[0]


def test_loops_count_as_often_as_they_run():
    assert cost.flops(Loop(), (2, 4)) == 3 * 2 * 2 * 4 * 4
