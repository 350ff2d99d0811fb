"""Every network of torchvision, with everything in it random, at three sizes.

    pytest -m long -n 1 tests/models/test_parity_full.py -k "resnet50 and float64"

VGG takes up to 12 GB, in each process (-n). What is compared and how is said in
`experiments.parity_measure`.
"""

import jax
import pytest
import torch_reference as reference

from experiments import parity_measure as parity
from jaxdl import ops
from jaxdl.models import registry
from jaxdl.ops import engine as engines

NAMES = [name for name in registry.names() if registry.spec(name).torchvision]
SMALLEST = {
    name: max(32, registry.spec(name).min_size("torchvision")) for name in NAMES
}
CASES = [
    (name, size) for name in NAMES for size in (32, 64, 224) if size >= SMALLEST[name]
]


@pytest.fixture(scope="module", autouse=True)
def fast():
    """As in the experiments; float64 is ten times slower without."""
    jax.clear_caches()
    ops.enable()
    yield
    ops.disable()
    jax.clear_caches()


@pytest.fixture(autouse=True)
def _give_memory_back():
    yield
    engines.release_memory()


def long_but(quick, cases):
    return [
        pytest.param(
            *case,
            id="-".join(map(str, case)),
            marks=() if case in quick else pytest.mark.long,
        )
        for case in cases
    ]


def subject(name):
    reference.torchvision_models()  # skips where there is none
    return parity.subject(name)


@pytest.mark.parametrize(("name", "size"), long_but([], CASES))
def test_float64(name, size):
    found = parity.in_float64(subject(name), size)
    print(name, size, found)
    assert not parity.faults(found)


@pytest.mark.parametrize(
    ("name", "size", "engine"),
    long_but(
        [("alexnet", 64, "native"), ("resnet18", 32, "native")],
        [(*case, "native") for case in CASES]
        + [(*case, "xla") for case in CASES if case[1] <= 64],
    ),
)
def test_float32(name, size, engine):
    with ops.using(engine):
        found = parity.in_float32(subject(name), size)
    print(name, size, engine, found)
    assert not parity.faults(found)


@pytest.mark.parametrize("name", long_but([], [(name,) for name in NAMES]))
def test_ten_steps_in_float64(name):
    """Nesterov, decay of kernels only; `make_train_step` beside `torch.optim.SGD`."""
    size = max(SMALLEST[name], 64 if name == "alexnet" else 32)
    found = parity.after_steps(subject(name), size)
    print(name, size, found)
    assert not parity.faults(found)
