"""What `python -m jaxdl.ops` says, and that it is so."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from jaxdl.models import registry
from jaxdl.ops import conv as native_choices
from jaxdl.ops import engine, report


def run(*options, variable=None):
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    environment.pop(engine.VARIABLE, None)
    if variable is not None:
        environment[engine.VARIABLE] = variable
    return subprocess.run(
        [sys.executable, "-m", "jaxdl.ops", *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


BEST = "pure" if engine.missing() else "native"


@pytest.mark.parametrize(
    ("variable", "expected"), [(None, BEST), ("pure", "pure"), ("xla", "xla")]
)
def test_it_says_what_is_active(variable, expected):
    done = run(variable=variable)
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert first == f"engine: {expected}"
    assert second.startswith("native: ")
    assert third == "choose: JAXDL_ENGINE=native|pure|xla"


def test_it_shows_each_convolution():
    """LeNet-5 has two convolutions: five rows, for images need no gradient."""
    done = run("--arch=lenet5", "--batch-size=16")
    assert done.returncode == 0, done.stderr
    _, table = done.stdout.split("\n\n")
    head, *rows = table.splitlines()
    assert head.split()[:2] == ["layer", "direction"]
    assert sum(" forward " in row for row in rows) == 2
    assert sum(" weight gradient " in row for row in rows) == 2
    assert sum(" input gradient " in row for row in rows) == 1
    assert len(rows) == 5
    assert all(BEST in row for row in rows)


def test_it_says_that_there_are_none():
    done = run("--arch=fnn")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "fnn has no convolutions"


@pytest.mark.parametrize(
    ("options", "variable", "named"),
    [
        ((), "nonsense", "nonsense"),
        (("--arch=lenet6",), None, "lenet6"),
        (("--arch=lenet5", "--batch-size=0"), None, "--batch-size"),
        (("--arch=lenet5", "--image-size=3"), None, "3"),
        (("--image-size=abc",), None, "'abc'"),
        (("--layout=big",), None, "'big'"),
        (("--no-such-option",), None, "--no-such-option"),
    ],
)
def test_bad_input_is_one_line(options, variable, named):
    done = run(*options, variable=variable)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert named in done.stderr
    assert done.stderr.count("\n") == 1


def test_it_explains_itself():
    done = run("--help")
    assert done.returncode == 0
    assert "JAXDL_ENGINE=pure python -m jaxdl.ops" in done.stdout


# The rows themselves.


def conv(images, kernel, groups=1):
    return lax.conv_general_dilated(
        images,
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def shapes(*sizes):
    return [jax.ShapeDtypeStruct(size, jnp.float32) for size in sizes]


def test_convolutions_inside_loops_and_calls_are_found_with_their_names():
    def model(images, kernel):
        def layer(x, _):
            with jax.named_scope("inner"):
                return jax.checkpoint(conv)(x, kernel), None

        with jax.named_scope("outer"):
            return lax.scan(layer, images, length=2)[0]

    (row,) = report.convolutions(jax.jit(model), *shapes((2, 8, 8, 4), (3, 3, 4, 4)))
    assert "outer" in row.layer
    assert "inner" in row.layer
    assert row.convolution.direction == "forward"
    assert row.convolution.flops == 2 * 2 * 8 * 8 * 9 * 4 * 4


def test_engines_of_rows():
    plain = shapes((2, 8, 8, 4), (3, 3, 4, 4))
    grouped = shapes((2, 8, 8, 4), (3, 3, 2, 4))

    def of(function, args):
        (row,) = report.convolutions(function, *args)
        return row

    for chosen in ("native", "pure"):
        with engine.using(chosen):
            current = engine.current()
            assert of(conv, plain).engine.startswith(current)
            row = of(lambda x, k: conv(x, k, 2), grouped)
            assert (row.convolution, row.engine) == (None, "xla")
    with engine.using("xla"):
        row = of(conv, plain)
        assert row.engine == "xla"
        assert row.convolution is not None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("arch", ["alexnet", "vgg16_bn", "resnet18"])
def test_the_engine_has_what_is_chosen_first(arch, dtype):
    """A choice that it refuses falls back to one that may be half as fast."""
    if reason := engine.missing():
        pytest.skip(f"no native engine: {reason}")
    model = registry.build(arch, num_classes=10, dtype=dtype)
    images = jax.ShapeDtypeStruct((128, 32, 32, 3), jnp.float32)
    key = jax.random.key(0)
    variables = jax.eval_shape(model.init, key, images)

    def loss(variables, images):
        rngs, mutable = {"dropout": key}, ["batch_stats"]
        out = model.apply(variables, images, train=True, rngs=rngs, mutable=mutable)
        return out[0].sum()

    with engine.using("native"):
        rows = report.convolutions(jax.grad(loss), variables, images)
        assert len(rows) >= 14
        for row in rows:
            found = row.convolution
            strided = found.kernel == (1, 1) != found.strides
            if strided and found.direction == "input gradient":
                assert row.engine == "native: one product"
                continue
            first, *_ = native_choices.algorithms(found)
            assert row.engine.startswith(f"native: {first} ("), row
