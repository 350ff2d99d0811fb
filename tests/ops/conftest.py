"""The engines under test, and what a convolution is."""

import jax
import numpy as np
import pytest

from jaxdl import ops
from jaxdl.ops import conv
from jaxdl.ops import engine as engines


@pytest.fixture(scope="module")
def enabled():
    """The whole module runs with `ops` switched on."""
    jax.clear_caches()
    ops.enable()
    yield
    ops.disable()
    jax.clear_caches()


@pytest.fixture(params=["native", "pure"])
def engine(request, enabled):
    """Each test runs on the native engine, where it is built, and on pure forms."""
    if request.param == "native" and (reason := engines.missing()):
        pytest.skip(f"no native engine: {reason}")
    with engines.using(request.param):
        yield request.param


@pytest.fixture
def native_engine(enabled):
    """For what only the native engine promises."""
    if reason := engines.missing():
        pytest.skip(f"no native engine: {reason}")
    with engines.using("native"):
        yield


@pytest.fixture(scope="module")
def algorithm(request):
    """The module's convolutions are done so, and by "direct" what that refuses."""
    if reason := engines.missing():
        pytest.skip(f"no native engine: {reason}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "algorithms", lambda _: [request.param, "direct"])
        ops.enable()
        jax.clear_caches()
        yield
        ops.disable()
        jax.clear_caches()


def _array(numbers, dtype):
    """Converted by NumPy: JAX would compile a program for each shape."""
    numbers = numbers.astype(jax.numpy.dtype(dtype))
    return jax.numpy.asarray(numbers, numbers.dtype)


@pytest.fixture(scope="session")
def whole():
    """Draws small whole numbers: their sums are exact in every order and format."""

    def draw(shape, dtype="float32", seed=0):
        return _array(np.random.default_rng(seed).integers(-2, 3, shape), dtype)

    return draw


@pytest.fixture(scope="session")
def normal():
    def draw(shape, dtype="float32", seed=0):
        return _array(np.random.default_rng(seed).normal(size=shape), dtype)

    return draw
