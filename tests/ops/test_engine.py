"""Which engine is in force, and that every way of compiling respects it."""

import functools
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxdl.errors import InputError
from jaxdl.ops import engine as engines
from jaxdl.ops import native, norm

SPLIT, WHOLE = PartitionSpec("data"), PartitionSpec()


def loss(kernel, images):
    """With a convolution, a product and a sum for the engines."""
    x = lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = jnp.tanh(x).reshape(-1, 64) @ jnp.ones((64, 64))
    return jnp.sum(jnp.sin(x.sum(0) / 100))


def step(kernel, images):
    return jax.value_and_grad(loss, (0, 1))(kernel, images)


def example(normal):
    return normal((3, 3, 8, 64)) / 8, normal((16, 8, 8, 8))


def assert_close(found, expected):
    for ours, theirs in zip(
        jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * scale)


@functools.cache
def reference(normal):
    """XLA's own, in float64."""
    with engines.using("xla"), jax.enable_x64(True):
        args = jax.tree.map(lambda a: np.asarray(a, float), example(normal))
        return jax.jit(lambda *a: step(*a))(*args)


def targets(function, *args):
    text = jax.jit(lambda *a: function(*a)).lower(*args).as_text()
    return {name for name in ("jaxdl_conv", "jaxdl_sum") if name in text}


# Choosing.


def test_the_variable_chooses_and_the_context_overrules_it(monkeypatch):
    monkeypatch.delenv(engines.VARIABLE, raising=False)
    best = "pure" if engines.missing() else "native"
    assert engines.current() == best
    for engine in engines.ENGINES:
        monkeypatch.setenv(engines.VARIABLE, engine)
        assert engines.current() == (best if engine == "native" else engine)
    with engines.using("pure"):
        assert engines.current() == "pure"
        with engines.using("native"):
            assert engines.current() == best
        assert engines.current() == "pure"
    assert engines.current() == "xla"


def test_the_context_ends_with_an_error_too():
    before = engines.current()
    with pytest.raises(KeyError), engines.using("xla"):
        raise KeyError
    assert engines.current() == before


def test_unknown_engines_are_refused(monkeypatch):
    refused = pytest.raises(InputError, match="native, pure, xla, not 'fast'")
    with refused, engines.using("fast"):
        pass
    monkeypatch.setenv(engines.VARIABLE, "slow")
    with pytest.raises(InputError, match=r"JAXDL_ENGINE must be .*, not 'slow'"):
        engines.current()


@pytest.mark.parametrize("variable", [None, "xla"])
def test_the_variable_switches_it_off(enabled, monkeypatch, normal, variable):
    if reason := engines.missing():
        pytest.skip(f"no native engine: {reason}")
    monkeypatch.delenv(engines.VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(engines.VARIABLE, variable)
    expected = set() if variable == "xla" else {"jaxdl_conv", "jaxdl_sum"}
    assert targets(step, *example(normal)) == expected


def test_jit_compiles_anew_for_an_engine_and_finds_old_programs_again(enabled, normal):
    traced = []

    @jax.jit
    def counted(*args):
        traced.append(engines.current())
        return step(*args)

    args = example(normal)
    for _ in range(2):
        for engine in ("pure", "xla"):
            with engines.using(engine):
                assert_close(counted(*args), reference(normal))
    assert traced == ["pure", "xla"]
    assert counted._cache_size() == 2


# Devices.


def test_jit_over_a_mesh_is_partitioned_by_xla(engine, normal):
    """A call would gather all images on each device."""
    kernel, images = example(normal)
    mesh = Mesh(np.array(jax.devices()[:4]), "data")
    args = (
        jax.device_put(kernel, NamedSharding(mesh, WHOLE)),
        jax.device_put(images, NamedSharding(mesh, SPLIT)),
    )
    compiled = jax.jit(lambda *a: step(*a)).lower(*args).compile()
    value, (by_kernel, by_images) = compiled(*args)
    assert_close((value, (by_kernel, by_images)), reference(normal))
    assert by_images.sharding.is_equivalent_to(NamedSharding(mesh, SPLIT), 4)
    assert 'custom_call_target="jaxdl' not in compiled.as_text()
    assert "all-gather" not in compiled.as_text()


def summed(kernel, images):
    """The parts of a step that one of several devices has, joined."""

    def part(kernel, images):
        x = lax.conv_general_dilated(
            images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jnp.tanh(x).reshape(-1, 64) @ jnp.ones((64, 64))
        return x.sum(0)

    total, pull = jax.vjp(part, kernel, images)
    total = lax.psum(total, "data")
    value, slope = jax.value_and_grad(lambda t: jnp.sum(jnp.sin(t / 100)))(total)
    by_kernel, by_images = pull(slope)
    return value, (lax.psum(by_kernel, "data"), by_images)


def test_shard_map_and_pmap_compute_on_each_device(engine, normal):
    kernel, images = example(normal)
    mesh = Mesh(np.array(jax.devices()[:2]), "data")
    mapped = jax.shard_map(
        lambda *a: summed(*a),
        mesh=mesh,
        in_specs=(WHOLE, SPLIT),
        out_specs=(WHOLE, (WHOLE, SPLIT)),
        check_vma=False,
    )
    assert_close(jax.jit(mapped)(kernel, images), reference(normal))
    expected = {"jaxdl_conv", "jaxdl_sum"} if engine == "native" else set()
    assert targets(mapped, kernel, images) == expected

    parts = images.reshape(2, -1, *images.shape[1:])
    devices = jax.devices()[:2]
    by_device = jax.pmap(
        lambda *a: summed(*a), "data", in_axes=(None, 0), devices=devices
    )
    value, (by_kernel, by_images) = by_device(kernel, parts)
    found = value[0], (by_kernel[1], by_images.reshape(images.shape))
    assert_close(found, reference(normal))


def convolved(kernel, images):
    return lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ).sum()


@pytest.mark.parametrize("devices", [1, 4])
def test_types_that_name_an_axis_of_a_mesh_are_jaxs(engine, normal, devices):
    kernel, images = example(normal)
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Explicit,))
    gradient = jax.grad(lambda *a: convolved(*a), (0, 1))
    expected = jax.jit(gradient)(kernel, images)
    with jax.set_mesh(mesh):
        args = jax.device_put(kernel, WHOLE), jax.device_put(images, SPLIT)
        found = jax.jit(gradient)(*args)
        assert "jaxdl" not in jax.jit(gradient).lower(*args).as_text()
    assert_close(found, expected)


