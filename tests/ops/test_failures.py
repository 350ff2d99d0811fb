"""What goes wrong inside the native engine is an error, on whichever thread it does.

In processes of their own, which an exception that goes astray would end.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jaxlib
import pytest

from jaxdl.ops import engine, native

pytestmark = pytest.mark.skipif(
    engine.missing() is not None, reason=f"no native engine: {engine.missing()}"
)


def said(code, *args):
    """What Python code prints, last line."""
    command = [sys.executable, "-c", code, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


THROWING = """
import ctypes, sys
import jax, jax.numpy as jnp
library, where, memory = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
target = jax.ffi.pycapsule(ctypes.CDLL(library).throwing)
jax.ffi.register_ffi_target("throwing", target, platform="cpu")
result = jax.ShapeDtypeStruct((64,), jnp.float32)

def call(**options):
    return jax.jit(lambda: jax.ffi.ffi_call("throwing", result)(**options))

try:
    for _ in range(5):  # all its pieces may be done by one thread
        call(where=where, memory=memory)().block_until_ready()
except jax.errors.JaxRuntimeError as error:
    print(error)
assert call(where=0, memory=False)().sum() == 64
"""


@pytest.fixture(scope="module")
def throwing(tmp_path_factory):
    """The library of throwing.cc."""
    if (compiler := shutil.which("g++")) is None:
        pytest.skip("no C++ compiler")
    library = tmp_path_factory.mktemp("throwing") / "throwing.so"
    folders = Path(native.__file__).parent, Path(jaxlib.__file__).parent / "include"
    source = Path(__file__).with_name("throwing.cc")
    includes = [f"-I{folder}" for folder in folders]
    options = ["-std=c++17", "-shared", "-fPIC", "-w", *includes]
    subprocess.run([compiler, *options, source, "-o", library], check=True)
    return library


@pytest.mark.parametrize("where", [1, 2], ids=["the caller", "another thread"])
@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (False, "INTERNAL: throwing: no such luck"),
        (True, "RESOURCE_EXHAUSTED: throwing: out of memory"),
    ],
)
def test_what_pieces_throw_is_an_error(throwing, where, memory, expected):
    if where == 2 and len(os.sched_getaffinity(0)) == 1:
        pytest.skip("one core, so one thread")
    assert said(THROWING, throwing, where, memory) == expected


SHORT_OF_MEMORY = """
import resource
from pathlib import Path
import jax, jax.numpy as jnp
from jaxdl import ops
from jaxdl.ops import engine
ops.enable()
keys = jnp.zeros((2, 2**24), jnp.uint32)
sort = jax.jit(lambda *a: jax.lax.sort(a, num_keys=1)).lower(keys, keys).compile()
engine.release_memory()
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
# Room for the results and half of what a row takes beyond them.
limit = held + 2 * keys.nbytes + 2**27
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    jax.block_until_ready(sort(keys, keys))
except jax.errors.JaxRuntimeError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_shortage_of_memory_is_an_error():
    assert said(SHORT_OF_MEMORY) == "RESOURCE_EXHAUSTED: jaxdl_sort: out of memory"
