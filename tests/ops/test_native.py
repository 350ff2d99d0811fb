"""The native engine: the same bits always, safe on many threads, no leak, no crash."""

import ctypes
import gc
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxdl import ops
from jaxdl.ops import engine, native

pytestmark = pytest.mark.skipif(
    engine.missing() is not None, reason=f"no native engine: {engine.missing()}"
)

CONVOLUTION = native.Geometry(
    algorithm=native.ALGORITHMS.index("direct"),
    direction=0,
    operand_bf16=False,
    result_bf16=False,
    images=2,
    height=8,
    width=8,
    channels=16,
    rows=8,
    columns=8,
    outputs=16,
    kernel_height=3,
    kernel_width=3,
    stride_h=1,
    stride_w=1,
    dilation_h=1,
    dilation_w=1,
    top=1,
    bottom=1,
    left=1,
    right=1,
    swapped=False,
    threads=2,
)


def step(kernel, images):
    """A value and gradients, by convolutions of several kinds."""

    def loss(kernel, images):
        numbers = ("NHWC", "HWIO", "NHWC")
        x = images
        for strides in ((1, 1), (2, 2), (2, 2), (2, 2)):  # 8, 4, 2, 1 pixels wide
            x = lax.conv_general_dilated(
                x, kernel, strides, "SAME", dimension_numbers=numbers
            )
            x = jnp.tanh(x)
        x = x.reshape(len(x), -1)
        return jnp.sum(jnp.sin(x @ x.T @ x))

    return jax.value_and_grad(loss, (0, 1))(kernel, images)


def example(outputs=128, seed=0):
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(3, 3, outputs, outputs)) / outputs**0.5 / 3
    images = rng.normal(size=(8, 8, 8, outputs))
    return kernel.astype(np.float32), images.astype(np.float32)


def compiled(args):
    with engine.using("native"):
        return jax.jit(lambda *a: step(*a)).lower(*args).compile()


def bits(results):
    return b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(results))


def test_the_same_bits_in_repeated_calls_and_on_several_threads(enabled):
    args = example()
    program = compiled(args)
    first = bits(program(*args))
    found = []

    def call():
        for _ in range(20):
            found.append(bits(program(*args)) == first)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 80