def test_a_shard_map_over_a_part_of_the_mesh_is_partitioned_by_xla(engine, normal):
    """The rest of it may hold parts of the images still."""
    kernel, images = example(normal)
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("data", "model"))
    mapped = jax.shard_map(
        lambda *a: lax.psum(convolved(*a), "data"),
        mesh=mesh,
        in_specs=(WHOLE, SPLIT),
        out_specs=WHOLE,
        axis_names={"data"},
    )
    spread = NamedSharding(mesh, PartitionSpec(("data", "model")))
    args = kernel, jax.device_put(images, spread)
    compiled = jax.jit(mapped).lower(*args).compile()
    assert_close(compiled(*args), jax.jit(convolved)(kernel, images))
    assert 'custom_call_target="jaxdl' not in compiled.as_text()
    assert "all-gather" not in compiled.as_text()


def test_without_jit_it_computes_the_same(engine, normal):
    kernel, images = example(normal)

    def everything(kernel, images):
        moments = norm.moments(images)
        scaled = norm.affine(images, *moments, jnp.ones(8), dtype=jnp.float32)
        sums = norm.channel_sums(scaled, images, moments[0])
        return *moments, *sums, *step(kernel, scaled)

    with jax.disable_jit():
        found = everything(kernel, images)
    assert_close(found, jax.jit(everything)(kernel, images))


DENORMAL = """
import jax, jax.numpy as jnp, numpy as np
from jaxdl import ops
ops.enable()
jax.jit(lambda a: a @ a)(jnp.ones((256, 256), jnp.bfloat16)).block_until_ready()
convolve = jax.jit(lambda x, k: jax.lax.conv_general_dilated(
    x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")))
x, k = jnp.full((16, 24, 24, 32), 1e-39), jnp.ones((5, 5, 32, 32))
print(*{np.asarray(convolve(x, k)).tobytes() == bytes(4 * x.size) for _ in range(12)})
"""


def test_denormal_numbers_are_flushed_on_every_thread(native_engine):
    """XLA's threads do; TBB's have the mode of the thread that planned, Python's."""
    done = subprocess.run(
        [sys.executable, "-c", DENORMAL], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


# Where the native engine is missing.


CLONED = """
#include "parallel.h"
FOR_EACH_MACHINE void Double(float* x, int n) {
  for (int i = 0; i < n; ++i) x[i] *= 2;
}
"""


@pytest.mark.parametrize("compiler", ["g++", "g++-9", "g++-10", "g++-11", "clang++"])
def test_any_compiler_that_is_here_can_build_it(tmp_path, compiler):
    """GCC 11, of Ubuntu 22.04, does not know the levels of x86-64 by name."""
    if platform.machine() != "x86_64" or not shutil.which(compiler):
        pytest.skip(f"no {compiler}")
    source = tmp_path / "cloned.cc"
    source.write_text(CLONED)
    folders = Path(native.__file__).parent, Path(jaxlib.__file__).parent / "include"
    includes = [f"-I{folder}" for folder in folders]
    options = ["-std=c++17", "-fPIC", "-O3", "-w", "-c", *includes]
    command = [compiler, *options, source, "-o", tmp_path / "cloned.o"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def without_libraries(enabled, monkeypatch):
    """As where nothing was built; what is loaded already stays loaded."""

    def nothing(name):
        raise FileNotFoundError(f"{name} was not built")

    monkeypatch.setattr(native, "_built", nothing)
    caches = native.load, engines.missing, native.plan
    for cached in caches:
        cached.cache_clear()
    yield
    monkeypatch.undo()
    for cached in caches:
        cached.cache_clear()


def test_without_libraries_the_pure_forms_serve(without_libraries, normal):
    assert native.load() == engines.missing() == "intlc was not built"
    with engines.using("native"):
        assert engines.current() == "pure"
        found = jax.jit(lambda *a: step(*a))(*example(normal))
        assert targets(step, *example(normal)) == set()
    assert_close(found, reference(normal))


def test_a_missing_wheel_is_named(without_libraries, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"libx\.so of the package onednn-none"):
        native._installed("onednn-none", "libx.so")


OLD = """
import ctypes
import sys
from jaxdl.ops import engine, native

class Old(ctypes.CDLL):
    def __getattr__(self, name):
        if name == lacking:
            raise AttributeError(name)
        return super().__getattr__(name)

ctypes.CDLL = Old
for lacking in sys.argv[1:]:
    engine.missing.cache_clear()
    native.load.cache_clear()
    print(engine.current(), native.load())
"""


def test_a_library_from_other_sources_is_not_used(native_engine):
    """In a process of its own, for what is registered with XLA stays so."""
    taken = sorted({*re.findall(r"jaxdl_\w+", Path(native.__file__).read_text())})
    assert {"jaxdl_conv", "jaxdl_lanes", "jaxdl_sort"} <= {*taken}
    command = [sys.executable, "-c", OLD, *taken]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        f"pure built from other sources, without {name}: install jaxdl again"
        for name in taken
    ], done.stderr