def test_different_convolutions_on_two_threads_at_once(enabled):
    """Whole numbers, so that what is right is right to the last bit."""
    found, expected = {}, {}

    def whole(outputs):
        rng = np.random.default_rng(outputs)
        shapes = (3, 3, outputs, outputs), (8, 8, 8, outputs)
        return [rng.integers(-2, 3, shape).astype(np.float32) for shape in shapes]

    def gradients(kernel, images):
        def apply(kernel, images):
            return lax.conv_general_dilated(
                images,
                kernel,
                (1, 1),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )

        return jax.vjp(apply, kernel, images)[1](images)

    programs = {}
    for outputs in (16, 24, 40):
        args = whole(outputs)
        with engine.using("native"):
            programs[outputs] = jax.jit(lambda *a: gradients(*a)).lower(*args).compile()
        with engine.using("xla"):
            expected[outputs] = bits(jax.jit(lambda *a: gradients(*a))(*args))

    def call(outputs):
        args = whole(outputs)
        found[outputs] = {bits(programs[outputs](*args)) for _ in range(50)}

    threads = [threading.Thread(target=call, args=(outputs,)) for outputs in programs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {outputs: {right} for outputs, right in expected.items()}


BITS = """
import hashlib, jaxdl, jax
from jaxdl import ops
from test_native import bits, example, step
ops.enable()
args = example()
print(hashlib.sha256(bits(jax.jit(step)(*args))).hexdigest())
"""


def test_the_same_bits_in_two_processes(enabled):
    def run(**variables):
        return subprocess.run(
            [sys.executable, "-c", BITS],
            env={**os.environ, **variables},
            cwd=Path(__file__).parent,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    first = run()
    assert len(first) == 65
    assert run() == first


def resident():
    """Bytes of memory that the process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class MallInfo2(ctypes.Structure):
    """What glibc's malloc says of its arenas, in the order of malloc.h."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def in_use():
    """Bytes that malloc has handed out; 0 where it does not say (glibc before 2.33)."""
    count = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if count is None:
        return 0
    count.restype = MallInfo2
    info = count()
    return info.uordblks + info.hblkhd


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_leaks_over_ten_thousand_calls(enabled):
    args = [jnp.asarray(a) for a in example(16)]
    with engine.using("native"):
        program = jax.jit(lambda *a: step(*a))
        for _ in range(1000):
            jax.block_until_ready(program(*args))
        before = resident(), in_use()
        for _ in range(10_000):
            jax.block_until_ready(program(*args))
    # The heap around what is handed out grows in steps, by some 30 MiB in 60,000 calls;
    # one workspace left behind per call would be hundreds.
    assert resident() - before[0] < 64 * 2**20
    assert in_use() - before[1] < 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_leaks_when_programs_are_dropped(enabled):
    args = [jnp.asarray(a) for a in example(16)]

    def compile_anew(times):
        for _ in range(times):
            native.plan.cache_clear()
            native.plan(CONVOLUTION)
            jax.block_until_ready(call(CONVOLUTION, args))

    compile_anew(50)
    gc.collect()
    engine.release_memory()
    before = resident(), in_use()
    compile_anew(100)
    gc.collect()
    engine.release_memory()
    assert resident() - before[0] < 8 * 2**20
    assert in_use() - before[1] < 2**20


def call(geometry, args, layer="features_3", workspace=1 << 20):
    """Compiles a call of the target with any attributes, and runs it."""
    kernel, images = args
    shapes = (
        jax.ShapeDtypeStruct((2, 8, 8, 16), jnp.float32),
        jax.ShapeDtypeStruct((workspace,), jnp.uint8),
    )

    @jax.jit
    def run(images, kernel):
        return jax.ffi.ffi_call("jaxdl_conv", shapes)(
            images, kernel, geometry=np.array(geometry, np.int64), layer=layer
        )

    return run(images[:2], kernel)[0]


def test_the_target_computes_what_the_geometry_says():
    kernel, images = example(16)
    plan = native.plan(CONVOLUTION)
    found = call(CONVOLUTION, (kernel, images), workspace=plan.workspace)
    with ops.using("xla"):
        expected = lax.conv_general_dilated(
            images[:2],
            kernel,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "broken",
    [
        CONVOLUTION._replace(algorithm=99),
        CONVOLUTION._replace(direction=7),
        CONVOLUTION._replace(rows=5),  # not what sizes, kernel and padding make
        CONVOLUTION._replace(algorithm=native.ALGORITHMS.index("product")),
        CONVOLUTION[:5],
    ],
    ids=["algorithm", "direction", "size", "kernel", "fields"],
)
def test_an_error_names_the_layer(broken):
    with pytest.raises(jax.errors.JaxRuntimeError, match="features_3"):
        call(broken, example(16))


def test_too_small_a_workspace_is_refused():
    """As where a program is loaded that was compiled where there are fewer threads."""
    needed = native.plan(CONVOLUTION).workspace
    said = rf"INVALID_ARGUMENT.*features_3 needs {needed} bytes .* and has 64: "
    with pytest.raises(jax.errors.JaxRuntimeError, match=said):
        call(CONVOLUTION, example(16), workspace=64)


def test_the_layer_of_an_error_is_the_models(enabled):
    """What the lowering passes on: the names of the scopes around the convolution."""

    def model(kernel, images):
        with jax.named_scope("features_3"):
            return lax.conv_general_dilated(
                images,
                kernel,
                (1, 1),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )

    with engine.using("native"):
        text = (
            jax.jit(jax.grad(lambda *a: model(*a).sum())).lower(*example(16)).as_text()
        )
    (layer,) = re.findall('layer = "([^"]*)"', text)  # the kernel's gradient alone
    assert "features_3" in layer


def test_a_plan_says_why_there_is_none():
    plan = native.plan(CONVOLUTION._replace(rows=5))
    assert isinstance(plan, str)
    assert plan
